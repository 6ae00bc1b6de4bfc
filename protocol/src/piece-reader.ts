import { finished, type Readable } from "node:stream";

/** Bytes that may wait to be taken; beyond, the stream is paused. */
const MOST_WAITING_BYTES = 256 * 1024;

/** Pieces that may wait: each costs memory beside its bytes, and a sender may make them as small as one byte. */
const MOST_WAITING_PIECES = 1024;

/**
 * Takes bytes from a stream in the pieces in which they were received, without copies and without a promise for each:
 * what a socket gave in one turn of the event loop is there at once. Leaves the stream alone until it is first asked,
 * and never destroys it.
 */
export class PieceReader {
  readonly #stream: Readable;
  readonly #pieces: Uint8Array[] = [];
  #waiting = 0;
  /** Where bytes go at once while somebody waits for it to be full. */
  #target: { readonly buffer: Uint8Array; filled: number } | undefined;
  #began = false;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => {};
  #stopWatching: () => void = () => {};

  constructor(stream: Readable) {
    this.#stream = stream;
  }

  /**
   * Waits until at least one byte is there. @returns false at the end of the stream.
   * @throws what the stream fails by, after the bytes before it were taken; an error too when it was closed before its
   *   end.
   */
  async some(): Promise<boolean> {
    while (this.#pieces.length === 0) {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#ended) return false;
      await this.#more();
    }
    return true;
  }

  /** Waits until there is something new. */
  async #more(): Promise<void> {
    this.#begin();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#stream.isPaused()) this.#stream.resume();
    });
  }

  /** Waits until `count` bytes are there, or the end, and shows them without taking them; fewer at the end. */
  async peek(count: number): Promise<Uint8Array> {
    if (!(await this.some())) return new Uint8Array();
    while (this.#pieces[0]!.length < count) {
      const [head] = this.#pieces.splice(0, 1);
      let more: boolean;
      try {
        more = await this.some();
      } catch {
        // Shown before the failure is.
        more = false;
      }
      if (!more) {
        this.#pieces.unshift(head!);
        break;
      }
      const next = this.#pieces[0]!;
      const joined = new Uint8Array(head!.length + next.length);
      joined.set(head!);
      joined.set(next, head!.length);
      this.#pieces[0] = joined;
    }
    return this.#pieces[0]!.subarray(0, count);
  }

  /** Takes what is there, at most `most` bytes of one piece; only after {@link some} said that there is some. */
  take(most: number): Uint8Array {
    const piece = this.#pieces[0]!;
    const taken = piece.length <= most ? piece : piece.subarray(0, most);
    if (taken === piece) this.#pieces.shift();
    else this.#pieces[0] = piece.subarray(most);
    this.#waiting -= taken.length;
    return taken;
  }

  /** Whether a byte is there now. */
  get ready(): boolean {
    return this.#pieces.length > 0;
  }

  /**
   * Fills a buffer, with one wait for all that is still to come. @returns how many bytes it got; fewer than it has room
   * for at the end of the stream.
   * @throws what the stream fails by.
   */
  async fill(buffer: Uint8Array): Promise<number> {
    const target = { buffer, filled: 0 };
    while (target.filled < buffer.length && this.#pieces.length > 0) {
      const piece = this.take(buffer.length - target.filled);
      buffer.set(piece, target.filled);
      target.filled += piece.length;
    }
    this.#target = target;
    try {
      while (target.filled < buffer.length) {
        if (this.#failure !== undefined) throw this.#failure.error;
        if (this.#ended) break;
        await this.#more();
      }
    } finally {
      this.#target = undefined;
    }
    return target.filled;
  }

  /**
   * Lets go of the stream, which whoever reads next may go on with; pieces that wait here are dropped. Whoever took it
   * over already, and removed the listener here for that, is left alone.
   */
  stop(): void {
    if (!this.#began) return;
    this.#stopWatching();
    if (this.#stream.listeners("data").includes(this.#onData)) {
      this.#stream.off("data", this.#onData);
      // Without a listener it would flow on, unread and unbounded.
      this.#stream.pause();
    }
    this.#ended = true;
    this.#wake();
  }

  #begin(): void {
    if (this.#began) return;
    this.#began = true;
    this.#stopWatching = finished(this.#stream, { writable: false }, (error) => {
      this.#ended = true;
      if (error != null) this.#failure = { error };
      this.#wake();
    });
    this.#stream.on("data", this.#onData);
    this.#stream.resume();
  }

  readonly #onData = (received: Uint8Array): void => {
    const piece = this.#target === undefined ? received : this.#filling(this.#target, received);
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.#waiting += piece.length;
    if (this.#waiting >= MOST_WAITING_BYTES || this.#pieces.length >= MOST_WAITING_PIECES) this.#stream.pause();
    this.#wake();
  };

  /** Copies what fits into the target, and wakes who waits for it when it is full. @returns what is left. */
  #filling(target: { readonly buffer: Uint8Array; filled: number }, piece: Uint8Array): Uint8Array {
    const count = Math.min(piece.length, target.buffer.length - target.filled);
    target.buffer.set(count === piece.length ? piece : piece.subarray(0, count), target.filled);
    target.filled += count;
    if (target.filled === target.buffer.length) this.#wake();
    return piece.subarray(count);
  }
}

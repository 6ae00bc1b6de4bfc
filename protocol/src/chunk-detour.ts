/*
 * Chunks beside the library. Connect, gRPC and gRPC-Web put each message into an envelope (flags, length, message;
 * https://connectrpc.com/docs/protocol#streaming-rpcs), and a chunk of bytes is nearly all of its message. The generic
 * layers of the library copy it two or three times into fresh memory and make some dozens of objects and promises of
 * it. So chunks take another way: the library is given an envelope with an empty chunk in the place of each, and whoever
 * gets that empty chunk takes the bytes from here. Every other envelope goes through the library unchanged, and so does
 * everything from the first byte on that is not as it should be. Hence errors, deadlines, compression flags, limits,
 * half-closed streams and cancellation stay the library's, whatever comes.
 */
import type { Readable } from "node:stream";
import { PieceReader } from "./piece-reader.ts";

/** Flags and length before each message. */
const ENVELOPE_BYTES = 5;

/**
 * Tag of field 2, of the type bytes: `chunk` in WriteSegmentRequest and in ReadVersionResponse (a test compares them
 * with the contract).
 */
export const CHUNK_TAG = 0x12;

/** Most bytes of a length as a varint: that of an envelope has 32 bits. */
const MAX_VARINT_BYTES = 5;

/** An envelope with an empty chunk in it. */
const STAND_IN: Readonly<Uint8Array> = Uint8Array.of(0, 0, 0, 0, 2, CHUNK_TAG, 0);

/** What an envelope that breaks off looks like. */
const CUT: Readonly<Uint8Array> = Uint8Array.of(0);

/** Bytes that are passed on at once; two buffers of it for each stream. */
const PIECE_BYTES = 256 * 1024;

/** Content types of streams in which messages are binary, and not packed as text. */
const BINARY_STREAM = /^application\/(?:connect\+proto|grpc(?:-web)?(?:\+proto)?)$/i;

/** Whether chunks of a stream of this content type can take the other way. */
export function mayDetour(contentType: string | undefined): boolean {
  return contentType !== undefined && BINARY_STREAM.test(contentType);
}

/** Bounds of what is received. */
export interface DetourBounds {
  /** Most bytes of a message, as the library has it. */
  readonly mostMessageBytes: number;
  /** Most bytes of a chunk; a longer one goes through the library. */
  readonly mostChunkBytes: number;
  /** Whether a piece may be overwritten when the one after the next is asked for; else each stays as it is. */
  readonly reuse: boolean;
  /** Called with the size of each piece, in bytes. */
  readonly onBytes: (count: number) => void;
}

/** Some bytes of a chunk. */
export interface ReceivedPieces {
  /** In the pieces in which they were received; they stay as they are. */
  readonly pieces: readonly Uint8Array[];
  /** Whether the chunk ends with them. */
  readonly isEnd: boolean;
}

/** Separates the chunks of a body from its other envelopes. */
export class ChunkDetour {
  readonly #reader: PieceReader;
  readonly #bounds: DetourBounds;
  /** Bytes of the current chunk that nobody has taken yet. */
  #left = 0;
  /** Whether the body ended within a chunk. */
  #isCut = false;
  readonly #buffers: [Uint8Array, Uint8Array] = [new Uint8Array(), new Uint8Array()];
  #next: 0 | 1 = 0;

  constructor(body: Readable, bounds: DetourBounds) {
    this.#reader = new PieceReader(body);
    this.#bounds = bounds;
  }

  /**
   * The body for the library. After an empty chunk, {@link chunk} must be asked before the next message.
   * @throws what the body fails by.
   */
  async *envelopes(): AsyncGenerator<Uint8Array> {
    const reader = this.#reader;
    try {
      for (;;) {
        if (this.#left > 0) throw new Error("expected that the chunk before was read to its end");
        if (this.#isCut) {
          yield CUT;
          return;
        }
        const prefix = await this.#chunkPrefix();
        if (prefix === undefined) {
          // Nobody can say where the next envelope begins, or the library ends here anyway.
          while (await reader.some()) yield reader.take(Number.MAX_SAFE_INTEGER);
          return;
        }
        if (prefix.chunkBytes === undefined) {
          for (let left = prefix.bytes; left > 0 && (await reader.some()); ) {
            const piece = reader.take(left);
            left -= piece.length;
            yield piece;
          }
          continue;
        }
        for (let left = prefix.bytes; left > 0; ) left -= reader.take(left).length;
        this.#left = prefix.chunkBytes;
        yield STAND_IN;
      }
    } finally {
      reader.stop();
    }
  }

  /**
   * The bytes of the chunk whose empty stand-in is the newest message, in pieces; undefined when that message went
   * through the library whole. Where the body ends within the chunk, the pieces end early, and the library refuses the
   * next message.
   * @throws what the body fails by.
   */
  chunk(): AsyncGenerator<Uint8Array> | undefined {
    return this.#left === 0 ? undefined : this.#pieces();
  }

  /**
   * The next bytes of that chunk, as they were received, without a copy: what is there, at least one piece; undefined at
   * the end of the chunk. What the body fails by, or its end within the chunk, ends the chunk here, and is told by
   * {@link envelopes}. Not together with {@link chunk}.
   */
  async received(): Promise<ReceivedPieces | undefined> {
    if (this.#left === 0) return undefined;
    const reader = this.#reader;
    const isMore = reader.ready || (await reader.some().catch(() => true));
    const pieces: Uint8Array[] = [];
    while (this.#left > 0 && reader.ready) {
      const piece = reader.take(this.#left);
      this.#left -= piece.length;
      this.#bounds.onBytes(piece.length);
      pieces.push(piece);
    }
    if (pieces.length > 0) return { pieces, isEnd: this.#left === 0 };
    this.#left = 0;
    this.#isCut = !isMore;
    return undefined;
  }

  async *#pieces(): AsyncGenerator<Uint8Array> {
    while (this.#left > 0) {
      const size = Math.min(PIECE_BYTES, this.#left);
      const buffer = this.#buffer(size);
      const filled = await this.#reader.fill(buffer.subarray(0, size));
      this.#left -= filled;
      if (filled < size) {
        this.#isCut = true;
        this.#left = 0;
      }
      if (filled === 0) return;
      this.#bounds.onBytes(filled);
      yield buffer.subarray(0, filled);
    }
  }

  /** One of two buffers in turn: the reader may still hold the piece before. */
  #buffer(size: number): Uint8Array {
    if (!this.#bounds.reuse) return Buffer.allocUnsafeSlow(size);
    this.#next = this.#next === 0 ? 1 : 0;
    let buffer = this.#buffers[this.#next];
    if (buffer.length < size) {
      // Not zero-filled: every byte is written before it is passed on. No slice of the pool either, which would be held.
      buffer = Buffer.allocUnsafeSlow(size);
      this.#buffers[this.#next] = buffer;
    }
    return buffer;
  }

  /**
   * What the next envelope begins with: how many bytes there are before its chunk, and the size of the chunk; for
   * another envelope its whole size. Undefined for one that is cut, flagged or too large, and at the end.
   */
  async #chunkPrefix(): Promise<{ readonly bytes: number; readonly chunkBytes: number | undefined } | undefined> {
    const reader = this.#reader;
    const head = await reader.peek(ENVELOPE_BYTES);
    if (head.length < ENVELOPE_BYTES || head[0] !== 0) return undefined;
    const size = ((head[1]! << 24) | (head[2]! << 16) | (head[3]! << 8) | head[4]!) >>> 0;
    if (size > this.#bounds.mostMessageBytes) return undefined;
    const other = { bytes: ENVELOPE_BYTES + size, chunkBytes: undefined };
    const wanted = ENVELOPE_BYTES + Math.min(size, 1 + MAX_VARINT_BYTES);
    const start = await reader.peek(wanted);
    if (start.length < wanted) return undefined;
    if (size < 2 || start[ENVELOPE_BYTES] !== CHUNK_TAG) return other;
    let value = 0;
    let at = ENVELOPE_BYTES + 1;
    for (let scale = 1; ; scale *= 0x80) {
      if (at === start.length) return other;
      const byte = start[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) break;
    }
    const isWhole = at - ENVELOPE_BYTES + value === size;
    if (!isWhole || value === 0 || value > this.#bounds.mostChunkBytes) return other;
    return { bytes: at, chunkBytes: value };
  }
}

const EMPTY = new Uint8Array();

/** Holds chunks of an answer back from the library and puts them where it writes their stand-ins. */
export class ChunkOutlet {
  #pending: readonly Uint8Array[] | undefined;
  readonly #onBytes: (count: number) => void;

  /** @param onBytes called with the size of each chunk, in bytes. */
  constructor(onBytes: (count: number) => void) {
    this.#onBytes = onBytes;
  }

  /** Keeps a chunk, in pieces, until its stand-in is written. @returns the stand-in, for the library. */
  hold(pieces: readonly Uint8Array[]): Uint8Array {
    if (this.#pending !== undefined) throw new Error("expected that the chunk before was written");
    this.#pending = pieces;
    return EMPTY;
  }

  /**
   * What to write in place of an envelope that the library made: itself, or the chunk whose stand-in it is, with its
   * envelope.
   */
  written(envelope: Uint8Array): readonly Uint8Array[] {
    const pieces = this.#pending;
    if (pieces === undefined || envelope.length !== STAND_IN.length || envelope[ENVELOPE_BYTES] !== CHUNK_TAG)
      return [envelope];
    this.#pending = undefined;
    const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
    this.#onBytes(size);
    return [chunkPrefix(size), ...pieces];
  }
}

/** All that comes before the bytes of a chunk: the envelope, and the field's tag and length. */
export function chunkPrefix(size: number): Uint8Array {
  const length: number[] = [];
  for (let rest = size; ; rest = Math.floor(rest / 0x80)) {
    if (rest < 0x80) {
      length.push(rest);
      break;
    }
    length.push((rest % 0x80) | 0x80);
  }
  const message = 1 + length.length + size;
  return Uint8Array.of(
    0,
    message >>> 24,
    (message >>> 16) & 0xff,
    (message >>> 8) & 0xff,
    message & 0xff,
    CHUNK_TAG,
    ...length,
  );
}

/**
 * Cutting ciphertext into segments.
 *
 * A segment is copied once into a buffer of the segment's size that is used again when the segment was acknowledged, or
 * moved to the temporary file: chunks come from pipes in 64 KiB pieces, and sending many small messages costs far more
 * than the copy. The number of buffers is the bound on memory; a source that is faster than the network waits for a
 * free one. The memory of a buffer is only taken as far as it was ever filled.
 */
import { createHash, type Hash } from "node:crypto";
import { FramingError, FramingMachine } from "@strongroom/framing";
import { orAborted } from "../abort.ts";
import { PolicyRefusedError } from "../errors.ts";
import type { Spool } from "./spool.ts";

/** A part of the ciphertext, held until it is acknowledged. */
export interface PreparedSegment {
  /** Position, from 0. */
  readonly index: number;
  /** Its size in bytes. */
  readonly size: number;
  /** SHA-256 of the bytes. */
  readonly sha256: Uint8Array;
  /** State of the ciphertext check before the first byte. */
  readonly framingIn: Uint8Array;
  /** Whether it is in the temporary file. */
  readonly spooled: boolean;
  /** A part of its bytes, from memory without a copy or from the file; valid until the segment is released or moved. */
  read(offset: number, length: number): Uint8Array | Promise<Uint8Array>;
  /**
   * Moves it from memory to the temporary file and gives its buffer back. Not while it is being sent.
   * @throws SpoolError when the file takes no more; the segment stays in memory
   */
  moveTo(spool: Spool): Promise<void>;
  /** Gives buffer or place in the file back; call it once, when the segment was acknowledged or is given up. */
  release(): void;
}

/** A fixed number of buffers of one size, made when they are first needed. */
export class SegmentBuffers {
  /** Size of each, in bytes. */
  readonly size: number;
  /** The most buffers that exist at a time. */
  readonly count: number;
  readonly #free: Buffer[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly #signal: AbortSignal;
  #unmade: number;

  /**
   * @param count - the most buffers that exist at a time
   * @param size - bytes of each
   * @param signal - ends the waiting for a buffer
   */
  constructor(count: number, size: number, signal: AbortSignal) {
    this.#unmade = count;
    this.count = count;
    this.size = size;
    this.#signal = signal;
  }

  /** How many can be taken without waiting. */
  get available(): number {
    return this.#free.length + this.#unmade;
  }

  /**
   * Takes a buffer, and waits for one to be released when all are in use.
   * @throws the signal's reason when it is aborted
   */
  async acquire(): Promise<Buffer> {
    for (;;) {
      const buffer = this.#free.pop();
      if (buffer !== undefined) return buffer;
      if (this.#unmade > 0) {
        this.#unmade -= 1;
        // Not zero-filled: the system gives the pages when they are written to, so a small dump costs little.
        return Buffer.allocUnsafeSlow(this.size);
      }
      await orAborted(new Promise<void>((resolve) => this.#waiting.push(resolve)), this.#signal);
    }
  }

  /** Gives a buffer back. */
  release(buffer: Buffer): void {
    this.#free.push(buffer);
    this.#waiting.shift()?.();
  }
}

/**
 * Cuts a stream into segments of the buffers' size; the last may be shorter. The ciphertext check runs along, and gives
 * each segment the state it begins in; so plaintext is refused here before it leaves the machine.
 *
 * @throws PolicyRefusedError when the bytes are no OpenPGP message and no age file
 * @throws what the source throws; segments that were given out before stay valid until they are released
 */
export async function* cutSegments(
  source: AsyncIterable<Uint8Array>,
  buffers: SegmentBuffers,
): AsyncGenerator<PreparedSegment> {
  const machine = new FramingMachine({ formats: ["openpgp", "age"] });
  let current: OpenSegment | undefined;
  let index = 0;
  try {
    for await (const chunk of source) {
      for (let offset = 0; offset < chunk.length; ) {
        current ??= new OpenSegment(index, machine, await buffers.acquire(), buffers);
        offset += current.fill(chunk.subarray(offset));
        if (!current.full) continue;
        const full = current;
        current = undefined;
        index += 1;
        yield full.finish();
      }
    }
    checked(() => machine.finish());
    if (current !== undefined) {
      const last = current;
      current = undefined;
      yield last.finish();
    }
  } finally {
    current?.release();
  }
}

/** A segment that is being filled. */
class OpenSegment {
  readonly #index: number;
  readonly #machine: FramingMachine;
  readonly #buffer: Buffer;
  readonly #buffers: SegmentBuffers;
  readonly #framingIn: Uint8Array;
  /**
   * The thread pool would take the work off this thread, but copies a segment into fresh memory first, which takes as
   * long as the hash.
   */
  readonly #hash: Hash = createHash("sha256");
  #length = 0;

  constructor(index: number, machine: FramingMachine, buffer: Buffer, buffers: SegmentBuffers) {
    this.#index = index;
    this.#machine = machine;
    this.#buffer = buffer;
    this.#buffers = buffers;
    this.#framingIn = machine.encodeState();
  }

  get full(): boolean {
    return this.#length === this.#buffer.length;
  }

  /** Takes as much as fits; returns how much that was. */
  fill(chunk: Uint8Array): number {
    const part = chunk.subarray(0, this.#buffer.length - this.#length);
    checked(() => this.#machine.push(part));
    this.#hash.update(part);
    this.#buffer.set(part, this.#length);
    this.#length += part.length;
    return part.length;
  }

  finish(): PreparedSegment {
    return new HeldSegment(
      { index: this.#index, sha256: this.#hash.digest(), framingIn: this.#framingIn },
      this.#buffer.subarray(0, this.#length),
      () => this.release(),
    );
  }

  release(): void {
    this.#buffers.release(this.#buffer);
  }
}

/** A whole segment, in memory or in the file. */
class HeldSegment implements PreparedSegment {
  readonly index: number;
  readonly size: number;
  readonly sha256: Uint8Array;
  readonly framingIn: Uint8Array;
  #bytes: Uint8Array | undefined;
  #slot: { spool: Spool; number: number } | undefined;
  readonly #releaseBuffer: () => void;

  constructor(
    facts: { index: number; sha256: Uint8Array; framingIn: Uint8Array },
    bytes: Uint8Array,
    releaseBuffer: () => void,
  ) {
    this.index = facts.index;
    this.sha256 = facts.sha256;
    this.framingIn = facts.framingIn;
    this.size = bytes.length;
    this.#bytes = bytes;
    this.#releaseBuffer = releaseBuffer;
  }

  get spooled(): boolean {
    return this.#slot !== undefined;
  }

  read(offset: number, length: number): Uint8Array | Promise<Uint8Array> {
    if (this.#bytes !== undefined) return this.#bytes.subarray(offset, offset + length);
    const { spool, number } = this.#slot!;
    return spool.read(number, offset, length);
  }

  async moveTo(spool: Spool): Promise<void> {
    const number = await spool.write(this.#bytes!);
    this.#slot = { spool, number };
    this.#bytes = undefined;
    this.#releaseBuffer();
  }

  release(): void {
    if (this.#slot === undefined) this.#releaseBuffer();
    else this.#slot.spool.free(this.#slot.number);
  }
}

/** Runs a step of the ciphertext check; what it refuses becomes the error that the server would give. */
function checked(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof FramingError)) throw error;
    throw new PolicyRefusedError(error.message, {
      code: "invalid_argument",
      reason: "CIPHERTEXT_REFUSED",
      metadata: { violation: error.violation, offset_bytes: String(error.offset) },
      cause: error,
    });
  }
}

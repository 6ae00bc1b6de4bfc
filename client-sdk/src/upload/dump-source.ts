/** The caller's source, counted and checked. */
import { createHash, type Hash } from "node:crypto";
import { orAborted } from "../abort.ts";
import { DumpMismatchError, MinSizeError, SourceError } from "../errors.ts";

/** What is asked of a source. */
export interface DumpSourceOptions {
  /** Fewest bytes it must have. */
  minSize: bigint;
  /** Bytes it must have. */
  expectedSize?: bigint | undefined;
  /** SHA-256 it must have, 32 bytes. */
  expectedSha256?: Uint8Array | undefined;
  /** Ends the reading, also while the source is silent. */
  signal: AbortSignal;
  /** Called after every chunk. */
  onRead: () => void;
}

/**
 * Reads the caller's source once.
 *
 * Its end is only passed on when it had enough bytes, and its error never looks like an end: what follows it in the
 * pipeline cannot take a broken dump for a whole one.
 */
export class DumpSource implements AsyncIterable<Uint8Array> {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #options: DumpSourceOptions;
  #iterator: AsyncIterator<Uint8Array> | undefined;
  #ended = false;
  #bytes = 0;
  readonly #hash: Hash | undefined;

  constructor(source: AsyncIterable<Uint8Array>, options: DumpSourceOptions) {
    this.#source = source;
    this.#options = options;
    this.#hash = options.expectedSha256 === undefined ? undefined : createHash("sha256");
  }

  /** Bytes read so far. */
  get bytes(): bigint {
    return BigInt(this.#bytes);
  }

  /**
   * @throws SourceError when the source fails
   * @throws MinSizeError when it ends too early
   * @throws DumpMismatchError when it is not what was declared
   * @throws the signal's reason when it is aborted
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const { signal, minSize, expectedSize, onRead } = this.#options;
    signal.throwIfAborted();
    try {
      this.#iterator = this.#source[Symbol.asyncIterator]();
    } catch (cause) {
      throw this.#failed(cause);
    }
    for (;;) {
      const result = await this.#next(this.#iterator);
      if (result.done === true) break;
      this.#bytes += result.value.length;
      this.#hash?.update(result.value);
      if (expectedSize !== undefined && this.bytes > expectedSize) throw this.#mismatch("more");
      onRead();
      yield result.value;
    }
    if (this.bytes < minSize) throw new MinSizeError(this.bytes, minSize);
    if (expectedSize !== undefined && this.bytes !== expectedSize) throw this.#mismatch(`${this.bytes}`);
    this.#requireDigest();
  }

  #mismatch(found: string): DumpMismatchError {
    return new DumpMismatchError(
      `Expected a dump of exactly ${this.#options.expectedSize} bytes, got ${found}, so nothing was stored. ` +
        "Look at the program that makes it.",
    );
  }

  #requireDigest(): void {
    const { expectedSha256 } = this.#options;
    if (this.#hash === undefined || expectedSha256 === undefined) return;
    const found = this.#hash.digest("hex");
    const expected = Buffer.from(expectedSha256).toString("hex");
    if (found === expected) return;
    throw new DumpMismatchError(
      `Expected a dump with the SHA-256 ${expected}, got ${found} (${this.#bytes} bytes), so nothing was ` +
        "stored. Look at the program that makes it.",
    );
  }

  /**
   * Tells a source that is not at its end that nobody reads it any more: with `destroy()` where it is a Node stream,
   * and with `return()`. It is not waited for, since it may never move again.
   */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    const { destroy } = this.#source as { destroy?: unknown };
    if (typeof destroy === "function") destroy.call(this.#source);
    void Promise.resolve(this.#iterator?.return?.()).catch(() => undefined);
  }

  async #next(iterator: AsyncIterator<Uint8Array>): Promise<IteratorResult<Uint8Array>> {
    const { signal } = this.#options;
    try {
      const result = await orAborted(iterator.next(), signal);
      if (result.done === true) this.#ended = true;
      else if (!(result.value instanceof Uint8Array)) {
        throw new TypeError(`expected chunks of bytes (Uint8Array), got a ${typeof result.value}`);
      }
      return result;
    } catch (cause) {
      signal.throwIfAborted();
      throw this.#failed(cause);
    }
  }

  #failed(cause: unknown): SourceError {
    if (cause instanceof SourceError) return cause;
    return new SourceError(`The source of the dump failed: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
}

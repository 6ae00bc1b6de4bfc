/** The caller's source, counted and watched. */
import { orAborted } from "../abort.ts";
import { MinSizeError, SourceError } from "../errors.ts";

/** What is asked of a source. */
export interface DumpSourceOptions {
  /** Fewest bytes it must have. */
  minSize: bigint;
  /** Ends the reading, also while the source is silent. */
  signal: AbortSignal;
  /** Told after every chunk. */
  onRead: () => void;
}

/**
 * Reads the caller's source once.
 *
 * Its end is only passed on when it had enough bytes, and its error never looks like an end: what stands behind it in the row cannot take a
 * broken dump for a whole one.
 */
export class DumpSource implements AsyncIterable<Uint8Array> {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #options: DumpSourceOptions;
  #iterator: AsyncIterator<Uint8Array> | undefined;
  #ended = false;
  #bytes = 0;

  constructor(source: AsyncIterable<Uint8Array>, options: DumpSourceOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** Bytes read so far. */
  get bytes(): bigint {
    return BigInt(this.#bytes);
  }

  /**
   * @throws SourceError when the source fails
   * @throws MinSizeError when it ends too early
   * @throws the signal's reason when it is aborted
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const { signal, minSize, onRead } = this.#options;
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
      onRead();
      yield result.value;
    }
    if (this.bytes < minSize) throw new MinSizeError(this.bytes, minSize);
  }

  /**
   * Tells a source that is not at its end that nobody reads it any more: with `destroy()` where it is a Node stream, and with `return()`. It is not
   * waited for, since it may never move again.
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
        throw new TypeError(`expected chunks of bytes (Uint8Array), but a ${typeof result.value} came`);
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

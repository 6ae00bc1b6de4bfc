/** What the stages around a library have in common. */
import { StrongroomError } from "../errors.ts";
import type { Failure } from "./options.ts";

/** Remembers what the source threw, since the libraries wrap and rename it. */
export class WatchedSource implements AsyncIterable<Uint8Array> {
  readonly #source: AsyncIterable<Uint8Array>;
  /** What the source threw, if it did. */
  failure: { error: unknown } | undefined;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      yield* this.#source;
    } catch (error) {
      this.failure = { error };
      throw error;
    }
  }
}

/** The error to throw: the abort's reason, the source's own, one that explains itself, or the library's with an explanation. */
export function failed(
  error: unknown,
  input: WatchedSource,
  signal: AbortSignal,
  what: string,
  failure: Failure,
): unknown {
  if (signal.aborted) return signal.reason;
  if (input.failure !== undefined) return input.failure.error;
  if (error instanceof StrongroomError) return error;
  return failure(`${what}: ${error instanceof Error ? error.message : String(error)}`, error);
}

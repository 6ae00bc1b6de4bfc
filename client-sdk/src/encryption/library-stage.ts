/** What the stages around a library have in common. */
import { orAborted } from "../abort.ts";
import { StrongroomError } from "../errors.ts";
import type { Failure } from "./options.ts";

/** Remembers what the source threw, since the libraries wrap and rename it. */
export class RecordedSource implements AsyncIterable<Uint8Array> {
  readonly #source: AsyncIterable<Uint8Array>;
  /** What the source threw, if it did. */
  failure: { error: unknown } | undefined;
  /** Whether it was read to its end. */
  ended = false;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      yield* this.#source;
      this.ended = true;
    } catch (error) {
      this.failure = { error };
      throw error;
    }
  }
}

/**
 * The chunks of a stream, each waited for no longer than until the signal is aborted: a library may never settle.
 * @throws the signal's reason
 */
export async function* abortable(source: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  let settled = false;
  try {
    for (;;) {
      const result = await orAborted(iterator.next(), signal);
      if (result.done === true) {
        settled = true;
        return;
      }
      yield result.value;
    }
  } finally {
    // Not waited for: what hangs in next() hangs in return() as well.
    if (!settled) void Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
}

/**
 * The error to throw: the abort's reason, the source's own, one that explains itself, or the library's with an
 * explanation.
 */
export function failed(
  error: unknown,
  input: RecordedSource,
  signal: AbortSignal,
  what: string,
  failure: Failure,
): unknown {
  if (signal.aborted) return signal.reason;
  if (input.failure !== undefined) return input.failure.error;
  if (error instanceof StrongroomError) return error;
  return failure(`${what}: ${error instanceof Error ? error.message : String(error)}`, error);
}

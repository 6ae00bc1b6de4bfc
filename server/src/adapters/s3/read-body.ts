import type { Readable } from "node:stream";
import { FULL_CHUNK_BYTES } from "@strongroom/protocol/limits";
import { BlobStoreError, BlobStoreUnavailableError } from "../../app/ports/blob-store.ts";

/** A store that sends nothing for this long has gone, in milliseconds. */
const SILENCE_MS = 60_000;

/**
 * Passes on the body of an answer, in chunks of at most {@link FULL_CHUNK_BYTES}. However the reading ends, the
 * connection is freed.
 * @param length that it must have, in bytes.
 * @throws BlobStoreUnavailableError when the store breaks off or falls silent; the reason of the signal.
 */
export async function* readBody(
  body: Readable,
  key: string,
  length: bigint,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const onAbort = () => body.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  const chunks = body[Symbol.asyncIterator]();
  let left = length;
  try {
    for (;;) {
      signal.throwIfAborted();
      const step = await nextInTime(chunks, body);
      signal.throwIfAborted();
      if (step.done === true) break;
      const chunk = step.value as Uint8Array;
      left -= BigInt(chunk.length);
      if (left < 0n) throw new BlobStoreError(`Cannot read ${key}: the store sent more than was asked for.`);
      for (let start = 0; start < chunk.length; start += FULL_CHUNK_BYTES) {
        yield chunk.subarray(start, start + FULL_CHUNK_BYTES);
        signal.throwIfAborted();
      }
    }
    if (left > 0n) throw brokenOff(key);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof BlobStoreError) throw error;
    throw brokenOff(key, error);
  } finally {
    signal.removeEventListener("abort", onAbort);
    body.destroy();
  }
}

function brokenOff(key: string, error?: unknown): BlobStoreUnavailableError {
  return new BlobStoreUnavailableError(`Cannot read ${key}: the store broke off in the middle.`, { cause: error });
}

/** Only the wait for the store is limited: a slow reader may take its time. */
async function nextInTime(chunks: AsyncIterator<unknown>, body: Readable): Promise<IteratorResult<unknown>> {
  const timer = setTimeout(() => {
    body.destroy(new BlobStoreUnavailableError(`The store was silent for ${SILENCE_MS / 1000} s.`));
  }, SILENCE_MS);
  try {
    return await chunks.next();
  } finally {
    clearTimeout(timer);
  }
}

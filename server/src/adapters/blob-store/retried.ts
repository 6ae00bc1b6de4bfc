import { setTimeout as sleep } from "node:timers/promises";
import { BlobStoreUnavailableError } from "../../app/ports/blob-store.ts";

/** Waits before the second, third and fourth try, in milliseconds; each is shortened at random by up to half. */
const WAITS_MS = [100, 400, 1600];

/**
 * Repeats a call of a store that fails in passing.
 * @param signal ends the repeating, also while it waits; the call itself must look at it too.
 * @throws the call's last error, or an AbortError.
 */
export async function retried<T>(call: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (const wait of WAITS_MS) {
    try {
      return await call();
    } catch (error) {
      if (signal?.aborted === true || !(error instanceof BlobStoreUnavailableError)) throw error;
    }
    await sleep(wait * (1 - Math.random() / 2), undefined, signal === undefined ? {} : { signal });
  }
  return await call();
}

import { BlobStoreError } from "../../app/ports/blob-store.ts";
import { abortable } from "./abortable.ts";

/**
 * Passes a body on and sees to it that it has exactly the declared size: the consumer's loop ends normally only after
 * the body ended with the last declared byte. Bytes beyond are never passed on. Breaks off at once when the signal
 * aborts, also while the body is silent.
 *
 * @param size in bytes.
 * @throws BlobStoreError when the body ends early or goes on too long; the body's own errors and the signal's reason
 *   unchanged.
 */
export async function* declaredBody(
  body: AsyncIterable<Uint8Array>,
  size: bigint,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  let received = 0n;
  for await (const chunk of abortable(body, signal)) {
    received += BigInt(chunk.length);
    if (received > size) throw wrongSize(`at least ${received}`, size);
    if (chunk.length > 0) yield chunk;
  }
  if (received < size) throw wrongSize(`only ${received}`, size);
}

function wrongSize(received: string, size: bigint): BlobStoreError {
  return new BlobStoreError(
    `Expected a part of ${size} bytes, got ${received}. Send it again with exactly the declared bytes.`,
  );
}

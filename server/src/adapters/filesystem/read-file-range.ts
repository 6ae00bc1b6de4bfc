import type { FileHandle } from "node:fs/promises";
import { FULL_CHUNK_BYTES } from "@strongroom/protocol/limits";
import { BlobStoreError } from "../../app/ports/blob-store.ts";
import { onDisk } from "./disk-error.ts";

/**
 * Streams a range of an open file in chunks of at most {@link FULL_CHUNK_BYTES}, and closes the file when it ends in
 * whatever way. When the signal aborts it closes the file at once, even if nobody asks for another chunk. Every chunk
 * is a buffer of its own and stays valid.
 *
 * @param key names the object in messages.
 * @param offset, length in bytes; the range must lie within the file.
 */
export async function* readFileRange(
  file: FileHandle,
  key: string,
  offset: bigint,
  length: bigint,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  // Closing waits for a read under way; closing twice is allowed.
  const close = () => void file.close().catch(() => {});
  signal.addEventListener("abort", close, { once: true });
  try {
    signal.throwIfAborted();
    let position = Number(offset);
    let left = Number(length);
    while (left > 0) {
      const buffer = Buffer.allocUnsafeSlow(Math.min(left, FULL_CHUNK_BYTES));
      const { bytesRead } = await onDisk(`read ${key}`, () => file.read(buffer, 0, buffer.length, position));
      signal.throwIfAborted();
      if (bytesRead === 0) {
        throw new BlobStoreError(
          `${key} ended at ${position} bytes while it was being read: its file was cut short from outside.`,
        );
      }
      position += bytesRead;
      left -= bytesRead;
      yield bytesRead === buffer.length ? buffer : buffer.subarray(0, bytesRead);
      signal.throwIfAborted();
    }
  } finally {
    signal.removeEventListener("abort", close);
    await file.close();
  }
}

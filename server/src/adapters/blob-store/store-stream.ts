import { createHash } from "node:crypto";
import type { BlobPart, BlobStore, PendingBlob, StreamInput } from "../../app/ports/blob-store.ts";
import { abortable } from "./abortable.ts";

/** Parts on their way at once, so that reading and writing overlap. Each is in memory. */
const PARALLEL = 3;

/**
 * {@link BlobStore.putStream} by the store's other calls, on any store: cuts the body into parts in memory, since a
 * part goes out with its size and digest.
 * @returns the size in bytes.
 */
export async function storeStream(
  store: Omit<BlobStore, "putStream">,
  { key, uploadId, partSize, signal }: StreamInput,
  body: AsyncIterable<Uint8Array>,
): Promise<bigint> {
  signal.throwIfAborted();
  const blob = { key, token: await store.begin(key, uploadId) };
  let parts: BlobPart[];
  try {
    parts = await writeParts(store, blob, partSize, body, signal);
  } catch (error) {
    // What counts is why it broke off. Where this fails too, the store has a lifecycle rule or a sweep.
    await store.abort(blob).catch(() => {});
    throw error;
  }
  const size = parts.reduce((sum, part) => sum + part.size, 0n);
  try {
    await store.complete(blob, uploadId, parts);
  } catch (error) {
    // Unless the store says what is there, everything stays: it may be the object.
    const found = await store.stat(key).catch(() => "unknown" as const);
    if (found === "unknown") throw error;
    if (found?.uploadId === uploadId && found.size === size) return size;
    await store.abort(blob).catch(() => {});
    throw error;
  }
  return size;
}

async function writeParts(
  store: Pick<BlobStore, "writePart">,
  blob: PendingBlob,
  partSize: bigint,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<BlobPart[]> {
  const parts: BlobPart[] = [];
  const running = new Set<Promise<void>>();
  const ending = new AbortController();
  const either = AbortSignal.any([signal, ending.signal]);
  try {
    for await (const bytes of inParts(abortable(body, either), Number(partSize))) {
      either.throwIfAborted();
      const part = { index: parts.length, size: BigInt(bytes.length), sha256: sha256(bytes) };
      parts.push(part);
      const writing = store.writePart(blob, part, { segmentSize: partSize }, chunks(bytes), either);
      // The first failure ends the others; it is also what is thrown, since the rest only follow it.
      const watched = writing.catch((error) => ending.abort(error)).finally(() => running.delete(watched));
      running.add(watched);
      if (running.size >= PARALLEL) await Promise.race(running);
    }
    await Promise.all(running);
    either.throwIfAborted();
    return parts;
  } catch (error) {
    ending.abort(error);
    await Promise.all(running);
    throw error;
  }
}

/** Cuts a body into buffers of one size, the last one shorter; an empty body gives one empty buffer. */
async function* inParts(body: AsyncIterable<Uint8Array>, partSize: number): AsyncGenerator<Uint8Array> {
  let part = Buffer.allocUnsafe(partSize);
  let filled = 0;
  let any = false;
  for await (const chunk of body) {
    for (let start = 0; start < chunk.length; ) {
      // Only when there is more: the last part may be exactly full.
      if (filled === partSize) {
        any = true;
        yield part;
        part = Buffer.allocUnsafe(partSize);
        filled = 0;
      }
      const taken = Math.min(chunk.length - start, partSize - filled);
      part.set(chunk.subarray(start, start + taken), filled);
      filled += taken;
      start += taken;
    }
  }
  if (filled > 0 || !any) yield part.subarray(0, filled);
}

const CHUNK_BYTES = 1024 * 1024;

/** Bytes in memory as the body of a part. */
export async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += CHUNK_BYTES) yield bytes.subarray(start, start + CHUNK_BYTES);
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}

/** Joining iterables with Node's and the web's streams, always with the pace of the slower end. */

import type { Duplex, Writable } from "node:stream";
import { ReadableStream } from "node:stream/web";
import { StrongroomError } from "./errors.ts";

/**
 * Writes an iterable into a stream and ends it.
 *
 * @returns false when the stream closed before it had everything; the source is notified with `return()`
 * @throws what the source throws; the stream is left for the caller to destroy
 */
export async function feed(source: AsyncIterable<Uint8Array>, sink: Writable): Promise<boolean> {
  // The stream's own failure is seen by its reader, who knows more.
  sink.on("error", () => undefined);
  for await (const chunk of source) {
    if (sink.destroyed) return false;
    if (!sink.write(chunk)) await drained(sink);
    if (sink.destroyed) return false;
  }
  sink.end();
  return true;
}

/** After these a stream takes more, or never will; a transform may end its output before its input. */
const MOVED = ["drain", "close", "error", "end"] as const;

/** Waits until a stream takes more, or never will. */
function drained(sink: Writable): Promise<void> {
  if (sink.destroyed || !sink.writableNeedDrain) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of MOVED) sink.off(event, done);
      resolve();
    };
    for (const event of MOVED) sink.on(event, done);
  });
}

/**
 * Sends an iterable through a Node transform stream. The source is read to its end also where the transform ended
 * before: what fails there, such as the check of a digest, would be lost otherwise.
 *
 * @param transform - one of node:zlib
 * @param failure - makes the error when the transform itself fails, or ends before the source does; errors of the
 *   source are thrown as they are
 * @param surplusAllowed - whether the source may go on after the transform's end; what follows is read and dropped
 */
export async function* through(
  source: AsyncIterable<Uint8Array>,
  transform: Duplex & { readonly bytesWritten: number },
  failure: (cause: unknown) => Error,
  surplusAllowed = false,
): AsyncGenerator<Uint8Array> {
  let sourceFailure: { error: unknown } | undefined;
  let ended = false;
  let size = 0;
  let left = false;
  transform.once("end", () => {
    ended = true;
  });
  transform.on("error", () => undefined);
  const feeding = (async () => {
    for await (const chunk of source) {
      if (left || (transform.destroyed && !ended)) return;
      size += chunk.length;
      if (ended) continue;
      if (!transform.write(chunk)) await drained(transform);
    }
    transform.end();
  })().catch((error: unknown) => {
    sourceFailure = { error };
    transform.destroy();
  });
  try {
    yield* transform as AsyncIterable<Uint8Array>;
    await feeding;
    if (sourceFailure !== undefined) throw (sourceFailure as { error: unknown }).error;
    // What the transform counts is what it used.
    if (!surplusAllowed && size > transform.bytesWritten) throw failure(new Error("more bytes follow its end"));
  } catch (error) {
    if (sourceFailure !== undefined) throw (sourceFailure as { error: unknown }).error;
    throw error instanceof StrongroomError ? error : failure(error);
  } finally {
    left = true;
    transform.destroy();
  }
}

/** A web stream that reads from an iterable as it is asked; cancelling it ends the iteration. */
export function toWebStream(source: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const iterator = source[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        const result = await iterator.next();
        if (result.done === true) controller.close();
        else controller.enqueue(plainView(result.value));
      },
      async cancel() {
        await iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

/** Reads a web stream, and cancels it when the reader stops or the signal is aborted. */
export async function* fromWebStream(
  stream: globalThis.ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  signal.throwIfAborted();
  const reader = stream.getReader();
  const cancel = (): void => void reader.cancel(signal.reason).catch(() => undefined);
  signal.addEventListener("abort", cancel, { once: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) return;
      if (value.length > 0) yield value;
    }
  } finally {
    signal.removeEventListener("abort", cancel);
    cancel();
  }
}

/** The libraries call `slice` to copy, which a Node Buffer does not do. */
function plainView(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
}

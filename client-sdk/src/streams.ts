/** Joining iterables with Node's and the web's streams, always with the pace of the slower end. */

import type { Duplex, Writable } from "node:stream";
import { ReadableStream } from "node:stream/web";

/**
 * Writes an iterable into a stream and ends it.
 *
 * @returns false when the stream closed before it had everything; the source is told with `return()`
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

/** Waits until a stream takes more, or never will. */
function drained(sink: Writable): Promise<void> {
  if (sink.destroyed || !sink.writableNeedDrain) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      sink.off("drain", done).off("close", done).off("error", done);
      resolve();
    };
    sink.on("drain", done).on("close", done).on("error", done);
  });
}

/**
 * Sends an iterable through a Node transform stream.
 *
 * @param failure - makes the error when the transform itself fails; errors of the source are thrown as they are
 */
export async function* through(
  source: AsyncIterable<Uint8Array>,
  transform: Duplex,
  failure: (cause: unknown) => Error,
): AsyncGenerator<Uint8Array> {
  let sourceFailure: { error: unknown } | undefined;
  void feed(source, transform).catch((error: unknown) => {
    sourceFailure = { error };
    transform.destroy();
  });
  try {
    yield* transform as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw sourceFailure === undefined ? failure(error) : (sourceFailure as { error: unknown }).error;
  } finally {
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

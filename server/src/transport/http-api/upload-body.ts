import { BodyBrokenError } from "../../app/uploads/segment-body.ts";
import { CallRefused } from "../../calls/codes.ts";
import type { IncomingRequest } from "../connection.ts";
import { streamedBody } from "../request-body.ts";

/**
 * The body of an upload as it comes, to its true end.
 * @param idleMs how long nothing may come while somebody waits for it, in milliseconds
 * @throws BodyBrokenError when it is cut short; CallRefused deadline_exceeded when nothing comes
 */
export async function* uploadBody(req: IncomingRequest, idleMs: number): AsyncGenerator<Uint8Array> {
  const chunks = streamedBody(req)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await inTime(chunks.next(), idleMs);
      if (next.done === true) break;
      yield next.value;
    }
  } catch (error) {
    if (error instanceof CallRefused) throw error;
    throw broken(error);
  } finally {
    void chunks.return?.(undefined).catch(() => {});
  }
  // Node.js ends the body of an HTTP/2 stream that was reset as if it were whole.
  if (req.aborted || ("stream" in req && (req.stream.destroyed || req.stream.rstCode !== 0))) throw broken(undefined);
}

function broken(cause: unknown): BodyBrokenError {
  return new BodyBrokenError("the connection broke off in the middle of an upload", { cause });
}

async function inTime<T>(next: Promise<T>, idleMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const message = `nothing was received for ${idleMs / 1000} s`;
    timer = setTimeout(() => reject(new CallRefused("deadline_exceeded", message)), idleMs);
  });
  next.catch(() => {});
  try {
    return await Promise.race([next, late]);
  } finally {
    clearTimeout(timer);
  }
}

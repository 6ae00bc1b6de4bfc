import { BodyBrokenError } from "../app/uploads/segment-body.ts";
import { CallRefused } from "../calls/codes.ts";
import type { IncomingRequest } from "./connection.ts";

/** Bounds of a body that is read as a whole. */
export interface BodyBounds {
  /** Most bytes. */
  readonly most: number;
  /** How long it may take, in milliseconds. */
  readonly withinMs: number;
}

/** A body that is larger than its route allows. */
export function bodyTooLarge(most: number): CallRefused {
  return new CallRefused("resource_exhausted", `expected at most ${most} bytes in the body of this call, got more`);
}

/**
 * A body that is read as a whole before anything of it is given on: as one piece, so that neither many small pieces nor
 * an announced size that never comes cost more than their bytes. What is beyond its bounds stays unread; the listener
 * drops it.
 * @throws CallRefused resource_exhausted, deadline_exceeded; BodyBrokenError
 */
export async function* wholeBody(
  req: IncomingRequest,
  bounds: BodyBounds,
  whenRead: () => void,
): AsyncGenerator<Uint8Array> {
  const announced = announcedBytes(req);
  if (announced !== undefined && announced > bounds.most) throw bodyTooLarge(bounds.most);
  const body = await readWhole(req, bounds);
  whenRead();
  if (body.length > 0) yield body;
}

/**
 * The body of a call whose messages are read one by one. Leaving it early does not end the request, which still has an
 * answer to carry.
 */
export async function* streamedBody(req: IncomingRequest): AsyncGenerator<Uint8Array> {
  yield* req.iterator({ destroyOnReturn: false });
}

/** The size of a body as its headers say it; undefined when they do not, 0 when there is none. */
export function announcedBytes(req: IncomingRequest): number | undefined {
  const length = req.headers["content-length"];
  if (length !== undefined) return /^\d{1,15}$/.test(length) ? Number(length) : undefined;
  if (req.httpVersionMajor >= 2) return "stream" in req && req.stream.endAfterHeaders ? 0 : undefined;
  return req.headers["transfer-encoding"] === undefined ? 0 : undefined;
}

async function readWhole(req: IncomingRequest, { most, withinMs }: BodyBounds): Promise<Uint8Array<ArrayBuffer>> {
  return await new Promise((resolve, reject) => {
    let body = new Uint8Array(Math.min(announcedBytes(req) ?? 1024, most));
    let length = 0;
    const settle = (end: () => void) => {
      clearTimeout(late);
      req.off("data", onData).off("end", onEnd).off("error", onBroken).off("aborted", onBroken).off("close", onBroken);
      req.pause();
      end();
    };
    const late = setTimeout(() => {
      const message = `expected the whole body within ${withinMs / 1000} s, got ${length} bytes; send the call again`;
      settle(() => reject(new CallRefused("deadline_exceeded", message)));
    }, withinMs);
    const onData = (chunk: Buffer) => {
      const needed = length + chunk.length;
      if (needed > most) return settle(() => reject(bodyTooLarge(most)));
      if (needed > body.length) {
        const larger = new Uint8Array(Math.min(most, Math.max(needed, 2 * body.length)));
        larger.set(body.subarray(0, length));
        body = larger;
      }
      body.set(chunk, length);
      length = needed;
    };
    const onEnd = () => settle(() => resolve(body.subarray(0, length)));
    const onBroken = () =>
      settle(() => reject(new BodyBrokenError("the connection broke off in the middle of a call")));
    if (req.destroyed) return onBroken();
    req.on("data", onData).on("end", onEnd).on("error", onBroken).on("aborted", onBroken).on("close", onBroken);
    req.resume();
  });
}

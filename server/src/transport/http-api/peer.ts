import { BodyBrokenError } from "../../app/uploads/segment-body.ts";
import { connectionOf } from "../connection.ts";
import type { RequestHandler } from "../listener.ts";

/**
 * Waits, after the end of a body, whether the peer stays. An unchanged Backup Maker sends a complete body when its
 * command fails, and closes at once: that is the only sign there is.
 * @param ms how long, in milliseconds
 * @throws BodyBrokenError when the peer closed, half-closed or reset meanwhile, or sent more over HTTP/1.1;
 *   what the signal was aborted with
 */
export async function peerStays(
  [req, res]: Parameters<RequestHandler>,
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const leave = () => reject(new BodyBrokenError("the client was gone before its upload became a version"));
  const onAbort = () => reject(signal.reason);
  // Over HTTP/2 a stream ends by itself; over HTTP/1.1 the end of the connection is all there is.
  const socket = "stream" in req ? undefined : req.socket;
  const timer = setTimeout(resolve, ms);
  res.once("close", leave);
  socket?.once("end", leave).once("close", leave).once("error", leave);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const isGone = res.closed || res.destroyed || socket?.destroyed === true || socket?.readableEnded === true;
    if (isGone) leave();
    if (signal.aborted) onAbort();
    await promise;
    // Behind requests that wait for their turn the end of a connection is not read.
    if (socket !== undefined && !connectionOf(req).isLatest(req)) {
      throw new BodyBrokenError(
        "the client sent another request before its upload was answered, so that its end could not be seen",
      );
    }
  } finally {
    clearTimeout(timer);
    res.off("close", leave);
    socket?.off("end", leave).off("close", leave).off("error", leave);
    signal.removeEventListener("abort", onAbort);
  }
}

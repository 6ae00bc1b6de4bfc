import type { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { constants, type Http2ServerRequest, Http2ServerResponse, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";

/*
 * A server may answer before a request's body has come to its end: a refusal, or a segment that is stored already. Then
 * the client has to learn that its bytes are not wanted, without losing the answer. HTTP/2 has RST_STREAM with NO_ERROR
 * for it, after the whole answer (RFC 9113, section 8.1); sent with the answer's end it makes clients drop the
 * trailers. HTTP/1.1 only has the end of the connection, which must not come as a TCP reset, since that deletes what
 * the client has not read: so the server ends its side first, and reads on for a while (RFC 9112, section 9.6).
 */

/** Bytes of an unwanted body that are read and dropped: those on their way when the answer was sent. */
export const MAX_DROPPED_BYTES = 1024 * 1024;

/** A body up to this size is waited for, so that its HTTP/1.1 connection can stay open, in bytes. */
const SMALL_BODY_BYTES = 64 * 1024;

/** How long an unwanted body is waited for, in milliseconds. */
export const MAX_DROPPING_MS = 1000;

/**
 * Where more comes than is dropped, the stream or connection is cut this long after its answer, in milliseconds:
 * clients that find both at once, as curl 7.88 does, take the cut for a failure. Many end the stream themselves when
 * they have the answer.
 */
export const CUT_AFTER_MS = 250;

/**
 * Makes a request end cleanly also when its answer comes before its body was read. For every request, before anything
 * reads from it or answers. Whoever reads the body may stop anywhere, but must not destroy the request: over HTTP/1.1
 * that would destroy the connection before the answer.
 */
export function endCleanly(req: IncomingMessage | Http2ServerRequest, res: ServerResponse | Http2ServerResponse): void {
  // `for await` over a request destroys it when the loop is left.
  const iterate = () => req.iterator({ destroyOnReturn: false });
  Object.defineProperty(req, Symbol.asyncIterator, { value: iterate, configurable: true });
  if (res instanceof Http2ServerResponse) endStreamCleanly(res.stream);
  else endMessageCleanly(req as IncomingMessage, res);
}

/**
 * Sends `100 Continue` when somebody begins to read the body, instead of at once: a call that is refused by its headers
 * is refused before its body is sent. For the servers' `checkContinue`, before anything reads.
 */
export function continueWhenRead(
  req: IncomingMessage | Http2ServerRequest,
  res: ServerResponse | Http2ServerResponse,
): void {
  const read = req._read;
  req._read = (size) => {
    req._read = read;
    if (!res.headersSent) res.writeContinue();
    read.call(req, size);
  };
}

function endStreamCleanly(stream: ServerHttp2Stream): void {
  // A stream that nobody began to read Node.js resets by itself together with the answer's end, which curl takes for an
  // error while it sends.
  stream.read(0);
  let answered = false;
  const whenAnswered = () => {
    if (answered || stream.destroyed || stream.closed || stream.readableEnded) return;
    answered = true;
    // Whoever read the body is done with it.
    stream.removeAllListeners("data");
    dropRest(stream, () => stream.close(constants.NGHTTP2_NO_ERROR));
    stream.resume();
  };
  // The trailers are sent by another listener of the same event, and leave with this turn of the loop.
  stream.once("wantTrailers", () => setImmediate(whenAnswered));
  // There is no such event when the answer is headers alone.
  stream.once("finish", () => {
    setImmediate(() => {
      if (!stream.destroyed && stream.state.localClose === 1) whenAnswered();
    });
  });
}

function endMessageCleanly(req: IncomingMessage, res: ServerResponse): void {
  if (req.headers["transfer-encoding"] === undefined && !(Number(req.headers["content-length"]) > 0)) return;
  const writeHead = res.writeHead;
  // What is left of a small body is read away, and the next request can follow: a refusal from headers is often faster
  // than the body's packet. But who waits for 100 Continue may never send it.
  const isSmall = Number(req.headers["content-length"]) <= SMALL_BODY_BYTES && req.headers.expect === undefined;
  res.writeHead = ((...args: Parameters<typeof writeHead>) => {
    // A body that is in already does no harm.
    if (!req.complete && !isSmall) res.shouldKeepAlive = false;
    return writeHead.apply(res, args);
  }) as typeof writeHead;
  // Before Node's own listener, which would destroy the socket as soon as the answer is out.
  res.prependListener("finish", () => {
    if (req.complete || req.destroyed) return;
    if (isSmall && res.shouldKeepAlive) readAway(req, req.socket);
    else closeInTwoSteps(req, req.socket);
  });
}

function readAway(req: IncomingMessage, socket: Socket): void {
  const late = setTimeout(() => socket.destroy(), MAX_DROPPING_MS);
  req.once("close", () => clearTimeout(late)).once("end", () => clearTimeout(late));
  req.removeAllListeners("data");
  req.removeAllListeners("readable");
  req.resume();
}

function closeInTwoSteps(req: IncomingMessage, socket: Socket): void {
  socket.destroySoon = () => socket.end();
  req.removeAllListeners("data");
  req.removeAllListeners("readable");
  // What is more than dropped stays in the kernel until then. Closing at once would reset the answer of a client that
  // is slow to read it.
  dropRest(req, () => socket.destroy(), socket);
  req.resume();
}

/**
 * Drops what comes within the bounds, then cuts: not sooner than the client can have read its answer, which has just
 * left.
 */
function dropRest(body: Readable, cut: () => void, carrier: EventEmitter = body): void {
  const answeredAt = performance.now();
  let timer = setTimeout(cut, MAX_DROPPING_MS);
  carrier.once("close", () => clearTimeout(timer));
  let left = MAX_DROPPED_BYTES;
  body.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left > 0 || body.isPaused()) return;
    body.pause();
    clearTimeout(timer);
    timer = setTimeout(cut, Math.max(0, answeredAt + CUT_AFTER_MS - performance.now()));
  });
}

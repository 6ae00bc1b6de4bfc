import type http from "node:http";
import type { DescMethod } from "@bufbuild/protobuf";
import { type ConnectRouter, createConnectRouter, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { universalRequestFromNodeRequest } from "@connectrpc/connect-node";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { ChunkDetour, ChunkOutlet, mayDetour } from "@strongroom/protocol/chunk-detour";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { MESSAGE_OVERHEAD_BYTES } from "@strongroom/protocol/limits";
import type { Call } from "../calls/call.ts";
import type { Calls } from "../calls/calls.ts";
import { CallRefused } from "../calls/codes.ts";
import type { Metrics } from "../calls/metrics.ts";
import { largestMessage, type Route, routeOf } from "../calls/routes.ts";
import { DomainError } from "../domain/errors.ts";
import { answerPlain, GZIP_REQUESTS } from "./compression.ts";
import { type AnswerEnd, mendedAnswer } from "./connect-answer.ts";
import { CALL, type ConnectCall, callInterceptor, requestGate } from "./connect-calls.ts";
import { isFault, toConnectError } from "./error-map.ts";
import type { RequestHandler } from "./listener.ts";
import { announcedBytes, streamedBody, wholeBody } from "./request-body.ts";

type Request = Parameters<RequestHandler>[0];
type Response = Parameters<RequestHandler>[1];

/** Answers a request as a call that began. */
export type CallHandler = (call: Call, req: Request, res: Response) => void;

/** What the door serves, and by which bounds. */
export interface ConnectDoorDeps {
  readonly calls: Calls;
  readonly metrics: Metrics | undefined;
  readonly maxChunkSize: number;
  readonly shutdownSignal: AbortSignal;
  /** Lets chunks go through the library too, to compare. */
  readonly genericStreams: boolean;
  /** Adds the services to the router. */
  readonly routes: (router: ConnectRouter, optionsOf: (method: string) => MethodOptions) => void;
  /** Called when a call on a request's connection was authenticated. */
  readonly authenticated: (req: Request) => void;
}

/** What differs between methods. */
export interface MethodOptions {
  readonly readMaxBytes: number;
  readonly acceptCompression: (typeof GZIP_REQUESTS)[];
}

const WRITE_SEGMENT = methodName(UploadService.method.writeSegment);
const READ_VERSION = methodName(VersionService.method.readVersion);

function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** The header of an envelope, of which a message that is read as a whole has one. */
const ENVELOPE_BYTES = 5;

/**
 * The services over Connect, gRPC and gRPC-Web. In place of the library's own adapter for Node.js, which hides the
 * body: here its size, its time and what is left of it are bounded, and every call ends with one line in the log, also
 * those that the library refuses by itself.
 */
export function connectDoor(deps: ConnectDoorDeps): CallHandler {
  const { calls } = deps;
  const largest = (route: Route | undefined) =>
    route === undefined ? ENVELOPE_BYTES : largestMessage(route, deps.maxChunkSize, MESSAGE_OVERHEAD_BYTES);
  const router = createConnectRouter({
    interceptors: [callInterceptor(calls, deps.metrics)],
    requestGate: requestGate(calls),
    // A name that is mistyped would else be lost without a word, and idempotency with it.
    jsonOptions: { ignoreUnknownFields: false },
    shutdownSignal: deps.shutdownSignal,
  });
  deps.routes(router, (method) => {
    const route = routeOf(method);
    return { readMaxBytes: largest(route), acceptCompression: route?.gzip === true ? [GZIP_REQUESTS] : [] };
  });
  const handlers = new Map<string, UniversalHandler>(router.handlers.map((h) => [h.requestPath, h]));

  /** The body as the route bounds it. */
  const bodyOf = (req: Request, connectCall: ConnectCall): AsyncIterable<Uint8Array> => {
    const { call } = connectCall;
    const route = routeOf(call.method);
    if (route !== undefined && route.bodyMs === undefined) return connectCall.detour?.envelopes() ?? streamedBody(req);
    const isBare = call.door === "connect" && !/\+/.test(req.headers["content-type"] ?? "");
    const bounds = { most: largest(route) + (isBare ? 0 : ENVELOPE_BYTES), withinMs: route?.bodyMs ?? 0 };
    return refusing(
      wholeBody(req, bounds, () => calls.bodyRead(call)),
      connectCall,
    );
  };

  const answer = async (connectCall: ConnectCall, req: Request, res: Response): Promise<UniversalServerResponse> => {
    const handler = handlers.get(`/${connectCall.call.method}`);
    if (handler === undefined) return { status: 404 };
    const contextValues = createContextValues().set(CALL, connectCall);
    let request: ReturnType<typeof universalRequestFromNodeRequest>;
    try {
      request = universalRequestFromNodeRequest(
        req as http.IncomingMessage,
        res as http.ServerResponse,
        undefined,
        contextValues,
      );
    } catch {
      connectCall.error = new CallRefused("invalid_argument", "expected a Host header that names a host, got none");
      return { status: 400 };
    }
    answerPlain(request.header);
    return await handler({ ...request, body: bodyOf(req, connectCall) });
  };

  /** The ways past the library, for calls of chunks in binary. */
  const waysOf = (call: Call, req: Request): Pick<ConnectCall, "detour" | "outlet"> => {
    const { metrics } = deps;
    if (deps.genericStreams || !mayDetour(req.headers["content-type"])) return {};
    if (call.method === WRITE_SEGMENT) {
      const bounds = {
        mostMessageBytes: largest(routeOf(call.method)),
        mostChunkBytes: deps.maxChunkSize,
        reuse: true,
      };
      return { detour: new ChunkDetour(req, { ...bounds, onBytes: (count) => metrics?.received(count) }) };
    }
    return call.method === READ_VERSION ? { outlet: new ChunkOutlet((count) => metrics?.sent(count)) } : {};
  };

  const serve = async (call: Call, req: Request, res: Response): Promise<void> => {
    const admitted = () => {
      if (call.principal !== undefined) deps.authenticated(req);
    };
    const connectCall: ConnectCall = {
      call,
      bodyBytes: announcedBytes(req),
      admitted,
      wasAsked: false,
      ...waysOf(call, req),
    };
    const isGone = watchEnd(res);
    let end: AnswerEnd | undefined;
    let fault: unknown;
    try {
      let answered = await answer(connectCall, req, res);
      // What the library refuses by itself (405, 415, 505) was never asked for its budget.
      if (!connectCall.wasAsked) answered = drawnFor(calls, connectCall, answered);
      const mended = await mendedAnswer(answered, call.door, (of) => {
        end = of;
      });
      mended.header?.delete(REQUEST_ID_HEADER);
      res.setHeader(REQUEST_ID_HEADER, call.requestId);
      if (!(await write(mended, res, isGone, connectCall.outlet))) end = undefined;
    } catch (error) {
      if (!isGone()) fault = error;
      if (!res.headersSent) res.statusCode = 500;
      res.end();
    }
    if (fault !== undefined) calls.end(call, { code: "internal", message: "", error: fault, isFault: true });
    else if (end === undefined) calls.end(call, { code: "canceled", message: "the client went away", isFault: false });
    else if (end.code === "ok") calls.end(call, { ...end, isFault: false });
    else {
      const { error } = connectCall;
      calls.end(call, { ...end, error, isFault: error !== undefined && isFault(error) });
    }
  };

  return (call, req, res) => void serve(call, req, res);
}

/** Passes a body on and keeps what it fails by, as an error that the library answers as it is. */
async function* refusing(body: AsyncIterable<Uint8Array>, connectCall: ConnectCall): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (error) {
    connectCall.error = error;
    throw toConnectError(error, connectCall.call.requestId);
  }
}

/** Draws for a request that is no call; its answer is another one when the budget is used up. */
function drawnFor(calls: Calls, connectCall: ConnectCall, answer: UniversalServerResponse): UniversalServerResponse {
  try {
    calls.draw(connectCall.call, "requests");
    return answer;
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    connectCall.error = error;
    const seconds = Math.ceil((error.retryAfterMs ?? 1000) / 1000);
    return { status: 429, header: new Headers({ "retry-after": String(seconds) }) };
  }
}

/** Watches a response. @returns whether it was closed, by its own end or because the client went away. */
function watchEnd(res: Response): () => boolean {
  let isClosed = false;
  res.once("close", () => {
    isClosed = true;
  });
  res.on("error", () => {});
  return () => isClosed;
}

/**
 * Writes an answer as fast as the client takes it. @returns whether all of it was handed over before the client went
 * away.
 */
async function write(
  answer: UniversalServerResponse,
  res: Response,
  isGone: () => boolean,
  outlet: ChunkOutlet | undefined,
): Promise<boolean> {
  const pieces = answer.body?.[Symbol.asyncIterator]();
  try {
    // Headers are sent after the first piece: until then, the use case can still refuse.
    let next = await pieces?.next();
    if (isGone()) return false;
    (res as http.ServerResponse).writeHead(answer.status, Object.fromEntries(answer.header ?? []));
    for (; next !== undefined && next.done !== true; next = await pieces?.next()) {
      if (!writePieces(res, outlet?.written(next.value) ?? [next.value])) await drained(res, isGone);
      if (isGone()) return false;
    }
    if (isGone()) return false;
    if (answer.trailer !== undefined) res.addTrailers(Object.fromEntries(answer.trailer));
    res.end();
    return true;
  } catch (error) {
    if (isGone()) return false;
    throw error;
  } finally {
    void pieces?.return?.().catch(() => {});
  }
}

/** @returns whether more may be written at once. */
function writePieces(res: Response, pieces: readonly Uint8Array[]): boolean {
  // So that all of them go in one write. Not over HTTP/1.1, where Node.js makes one chunk of its own of them, a copy,
  // and says nothing when that is drained.
  const corked = pieces.length > 1 && "stream" in res ? res.stream : undefined;
  corked?.cork();
  let more = true;
  for (const piece of pieces) more = (res as http.ServerResponse).write(piece);
  corked?.uncork();
  return more;
}

async function drained(res: Response, isGone: () => boolean): Promise<void> {
  if (isGone()) return;
  await new Promise<void>((resolve) => {
    const go = () => {
      res.off("drain", go);
      res.off("close", go);
      resolve();
    };
    res.on("drain", go);
    res.on("close", go);
  });
}

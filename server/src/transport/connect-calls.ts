import { type ConnectRouterOptions, type ContextValues, createContextKey, type Interceptor } from "@connectrpc/connect";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import type { ChunkDetour, ChunkOutlet } from "@strongroom/protocol/chunk-detour";
import { type Call, callerOf as callerOfCall } from "../calls/call.ts";
import type { Calls } from "../calls/calls.ts";
import { CallRefused } from "../calls/codes.ts";
import { countChunks } from "../calls/count-calls.ts";
import type { Metrics } from "../calls/metrics.ts";
import { plainText } from "../calls/plain-text.ts";
import { routeOf } from "../calls/routes.ts";
import type { Principal } from "../domain/access.ts";
import { refusePacked } from "./compression.ts";
import { toConnectError } from "./error-map.ts";

/** A call on its way through the Connect library. */
export interface ConnectCall {
  readonly call: Call;
  /** Size of its body as announced; undefined when it was not, 0 when there is none. */
  readonly bodyBytes: number | undefined;
  /** Takes the chunks of its body past the library; undefined for calls that have none, or in another form. */
  detour?: ChunkDetour | undefined;
  /** Takes the chunks of its answer past the library. */
  outlet?: ChunkOutlet | undefined;
  /** Called when it was let in. */
  readonly admitted: () => void;
  /** Whether its route was asked; not for requests that are no call at all. */
  wasAsked: boolean;
  /** What it failed by, before that became an answer. */
  error?: unknown;
}

/** Where the door leaves the call for the services. */
export const CALL = createContextKey<ConnectCall | undefined>(undefined, { description: "call" });

function connectCallOf(values: ContextValues): ConnectCall {
  const call = values.get(CALL);
  if (call === undefined) throw new Error("expected a call that was admitted by the door");
  return call;
}

/** The call that a message belongs to. */
export function callOf(values: ContextValues): Call {
  return connectCallOf(values).call;
}

/** The caller of a method that needs one. @throws DomainError AUTHENTICATION_REQUIRED */
export function callerOf(values: ContextValues): Principal {
  return callerOfCall(callOf(values));
}

/** The way of its body's chunks past the library, if they take it. */
export function detourOf(values: ContextValues): ChunkDetour | undefined {
  return connectCallOf(values).detour;
}

/** The way of its answer's chunks past the library, if they take it. */
export function outletOf(values: ContextValues): ChunkOutlet | undefined {
  return connectCallOf(values).outlet;
}

/** Network address of the caller. */
export function addressOf(values: ContextValues): string {
  return callOf(values).address;
}

/** Lets calls in before their body is read; a refusal is answered in the protocol that the caller speaks. */
export function requestGate(calls: Calls): NonNullable<ConnectRouterOptions["requestGate"]> {
  return async (context) => {
    const connectCall = connectCallOf(context.values);
    const { call, bodyBytes } = connectCall;
    const header = (name: string) => context.requestHeader.get(name) ?? undefined;
    connectCall.wasAsked = true;
    try {
      await calls.admit(call, { header, query: "", bodyBytes });
      connectCall.admitted();
      if (call.door === "connect") requireConnect(header);
      refusePacked(header, routeOf(call.method)?.gzip === true);
    } catch (error) {
      connectCall.error = error;
      throw toConnectError(error, call.requestId);
    }
  };
}

/**
 * What the Connect protocol says of its headers and the library does not ask: a version, where one is named, is "1",
 * and a timeout a positive number. @throws CallRefused invalid_argument
 */
function requireConnect(header: (name: string) => string | undefined): void {
  const version = header("connect-protocol-version") ?? "1";
  if (version !== "1")
    throw new CallRefused(
      "invalid_argument",
      `expected connect-protocol-version 1, or none, got ${plainText(version, 40)}; this server speaks no other`,
    );
  if (/^0+$/.test(header("connect-timeout-ms") ?? ""))
    throw new CallRefused(
      "invalid_argument",
      "expected at least 1 as connect-timeout-ms, got 0; leave it out for no end",
    );
}

/**
 * Turns errors of use cases into Connect errors, also those that surface while a stream is iterated; counts bytes, and
 * draws for messages of streams.
 */
export function callInterceptor(calls: Calls, metrics: Metrics | undefined): Interceptor {
  return (next) => async (req) => {
    const connectCall = connectCallOf(req.contextValues);
    const { call } = connectCall;
    const failed = (error: unknown) => {
      connectCall.error = error;
      return toConnectError(error, call.requestId);
    };
    const draws = routeOf(call.method)?.drawsPerMessage === true;
    const asks = req.method.methodKind === "bidi_streaming";
    const incoming = <T>(messages: AsyncIterable<T>): AsyncIterable<T> => {
      if (metrics !== undefined && req.method === UploadService.method.writeSegment)
        return countChunks(messages, (n) => metrics.received(n));
      return draws && asks ? drawn(messages, calls, call) : messages;
    };
    const outgoing = <T>(messages: AsyncIterable<T>): AsyncIterable<T> => {
      if (metrics !== undefined && req.method === VersionService.method.readVersion)
        return countChunks(messages, (n) => metrics.sent(n));
      return draws && !asks ? drawn(messages, calls, call) : messages;
    };
    try {
      const res = await next(req.stream ? ({ ...req, message: incoming(req.message) } as typeof req) : req);
      return res.stream ? { ...res, message: mapped(outgoing(res.message), failed) } : res;
    } catch (error) {
      throw failed(error);
    }
  };
}

/**
 * Draws from the caller's budget for each message but the first, which the call itself drew for. @throws DomainError
 * RATE_LIMITED
 */
async function* drawn<T>(messages: AsyncIterable<T>, calls: Calls, call: Call): AsyncGenerator<T> {
  let isFirst = true;
  for await (const message of messages) {
    if (!isFirst) calls.draw(call);
    isFirst = false;
    yield message;
  }
}

async function* mapped<T>(messages: AsyncIterable<T>, failed: (error: unknown) => unknown): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw failed(error);
  }
}

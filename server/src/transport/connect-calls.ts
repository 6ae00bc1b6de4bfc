import { Code, ConnectError, type ContextValues, createContextKey, type Interceptor } from "@connectrpc/connect";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { type Call, callerOf as callerOfCall } from "../calls/call.ts";
import type { Ending } from "../calls/call-log.ts";
import type { Calls } from "../calls/calls.ts";
import { countChunks } from "../calls/count-calls.ts";
import type { Metrics } from "../calls/metrics.ts";
import type { Principal } from "../domain/access.ts";
import { codeName, isFault, toConnectError } from "./error-map.ts";

/** Where the door leaves the call for the services. */
export const CALL = createContextKey<Call | undefined>(undefined, { description: "call" });

/** The call that a message belongs to. */
export function callOf(values: ContextValues): Call {
  const call = values.get(CALL);
  if (call === undefined) throw new Error("expected a call that came through the door");
  return call;
}

/** The caller of a method that needs one. @throws DomainError AUTHENTICATION_REQUIRED */
export function callerOf(values: ContextValues): Principal {
  return callerOfCall(callOf(values));
}

/** Network address of the caller. */
export function addressOf(values: ContextValues): string {
  return callOf(values).address;
}

/** Lets calls in, turns errors into Connect errors, also those that surface while a stream is iterated, and ends calls. */
export function callInterceptor(calls: Calls, metrics: Metrics | undefined): Interceptor {
  return (next) => async (req) => {
    const call = callOf(req.contextValues);
    const finish = (error?: unknown) => calls.end(call, endingOf(error, call));
    try {
      await calls.admit(call, (name) => req.header.get(name) ?? undefined);
      const received = metrics !== undefined && req.stream && req.method === UploadService.method.writeSegment;
      const res = await next(
        received ? ({ ...req, message: countChunks(req.message, (n) => metrics.received(n)) } as typeof req) : req,
      );
      res.header.set(REQUEST_ID_HEADER, call.requestId);
      if (!res.stream) {
        finish();
        return res;
      }
      const sent = metrics !== undefined && req.method === VersionService.method.readVersion;
      const message = sent ? countChunks(res.message, (n) => metrics.sent(n)) : res.message;
      return { ...res, message: mapped(message, call, finish) };
    } catch (error) {
      finish(error);
      throw toConnectError(error, call.requestId);
    }
  };
}

function endingOf(error: unknown, call: Call): Ending {
  if (error === undefined) return { code: "ok", message: "", isFault: false };
  const { code, rawMessage } = toConnectError(error, call.requestId);
  return { code: codeName(code), message: rawMessage, error, isFault: isFault(error) };
}

async function* mapped<T>(
  messages: AsyncIterable<T>,
  call: Call,
  finish: (error?: unknown) => void,
): AsyncGenerator<T> {
  let outcome: { error: unknown } | undefined = { error: new ConnectError("the client went away", Code.Canceled) };
  try {
    yield* messages;
    outcome = undefined;
  } catch (error) {
    outcome = { error };
    throw toConnectError(error, call.requestId);
  } finally {
    finish(outcome?.error);
  }
}

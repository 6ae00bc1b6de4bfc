import { randomUUID } from "node:crypto";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import type { Log } from "../app/settings.ts";
import { ADDRESS, PRINCIPAL, REQUEST_ID } from "./call-context.ts";
import { isFault, toConnectError } from "./error-map.ts";

/**
 * The outermost interceptor: names the call, turns errors into Connect errors, also those that surface while a stream is iterated, and logs one
 * line for each call. Neither messages nor headers are logged.
 */
export function callLogInterceptor(log: Log): Interceptor {
  return (next) => async (req) => {
    const started = performance.now();
    const requestId = acceptedId(req.header.get(REQUEST_ID_HEADER)) ?? randomUUID();
    req.contextValues.set(REQUEST_ID, requestId);

    const finish = (error?: unknown) => {
      const fields: Record<string, unknown> = {
        request_id: requestId,
        method: `${req.service.typeName}/${req.method.name}`,
        address: req.contextValues.get(ADDRESS),
        user: req.contextValues.get(PRINCIPAL)?.user.name,
        ms: Math.round(performance.now() - started),
      };
      if (error === undefined) {
        log.info({ ...fields, code: "ok" }, "call");
        return;
      }
      const answer = toConnectError(error, requestId);
      fields.code = Code[answer.code];
      if (isFault(error)) log.error({ ...fields, err: error }, "call failed by a fault of the server");
      else if (answer.code === Code.Unavailable) log.warn({ ...fields, err: error }, `call: ${answer.rawMessage}`);
      else log.info(fields, `call: ${answer.rawMessage}`);
    };

    try {
      const res = await next(req);
      res.header.set(REQUEST_ID_HEADER, requestId);
      if (!res.stream) {
        finish();
        return res;
      }
      return { ...res, message: mapped(res.message, requestId, finish) };
    } catch (error) {
      finish(error);
      throw toConnectError(error, requestId);
    }
  };
}

async function* mapped<T>(
  messages: AsyncIterable<T>,
  requestId: string,
  finish: (error?: unknown) => void,
): AsyncGenerator<T> {
  let outcome: { error: unknown } | undefined = { error: new ConnectError("the client went away", Code.Canceled) };
  try {
    yield* messages;
    outcome = undefined;
  } catch (error) {
    outcome = { error };
    throw toConnectError(error, requestId);
  } finally {
    finish(outcome?.error);
  }
}

/** A client's own request id, if it is short and harmless in logs. */
function acceptedId(given: string | null): string | undefined {
  return given !== null && /^[\w.:-]{1,64}$/.test(given) ? given : undefined;
}

import type { Log } from "../app/settings.ts";
import type { Call } from "./call.ts";
import type { CodeName } from "./codes.ts";
import { plainError, plainText } from "./plain-text.ts";
import { routeOf } from "./routes.ts";

/** How a call ended. */
export interface Ending {
  readonly code: CodeName | "ok";
  /** What was said to the caller, whose own words may be in it; empty when the call was answered. */
  readonly message: string;
  /** What it failed by. */
  readonly error?: unknown;
  /** Whether that is a fault of the server rather than an answer to the caller. */
  readonly isFault: boolean;
}

/**
 * Writes one line for a call that ended. Neither messages nor headers are logged, and of what the caller sent no more
 * than fits one short line.
 */
export function logCall(log: Log, call: Call, { code, message, error, isFault }: Ending): void {
  const fields = {
    request_id: call.requestId,
    door: call.door,
    method: call.method,
    address: call.address,
    user: call.principal?.user.name,
    ms: Math.round(performance.now() - call.startedAt),
    code,
  };
  // Probes ask every few seconds; what they are told is logged when it changes.
  if (code === "ok" && routeOf(call.method)?.isProbe === true) log.debug(fields, "call");
  else if (code === "ok") log.info(fields, "call");
  else if (isFault) log.error({ ...fields, err: plainError(error) }, "call failed by a fault of the server");
  else if (code === "unavailable" && error !== undefined)
    log.warn({ ...fields, err: plainError(error) }, `call: ${plainText(message)}`);
  else log.info(fields, `call: ${plainText(message)}`);
}

/** Which failures may be tried again, and which speak against the server that gave them. */
import { Code, ConnectError } from "@connectrpc/connect";
import { AuthenticationError, StrongroomError } from "../errors.ts";
import { connectFailure, isTlsFailure, passes, serverReason } from "./error-mapping.ts";
import { foreignAnswer, mayPass } from "./foreign-answer.ts";

/**
 * How an error is retried: not at all; only a few times (the same may come again); only a few times because the session
 * may be refreshed by then; patiently, but only when an upload is open; a few times before anything is open and patiently
 * afterwards (what is wrong with TLS or the protocol most likely is a wrong address, unless it worked before); or
 * patiently.
 */
export type RetryKind = "no" | "few" | "session" | "open" | "connect" | "patient";

const RETRY_BY_REASON: Readonly<Record<string, RetryKind>> = {
  STORE_UNAVAILABLE: "patient",
  DATABASE_UNAVAILABLE: "patient",
  SHUTTING_DOWN: "patient",
  CONFIGURATION_OUTDATED: "patient",
  LOGIN_BUSY: "patient",
  RATE_LIMITED: "patient",
  SEGMENT_IDLE: "patient",
  // Bytes changed or lost under way; another try is cheap, but a fault of this machine would never end.
  SEGMENT_DIGEST_MISMATCH: "few",
  SEGMENT_SIZE_MISMATCH: "few",
  SEGMENT_FRAMES_INVALID: "few",
  SEGMENT_SUPERSEDED: "few",
  CALL_MALFORMED: "few",
  INTERNAL: "few",
  SESSION_INVALID: "session",
  AUTHENTICATION_REQUIRED: "session",
  // An upload whose lease ran out, as when a clock leaps, gets its place again when one is free.
  COLLECTION_BUSY: "open",
};

/** Codes with which a proxy refuses for good, when no Strongroom server said anything. */
const FINAL_CODES: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
  Code.DataLoss,
  Code.Unauthenticated,
]);

/** Tells how an error is retried. */
export function retryKind(error: unknown): RetryKind {
  if (error instanceof StrongroomError) return error instanceof AuthenticationError ? "session" : "no";
  if (!(error instanceof ConnectError)) return "no";
  if (error.cause instanceof StrongroomError) return retryKind(error.cause);
  const reason = serverReason(error);
  if (reason !== undefined) {
    return RETRY_BY_REASON[reason] ?? (error.code === Code.Unavailable ? "patient" : "no");
  }
  const failure = connectFailure(error);
  if (failure !== undefined) return passes(failure) ? "patient" : "connect";
  if (isTlsFailure(error)) return "connect";
  const answer = foreignAnswer(error);
  if (answer !== undefined) return mayPass(answer) ? "patient" : "no";
  // The stock client reports an answer that was cut off as a protocol error.
  const cut = error.code === Code.InvalidArgument && error.rawMessage.startsWith("protocol error");
  if (FINAL_CODES.has(error.code) && !cut) return "no";
  // None of our answers, and none of a proxy: the connection broke, or nothing came in time.
  return "patient";
}

/** Reasons that are about the caller, not about the server that gave them: another server would say the same. */
const SAME_ELSEWHERE: ReadonlySet<string> = new Set(["LOGIN_BUSY", "SEGMENT_IDLE"]);

/** Whether a failure speaks against the server, or the way to it, so that another address may do better. */
export function leavesServer(error: unknown): boolean {
  const kind = retryKind(error);
  if (kind === "connect") return true;
  const reason = error instanceof ConnectError ? serverReason(error) : undefined;
  return kind === "patient" && !(reason !== undefined && SAME_ELSEWHERE.has(reason));
}

/**
 * Turns what the Connect client throws into the errors of {@link ./errors.ts}, and tells how the server or the network
 * put it.
 */

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RequestInfoSchema, RetryInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { ERROR_DOMAIN, REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import {
  AccessDeniedError,
  AuthenticationError,
  IntegrityError,
  InvalidRequestError,
  NotFoundError,
  PolicyRefusedError,
  QuotaExceededError,
  StrongroomError,
  type StrongroomErrorDetails,
  UnavailableError,
} from "../errors.ts";
import { describeAnswer, foreignAnswer } from "./foreign-answer.ts";
import { PROXY_PREFIX } from "./proxy.ts";

/** Where a failed call went, for the message. */
export interface CallContext {
  /** Address of the server, without credentials. */
  url?: string;
}

/**
 * Errors of name resolution and of connecting: the server was not reached at all, so nothing can have happened there.
 */
const CONNECT_FAILURES: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection was refused; check the address and that the server is running",
  ENOTFOUND: "the host name is not known; check the address",
  EAI_AGAIN: "the host name could not be looked up; check the network and the name server",
  EHOSTUNREACH: "there is no route to the host; check the address and the network",
  ENETUNREACH: "the network is unreachable; check the network",
  EADDRNOTAVAIL: "the address cannot be used from here; check the address",
  ETIMEDOUT: "nothing answered in time; check the address, the network and firewalls",
  ERR_SSL_WRONG_VERSION_NUMBER:
    "the server does not speak TLS there; the address should begin with http://, or name the port that does",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    "the server takes only clients with a certificate; give one (--tls-cert and --tls-key, tls.certificate and " +
    "tls.key in the SDK)",
  INADEQUATE_SECURITY: "the server speaks TLS there; the address should begin with https://",
  EPROTO: "the TLS handshake failed; check whether the address should begin with http:// or https://",
  ERR_HTTP2_ERROR: "what listens there does not speak HTTP/2; check address and port, and proxies on the way",
  HPE_INVALID_CONSTANT: "what listens there speaks neither HTTP/2 nor HTTP/1.1; check address and port",
  HPE_INVALID_VERSION: "what listens there speaks neither HTTP/2 nor HTTP/1.1; check address and port",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed; trust it by --tls-ca FILE (in the SDK: tls.ca)",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate comes from an unknown CA; name the CA (--tls-ca, tls.ca in the SDK)",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    "its certificate comes from an unknown CA; name the CA (--tls-ca, tls.ca in the SDK)",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate comes from an unknown CA; name the CA (--tls-ca, tls.ca in the SDK)",
  CERT_HAS_EXPIRED: "its certificate has expired; renew it on the server",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name; check the address",
};

/** Failures that end by themselves: the network, the name server or the server is away for a while. */
const PASSING_FAILURES: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "ETIMEDOUT",
]);

/** Whether a failure to connect may end by itself, unlike one of TLS or of the protocol. */
export function passes(failure: string): boolean {
  return PASSING_FAILURES.has(failure);
}

/** Codes of OpenSSL for handshakes and certificates, beyond those that have words of their own. */
const TLS_CODE = /^(ERR_(SSL|TLS)_\w+|CERT_\w+|UNABLE_TO_\w+|INVALID_CA|HOSTNAME_MISMATCH|PATH_LENGTH_EXCEEDED)$/;

/** Whether an error is about TLS: who the other end is, or whom it lets in. */
export function isTlsFailure(error: unknown): boolean {
  for (let e: unknown = error, depth = 0; e instanceof Error && depth < 8; e = e.cause, depth++) {
    const code = (e as { code?: unknown }).code;
    if (typeof code === "string" && TLS_CODE.test(code)) return true;
  }
  return false;
}

/** The system's code of a failure to connect (`ECONNREFUSED`, ...), or undefined when the error is of another kind. */
export function connectFailure(error: unknown): string | undefined {
  // An error over several addresses of one name (AggregateError) carries the code itself.
  for (let e: unknown = error, depth = 0; e instanceof Error && depth < 8; e = e.cause, depth++) {
    const code = (e as { code?: unknown }).code;
    // How a Strongroom server refuses plain HTTP/2 on its TLS port: GOAWAY with error code 12 (RFC 9113, section 7).
    if (code === "ERR_HTTP2_SESSION_ERROR" && / code (12|NGHTTP2_INADEQUATE_SECURITY)$/.test(e.message))
      return "INADEQUATE_SECURITY";
    if (typeof code === "string" && Object.hasOwn(CONNECT_FAILURES, code)) return code;
  }
  return undefined;
}

/**
 * `ErrorInfo.reason` when a Strongroom server answered; undefined when the network, a proxy or the client's own stack
 * made the error.
 */
export function serverReason(error: ConnectError): string | undefined {
  return error.findDetails(ErrorInfoSchema).find((info) => info.domain === ERROR_DOMAIN)?.reason;
}

function detailsOf(error: ConnectError): StrongroomErrorDetails {
  const info = error.findDetails(ErrorInfoSchema).find((i) => i.domain === ERROR_DOMAIN);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const details: StrongroomErrorDetails = {
    code: codeName(error.code),
    reason: info?.reason ?? "",
    metadata: info === undefined ? {} : { ...info.metadata },
    requestId: error.findDetails(RequestInfoSchema)[0]?.requestId || (error.metadata.get(REQUEST_ID_HEADER) ?? ""),
    cause: error,
  };
  if (delay !== undefined) details.retryAfterMs = Number(delay.seconds) * 1000 + Math.ceil(delay.nanos / 1e6);
  return details;
}

function codeName(code: Code): string {
  return (Code[code] ?? "Unknown").replace(/(?<!^)[A-Z]/g, (c) => `_${c}`).toLowerCase();
}

type ErrorClass = new (message: string, details: StrongroomErrorDetails) => StrongroomError;

/** Reasons whose class does not follow from the Connect code. */
const CLASS_BY_REASON: Readonly<Record<string, ErrorClass>> = {
  QUOTA_EXCEEDED: QuotaExceededError,
  CIPHERTEXT_REFUSED: PolicyRefusedError,
  COLLECTION_BUSY: PolicyRefusedError,
  CONFIGURATION_CONFLICT: PolicyRefusedError,
  LOGIN_BUSY: UnavailableError,
  RATE_LIMITED: UnavailableError,
  CALL_TOO_LARGE: InvalidRequestError,
  VERSION_DAMAGED: IntegrityError,
};

const CLASS_BY_CODE: Readonly<Record<Code, ErrorClass>> = {
  [Code.Canceled]: UnavailableError,
  [Code.Unknown]: UnavailableError,
  [Code.InvalidArgument]: InvalidRequestError,
  [Code.DeadlineExceeded]: UnavailableError,
  [Code.NotFound]: NotFoundError,
  [Code.AlreadyExists]: InvalidRequestError,
  [Code.PermissionDenied]: AccessDeniedError,
  [Code.ResourceExhausted]: UnavailableError,
  [Code.FailedPrecondition]: PolicyRefusedError,
  [Code.Aborted]: UnavailableError,
  [Code.OutOfRange]: InvalidRequestError,
  [Code.Unimplemented]: InvalidRequestError,
  [Code.Internal]: UnavailableError,
  [Code.Unavailable]: UnavailableError,
  [Code.DataLoss]: IntegrityError,
  [Code.Unauthenticated]: AuthenticationError,
};

/**
 * Turns any thrown value into a {@link StrongroomError}: one that is already is returned as it is, an error of a
 * Connect call becomes the class that fits its reason or code, anything else a plain `StrongroomError` with the value
 * as its `cause`.
 */
export function toStrongroomError(error: unknown, context: CallContext = {}): StrongroomError {
  if (error instanceof StrongroomError) return error;
  if (!(error instanceof ConnectError)) {
    const message = error instanceof Error ? error.message : String(error);
    const canceled = error instanceof Error && error.name === "AbortError";
    return new StrongroomError(message, { code: canceled ? "canceled" : "unknown", cause: error });
  }
  // An interceptor's own error (for example of the token function) arrives wrapped.
  if (error.cause instanceof StrongroomError) return error.cause;
  const details = detailsOf(error);
  // What a proxy refuses is not about this user's rights at the server.
  if (error.rawMessage.startsWith(PROXY_PREFIX))
    return new UnavailableError(foreignMessage(error, context, details.requestId), details);
  if (details.reason && details.reason !== "CALL_UNKNOWN") {
    const type = CLASS_BY_REASON[details.reason] ?? CLASS_BY_CODE[error.code] ?? StrongroomError;
    return new type(`${sentence(error.rawMessage)}${suffix(details.requestId)}`, details);
  }
  const answer = connectFailure(error) === undefined ? foreignAnswer(error) : undefined;
  // Whatever the status means, it is not about this user's rights: the server was not reached.
  // Nor about what was asked: a proxy that lost its server answers 404 to calls that were right.
  if (answer?.status === 404) return new UnavailableError(foreignMessage(error, context, details.requestId), details);
  if (answer !== undefined) return new UnavailableError(describeAnswer(answer, context.url ?? "the address"), details);
  return new (CLASS_BY_CODE[error.code] ?? StrongroomError)(foreignMessage(error, context, details.requestId), details);
}

/** Words for an error that no Strongroom server made. */
function foreignMessage(error: ConnectError, context: CallContext, requestId: string | undefined): string {
  const where = context.url === undefined ? "the server" : context.url;
  const failure = connectFailure(error);
  if (error.rawMessage.startsWith(PROXY_PREFIX)) return `Cannot reach ${where}: ${sentence(error.rawMessage)}`;
  if (failure !== undefined) return `Cannot reach ${where}: ${CONNECT_FAILURES[failure]} (${failure}).`;
  if (error.code === Code.Unimplemented && requestId) return olderServer(where, "does not know this call", requestId);
  if (error.code === Code.Unimplemented || error.code === Code.NotFound) {
    return (
      `Expected a Strongroom server at ${where}, but it does not know this call; check the address and the ` +
      `server's version. It said: ${sentence(error.rawMessage)}${suffix(requestId)}`
    );
  }
  return `The call to ${where} failed: ${sentence(error.rawMessage)}${suffix(requestId)}`;
}

/**
 * Words for what a Strongroom server of an earlier version cannot do.
 * @param lacks such as "does not know this call".
 */
export function olderServer(where: string, lacks: string, requestId?: string): string {
  return (
    `The server at ${where} ${lacks}: it is older than this program. Upgrade the server, or use the program of its ` +
    `version.${suffix(requestId)}`
  );
}

function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed === "" ? "no message was given." : /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

function suffix(requestId: string | undefined): string {
  return requestId ? ` (request ${requestId})` : "";
}

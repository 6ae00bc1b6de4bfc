import { CallRefused, type CodeName, codeOf } from "../../calls/codes.ts";
import { MAX_ERROR_LENGTH, plainText } from "../../calls/plain-text.ts";
import { DomainError } from "../../domain/errors.ts";

/** An answer of the HTTP API. */
export interface ApiAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON, or bytes as they come; what they fail by cuts the answer off. */
  readonly body: Readonly<Record<string, unknown>> | AsyncIterable<Uint8Array>;
  /** How the call ended. */
  readonly code: CodeName | "ok";
  readonly message: string;
  /** What it failed by. */
  readonly error?: unknown;
}

/** How a route says what it refuses: the status and the words that existing clients look for. */
export type Wording = (error: DomainError | Error) => { readonly status: number; readonly error: string } | undefined;

/** The usual answer. */
export function success(
  data: Readonly<Record<string, unknown>>,
  more: Readonly<Record<string, unknown>> = {},
): ApiAnswer {
  return { status: 200, body: { status: true, data, ...more }, code: "ok", message: "" };
}

/** A time as RFC 3339 in whole seconds, as `date` and Go's usual form have it. */
export function rfc3339(time: Date): string {
  return time.toISOString().replace(/\.\d+Z$/, "Z");
}

/** A refusal with this status and these words. */
export function refusal(
  status: number,
  error: string,
  more: Partial<Pick<ApiAnswer, "headers" | "code" | "error">> & { readonly data?: Record<string, unknown> } = {},
): ApiAnswer {
  const { data = {}, ...rest } = more;
  const text = plainText(error, MAX_ERROR_LENGTH);
  return { status, body: { status: false, error: text, data }, code: "unknown", message: text, ...rest };
}

const STATUSES: Readonly<Partial<Record<CodeName, number>>> = {
  invalid_argument: 400,
  permission_denied: 403,
  not_found: 404,
  resource_exhausted: 413,
  out_of_range: 416,
  unimplemented: 404,
};

/** The answer to what was refused or failed. */
export function answerTo(error: unknown, wording: Wording): ApiAnswer {
  const code = codeOf(error);
  if (!(error instanceof Error) || code === undefined)
    return refusal(500, "a fault of the server; its log says more", { code: "internal", error });
  if (code === "deadline_exceeded") return refusal(408, "Request took too long", { code, error });
  if (error instanceof DomainError) {
    if (code === "unauthenticated") return unauthenticated(error, wording(error)?.error ?? error.message);
    if (error.reason === "RATE_LIMITED" || error.reason === "LOGIN_BUSY") return tooMany(error);
  }
  const worded = wording(error);
  const status =
    worded?.status ?? (error instanceof CallRefused || code !== "resource_exhausted" ? STATUSES[code] : 500);
  const headers = retryAfter(error);
  return refusal(status ?? 500, worded?.error ?? error.message, { code, error, headers });
}

/** As the library of the older server says it. */
function unauthenticated(error: DomainError, message: string): ApiAnswer {
  const text = plainText(message, MAX_ERROR_LENGTH);
  return {
    status: 401,
    headers: { "www-authenticate": 'Bearer realm="strongroom"' },
    body: { status: false, code: 401, message: text, data: {} },
    code: "unauthenticated",
    message: text,
    error,
  };
}

function tooMany(error: DomainError): ApiAnswer {
  const limit = /^(\d+)\//.exec(error.metadata.limit ?? "")?.[1];
  const headers = {
    ...(limit === undefined ? {} : { "x-ratelimit-limit": limit }),
    "x-ratelimit-remaining": "0",
    ...retryAfter(error),
  };
  return refusal(429, error.message, { headers, code: "resource_exhausted", error });
}

function retryAfter(error: Error): Record<string, string> {
  const ms = error instanceof DomainError ? error.retryAfterMs : undefined;
  return ms === undefined ? {} : { "retry-after": String(Math.ceil(ms / 1000)) };
}

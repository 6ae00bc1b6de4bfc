import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import type { ReadinessCheck } from "../app/upkeep/readiness.ts";
import type { Call } from "../calls/call.ts";
import type { Calls } from "../calls/calls.ts";
import { type CodeName, codeOf } from "../calls/codes.ts";
import { HTTP_ROUTES } from "../calls/routes.ts";
import { DomainError } from "../domain/errors.ts";
import type { CallHandler } from "./connect-door.ts";
import type { CrossOrigin } from "./cors.ts";
import type { RequestHandler } from "./listener.ts";
import { announcedBytes } from "./request-body.ts";

/** What the endpoints for monitoring show. */
export interface Monitoring {
  /** Whether there is a secret; nothing but yes or no is shown without one. */
  readonly hasSecret: boolean;
  /** Whether the server is on its way out, and clients should go elsewhere. */
  readonly stopping: () => boolean;
  /** The conditions of taking calls. */
  readonly ready: () => Promise<readonly ReadinessCheck[]>;
  /** Prometheus' metrics; undefined when they are not served. */
  readonly metrics: { readonly contentType: string; scrape(): Promise<string> } | undefined;
}

/** A plain HTTP answer. */
interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** How the call ended. */
  readonly code: CodeName | "ok";
  readonly message: string;
  /** What it failed by. */
  readonly error?: unknown;
}

/** Names of the checks as the HTTP API of Backup Repository has them. */
const CHECK_NAMES: Readonly<Record<ReadinessCheck["name"], string>> = {
  database: "DbValidator",
  storage: "StorageAvailabilityValidator",
  configuration: "ConfigurationProviderValidator",
  clock: "ClockValidator",
};

const ENDPOINTS: Readonly<Record<string, (monitoring: Monitoring) => Promise<Answer>>> = {
  "/health": async () => success({ msg: "The server is up and running. What it depends on is shown by /ready" }),
  "/ready": ready,
  "/metrics": metrics,
};

/** Whether a path is one of plain HTTP. */
export function isHttpPath(path: string): boolean {
  return Object.hasOwn(HTTP_ROUTES, path);
}

/** Answers plain HTTP for monitoring: `/health`, `/ready`, `/metrics`. */
export function httpDoor(monitoring: Monitoring, calls: Calls): CallHandler {
  return (call, req, res) =>
    void respond(calls, call, [req, res], async () => await answerOf(monitoring, calls, call, req));
}

/** Answers a preflight, before the caller is known. */
export function preflightDoor(crossOrigin: CrossOrigin, calls: Calls): CallHandler {
  return (call, req, res) =>
    void respond(calls, call, [req, res], async () => {
      calls.draw(call, "requests");
      if (!crossOrigin.allow(req, res)) return failure(405, "only POST is answered here", { allow: "POST" });
      crossOrigin.describe(req, res);
      return { status: 204, body: "", code: "ok", message: "" };
    });
}

async function answerOf(
  monitoring: Monitoring,
  calls: Calls,
  call: Call,
  req: Parameters<RequestHandler>[0],
): Promise<Answer> {
  if (req.method !== "GET" && req.method !== "HEAD") {
    calls.draw(call, "requests");
    return failure(405, "only GET and HEAD are answered here", { allow: "GET, HEAD" });
  }
  if (call.method === "/metrics" && monitoring.metrics === undefined) {
    calls.draw(call);
    return failure(404, "not found");
  }
  await calls.admit(call, {
    header: (name) => req.headers[name] as string | undefined,
    query: (req.url ?? "").split("?").slice(1).join("?"),
    bodyBytes: announcedBytes(req),
  });
  return await ENDPOINTS[call.method]!(monitoring);
}

/** Writes the answer, and ends the call. */
async function respond(
  calls: Calls,
  call: Call,
  [req, res]: Parameters<RequestHandler>,
  answer: () => Promise<Answer>,
): Promise<void> {
  const { status, body, headers, code, message, error } = await answer().catch(refusal);
  try {
    const bytes = Buffer.from(body);
    res.statusCode = status;
    const type = body === "" ? {} : JSON_HEADERS;
    const all = { ...type, ...headers, "content-length": String(bytes.length), "cache-control": "no-store" };
    for (const [name, value] of Object.entries(all)) res.setHeader(name, value);
    res.setHeader(REQUEST_ID_HEADER, call.requestId);
    if (req.method === "HEAD") res.end();
    else res.end(bytes);
  } catch {
    // Nobody is there any more to be answered.
  }
  calls.end(call, { code, message, error, isFault: error !== undefined && codeOf(error) === undefined });
}

const JSON_HEADERS = { "content-type": "application/json; charset=utf-8" } as const;

async function ready(monitoring: Monitoring): Promise<Answer> {
  if (monitoring.stopping()) return failure(500, "the server is stopping");
  const checks = await monitoring.ready();
  const isReady = checks.every((check) => check.ok || check.isRemark === true);
  // Without a secret anyone may ask, and learns no more than a load balancer needs.
  const data = monitoring.hasSecret ? { health: checks.map(statusOf) } : {};
  return isReady ? success(data) : failure(500, "one of the checks failed", {}, data);
}

function statusOf({ name, ok, message }: ReadinessCheck) {
  return { name: CHECK_NAMES[name], status: ok, statusText: `${CHECK_NAMES[name]}=${ok}`, message };
}

async function metrics({ metrics }: Monitoring): Promise<Answer> {
  if (metrics === undefined) return failure(404, "not found");
  const headers = { "content-type": metrics.contentType };
  return { status: 200, body: await metrics.scrape(), headers, code: "ok", message: "" };
}

/** The answer to a call that was not let in, or failed. */
function refusal(error: unknown): Answer {
  if (!(error instanceof DomainError)) return { ...failure(500, "a fault of the server"), code: "internal", error };
  const answer =
    codeOf(error) === "unauthenticated"
      ? failure(401, error.message, { "www-authenticate": 'Bearer realm="monitoring"' })
      : failure(429, error.message, { "retry-after": String(Math.ceil((error.retryAfterMs ?? 1000) / 1000)) });
  return { ...answer, error };
}

function success(data: Readonly<Record<string, unknown>>): Answer {
  return { status: 200, body: json({ status: true, data }), code: "ok", message: "" };
}

/** What the statuses mean that are answered here; a server that is not ready is unavailable. */
const CODES: Readonly<Record<number, CodeName>> = {
  401: "unauthenticated",
  404: "unimplemented",
  405: "unimplemented",
  429: "resource_exhausted",
  500: "unavailable",
};

function failure(
  status: number,
  error: string,
  headers: Readonly<Record<string, string>> = {},
  data: Readonly<Record<string, unknown>> = {},
): Answer {
  return {
    status,
    body: json({ status: false, error, data }),
    headers,
    code: CODES[status] ?? "unknown",
    message: error,
  };
}

function json(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

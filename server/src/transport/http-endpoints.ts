import { createHash, timingSafeEqual } from "node:crypto";
import type { ReadinessCheck } from "../app/upkeep/readiness.ts";
import { DomainError } from "../domain/errors.ts";
import type { RequestHandler } from "./listener.ts";

/** What the endpoints for monitoring show. */
export interface Monitoring {
  /** SHA-256 of the secret in hexadecimal; undefined when there is none, and nothing is told then. */
  readonly secretSha256: string | undefined;
  /** Whether the server is on its way out, and clients should go elsewhere. */
  readonly stopping: () => boolean;
  /** Takes from the caller's budget of health checks, since a secret can be guessed. @throws DomainError RATE_LIMITED */
  readonly take: (req: Parameters<RequestHandler>[0]) => void;
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
}

type Endpoint = (req: Parameters<RequestHandler>[0]) => Promise<Answer>;

/** Names of the checks as the HTTP API of Backup Repository has them. */
const CHECK_NAMES: Readonly<Record<ReadinessCheck["name"], string>> = {
  database: "DbValidator",
  storage: "StorageAvailabilityValidator",
  configuration: "ConfigurationProviderValidator",
};

/** A header longer than this is no secret of ours. */
const MAX_SECRET_LENGTH = 1024;

/**
 * Answers plain HTTP for monitoring (`/health`, `/ready`, `/metrics`) and hands every other request on. Addresses are never logged, since `?code=` is
 * a secret.
 */
export function withHttpEndpoints(monitoring: Monitoring, next: RequestHandler): RequestHandler {
  const endpoints = new Map<string, Endpoint>([
    ["/health", async () => success({ msg: "The server is up and running. What it depends on is shown by /ready" })],
    ["/ready", limited(monitoring, ready)],
    ["/metrics", limited(monitoring, metrics)],
  ]);
  return (req, res) => {
    const endpoint = endpoints.get((req.url ?? "").split("?", 1)[0]!);
    if (endpoint === undefined) return next(req, res);
    // A body nobody asked for must not keep the connection busy.
    req.resume();
    const isRead = req.method === "GET" || req.method === "HEAD";
    const answer = isRead ? endpoint(req) : Promise.resolve(failure(405, "only GET and HEAD are answered here", ALLOW));
    void answer
      .catch(() => failure(500, "a fault of the server"))
      .then(({ status, body, headers }) => {
        const bytes = Buffer.from(body);
        res.statusCode = status;
        const all = {
          ...JSON_HEADERS,
          ...headers,
          "content-length": String(bytes.length),
          "cache-control": "no-store",
        };
        for (const [name, value] of Object.entries(all)) res.setHeader(name, value);
        if (req.method === "HEAD") res.end();
        else res.end(bytes);
      })
      // Nobody is there any more to be answered.
      .catch(() => {});
  };
}

/** An endpoint that takes from the caller's budget first. `/health` does not: what keeps a process alive must not hang on who else asks. */
function limited(
  monitoring: Monitoring,
  answer: (monitoring: Monitoring, req: Parameters<RequestHandler>[0]) => Promise<Answer>,
): Endpoint {
  return async (req) => {
    try {
      monitoring.take(req);
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      const seconds = Math.ceil((error.retryAfterMs ?? 1000) / 1000);
      return failure(429, error.message, { "retry-after": String(seconds) });
    }
    return await answer(monitoring, req);
  };
}

const JSON_HEADERS = { "content-type": "application/json; charset=utf-8" } as const;
const ALLOW = { allow: "GET, HEAD" } as const;

async function ready(monitoring: Monitoring, req: Parameters<RequestHandler>[0]): Promise<Answer> {
  if (monitoring.secretSha256 !== undefined && !hasSecret(monitoring.secretSha256, req)) return unauthorized();
  if (monitoring.stopping()) return failure(500, "the server is stopping");
  const checks = await monitoring.ready();
  const isReady = checks.every((check) => check.ok);
  // Without a secret anybody may ask, and learns no more than a load balancer needs.
  const health = monitoring.secretSha256 === undefined ? [] : checks.map(statusOf);
  const data = monitoring.secretSha256 === undefined ? {} : { health };
  return isReady ? success(data) : failure(500, "one of the checks failed", {}, data);
}

function statusOf({ name, ok, message }: ReadinessCheck) {
  return { name: CHECK_NAMES[name], status: ok, statusText: `${CHECK_NAMES[name]}=${ok}`, message };
}

async function metrics({ metrics, secretSha256 }: Monitoring, req: Parameters<RequestHandler>[0]): Promise<Answer> {
  if (metrics === undefined || secretSha256 === undefined) return failure(404, "not found");
  if (!hasSecret(secretSha256, req)) return unauthorized();
  return { status: 200, body: await metrics.scrape(), headers: { "content-type": metrics.contentType } };
}

/** Whether the request carries the secret, as `Authorization` (alone or behind `Bearer`) or as `?code=`. */
function hasSecret(expectedSha256: string, req: Parameters<RequestHandler>[0]): boolean {
  const header = (req.headers.authorization ?? "").replace(/^Bearer /i, "");
  const query = (req.url ?? "").split("?").slice(1).join("?");
  const code = new URLSearchParams(query).get("code") ?? "";
  const expected = Buffer.from(expectedSha256, "hex");
  // Either may be right: proxies add an Authorization of their own.
  return [header, code].some(
    (given) =>
      given !== "" &&
      given.length <= MAX_SECRET_LENGTH &&
      timingSafeEqual(createHash("sha256").update(given).digest(), expected),
  );
}

function unauthorized(): Answer {
  const hint = "send the monitoring secret in the header Authorization, or as ?code=";
  return failure(401, hint, { "www-authenticate": 'Bearer realm="monitoring"' });
}

function success(data: Readonly<Record<string, unknown>>): Answer {
  return { status: 200, body: json({ status: true, data }) };
}

function failure(
  status: number,
  error: string,
  headers: Readonly<Record<string, string>> = {},
  data: Readonly<Record<string, unknown>> = {},
): Answer {
  return { status, body: json({ status: false, error, data }), headers };
}

function json(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

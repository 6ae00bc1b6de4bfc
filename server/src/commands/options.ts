import { resolve } from "node:path";
import { choice, flag, list, type Option, option, type Secret, wordOf } from "@strongroom/command-line/option";
import { SHARED } from "@strongroom/command-line/shared-options";
import { shown } from "@strongroom/command-line/shown";
import { formatDuration, formatSize, parseDuration, parseSize } from "@strongroom/protocol/sizes";
import { parseAddressRange } from "../domain/addresses.ts";
import { describeUrl } from "../domain/describe-url.ts";
import { isPostgresUrl, type PostgresLocation, parsePostgresUrl } from "../domain/postgres-url.ts";
import { parseRateLimit } from "../domain/rate-limit.ts";
import type { DatabaseLocation } from "../server-options.ts";

const DAY_MS = 24 * 3_600_000;
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

/** Options of the commands that open the server's data, and of those that work on its configuration. */
export const DATA = {
  envFile: SHARED.envFile,
  data: option({
    name: "data",
    value: "dir",
    default: "./strongroom-data",
    help: "directory of the embedded defaults: configuration, database and storage",
    read: (text) => resolve(text),
  }),
  config: option({
    name: "config",
    value: "dir",
    defaultText: "<data>/config",
    help: "directory with users and collections (make one with `strongroom init`)",
    read: (text) => resolve(text),
  }),
  database: option({
    name: "database",
    value: "url",
    defaultText: "pglite:<data>/database",
    help:
      "`pglite:DIR` (embedded PostgreSQL), `pglite:memory`, or a server: " +
      "`postgres://USER@HOST/DATABASE?sslmode=verify-full`, with a password in the variable only",
    read: parseDatabase,
  }),
  databasePasswordFile: option({
    name: "database-password-file",
    value: "file",
    help: "read the password of the PostgreSQL server from this file",
  }),
  databaseConnections: option({
    name: "database-connections",
    value: "n",
    default: "10",
    help: "the most connections to the PostgreSQL server; one more while this server sweeps",
    read: parseConnections,
  }),
  storage: option({
    name: "storage",
    value: "url",
    defaultText: "file:<data>/storage",
    help: "`s3://BUCKET/PREFIX?endpoint=...&region=...`, `file:///DIR` or `mem://` (lost at the end; for tests)",
  }),
  logLevel: option({
    name: "log-level",
    value: "level",
    defaultText: "info for serve, warn for other commands",
    help: LOG_LEVELS.join(", "),
    read: (text) => wordOf(text, LOG_LEVELS),
  }),
  logFormat: choice({
    name: "log-format",
    value: "form",
    words: ["auto", "json", "text"],
    help: "how log lines are written to standard error; auto is text on a terminal, JSON elsewhere",
  }),
} as const;

/** All other options of `strongroom serve`. */
export const SERVE = {
  configPoll: option({
    name: "config-poll",
    value: "time",
    default: "5s",
    help: "how often changes of that directory are looked for where the file system does not notify of them",
    read: durationBetween(1000, DAY_MS),
  }),
  configReadOnly: flag({
    name: "config-read-only",
    help: "write nothing into that directory: it comes from elsewhere, from Git for example",
  }),
  listen: option({
    name: "listen",
    value: "host:port",
    default: "127.0.0.1:8080",
    help: "address to listen on; port 0 takes a free one",
    read: parseListen,
  }),
  allowPlaintext: flag({
    name: "allow-plaintext",
    help: "listen without TLS on an address beyond loopback: only behind something that does TLS",
  }),
  tlsCert: option({
    name: "tls-cert",
    value: "file",
    help: "speak TLS with the certificate in this PEM file, intermediate ones after it; read again when it changes",
    read: (text) => resolve(text),
  }),
  tlsKey: option({
    name: "tls-key",
    value: "file",
    help: "private key of the certificate, PEM, not encrypted",
    read: (text) => resolve(text),
  }),
  tlsClientCa: option({
    name: "tls-client-ca",
    value: "file",
    help: "take only clients with a certificate of an authority in this PEM file",
    read: (text) => resolve(text),
  }),
  trustedProxies: option({
    name: "trusted-proxies",
    value: "list",
    help: "addresses and ranges of proxies whose X-Forwarded-For says who calls, divided by commas",
    read: parseAddressList,
  }),
  notifyAllowAddresses: option({
    name: "notify-allow-addresses",
    value: "list",
    help:
      "addresses and ranges that webhooks of notifiers may call although they are of this machine, a private " +
      "network or another special range, divided by commas; none when not given",
    read: parseAddressList,
  }),
  corsOrigins: option({
    name: "cors-origins",
    value: "list",
    help:
      "origins whose pages may call from a browser, such as https://console.example.org, divided by commas; none " +
      "when not given",
    read: parseOrigins,
  }),
  genericStreams: flag({
    name: "generic-streams",
    help:
      "send chunks of uploads and downloads through the generic layers of the Connect library: slower, and the same " +
      "otherwise; to compare, and where a client has trouble",
  }),
  maxConnections: option({
    name: "max-connections",
    value: "count",
    defaultText: "half of the files that the process may have open, at most 10000",
    help: "connections that may be open at once; at the limit the idlest one without a login is closed for a new one",
    read: parseCount,
  }),
  maxConnectionsPerAddress: option({
    name: "max-connections-per-address",
    value: "count",
    defaultText: "a quarter of --max-connections",
    help: "the same for one IPv4 address or IPv6 /64; proxies of --trusted-proxies have no such limit",
    read: parseCount,
  }),
  sessionDuration: option({
    name: "session-duration",
    value: "time",
    default: "6h",
    help: "how long a session is valid",
    read: durationBetween(60_000, 366 * DAY_MS),
  }),
  sessionLifetime: option({
    name: "session-lifetime",
    value: "time",
    defaultText: "7d, or --session-duration where that is longer",
    help: "how long after its login a session can be valid at most, however often it is refreshed",
    read: durationBetween(60_000, 366 * DAY_MS),
  }),
  sessionDurationMax: option({
    name: "session-duration-max",
    value: "time",
    defaultText: "that of --session-duration",
    help: "how long a session can be valid at most when its login asks for a time (`login --lifetime`)",
    read: durationBetween(60_000, 3660 * DAY_MS),
  }),
  tokenSecretFile: list({
    name: "token-secret-file",
    value: "file",
    help:
      "sign tokens with the secret in this file (HS256, at least 32 bytes) instead of keys kept in the database; given " +
      "several times, the first signs, and tokens of the others stay valid",
  }),

  tokenSecretUse: choice({
    name: "token-secret-use",
    value: "use",
    words: ["only", "sign", "verify"],
    help:
      "only: the secret signs and verifies alone; sign: it signs, and tokens of the keys in the database stay valid; " +
      "verify: those keys sign, and tokens of the secret stay valid",
  }),
  oldTokenSecretFile: option({
    name: "old-token-secret-file",
    value: "file",
    help:
      "take tokens of Backup Repository whose sessions were imported: the file has the secret that signed them, its " +
      "BR_JWT_SECRET_KEY",
  }),
  auditKeyFile: option({
    name: "audit-key-file",
    value: "file",
    help:
      "sign the audit log with the key in this file (make one with `strongroom audit keygen`); without it changes of " +
      "the log by somebody who owns the database cannot be found out",
    read: (text) => resolve(text),
  }),
  auditRetention: option({
    name: "audit-retention",
    value: "time",
    default: "400d",
    help: "how long events of the audit log are kept",
    read: durationBetween(DAY_MS, 36_600 * DAY_MS),
  }),
  segmentSize: option({
    name: "segment-size",
    value: "size",
    default: "16M",
    help: "least size of upload segments, a multiple of 1M; a client holds at least two in memory",
    read: parseSegmentSize,
  }),
  sweepInterval: option({
    name: "sweep-interval",
    value: "time",
    default: "1m",
    help: "how often ended uploads and removed versions are looked for",
    read: durationBetween(1000, DAY_MS),
  }),
  diskReserve: option({
    name: "disk-reserve",
    value: "size",
    defaultText: "64M, or a tenth of a smaller disk",
    help:
      "what uploads leave free on the disk of an embedded database or of a directory, so that versions can still be " +
      "removed; 0 for nothing",
    read: parseSize,
  }),
  httpBuffer: option({
    name: "http-buffer",
    value: "size",
    default: "256M",
    help: "memory for all uploads over the HTTP API together, which collect a segment each; the others wait",
    read: parseHttpBuffer,
  }),
  httpCommitGrace: option({
    name: "http-commit-grace",
    value: "time",
    default: "2s",
    help: "how long a client of the HTTP API has to stay after its body before that becomes a version",
    read: durationBetween(0, 60_000),
  }),
  rateLimitLogin: option({
    name: "rate-limit-login",
    value: "count/time",
    default: "20/2m",
    help:
      "failed logins from one address, over all servers: 20 at once, and 20 again over two minutes; `off` for no " +
      "limit",
    read: parseRateLimit,
  }),
  rateLimitHealth: option({
    name: "rate-limit-health",
    value: "count/time",
    default: "600/1m",
    help: "health checks from one address, or `off`",
    read: parseRateLimit,
  }),
  rateLimitRequests: option({
    name: "rate-limit-requests",
    value: "count/time",
    default: "6000/10s",
    help: "all other calls from one address, or `off`; a segment is one call",
    read: parseRateLimit,
  }),
  monitoringSecretSha256: option({
    name: "monitoring-secret-sha256",
    value: "hex",
    help: "SHA-256 of the secret that monitoring sends; without one there is no /metrics, and /ready gives no details",
    read: parseSha256,
  }),
  monitoringSecretFile: option({
    name: "monitoring-secret-file",
    value: "file",
    help: "the same, as a file with the secret itself",
  }),
  verifyEvery: option({
    name: "verify-every",
    value: "time",
    default: "30d",
    help: "every stored version is read back and compared within this time; `off` for never",
    read: parseVerifyEvery,
  }),
  verifyRate: option({
    name: "verify-rate",
    value: "size",
    default: "32M",
    help: "the most bytes that are read back in a second; no more are than --verify-every needs",
    read: parseRate,
  }),
  shutdownGrace: option({
    name: "shutdown-grace",
    value: "time",
    default: "30s",
    help: "how long running calls may go on after SIGTERM",
    read: durationBetween(0, DAY_MS),
  }),
} as const;

/** The secret of `--token-secret-file`, from the environment. */
export const TOKEN_SECRET: Secret = {
  env: "STRONGROOM_TOKEN_SECRET",
  help: "the secret itself, instead of --token-secret-file",
};

/**
 * Of `sweep` and `recover`. From arguments only: a variable must not turn a real run into one that does nothing, nor
 * back.
 */
export const DRY_RUN = flag({
  name: "dry-run",
  help: "print what would be done, and do nothing",
  argumentsOnly: true,
});

/** Options of every command that opens store and database. */
export const DATA_OPTIONS: ReadonlyArray<Option<unknown>> = Object.values(DATA);

/** Options of `strongroom serve`. */
export const SERVE_OPTIONS: ReadonlyArray<Option<unknown>> = [...DATA_OPTIONS, ...Object.values(SERVE)];

function durationBetween(least: number, most: number): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms < least || ms > most)
      throw new RangeError(`expected ${formatDuration(least)} to ${formatDuration(most)}, got ${shown(text)}`);
    return ms;
  };
}

function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw new RangeError(`expected HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080, got ${shown(text)}`);
  return { host: (match[1] ?? match[2])!, port };
}

function parseAddressList(text: string): readonly string[] {
  const ranges = text.split(",").filter((range) => range.trim() !== "");
  return ranges.map((range) => parseAddressRange(range));
}

/** Origins as browsers send them: scheme, host, and a port that is not the usual one. */
function parseOrigins(text: string): readonly string[] {
  const origins = text
    .split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  for (const origin of origins) {
    if (!URL.canParse(origin) || new URL(origin).origin !== origin || !/^https?:/.test(origin))
      throw new RangeError(
        `expected origins such as https://console.example.org, without a path, got ${shown(origin)}`,
      );
  }
  return origins;
}

/** Never repeats more than the scheme: the rest may be a password, wherever it stands. */
export function parseDatabase(text: string): PostgresLocation | Extract<DatabaseLocation, { kind: "pglite" }> {
  if (isPostgresUrl(text)) return parsePostgresUrl(text);
  if (text === "pglite:memory") return { kind: "pglite", directory: undefined };
  const match = /^pglite:(.+)$/.exec(text);
  if (match === null)
    throw new RangeError(
      `expected pglite:DIR, pglite:memory or postgres://USER@HOST/DATABASE, got ${describeUrl(text)}`,
    );
  return { kind: "pglite", directory: resolve(match[1]!.replace(/^\/\/(?=\/)/, "")) };
}

function parseConnections(text: string): number {
  const connections = Number(text);
  if (!/^\d{1,4}$/.test(text) || connections < 1 || connections > 1000)
    throw new RangeError(`expected a number of connections from 1 to 1000, got ${shown(text)}`);
  return connections;
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d{1,7}$/.test(text) || count < 1)
    throw new RangeError(`expected a number of connections from 1 to 9999999, got ${shown(text)}`);
  return count;
}

function parseSegmentSize(text: string): bigint {
  const size = parseSize(text);
  const mib = 1024n * 1024n;
  if (size < mib || size % mib !== 0n || size > 1024n * mib)
    throw new RangeError(`expected a multiple of 1M up to 1G, got ${formatSize(size)}`);
  return size;
}

/** At least a segment of the least size, at most what a process can address as buffers. */
function parseHttpBuffer(text: string): number {
  const size = parseSize(text);
  const mib = 1024n * 1024n;
  if (size < mib || size > 1024n * 1024n * mib) throw new RangeError(`expected 1M to 1T, got ${formatSize(size)}`);
  return Number(size);
}

/** Never repeats the text: somebody may have given the secret itself. */
function parseSha256(text: string): string {
  if (!/^[0-9a-f]{64}$/i.test(text))
    throw new RangeError("expected a SHA-256 in hexadecimal, 64 digits: printf %s SECRET | sha256sum");
  return text.toLowerCase();
}

function parseVerifyEvery(text: string): number | undefined {
  return text === "off" ? undefined : durationBetween(3_600_000, 3660 * DAY_MS)(text);
}

function parseRate(text: string): bigint {
  const rate = parseSize(text);
  if (rate < 1024n) throw new RangeError(`expected at least 1K a second, got ${formatSize(rate)}`);
  return rate;
}

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { formatDuration, formatSize, parseDuration, parseSize } from "@strongroom/protocol/sizes";
import { parseStorage } from "../adapters/stores.ts";
import { parseAddressRange } from "../domain/addresses.ts";
import { describeUrl } from "../domain/describe-url.ts";
import { isPostgresUrl, type PostgresLocation, parsePostgresUrl } from "../domain/postgres-url.ts";
import { parseRateLimit } from "../domain/rate-limit.ts";
import type { DatabaseLocation, ServerOptions, TlsPaths } from "../server-options.ts";

/** An option as it is declared: the one source of parsing, help and documentation. */
export interface OptionDeclaration {
  /** Name of the flag without dashes; the environment variable is STRONGROOM_ and the name in capitals. */
  readonly name: string;
  /** What the value is, for help; absent for switches. */
  readonly value?: string;
  /** The default, as a person would write it. */
  readonly fallback?: string;
  readonly help: string;
}

/** Every option of `strongroom serve`. */
export const OPTION_DECLARATIONS = [
  {
    name: "data",
    value: "DIR",
    fallback: "./strongroom-data",
    help: "directory of the embedded defaults: configuration, database and storage",
  },
  {
    name: "config",
    value: "DIR",
    fallback: "<data>/config",
    help: "directory with users and collections (make one with `strongroom init`)",
  },
  {
    name: "config-poll",
    value: "TIME",
    fallback: "5s",
    help: "how often changes of that directory are looked for where the file system does not tell of them",
  },
  {
    name: "database",
    value: "URL",
    fallback: "pglite:<data>/database",
    help: "`pglite:DIR` (embedded PostgreSQL), `pglite:memory`, or a server: `postgres://USER@HOST/DATABASE?sslmode=verify-full`, with a password in the variable only",
  },
  {
    name: "database-password-file",
    value: "FILE",
    help: "read the password of the PostgreSQL server from this file",
  },
  {
    name: "database-connections",
    value: "N",
    fallback: "10",
    help: "the most connections to the PostgreSQL server; one more while this server sweeps",
  },
  {
    name: "storage",
    value: "URL",
    fallback: "file:<data>/storage",
    help: "`s3://BUCKET/PREFIX?endpoint=...&region=...`, `file:///DIR` or `mem://` (lost at the end; for tests)",
  },
  {
    name: "listen",
    value: "HOST:PORT",
    fallback: "127.0.0.1:8080",
    help: "address to listen on; port 0 takes a free one",
  },
  {
    name: "allow-plaintext",
    help: "listen without TLS on an address beyond loopback: only behind something that does TLS",
  },
  {
    name: "tls-cert",
    value: "FILE",
    help: "speak TLS with the certificate in this PEM file, intermediate ones behind it; read again when it changes",
  },
  { name: "tls-key", value: "FILE", help: "private key of the certificate, PEM, not encrypted" },
  {
    name: "tls-client-ca",
    value: "FILE",
    help: "take only clients with a certificate of an authority in this PEM file",
  },
  {
    name: "trusted-proxies",
    value: "LIST",
    help: "addresses and ranges of proxies whose X-Forwarded-For says who calls, divided by commas",
  },
  {
    name: "max-connections",
    value: "COUNT",
    help: "connections that may be open at once, when not given half of the files that the process may have open, at most 10000; at the limit the idlest one without a login is closed for a new one",
  },
  {
    name: "max-connections-per-address",
    value: "COUNT",
    help: "the same for one IPv4 address or IPv6 /64, when not given a quarter of --max-connections; proxies of --trusted-proxies have no such limit",
  },
  { name: "session-duration", value: "TIME", fallback: "6h", help: "how long a session is valid" },
  {
    name: "token-secret-file",
    value: "FILE",
    help: "sign tokens with the secret in this file (HS256, at least 32 bytes) instead of keys kept in the database",
  },
  {
    name: "segment-size",
    value: "SIZE",
    fallback: "16M",
    help: "least size of upload segments, a multiple of 1M; a client holds at least two in memory",
  },
  {
    name: "sweep-interval",
    value: "TIME",
    fallback: "1m",
    help: "how often ended uploads and removed versions are looked for",
  },
  {
    name: "rate-limit-login",
    value: "COUNT/TIME",
    fallback: "20/2m",
    help: "failed logins from one address, over all servers: 20 at once, and 20 again over two minutes; `off` for no limit",
  },
  {
    name: "rate-limit-health",
    value: "COUNT/TIME",
    fallback: "600/1m",
    help: "health checks from one address, or `off`",
  },
  {
    name: "rate-limit-requests",
    value: "COUNT/TIME",
    fallback: "6000/10s",
    help: "all other calls from one address, or `off`; a segment is one call",
  },
  {
    name: "monitoring-secret-sha256",
    value: "HEX",
    help: "SHA-256 of the secret that monitoring sends; without one there is no /metrics, and /ready gives no details",
  },
  {
    name: "monitoring-secret-file",
    value: "FILE",
    help: "the same, as a file with the secret itself",
  },
  {
    name: "verify-every",
    value: "TIME",
    fallback: "30d",
    help: "every stored version is read back and compared within this time; `off` for never",
  },
  {
    name: "verify-rate",
    value: "SIZE",
    fallback: "32M",
    help: "the most bytes that are read back in a second; no more are than --verify-every needs",
  },
  { name: "shutdown-grace", value: "TIME", fallback: "30s", help: "how long running calls may go on after SIGTERM" },
  { name: "log-level", value: "LEVEL", fallback: "info", help: "trace, debug, info, warn, error, fatal or silent" },
] as const satisfies readonly OptionDeclaration[];

const DAY_MS = 24 * 3_600_000;

function durationBetween(least: number, most: number): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms < least || ms > most)
      throw new RangeError(`expected ${formatDuration(least)} to ${formatDuration(most)}, got "${text}"`);
    return ms;
  };
}

/** An option is unknown or has no acceptable value. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Environment variable of an option. */
export function environmentName(option: string): string {
  return `STRONGROOM_${option.toUpperCase().replaceAll("-", "_")}`;
}

/** Reads flags, then environment, then defaults. Returns "help" when asked for it. @throws UsageError */
export function parseOptions(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): ServerOptions | "help" {
  const flags = parseFlags(args);
  if (flags.help === true) return "help";
  const text = (name: string): string | undefined => {
    const flag = flags[name];
    if (flag === "") throw new UsageError(`--${name}: the value is empty; is a variable of the shell not set?`);
    if (typeof flag === "string") return flag;
    const variable = env[environmentName(name)];
    return variable === undefined || variable === "" ? undefined : variable;
  };
  const switched = (name: string) => flags[name] === true || /^(1|true|yes|on)$/i.test(text(name) ?? "");
  const value = <T>(name: string, fallback: string, parse: (text: string) => T): T => {
    const given = text(name);
    try {
      return parse(given ?? fallback);
    } catch (error) {
      throw new UsageError(
        `--${name} (${environmentName(name)}): ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  };

  const count = (name: string) => (text(name) === undefined ? undefined : value(name, "", parseCount));
  const everyMs = value("verify-every", "30d", parseVerifyEvery);
  const bytesPerSecond = value("verify-rate", "32M", parseRate);
  const data = resolve(text("data") ?? "strongroom-data");
  const database = (): DatabaseLocation => {
    const parsed = value("database", `pglite:${data}/database`, parseDatabase);
    const passwordFile = text("database-password-file");
    const connections = value("database-connections", "10", parseConnections);
    if ("kind" in parsed) {
      if (passwordFile !== undefined)
        throw new UsageError("--database-password-file: the embedded database has no password; leave it out");
      return parsed;
    }
    if (flags.database !== undefined && parsed.password !== undefined) {
      throw new UsageError(
        "--database: a password in an argument can be read by everyone on this machine. Put the URL into the variable STRONGROOM_DATABASE, or leave the password out and name a file that has it: --database-password-file FILE",
      );
    }
    if (passwordFile !== undefined && parsed.password !== undefined)
      throw new UsageError("--database-password-file: the URL has a password too; leave one of them out");
    const location = { ...parsed, password: parsed.password ?? (env.PGPASSWORD || undefined) };
    return {
      kind: "postgres",
      location,
      passwords: { passwordFile, passFile: env.PGPASSFILE || undefined },
      connections,
    };
  };
  const { host, port } = value("listen", "127.0.0.1:8080", parseListen);
  const tls = tlsPaths(text);
  if (tls === undefined && !isLoopback(host) && !switched("allow-plaintext")) {
    throw new UsageError(
      `--listen (STRONGROOM_LISTEN) ${host.includes(":") ? `[${host}]` : host}:${port}: without TLS only loopback addresses are served, since passwords would cross the network in the clear. Give a certificate with --tls-cert and --tls-key, or put a TLS proxy in front and add --allow-plaintext (STRONGROOM_ALLOW_PLAINTEXT=1)`,
    );
  }
  const monitoring = text("monitoring-secret-sha256");
  if (monitoring !== undefined && text("monitoring-secret-file") !== undefined)
    throw new UsageError("--monitoring-secret-sha256 and --monitoring-secret-file: give one of them, not both");
  return Object.freeze({
    configDir: resolve(text("config") ?? `${data}/config`),
    database: database(),
    configPollMs: value("config-poll", "5s", durationBetween(1000, DAY_MS)),
    storage: value("storage", pathToFileURL(`${data}/storage`).href, parseStorage),
    host,
    port,
    tls,
    trustedProxies: value("trusted-proxies", "", parseAddressList),
    maxConnections: count("max-connections"),
    maxConnectionsPerAddress: count("max-connections-per-address"),
    sessionMs: value("session-duration", "6h", durationBetween(60_000, 366 * DAY_MS)),
    tokenSecretFile: text("token-secret-file"),
    segmentSize: value("segment-size", "16M", parseSegmentSize),
    sweepMs: value("sweep-interval", "1m", durationBetween(1000, DAY_MS)),
    monitoringSecretSha256: monitoring === undefined ? undefined : value("monitoring-secret-sha256", "", parseSha256),
    monitoringSecretFile: text("monitoring-secret-file"),
    verification: everyMs === undefined ? undefined : { everyMs, bytesPerSecond },
    shutdownGraceMs: value("shutdown-grace", "30s", durationBetween(0, DAY_MS)),
    rateLimits: {
      login: value("rate-limit-login", "20/2m", parseRateLimit),
      health: value("rate-limit-health", "600/1m", parseRateLimit),
      requests: value("rate-limit-requests", "6000/10s", parseRateLimit),
    },
    logLevel: value("log-level", "info", parseLogLevel),
  });
}

function parseFlags(args: readonly string[]): Record<string, string | boolean | undefined> {
  const options = Object.fromEntries(
    OPTION_DECLARATIONS.map((o: OptionDeclaration) => [
      o.name,
      { type: o.value === undefined ? ("boolean" as const) : ("string" as const) },
    ]),
  );
  try {
    const { values } = parseArgs({ args: [...args], options: { ...options, help: { type: "boolean", short: "h" } } });
    return values as Record<string, string | boolean | undefined>;
  } catch (error) {
    // What stands where no option is may be a URL with a password, so it is not repeated.
    const positional = (error as NodeJS.ErrnoException).code === "ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL";
    const reason = positional ? "only options are taken; each begins with --" : (error as Error).message;
    throw new UsageError(`${reason}; see \`strongroom serve --help\``);
  }
}

function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw new RangeError(
      `expected HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080, got ${text.includes("/") ? describeUrl(text) : `"${text}"`}`,
    );
  return { host: (match[1] ?? match[2])!, port };
}

function tlsPaths(text: (name: string) => string | undefined): TlsPaths | undefined {
  const [cert, key, clientCa] = ["tls-cert", "tls-key", "tls-client-ca"].map((name) => text(name));
  if (cert !== undefined && key !== undefined) {
    return { cert: resolve(cert), key: resolve(key), clientCa: clientCa === undefined ? undefined : resolve(clientCa) };
  }
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined;
  const given = cert !== undefined ? "--tls-cert" : key !== undefined ? "--tls-key" : "--tls-client-ca";
  const missing = cert === undefined ? "--tls-cert (STRONGROOM_TLS_CERT)" : "--tls-key (STRONGROOM_TLS_KEY)";
  throw new UsageError(`${given} needs ${missing} beside it: TLS takes a certificate and its key`);
}

function parseAddressList(text: string): readonly string[] {
  const ranges = text.split(",").filter((range) => range.trim() !== "");
  return ranges.map((range) => parseAddressRange(range));
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function parseDatabase(text: string): PostgresLocation | Extract<DatabaseLocation, { kind: "pglite" }> {
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
    throw new RangeError(`expected a number of connections from 1 to 1000, got "${text}"`);
  return connections;
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d{1,7}$/.test(text) || count < 1)
    throw new RangeError(`expected a number of connections from 1 to 9999999, got "${text}"`);
  return count;
}

function parseSegmentSize(text: string): bigint {
  const size = parseSize(text);
  const mib = 1024n * 1024n;
  if (size < mib || size % mib !== 0n || size > 1024n * mib)
    throw new RangeError(`expected a multiple of 1M up to 1G, got ${formatSize(size)}`);
  return size;
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

function parseLogLevel(text: string): string {
  if (!/^(trace|debug|info|warn|error|fatal|silent)$/.test(text))
    throw new RangeError(`expected trace, debug, info, warn, error, fatal or silent, got "${text}"`);
  return text;
}

/** The text of `strongroom serve --help`. */
export function serveHelp(): string {
  const rows = OPTION_DECLARATIONS.map((o: OptionDeclaration): [string, string] => [
    `--${o.name}${o.value === undefined ? "" : ` ${o.value}`}`,
    `${o.help}${o.fallback === undefined ? "" : ` (default ${o.fallback})`} [${environmentName(o.name)}]`,
  ]);
  const width = Math.max(...rows.map(([flag]) => flag.length));
  return `Usage: strongroom serve [options]

Runs the server: Connect, gRPC and gRPC-Web over HTTP/1.1 and HTTP/2 on one port.

Options:
${rows.map(([flag, help]) => `  ${flag.padEnd(width)}  ${help}`).join("\n")}
  ${"-h, --help".padEnd(width)}  shows this

Examples:
  strongroom init && strongroom serve
  strongroom serve --data /var/lib/strongroom --listen 127.0.0.1:9000
  strongroom serve --config /etc/strongroom --storage file:///backup/strongroom
  strongroom serve --database postgres://strongroom@localhost/strongroom --database-password-file /etc/strongroom/database-password
  strongroom serve --storage "s3://backups/strongroom?endpoint=https://s3.example.org&region=eu-1&pathStyle=true"
  strongroom serve --listen 0.0.0.0:8443 --tls-cert /etc/strongroom/tls.pem --tls-key /etc/strongroom/tls.key
`;
}

/** What a command on the server's data was asked for. */
export interface CommandLine {
  readonly server: ServerOptions;
  /** Values of its own options; "" for switches. */
  readonly own: ReadonlyMap<string, string>;
  readonly positionals: readonly string[];
}

/** A command on the server's data: its own options, on top of those of `serve`. */
export interface DataCommand {
  readonly name: string;
  /** What follows the name, for help. */
  readonly usage: string;
  readonly about: string;
  readonly options: readonly OptionDeclaration[];
  readonly positionals: number;
  readonly examples: readonly string[];
}

/** The options of `serve` that these commands are mostly used with; all others are taken as well. */
const SHOWN = ["data", "config", "database", "database-password-file", "storage", "log-level"];

/**
 * Reads the arguments of a command. Options of `serve` mean the same here, so that a unit file or environment serves both.
 * @throws UsageError
 */
export function parseCommandLine(
  command: DataCommand,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): CommandLine | "help" {
  const serverArgs: string[] = [];
  const own = new Map<string, string>();
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--help" || arg === "-h") return "help";
    if (!arg.startsWith("-")) {
      positionals.push(arg);
      continue;
    }
    const [, name = "", inline] = /^--([^=]*)(?:=(.*))?$/s.exec(arg) ?? [];
    const mine = command.options.find((option) => option.name === name);
    const takesValue = (mine ?? OPTION_DECLARATIONS.find((o: OptionDeclaration) => o.name === name)) as
      | OptionDeclaration
      | undefined;
    if (takesValue === undefined) {
      throw new UsageError(`there is no option ${arg.split("=", 1)[0]}; see \`strongroom ${command.name} --help\``);
    }
    const next = takesValue.value !== undefined && inline === undefined ? args[++i] : inline;
    if (takesValue.value !== undefined && (next === undefined || next === ""))
      throw new UsageError(`--${name}: a value is missing: ${takesValue.value}`);
    if (mine === undefined) serverArgs.push(next === undefined ? `--${name}` : `--${name}=${next}`);
    else own.set(name, next ?? "");
  }
  if (positionals.length > command.positionals) {
    throw new UsageError(
      `${command.positionals} argument(s) are taken, ${positionals.length} came; see \`strongroom ${command.name} --help\``,
    );
  }
  // A person who looks at the output of a command does not want the log of a server in between.
  const quiet = env.STRONGROOM_LOG_LEVEL === undefined ? { ...env, STRONGROOM_LOG_LEVEL: "warn" } : env;
  const server = parseOptions(serverArgs, quiet);
  if (server === "help") return "help";
  return { server, own, positionals };
}

/** The text of `strongroom COMMAND --help`. */
export function commandHelp(command: DataCommand): string {
  const shared = OPTION_DECLARATIONS.filter((option) => SHOWN.includes(option.name));
  const rows = [...command.options, ...shared].map((o: OptionDeclaration): [string, string] => [
    `--${o.name}${o.value === undefined ? "" : ` ${o.value}`}`,
    `${o.help}${o.fallback === undefined || o.name === "log-level" ? "" : ` (default ${o.fallback})`}`,
  ]);
  const width = Math.max(...rows.map(([flag]) => flag.length));
  return `Usage: strongroom ${command.name} ${command.usage}

${command.about}

Options (those of \`strongroom serve\` and their environment variables mean the same here):
${rows.map(([flag, help]) => `  ${flag.padEnd(width)}  ${help}`).join("\n")}
  ${"-h, --help".padEnd(width)}  shows this

Examples:
${command.examples.map((line) => `  ${line}`).join("\n")}

Exit codes: 0 done, 1 something failed or could not be opened, 2 wrong arguments, 4 refused, 5 the store or the database
does not answer, 6 a version is damaged.
`;
}

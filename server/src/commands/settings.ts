import { existsSync, lstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { UsageError } from "@strongroom/command-line/errors";
import { flagOf, type Option, variableOf } from "@strongroom/command-line/option";
import { withoutSecret } from "@strongroom/command-line/shown";
import type { Environment, OptionValues } from "@strongroom/command-line/values";
import { formatDuration } from "@strongroom/protocol/sizes";
import type { StorageLocation } from "../adapters/stores.ts";
import type { DatabaseLocation, ServerOptions, TlsPaths } from "../server-options.ts";
import { DATA, parseDatabase, SERVE, TOKEN_SECRET } from "./options.ts";

/**
 * The data directory. It is made where it is missing; a link that leads nowhere is most likely a disk that is not
 * mounted.
 * @throws UsageError for such a link
 */
function dataFolder(values: OptionValues): string {
  const folder = values.get(DATA.data);
  const isLink = lstatSync(folder, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  if (isLink && !existsSync(folder))
    throw new UsageError(`--data: ${folder} is a link to ${readlinkSync(folder)}, which is not there.`, {
      hint: "mount or make what it leads to, or name another folder",
    });
  return folder;
}

/** What commands on the server's data know of it. */
export type DataOptions = Pick<ServerOptions, "configDir" | "database" | "storage" | "logLevel" | "logFormat">;

/** Where the configuration is: `--config`, else `config` in `--data`. */
export function configDir(values: OptionValues): string {
  return values.get(DATA.config) ?? join(dataFolder(values), "config");
}

/**
 * Puts together where the server's data is. Commands that end log warnings only, since people look at what they print.
 * @throws UsageError for options that contradict each other, or a storage URL that is none.
 */
export async function dataOptions(values: OptionValues, env: Environment, logLevel = "warn"): Promise<DataOptions> {
  return {
    configDir: configDir(values),
    database: databaseOf(values, env),
    storage: await storageOf(values.get(DATA.storage), DATA.storage, values),
    logLevel: values.get(DATA.logLevel) ?? logLevel,
    logFormat: values.get(DATA.logFormat),
  };
}

/** Puts together the options of `strongroom serve`. @throws UsageError for options that contradict each other */
export async function serverOptions(values: OptionValues, env: Environment): Promise<ServerOptions> {
  const everyMs = values.get(SERVE.verifyEvery);
  const { host, port } = values.get(SERVE.listen);
  const tls = tlsPaths(values);
  if (tls === undefined && !isLoopback(host) && !values.get(SERVE.allowPlaintext)) {
    throw new UsageError(
      `--listen (STRONGROOM_LISTEN) ${host.includes(":") ? `[${host}]` : host}:${port}: without TLS only ` +
        "loopback addresses are served, since passwords would cross the network in the clear. Give a certificate " +
        "with --tls-cert and --tls-key, or put a TLS proxy in front and add --allow-plaintext " +
        "(STRONGROOM_ALLOW_PLAINTEXT=1)",
    );
  }
  const monitoringSecretSha256 = values.get(SERVE.monitoringSecretSha256);
  const monitoringSecretFile = values.get(SERVE.monitoringSecretFile);
  if (monitoringSecretSha256 !== undefined && monitoringSecretFile !== undefined)
    throw new UsageError("--monitoring-secret-sha256 and --monitoring-secret-file: give one of them, not both");
  return Object.freeze({
    ...(await dataOptions(values, env, "info")),
    configPollMs: values.get(SERVE.configPoll),
    configReadOnly: values.get(SERVE.configReadOnly),
    host,
    port,
    tls,
    trustedProxies: values.get(SERVE.trustedProxies) ?? [],
    corsOrigins: values.get(SERVE.corsOrigins) ?? [],
    genericStreams: values.get(SERVE.genericStreams),
    maxConnections: values.get(SERVE.maxConnections),
    maxConnectionsPerAddress: values.get(SERVE.maxConnectionsPerAddress),
    sessionMs: values.get(SERVE.sessionDuration),
    sessionLifetimeMs:
      values.get(SERVE.sessionLifetime) ?? Math.max(7 * 24 * 3_600_000, values.get(SERVE.sessionDuration)),
    sessionMaxMs: longestSession(values),
    ...tokenSecrets(values, env),
    auditKeyFile: values.get(SERVE.auditKeyFile),
    auditRetentionMs: values.get(SERVE.auditRetention),
    segmentSize: values.get(SERVE.segmentSize),
    sweepMs: values.get(SERVE.sweepInterval),
    diskReserve: values.get(SERVE.diskReserve),
    monitoringSecretSha256,
    monitoringSecretFile,
    verification: everyMs === undefined ? undefined : { everyMs, bytesPerSecond: values.get(SERVE.verifyRate) },
    httpUploads: { bufferBytes: values.get(SERVE.httpBuffer), commitGraceMs: values.get(SERVE.httpCommitGrace) },
    shutdownGraceMs: values.get(SERVE.shutdownGrace),
    notifyAllowAddresses: values.get(SERVE.notifyAllowAddresses) ?? [],
    rateLimits: {
      login: values.get(SERVE.rateLimitLogin),
      health: values.get(SERVE.rateLimitHealth),
      requests: values.get(SERVE.rateLimitRequests),
    },
  });
}

function tokenSecrets(values: OptionValues, env: Environment) {
  const tokenSecretFiles = values.get(SERVE.tokenSecretFile);
  const tokenSecret = env[TOKEN_SECRET.env] || undefined;
  if (tokenSecretFiles.length > 0 && tokenSecret !== undefined)
    throw new UsageError(`--token-secret-file and ${TOKEN_SECRET.env}: give one of them, not both`);
  const tokenSecretUse = values.get(SERVE.tokenSecretUse);
  if (tokenSecretUse !== "only" && tokenSecretFiles.length === 0 && tokenSecret === undefined)
    throw new UsageError(`--token-secret-use ${tokenSecretUse} needs --token-secret-file or ${TOKEN_SECRET.env}`);
  const oldTokenSecretFile = values.get(SERVE.oldTokenSecretFile);
  return { tokenSecretFiles, tokenSecret, tokenSecretUse, oldTokenSecretFile };
}

/** A shorter one would refuse what a login gets that asks for nothing. */
function longestSession(values: OptionValues): number {
  const usual = values.get(SERVE.sessionDuration);
  const most = values.get(SERVE.sessionDurationMax) ?? usual;
  if (most >= usual) return most;
  throw new UsageError(
    `--session-duration-max: expected at least the ${formatDuration(usual)} of --session-duration, got ` +
      formatDuration(most),
  );
}

/** Reads a storage URL that an option gave, or the default below `--data`. @throws UsageError */
export async function storageOf(
  text: string | undefined,
  from: Option<unknown>,
  values: OptionValues,
): Promise<StorageLocation> {
  const { parseStorage } = await import("../adapters/stores.ts");
  const url = text ?? pathToFileURL(join(dataFolder(values), "storage")).href;
  try {
    return parseStorage(url);
  } catch (error) {
    const origin = values.source(from) === "flag" ? flagOf(from) : variableOf(from);
    throw new UsageError(`${origin}: ${withoutSecret((error as Error).message, text ?? "")}`, { cause: error });
  }
}

function databaseOf(values: OptionValues, env: Environment): DatabaseLocation {
  const parsed = values.get(DATA.database) ?? parseDatabase(`pglite:${join(dataFolder(values), "database")}`);
  const passwordFile = values.get(DATA.databasePasswordFile);
  if ("kind" in parsed) {
    if (passwordFile !== undefined)
      throw new UsageError("--database-password-file: the embedded database has no password; leave it out");
    return parsed;
  }
  if (values.source(DATA.database) === "flag" && parsed.password !== undefined) {
    throw new UsageError(
      "--database: a password in an argument can be read by everyone on this machine. Put the URL into the " +
        "variable STRONGROOM_DATABASE, or leave the password out and name a file that has it: " +
        "--database-password-file FILE",
    );
  }
  if (passwordFile !== undefined && parsed.password !== undefined)
    throw new UsageError("--database-password-file: the URL has a password too; leave one of them out");
  return {
    kind: "postgres",
    location: { ...parsed, password: parsed.password ?? (env.PGPASSWORD || undefined) },
    passwords: { passwordFile, passFile: env.PGPASSFILE || undefined },
    connections: values.get(DATA.databaseConnections),
  };
}

function tlsPaths(values: OptionValues): TlsPaths | undefined {
  const [cert, key, clientCa] = [SERVE.tlsCert, SERVE.tlsKey, SERVE.tlsClientCa].map((file) => values.get(file));
  if (cert !== undefined && key !== undefined) return { cert, key, clientCa };
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined;
  const given = cert !== undefined ? "--tls-cert" : key !== undefined ? "--tls-key" : "--tls-client-ca";
  const missing = cert === undefined ? "--tls-cert (STRONGROOM_TLS_CERT)" : "--tls-key (STRONGROOM_TLS_KEY)";
  throw new UsageError(`${given} needs ${missing} beside it: TLS takes a certificate and its key`);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/**
 * The server, put together. This is the only place that knows which adapters there are.
 */
import { createHash, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { destination, type Logger, pino } from "pino";
import { Argon2Hasher } from "./adapters/argon2/argon2-hasher.ts";
import { ConfigFilesSource } from "./adapters/config-files/source.ts";
import { JoseSigner } from "./adapters/jose/jose-signer.ts";
import { openPglite } from "./adapters/pglite/pglite.ts";
import { openPostgres } from "./adapters/postgres/postgres.ts";
import { type CertificateFacts, TlsFiles } from "./adapters/tls-files/tls-files.ts";
import { checkInstallation } from "./app/installation.ts";
import type { BlobStore } from "./app/ports/blob-store.ts";
import type { ConfigSource } from "./app/ports/config-source.ts";
import type { Database } from "./app/ports/database.ts";
import type { PasswordHasher } from "./app/ports/passwords.ts";
import type { TokenSigner } from "./app/ports/tokens.ts";
import { LoginBudget } from "./app/sessions/budgets.ts";
import { DEFAULT_UPLOAD_SETTINGS, type UploadSettings } from "./app/settings.ts";
import { Sweeper } from "./app/upkeep/sweeper.ts";
import { type VerificationPlan, Verifier } from "./app/upkeep/verifier.ts";
import { SegmentAttempts } from "./app/uploads/segment-attempts.ts";
import { AddressSet } from "./domain/addresses.ts";
import type { RateLimits } from "./domain/rate-limit.ts";
import { monitored, secretDigest } from "./monitoring.ts";
import { formatProblem } from "./objects/problem.ts";
import { openStore } from "./open-store.ts";
import { type DatabaseLocation, parseOptions, type ServerOptions, serveHelp, UsageError } from "./options.ts";
import { type Listener, listen } from "./transport/listener.ts";
import { requestHandler } from "./transport/router.ts";
import { ServingState, shuttingDown } from "./transport/serving-state.ts";

/** The parts a server is made of. */
export interface ServerParts {
  readonly database: Database;
  readonly store: BlobStore;
  readonly config: ConfigSource & { close?(): Promise<void> };
  readonly passwords: PasswordHasher;
  readonly tokens: TokenSigner;
  readonly log: Logger;
  readonly settings: UploadSettings;
  readonly sessionMs: number;
  readonly sweepMs: number;
  /** Limits of calls from one address; none when left out, for tests. */
  readonly rateLimits?: RateLimits | undefined;
  /** SHA-256 in hexadecimal of the secret for /ready and /metrics; without one there are no metrics. */
  readonly monitoringSecretSha256?: string | undefined;
  /** How stored versions are verified in the background; undefined for not at all. */
  readonly verification?: VerificationPlan | undefined;
}

/** A server that takes calls. */
export interface RunningServer {
  readonly url: string;
  readonly listener: Listener;
  readonly sweeper: Sweeper;
  /** Ends gracefully: running calls may go on for `graceMs`, then store and database are closed. */
  stop(graceMs: number): Promise<void>;
}

/** How a server meets the network. */
export interface NetworkOptions {
  /** Certificate and key; without them the server speaks plain HTTP. */
  readonly tls?: TlsFiles | undefined;
  /** Addresses and ranges of proxies whose `X-Forwarded-For` is believed; default none. */
  readonly trustedProxies?: readonly string[];
}

/** Puts the parts together and listens. The server owns store and database and closes them when it stops. */
export async function startServer(
  parts: ServerParts,
  host: string,
  port: number,
  { tls, trustedProxies = [] }: NetworkOptions = {},
): Promise<RunningServer> {
  const monitoring = monitored(parts, randomUUID);
  const state = new ServingState(async () => await monitoring.database.ping());
  const attempts = new SegmentAttempts();
  const shutdown = new AbortController();
  const logins = new LoginBudget(monitoring.database, parts.rateLimits?.login, () => performance.now());
  const shared = { ...parts, ...monitoring, attempts, logins, newId: randomUUID, sha256 };
  const sweeper = new Sweeper(shared, parts.sweepMs, monitoring.metrics?.swept);
  const verifier = parts.verification === undefined ? undefined : new Verifier(shared, parts.verification);
  const handler = requestHandler({
    ...shared,
    state,
    refuseWhileStopping: state.refuseWhileStopping,
    onEnded: () => sweeper.request(),
    shutdownSignal: shutdown.signal,
    trustedProxies: new AddressSet(trustedProxies),
  });
  const listener = await listen(handler, host, port, { tls: tls?.current });
  if (tls !== undefined) keepRenewed(tls, listener, parts.log);
  sweeper.start();
  verifier?.start();
  return {
    url: `${tls === undefined ? "http" : "https"}://${listener.address.includes(":") ? `[${listener.address}]` : listener.address}:${listener.port}`,
    listener,
    sweeper,
    async stop(graceMs) {
      state.stop();
      tls?.close();
      // One that fails must not keep the others from ending: a database that is not closed is recovered at the next start.
      const failures: unknown[] = [];
      for (const end of [
        async () => await listener.stop(graceMs, () => shutdown.abort(shuttingDown())),
        async () => await verifier?.stop(),
        async () => await sweeper.stop(graceMs),
        async () => await parts.config.close?.(),
        async () => await monitoring.readiness.idle(),
        async () => await parts.store.close(),
        async () => await parts.database.close(),
      ])
        await end().catch((error: unknown) => void failures.push(error));
      if (failures.length > 0) throw new AggregateError(failures, `the server did not end cleanly: ${failures[0]}`);
    },
  };
}

/** Takes renewed certificates into use, and says when they are of no use. */
function keepRenewed(tls: TlsFiles, listener: Listener, log: Logger): void {
  const tell = ({ subject, notAfter, warning }: CertificateFacts) => {
    const facts = { subject, not_after: notAfter.toISOString() };
    if (warning === undefined) log.info(facts, "the TLS certificate is in use");
    else log.warn(facts, warning);
  };
  tell(tls.facts);
  tls.watch({
    changed(material, facts) {
      listener.renewTls(material);
      tell(facts);
    },
    rejected: ({ message }) => log.error({}, `the new TLS files are not used, the old certificate stays: ${message}`),
  });
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Opens what the options name. On failure everything opened so far is closed again. */
export async function openParts(
  options: ServerOptions,
  log: Logger,
): Promise<ServerParts & { readonly config: ConfigFilesSource }> {
  const config = await ConfigFilesSource.open(options.configDir);
  for (const warning of config.warnings)
    log.warn({ file: warning.file, line: warning.line }, `configuration: ${formatProblem(warning)}`);
  const { store, database } = await openStorage(options, log);
  try {
    const installation = await checkInstallation(database, store);
    log.info({ installation, store: store.capabilities.name }, "storage and database are open");
    const tokens =
      options.tokenSecretFile === undefined
        ? await JoseSigner.fromDatabase(database, options.sessionMs)
        : JoseSigner.withSecret(Buffer.from((await readFile(options.tokenSecretFile, "utf8")).trim()));
    const secretFile = options.monitoringSecretFile;
    const monitoringSecretSha256 =
      secretFile === undefined ? options.monitoringSecretSha256 : secretDigest(await readFile(secretFile, "utf8"));
    if (monitoringSecretSha256 === undefined)
      log.info({}, "/metrics is not served, and /ready gives no details: there is no --monitoring-secret-sha256");
    return {
      database,
      store,
      config,
      monitoringSecretSha256,
      passwords: new Argon2Hasher(),
      tokens,
      log,
      settings: { ...DEFAULT_UPLOAD_SETTINGS, leastSegmentSize: options.segmentSize },
      sessionMs: options.sessionMs,
      sweepMs: options.sweepMs,
      rateLimits: options.rateLimits,
      verification: options.verification,
    };
  } catch (error) {
    await database.close();
    await store.close();
    throw error;
  }
}

/** How long a server that starts waits for its database, which may be starting as well, in milliseconds. */
const DATABASE_WAIT_MS = 30_000;

async function openDatabase(database: DatabaseLocation, log: Logger): Promise<Database> {
  if (database.kind === "pglite") return await openPglite({ directory: database.directory });
  let told = false;
  return await openPostgres({
    ...database,
    waitMs: DATABASE_WAIT_MS,
    onWait: (reason) => {
      if (!told) log.warn({}, `waiting up to ${DATABASE_WAIT_MS / 1000} s for the database: ${reason}`);
      told = true;
    },
  });
}

/** Opens store and database, whether or not they belong together. */
export async function openStorage(
  options: ServerOptions,
  log: Logger,
): Promise<{ store: BlobStore; database: Database }> {
  const store = await openStore(options.storage, log);
  try {
    return { store, database: await openDatabase(options.database, log) };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/**
 * `strongroom serve`: runs until SIGTERM or SIGINT.
 * @returns the exit code: 0 after a graceful stop, 1 when it could not start, 2 for wrong options.
 */
export async function serve(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  let options: ServerOptions | "help";
  try {
    options = parseOptions(args, env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`strongroom serve: ${error.message}\n`);
    return 2;
  }
  if (options === "help") {
    process.stdout.write(serveHelp());
    return 0;
  }
  const log = pino({ level: options.logLevel, base: { service: "strongroom" } }, destination({ dest: 2, sync: false }));
  let server: RunningServer;
  // From the start on, since without a handler the signal would end the process.
  let reload = () => {};
  process.on("SIGHUP", () => reload());
  try {
    const tls = options.tls === undefined ? undefined : await TlsFiles.open(options.tls);
    const parts = await openParts(options, log);
    parts.config.watch({ pollMs: options.configPollMs, log });
    reload = () => void parts.config.reload(true);
    try {
      server = await startServer(parts, options.host, options.port, { tls, trustedProxies: options.trustedProxies });
    } catch (error) {
      await parts.config.close();
      await parts.store.close();
      await parts.database.close();
      throw error;
    }
  } catch (error) {
    log.flush();
    process.stderr.write(`strongroom serve: cannot start: ${startupMessage(error, options)}\n`);
    return 1;
  }
  // Before anybody is told that it runs, and may stop it.
  const stopping = stopSignal();
  process.stdout.write(`Strongroom listens on ${server.url}\n`);
  log.info({ url: server.url }, "listening");
  const signal = await stopping;
  log.info({ signal, grace_ms: options.shutdownGraceMs }, "stopping: running calls may end, new uploads are refused");
  try {
    await server.stop(options.shutdownGraceMs);
    log.info({}, "stopped");
  } finally {
    log.flush();
  }
  return 0;
}

async function stopSignal(): Promise<NodeJS.Signals> {
  const signals = ["SIGTERM", "SIGINT"] as const;
  return await new Promise((resolve) => {
    const stop = (signal: NodeJS.Signals) => {
      // A second signal ends the process at once, as without a handler.
      for (const each of signals) process.off(each, stop);
      resolve(signal);
    };
    for (const each of signals) process.on(each, stop);
  });
}

function startupMessage(error: unknown, options: ServerOptions): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "EADDRINUSE")
    return `${options.host}:${options.port} is in use by another program; choose another with --listen`;
  if (code === "EACCES" && (error as NodeJS.ErrnoException).syscall === "listen") {
    return `no permission to listen on ${options.host}:${options.port}; choose a port above 1023`;
  }
  return error instanceof Error ? error.message : String(error);
}

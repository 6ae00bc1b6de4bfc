/**
 * The server, put together. This is the only place that knows which adapters there are.
 */
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { Argon2Hasher } from "./adapters/argon2/argon2-hasher.ts";
import { openAuditKey } from "./adapters/audit-key/audit-key.ts";
import { ConfigFilesSource } from "./adapters/config-files/source.ts";
import { diskSize, freeSpace } from "./adapters/filesystem/free-space.ts";
import { JoseSigner } from "./adapters/jose/jose-signer.ts";
import { sendMail } from "./adapters/mail/mail.ts";
import { MeasuredBlobStore } from "./adapters/measured/measured-blob-store.ts";
import { measuredDatabase } from "./adapters/measured/measured-database.ts";
import { openPglite } from "./adapters/pglite/pglite.ts";
import { openPostgres } from "./adapters/postgres/postgres.ts";
import { checkoutCommit, serverVersion } from "./adapters/process/commit.ts";
import { openStore } from "./adapters/stores.ts";
import type { CertificateFacts, TlsFiles } from "./adapters/tls-files/tls-files.ts";
import { sendWebhook } from "./adapters/webhook/webhook.ts";
import { Auditor } from "./app/audit/auditor.ts";
import { DEFAULT_AUDIT_RETENTION_MS } from "./app/audit/prune.ts";
import { AuditTrail } from "./app/audit/trail.ts";
import { collectionFigures } from "./app/collections/figures.ts";
import { checkInstallation } from "./app/installation.ts";
import { Notifications, type WatchedSignal } from "./app/notifications/notifications.ts";
import type { AuditSigner } from "./app/ports/audit-key.ts";
import type { BlobStore } from "./app/ports/blob-store.ts";
import type { ConfigSource } from "./app/ports/config-source.ts";
import type { Database } from "./app/ports/database.ts";
import type { NotificationSender } from "./app/ports/notifications.ts";
import type { PasswordHasher } from "./app/ports/passwords.ts";
import type { TokenSigner } from "./app/ports/tokens.ts";
import { CredentialWatch } from "./app/sessions/credential-watch.ts";
import { LoginBudget } from "./app/sessions/login-budget.ts";
import type { Log } from "./app/settings.ts";
import { DEFAULT_UPLOAD_SETTINGS, type UploadSettings } from "./app/settings.ts";
import { ClockWatch } from "./app/upkeep/clock-watch.ts";
import { Readiness } from "./app/upkeep/readiness.ts";
import { ReplicaSign } from "./app/upkeep/replica-sign.ts";
import { StartComparison } from "./app/upkeep/start-comparison.ts";
import { Sweeper } from "./app/upkeep/sweeper.ts";
import { noteSweep, UpkeepRuns } from "./app/upkeep/upkeep-runs.ts";
import { type VerificationPlan, Verifier } from "./app/upkeep/verifier.ts";
import { BufferPool } from "./app/uploads/buffer-pool.ts";
import { DiskReserve, type ReservedDisk } from "./app/uploads/disk-reserve.ts";
import { SegmentAttempts } from "./app/uploads/segment-attempts.ts";
import { TenantShares } from "./app/uploads/tenant-shares.ts";
import { ManifestWriter } from "./app/versions/manifest-writer.ts";
import { Metrics } from "./calls/metrics.ts";
import { AddressSet } from "./domain/addresses.ts";
import type { ConnectionLimits } from "./domain/connection-limits.ts";
import { newPassword } from "./domain/new-password.ts";
import type { RateLimits } from "./domain/rate-limit.ts";
import { formatProblem } from "./objects/problem.ts";
import { type DatabaseLocation, DEFAULT_HTTP_UPLOADS, type HttpUploads, type ServerOptions } from "./server-options.ts";
import type { Monitoring } from "./transport/http-endpoints.ts";
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
  readonly sessionLifetimeMs: number;
  /** The longest life a login may ask for, in milliseconds; that of `sessionMs` when left out. */
  readonly sessionMaxMs?: number | undefined;
  readonly sweepMs: number;
  /** Signs heads of the audit log; without one there are none. */
  readonly auditSigner?: AuditSigner | undefined;
  /** How long events of the audit log are kept, in milliseconds; as by default when left out. */
  readonly auditRetentionMs?: number | undefined;
  /** Disks of this machine that must have room. */
  readonly disks?: readonly ReservedDisk[] | undefined;
  /** Limits of calls from one address; none when left out, for tests. */
  readonly rateLimits?: RateLimits | undefined;
  /** SHA-256 in hexadecimal of the secret for /ready and /metrics; without one there are no metrics. */
  readonly monitoringSecretSha256?: string | undefined;
  /** Uploads over the HTTP API; the defaults of its options when left out. */
  readonly httpUploads?: HttpUploads | undefined;
  /** Their pool, for tests that look into it. */
  readonly httpBuffers?: BufferPool | undefined;
  /** How stored versions are verified in the background; undefined for not at all. */
  readonly verification?: VerificationPlan | undefined;
  /** How notifications are sent; undefined for not at all, for tests. */
  readonly sender?: NotificationSender | undefined;
  /** Kind of the database, for its status; the embedded one when left out. */
  readonly databaseKind?: string | undefined;
}

/** How fast a verification that is asked for reads where the options do not say. */
const VERIFY_BYTES_PER_SECOND = 64n * 1024n * 1024n;

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
  /** Addresses and ranges of proxies whose `X-Forwarded-For` is trusted; default none. */
  readonly trustedProxies?: readonly string[];
  /** How many connections are taken; any number when left out, for tests. */
  readonly connectionLimits?: ConnectionLimits | undefined;
  /** Origins whose pages may call from a browser; default none. */
  readonly corsOrigins?: readonly string[];
  /** Lets chunks go through the generic layers of the Connect library, to compare; default false. */
  readonly genericStreams?: boolean;
}

/** Puts the parts together and listens. The server owns store and database and closes them when it stops. */
export async function startServer(
  parts: ServerParts,
  host: string,
  port: number,
  { tls, trustedProxies = [], corsOrigins = [], connectionLimits, genericStreams = false }: NetworkOptions = {},
): Promise<RunningServer> {
  const monitoring = monitored(parts, randomUUID);
  const state = new ServingState(async () => await monitoring.database.ping());
  const attempts = new SegmentAttempts();
  const shares = new TenantShares({
    monotonic: () => performance.now(),
    // Its own error would hide why the wait is over.
    sleep: async (ms, signal) =>
      await sleep(ms, undefined, { signal }).catch(() => {
        throw signal.reason;
      }),
  });
  const shutdown = new AbortController();
  const logins = new LoginBudget(monitoring.database, parts.rateLimits?.login, () => performance.now());
  const audit = new AuditTrail({ database: monitoring.database, log: parts.log });
  const { bufferBytes, commitGraceMs } = parts.httpUploads ?? DEFAULT_HTTP_UPLOADS;
  const buffers = parts.httpBuffers ?? new BufferPool(bufferBytes);
  const shared = {
    ...parts,
    ...monitoring,
    attempts,
    shares,
    disk: new DiskReserve(parts.disks ?? []),
    logins,
    audit,
    newId: randomUUID,
    newPassword: () => newPassword(randomBytes),
    sha256,
    buffers,
    manifests: new ManifestWriter({ ...parts, ...monitoring }),
  };
  let noting: Promise<void> = Promise.resolve();
  const sweeper = new Sweeper(shared, parts.sweepMs, (report) => {
    monitoring.metrics?.swept(report);
    noting = noteSweep(monitoring.database, report, "server").catch((error: unknown) =>
      parts.log.warn({ err: error }, "the result of a sweep could not be noted"),
    );
  });
  const serverId = randomUUID();
  const replica = new ReplicaSign(shared, { id: serverId, host: hostname(), version: serverVersion() });
  const upkeep = new UpkeepRuns(shared, sweeper, parts.verification?.bytesPerSecond ?? VERIFY_BYTES_PER_SECOND);
  const credentials = new CredentialWatch({ ...shared, monotonic: () => performance.now() });
  const auditor = new Auditor({
    ...shared,
    trail: audit,
    signer: parts.auditSigner,
    retentionMs: parts.auditRetentionMs ?? DEFAULT_AUDIT_RETENTION_MS,
    timesHold: () => monitoring.clockWatch.state.status === "right",
    monotonic: () => performance.now(),
  });
  const keys = new Map<string, string>();
  const notifications = startNotifications({ ...shared, serverId, logins, keys, auditor });
  const verifier = parts.verification === undefined ? undefined : new Verifier(shared, parts.verification);
  const proxies = new AddressSet(trustedProxies);
  const comparison = new StartComparison({ ...parts, ...monitoring });
  const handler = requestHandler({
    ...shared,
    startComparison: comparison,
    state,
    replica,
    auditor,
    upkeep,
    databaseKind: parts.databaseKind ?? "pglite",
    commit: checkoutCommit(),
    refuseWhileStopping: state.refuseWhileStopping,
    onEnded: () => sweeper.request(),
    shutdownSignal: shutdown.signal,
    httpCommitGraceMs: commitGraceMs,
    trustedProxies: proxies,
    corsOrigins,
    genericStreams,
  });
  await comparison.run();
  const listener = await listen(handler, host, port, {
    tls: tls?.current,
    limits: connectionLimits,
    trustedProxies: proxies,
    onPressure: ({ open, closed, refused }) =>
      parts.log.warn({ open, closed, refused }, "connections are at their limit: idle ones without a login are closed"),
  });
  if (tls !== undefined) keepRenewed(tls, listener, parts.log, keys);
  sweeper.start();
  // After a look at the clock: until a server has had one, nobody knows whether it may be believed.
  await monitoring.clockWatch.look().catch(() => {});
  notifications?.start();
  credentials.start();
  auditor.start();
  verifier?.start();
  replica.start();
  const urlHost = listener.address.includes(":") ? `[${listener.address}]` : listener.address;
  return {
    url: `${tls === undefined ? "http" : "https"}://${urlHost}:${listener.port}`,
    listener,
    sweeper,
    async stop(graceMs) {
      state.stop();
      tls?.close();
      // One that fails must not keep the others from ending: a database that is not closed is recovered at the next
      // start.
      const failures: unknown[] = [];
      for (const end of [
        async () => await listener.stop(graceMs, () => shutdown.abort(shuttingDown())),
        async () => await verifier?.stop(),
        async () => await notifications?.stop(),
        async () => await upkeep.stop(),
        async () => await replica.stop(),
        async () => await credentials.stop(),
        async () => await sweeper.stop(graceMs),
        async () => await noting,
        async () => await auditor.stop(),
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

/** What tells notifiers of what goes on; undefined where nothing can be sent. */
function startNotifications(
  deps: ServerParts & {
    readonly metrics: Metrics | undefined;
    readonly logins: LoginBudget;
    readonly newId: () => string;
    /** Keys that the server does not have as it should, by what they are for. */
    readonly keys: ReadonlyMap<string, string>;
    readonly auditor: Pick<Auditor, "contradiction">;
    readonly serverId: string;
  },
): Notifications | undefined {
  const { sender, config, logins, keys, metrics, auditor } = deps;
  if (sender === undefined) return undefined;
  const signals: WatchedSignal[] = [
    { event: "configuration-refused", message: () => config.status?.().problem },
    { event: "login-flood", message: () => logins.flood.message },
    { event: "key-missing", message: () => [...keys.values()][0] },
    { event: "audit", message: () => auditor.contradiction },
  ];
  const notifications = new Notifications({
    ...deps,
    sender,
    signals,
    random: Math.random,
    onOutcome: metrics?.notified,
  });
  metrics?.showNotifiers(async () => await notifications.figures());
  return notifications;
}

/** Takes renewed certificates into use, and says when they are of no use. */
function keepRenewed(tls: TlsFiles, listener: Listener, log: Logger, missing: Map<string, string>): void {
  const tell = ({ subject, notAfter, warning }: CertificateFacts) => {
    const facts = { subject, not_after: notAfter.toISOString() };
    if (warning === undefined) log.info(facts, "the TLS certificate is in use");
    else log.warn(facts, warning);
  };
  tell(tls.facts);
  tls.watch({
    changed(material, facts) {
      listener.renewTls(material);
      missing.delete("tls");
      tell(facts);
    },
    rejected: ({ message }) => {
      missing.set("tls", `the new TLS files are not used, the old certificate stays: ${message}`);
      log.error({}, missing.get("tls")!);
    },
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
  const config = await ConfigFilesSource.open(options.configDir, { readOnly: options.configReadOnly });
  for (const warning of config.warnings)
    log.warn({ file: warning.file, line: warning.line }, `configuration: ${formatProblem(warning)}`);
  const { store, database } = await openStorage(options, log);
  try {
    const installation = await checkInstallation(database, store);
    log.info({ installation, store: store.capabilities.name }, "storage and database are open");
    const tokens = await openSigner(options, database);
    const secretFile = options.monitoringSecretFile;
    const monitoringSecretSha256 =
      secretFile === undefined ? options.monitoringSecretSha256 : secretDigest(await readFile(secretFile, "utf8"));
    if (monitoringSecretSha256 === undefined)
      log.info({}, "/metrics is not served, and /ready gives no details: there is no --monitoring-secret-sha256");
    const auditSigner = options.auditKeyFile === undefined ? undefined : await openAuditKey(options.auditKeyFile);
    if (auditSigner === undefined)
      log.warn({}, "the audit log is not signed: there is no --audit-key-file (docs/audit.md)");
    return {
      database,
      store,
      config,
      auditSigner,
      auditRetentionMs: options.auditRetentionMs,
      disks: watchedDisks(options),
      monitoringSecretSha256,
      passwords: new Argon2Hasher(),
      tokens,
      log,
      settings: { ...DEFAULT_UPLOAD_SETTINGS, leastSegmentSize: options.segmentSize },
      sessionMs: options.sessionMs,
      sessionLifetimeMs: options.sessionLifetimeMs,
      sessionMaxMs: options.sessionMaxMs,
      sweepMs: options.sweepMs,
      rateLimits: options.rateLimits,
      httpUploads: options.httpUploads,
      verification: options.verification,
      sender: notificationSender(options.notifyAllowAddresses),
      databaseKind: options.database.kind,
    };
  } catch (error) {
    await database.close();
    await store.close();
    throw error;
  }
}

type SignerFiles = Pick<ServerOptions, "tokenSecret" | "tokenSecretFiles" | "tokenSecretUse" | "oldTokenSecretFile">;

/** What signs and verifies tokens, as the options name it. @throws RangeError for a secret that is too short */
async function openSigner(options: SignerFiles, database: Database): Promise<JoseSigner> {
  const { tokenSecret, tokenSecretFiles, tokenSecretUse, oldTokenSecretFile } = options;
  const texts = tokenSecret === undefined ? [] : [tokenSecret];
  for (const file of tokenSecretFiles) texts.push(await readFile(file, "utf8"));
  const old = oldTokenSecretFile === undefined ? undefined : await readFile(oldTokenSecretFile, "utf8");
  const bytesOf = (secret: string | undefined) => (secret === undefined ? undefined : Buffer.from(secret.trim()));
  if (old?.trim() === "") throw new Error("the file of --old-token-secret-file is empty");
  const [secret, ...otherSecrets] = texts.map((text) => bytesOf(text)!);
  const secrets = { secret, otherSecrets, secretUse: tokenSecretUse, oldSecret: bytesOf(old) };
  return await JoseSigner.fromDatabase(database, secrets);
}

/** How long a server that starts waits for its database, which may be starting as well, in milliseconds. */
const DATABASE_WAIT_MS = 30_000;

async function openDatabase(database: DatabaseLocation, log: Logger): Promise<Database> {
  if (database.kind === "pglite")
    return await openPglite({
      directory: database.directory,
      onEnded: (reason) => log.error({}, `${reason}. It is started again when it is needed`),
    });
  let warned = false;
  return await openPostgres({
    ...database,
    waitMs: DATABASE_WAIT_MS,
    onWait: (reason) => {
      if (!warned) log.warn({}, `waiting up to ${DATABASE_WAIT_MS / 1000} s for the database: ${reason}`);
      warned = true;
    },
  });
}

/** Opens store and database, whether or not they belong together. */
export async function openStorage(
  options: Pick<ServerOptions, "storage" | "database">,
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

/** The parts that monitoring looks at. */
export interface MonitoredParts {
  readonly database: Database;
  readonly store: BlobStore;
  readonly config: ConfigSource;
  readonly log: Log;
  /** Disks of this machine that must have room. */
  readonly disks?: readonly ReservedDisk[] | undefined;
  /** SHA-256 of the monitoring secret in hexadecimal. */
  readonly monitoringSecretSha256?: string | undefined;
}

/** Store and database to be used instead, and what the rest of the server reports and asks. */
export interface ServerMonitoring {
  readonly database: Database;
  readonly store: BlobStore;
  readonly metrics: Metrics | undefined;
  readonly readiness: Readiness;
  readonly clockWatch: ClockWatch;
  readonly monitoring: Omit<Monitoring, "stopping">;
}

/** Sends by what a notifier names. @param allowed ranges that webhooks may call although they are no public ones. */
export function notificationSender(allowed: readonly string[]): NotificationSender {
  const addresses = new AddressSet(allowed);
  return {
    send: async ({ target }, delivery, signal) =>
      target.type === "mail"
        ? await sendMail(target, delivery, signal)
        : await sendWebhook(target, delivery, signal, { allowed: addresses, now: () => new Date() }),
  };
}

/** What uploads leave free where the options do not say: so much, or a tenth of a smaller disk. */
const USUAL_RESERVE_BYTES = 64n * 1024n * 1024n;

function watchedDisks({
  storage,
  database,
  diskReserve,
}: Pick<ServerOptions, "storage" | "database" | "diskReserve">): ReservedDisk[] {
  const usual = (tenth: bigint) => (tenth < USUAL_RESERVE_BYTES ? tenth : USUAL_RESERVE_BYTES);
  const disk = (check: ReservedDisk["check"], directory: string): ReservedDisk => ({
    check,
    freeBytes: async () => await freeSpace(directory),
    reserveBytes: async () => diskReserve ?? usual((await diskSize(directory)) / 10n),
  });
  const disks: ReservedDisk[] = [];
  if (storage.kind === "directory") disks.push(disk("storage", storage.path));
  if (database.kind === "pglite" && database.directory !== undefined) disks.push(disk("database", database.directory));
  return disks;
}

/** Puts measuring around store and database, if what is measured can be read. */
export function monitored(parts: MonitoredParts, newId: () => string): ServerMonitoring {
  const { config, log, monitoringSecretSha256: secretSha256 } = parts;
  const clockWatch = new ClockWatch(parts);
  const clock = () => clockWatch.state;
  const metrics =
    secretSha256 === undefined
      ? undefined
      : new Metrics({ figures: async () => await collectionFigures(parts), config, clock });
  const database = metrics === undefined ? parts.database : measuredDatabase(parts.database, metrics.databaseFailed);
  const store = metrics === undefined ? parts.store : new MeasuredBlobStore(parts.store, metrics.stored);
  const readiness = new Readiness({ database, store, config, disks: parts.disks, log, clock, newId });
  const ready = async () => await readiness.check();
  const monitoring = { hasSecret: secretSha256 !== undefined, ready, metrics };
  return { database, store, metrics, readiness, clockWatch, monitoring };
}

/**
 * SHA-256 in hexadecimal of the secret in a file's text, without the end of its line. @throws Error when it is empty
 */
export function secretDigest(text: string): string {
  const secret = text.replace(/^\ufeff|[\r\n]+$/g, "");
  if (secret === "") throw new Error("the file of --monitoring-secret-file is empty");
  return createHash("sha256").update(secret).digest("hex");
}

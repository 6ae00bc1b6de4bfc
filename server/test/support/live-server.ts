/** A server over the network on the embedded database, whose configuration and clock a test changes while it runs. */
import { createHash, randomUUID } from "node:crypto";
import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { Health } from "@strongroom/gen/grpc/health/v1/health_pb";
import { ServerReflection } from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionV1Alpha } from "@strongroom/gen/grpc/reflection/v1alpha/reflection_pb";
import { AdminService } from "@strongroom/gen/strongroom/v1/admin_service_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { OrganizationService } from "@strongroom/gen/strongroom/v1/organization_service_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import type { TestSegment } from "@strongroom/testkit/ciphertext";
import { sql } from "drizzle-orm";
import { destination, pino } from "pino";
import { JoseSigner } from "../../src/adapters/jose/jose-signer.ts";
import { MemoryBlobStore } from "../../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../../src/adapters/postgres/database.ts";
import type { BlobStore } from "../../src/app/ports/blob-store.ts";
import type { Database } from "../../src/app/ports/database.ts";
import type { PasswordHasher } from "../../src/app/ports/passwords.ts";
import type { TokenSigner } from "../../src/app/ports/tokens.ts";
import { credentialFingerprint, credentialHash } from "../../src/app/sessions/credential.ts";
import type { UploadSettings } from "../../src/app/settings.ts";
import type { BufferPool } from "../../src/app/uploads/buffer-pool.ts";
import { SegmentAttempts } from "../../src/app/uploads/segment-attempts.ts";
import type { UploadDeps } from "../../src/app/uploads/upload-deps.ts";
import type { CollectionSpec, Configuration, ObjectGrant, User } from "../../src/domain/configuration.ts";
import type { RateLimits } from "../../src/domain/rate-limit.ts";
import { type RunningServer, startServer } from "../../src/main.ts";
import { DEFAULT_HTTP_UPLOADS, type HttpUploads } from "../../src/server-options.ts";
import { SETTINGS, TestClock } from "./harness.ts";
import { openMemoryDatabase } from "./memory-database.ts";

const SESSION_MS = 6 * 3_600_000;

/** Takes `hash of X` for the hash of X; for tests that are not about hashing. */
export const PLAIN_PASSWORDS: PasswordHasher = {
  verify: async (hash, password) => hash === `hash of ${password}`,
  hash: async (password) => `hash of ${password}`,
};

/** What a test may choose. */
export interface LiveOptions {
  /** The store; an empty one in memory when left out. */
  readonly store?: BlobStore;
  readonly host?: string;
  readonly passwords?: PasswordHasher;
  readonly rateLimits?: RateLimits;
  readonly settings?: UploadSettings;
  /** Another server's, which stays open when this one is closed; a database of its own when left out. */
  readonly database?: SqlDatabase;
  readonly corsOrigins?: readonly string[];
  /** Uploads over the HTTP API; they become versions at once when left out, without waiting for their client. */
  readonly httpUploads?: HttpUploads;
  readonly httpBuffers?: BufferPool;
  /** Whether chunks go through the generic layers of the library. */
  readonly genericStreams?: boolean;
  /** SHA-256 of the monitoring secret in hexadecimal. */
  readonly monitoringSecretSha256?: string;
  /** Where log lines go; nowhere when left out. */
  readonly log?: (line: string) => void;
}

/** Every client of one server. */
export interface Clients {
  readonly uploads: Client<typeof UploadService>;
  readonly versions: Client<typeof VersionService>;
  readonly collections: Client<typeof CollectionService>;
  readonly sessions: Client<typeof SessionService>;
  readonly admin: Client<typeof AdminService>;
  readonly organizations: Client<typeof OrganizationService>;
  readonly health: Client<typeof Health>;
  readonly reflectionV1: Client<typeof ServerReflection>;
  readonly reflectionV1Alpha: Client<typeof ServerReflectionV1Alpha>;
}

/** Clients for an address, over one HTTP/2 connection, or HTTP/1.1 for IPv6. */
export function clientsOf(baseUrl: string): Clients {
  // Node's HTTP/2 client leaves the brackets of an IPv6 address out of :authority, which no server understands.
  const transport = createConnectTransport({ baseUrl, httpVersion: baseUrl.includes("[") ? "1.1" : "2" });
  return {
    uploads: createClient(UploadService, transport),
    versions: createClient(VersionService, transport),
    collections: createClient(CollectionService, transport),
    sessions: createClient(SessionService, transport),
    admin: createClient(AdminService, transport),
    organizations: createClient(OrganizationService, transport),
    health: createClient(Health, transport),
    reflectionV1: createClient(ServerReflection, transport),
    reflectionV1Alpha: createClient(ServerReflectionV1Alpha, transport),
  };
}

/** The running server. */
export class LiveServer {
  readonly clock: TestClock;
  readonly database: SqlDatabase;
  readonly deps: UploadDeps;
  readonly server: RunningServer;
  readonly clients: Clients;
  readonly #tokens: TokenSigner;
  readonly #state: { current: Configuration };

  private constructor(parts: {
    clock: TestClock;
    database: SqlDatabase;
    deps: UploadDeps;
    server: RunningServer;
    tokens: TokenSigner;
    state: { current: Configuration };
  }) {
    this.clock = parts.clock;
    this.database = parts.database;
    this.deps = parts.deps;
    this.server = parts.server;
    this.#tokens = parts.tokens;
    this.#state = parts.state;
    this.clients = clientsOf(parts.server.url);
  }

  static async open(
    users: readonly User[],
    collections: readonly CollectionSpec[],
    options: LiveOptions = {},
  ): Promise<LiveServer> {
    const clock = new TestClock();
    const database = options.database ?? (await openMemoryDatabase(() => clock.now));
    const store = options.store ?? new MemoryBlobStore();
    const state = {
      current: {
        users: new Map(users.map((u) => [u.name, u])),
        collections: new Map(collections.map((c) => [c.name, c])),
        organizations: new Map(),
      } as Configuration,
    };
    const config = { current: () => state.current };
    const tokens = await JoseSigner.fromDatabase(database);
    const settings = options.settings ?? SETTINGS;
    const write = options.log;
    const log =
      write === undefined ? pino({ level: "silent" }, destination({ dest: 2 })) : pino({ level: "debug" }, { write });
    const server = await startServer(
      {
        database: options.database === undefined ? database : keptOpen(database),
        store,
        config,
        passwords: options.passwords ?? PLAIN_PASSWORDS,
        tokens,
        log,
        settings,
        sessionMs: SESSION_MS,
        sessionLifetimeMs: 7 * 24 * 3_600_000,
        sweepMs: 3_600_000,
        rateLimits: options.rateLimits,
        httpUploads: options.httpUploads ?? { ...DEFAULT_HTTP_UPLOADS, commitGraceMs: 0 },
        httpBuffers: options.httpBuffers,
        monitoringSecretSha256: options.monitoringSecretSha256,
      },
      options.host ?? "127.0.0.1",
      0,
      { corsOrigins: options.corsOrigins ?? [], genericStreams: options.genericStreams ?? false },
    );
    const deps = { database, store, config, settings, newId: randomUUID, attempts: new SegmentAttempts() };
    return new LiveServer({ clock, database, deps, server, tokens, state });
  }

  /** Puts a user into the configuration, in place of the one of its name. */
  putUser(user: User): void {
    this.#state.current = {
      ...this.#state.current,
      users: new Map([...this.#state.current.users, [user.name, user]]),
    };
  }

  /** Takes a user out of the configuration. */
  removeUser(name: string): void {
    const users = new Map(this.#state.current.users);
    users.delete(name);
    this.#state.current = { ...this.#state.current, users };
  }

  /** Puts a collection into the configuration, in place of the one of its name. */
  putCollection(spec: CollectionSpec): void {
    this.#state.current = {
      ...this.#state.current,
      collections: new Map([...this.#state.current.collections, [spec.name, spec]]),
    };
  }

  /** Makes a session without a login. */
  async session(
    userName: string,
    more: { accessKey?: string; scope?: readonly ObjectGrant[]; description?: string } = {},
  ): Promise<{ id: string; token: string }> {
    const now = this.clock.now;
    const expiresAt = new Date(now.getTime() + SESSION_MS);
    const token = await this.#tokens.sign({ subject: userName, issuedAt: now, expiresAt });
    const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
    const id = sha256(token);
    const name = { userName, accessKey: more.accessKey ?? "" };
    const hash = credentialHash(this.#state.current.users.get(userName), name.accessKey);
    await this.database.transaction(async (tx) => {
      await tx.sessions.insert({
        id,
        ...name,
        fingerprint: credentialFingerprint(sha256, name, hash) ?? null,
        chainId: id,
        chainBeganAt: now,
        chainEndsAt: null,
        scope: more.scope ?? [],
        description: more.description ?? "",
        address: "127.0.0.1",
        createdAt: now,
        expiresAt,
        revokedAt: null,
      });
    });
    return { id, token };
  }

  /** Everything that is kept, as one text. */
  async everything(): Promise<string> {
    const tables = await this.database.query(
      sql`select table_name as name from information_schema.tables where table_schema = 'public' order by 1`,
    );
    const parts: string[] = [];
    for (const { name } of tables) {
      // That something was refused is written down, and rows are given their places in the background. So is what a
      // server says of itself and of its sweeps.
      if (["audit_chain", "replicas", "upkeep_runs"].includes(String(name))) continue;
      const rows = await this.database.query(
        name === "audit_events"
          ? sql`select id::text || ' ' || kind as row from audit_events where outcome <> 'refused' order by 1`
          : sql`select t::text as row from ${sql.identifier(String(name))} t order by 1`,
      );
      parts.push(`${name}\n${rows.map((r) => r.row).join("\n")}`);
    }
    for await (const blob of this.deps.store.list("")) parts.push(`${blob.key} ${blob.size}`);
    for await (const pending of this.deps.store.listPending()) {
      const stored = await (this.deps.store as MemoryBlobStore).listParts(pending);
      parts.push(`${pending.key} ${stored.map((p) => `${p.index}:${p.size}`).join(" ")}`);
    }
    return parts.join("\n\n");
  }

  async close(): Promise<void> {
    await this.server.stop(1000);
  }
}

/** A database whose end is not that of the server. */
function keptOpen(database: SqlDatabase): Database {
  return {
    transaction: async (work) => await database.transaction(work),
    read: async (work) => await database.read(work),
    installation: async () => await database.installation(),
    startRecovery: async (id) => await database.startRecovery(id),
    finishRecovery: async () => await database.finishRecovery(),
    startImport: async () => await database.startImport(),
    finishImport: async () => await database.finishImport(),
    exclusively: async (name, work) => await database.exclusively(name, work),
    ping: async () => await database.ping(),
    close: async () => {},
  };
}

/** Call options with a token. */
export const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

/** The frames of a segment. */
export async function* framesOf(uploadId: string, segment: TestSegment) {
  const { index, size, sha256, framingIn } = segment;
  yield { frame: { case: "header" as const, value: { uploadId, index, sizeBytes: size, sha256, framingIn } } };
  yield { frame: { case: "chunk" as const, value: segment.bytes } };
}

/** The reason a call was refused for; "ok" for none. Other failures are thrown. */
export async function reasonOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "ok";
  } catch (error) {
    const reason = error instanceof ConnectError ? error.findDetails(ErrorInfoSchema)[0]?.reason : undefined;
    if (reason === undefined) throw error;
    return reason;
  }
}

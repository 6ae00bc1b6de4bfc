import { createHash, randomUUID } from "node:crypto";
import { chunked, compositeOf, cutSegments, type TestSegment } from "@strongroom/testkit/ciphertext";
import type { ExecutionContext, TestFn } from "ava";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../../src/adapters/postgres/database.ts";
import { isRetryable } from "../../src/adapters/postgres/errors.ts";
import { checkInstallation } from "../../src/app/installation.ts";
import type { BlobStore } from "../../src/app/ports/blob-store.ts";
import { DEFAULT_UPLOAD_SETTINGS, type Log, type UploadSettings } from "../../src/app/settings.ts";
import type { SweepDeps } from "../../src/app/upkeep/sweep.ts";
import { commitUpload } from "../../src/app/uploads/commit-upload.ts";
import { createUpload } from "../../src/app/uploads/create-upload.ts";
import type { DiskReserve } from "../../src/app/uploads/disk-reserve.ts";
import { SegmentAttempts } from "../../src/app/uploads/segment-attempts.ts";
import { writeSegment } from "../../src/app/uploads/write-segment.ts";
import { ManifestError, parseManifest } from "../../src/app/versions/manifest.ts";
import type { Principal } from "../../src/domain/access.ts";
import type { CollectionSpec, OrganizationSpec, User } from "../../src/domain/configuration.ts";
import { DomainError, type Reason } from "../../src/domain/errors.ts";
import { manifestKey } from "../../src/domain/object-keys.ts";
import type { Version } from "../../src/domain/version.ts";
import { type DatabaseKind, type DatabaseTest, onEachDatabase, openDatabase } from "./databases.ts";

/** One MiB as a number. */
export const MIB = 1024 * 1024;

const START = "2026-01-01T00:00:00Z";

/** A clock that tests move. */
export class TestClock {
  now = new Date(START);

  advance(ms: number): void {
    this.now = new Date(this.now.getTime() + ms);
  }
}

/** Settings with the smallest segments. */
export const SETTINGS: UploadSettings = { ...DEFAULT_UPLOAD_SETTINGS, leastSegmentSize: BigInt(MIB) };

/** A user of tests; nobody can log in as it. */
export function user(name: string, change: Partial<User> = {}): User {
  return {
    name,
    email: `${name}@example.org`,
    organization: "",
    about: "",
    deactivated: false,
    passwordHash: undefined,
    restrictByIp: [],
    roles: [],
    accessKeys: [],
    ...change,
  };
}

/** A collection of tests: three versions, 4 MiB soft, 20 MiB hard. */
export function collection(name: string, change: Partial<CollectionSpec> = {}): CollectionSpec {
  return {
    name,
    description: "",
    organization: "",
    filenameTemplate: `${name}-\${version}.tar`,
    maxBackupsCount: 3,
    maxOneVersionSize: BigInt(4 * MIB),
    maxCollectionSize: BigInt(20 * MIB),
    maxParallelUploads: 1,
    windows: [],
    timezone: "UTC",
    rotation: { strategy: "fifo" },
    maxAgeMs: undefined,
    minRetentionMs: undefined,
    minVersionSize: 0n,
    minIntervalMs: undefined,
    maxVersionsPerWindow: undefined,
    maxUploadAgeMs: undefined,
    shrunkFactor: 4,
    rotationGuard: undefined,
    removalShare: 1,
    trashRetentionMs: undefined,
    encryptionFormats: ["openpgp"],
    recipientKeyIds: undefined,
    healthSecretSha256: undefined,
    accessControl: [],
    ...change,
  };
}

/** A caller in a session of its own. */
export function principal(of: User, change: Partial<Principal> = {}): Principal {
  return {
    user: of,
    accessKey: "",
    scope: [],
    sessionId: createHash("sha256").update(of.name).digest("hex"),
    ...change,
  };
}

const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** Use cases over a real database, a store, and a clock that tests move. */
export class Harness {
  readonly clock: TestClock;
  readonly deps: SweepDeps;
  readonly users = new Map<string, User>();
  readonly collections = new Map<string, CollectionSpec>();
  readonly organizations = new Map<string, OrganizationSpec>();
  readonly admin = principal(user("admin", { roles: ["systemAdmin"] }));

  private constructor(clock: TestClock, deps: Omit<SweepDeps, "config">) {
    this.clock = clock;
    const configuration = { users: this.users, collections: this.collections, organizations: this.organizations };
    this.deps = { ...deps, config: { current: () => configuration } };
  }

  static async open(
    kind: DatabaseKind = "PGlite",
    store: BlobStore = new MemoryBlobStore(),
    settings: UploadSettings = SETTINGS,
  ): Promise<Harness> {
    const clock = new TestClock();
    const database = await openDatabase(kind, () => clock.now);
    await checkInstallation(database, store);
    return Harness.on(database, clock, store, settings);
  }

  /** Use cases over a database that is open. */
  static on(
    database: SqlDatabase,
    clock: TestClock,
    store: BlobStore = new MemoryBlobStore(),
    settings: UploadSettings = SETTINGS,
    disk?: DiskReserve,
  ): Harness {
    return new Harness(clock, {
      disk,
      database,
      store,
      settings,
      log: SILENT,
      attempts: new SegmentAttempts(),
      newId: randomUUID,
    });
  }

  /** Begins again, with the same database emptied: opening one takes a second or more. */
  async reset(): Promise<Harness> {
    const database = this.deps.database as SqlDatabase;
    await emptyTables(database);
    this.clock.now = new Date(START);
    const store = new MemoryBlobStore();
    await checkInstallation(database, store);
    return Harness.on(database, this.clock, store);
  }

  /** The same database and clock over another store, as another server would have them. */
  over(store: BlobStore): SweepDeps {
    return { ...this.deps, store, attempts: new SegmentAttempts() };
  }

  /** Adds a collection with a name of its own. */
  add(change: Partial<CollectionSpec> = {}): CollectionSpec {
    const spec = collection(change.name ?? `c-${this.collections.size + 1}`, change);
    this.collections.set(spec.name, spec);
    return spec;
  }

  async begin(collectionName: string, by: Principal = this.admin, requestId = "") {
    return await createUpload(this.deps, by, {
      collection: collectionName,
      requestId,
      expectedSize: 0n,
      filename: "",
      contentEncoding: "none",
      labels: {},
      clientMetadata: {},
    });
  }

  async write(
    uploadId: string,
    segment: TestSegment,
    body: AsyncIterable<Uint8Array> = chunked(segment.bytes),
    by: Principal = this.admin,
    signal: AbortSignal = new AbortController().signal,
  ) {
    return await writeSegment(this.deps, by, { uploadId, ...segment }, body, signal);
  }

  async commit(uploadId: string, segments: readonly TestSegment[], by: Principal = this.admin) {
    const size = segments.reduce((sum, s) => sum + s.size, 0n);
    return await commitUpload(this.deps, by, { uploadId, size, compositeSha256: compositeOf(segments) });
  }

  /** Uploads a whole message. */
  async upload(collectionName: string, message: Uint8Array, by: Principal = this.admin) {
    const { upload } = await this.begin(collectionName, by);
    const segments = cutSegments(message, Number(upload.segmentSize));
    for (const segment of segments) await this.write(upload.id, segment, chunked(segment.bytes), by);
    return await this.commit(upload.id, segments, by);
  }

  /** Every counter equals the sum over the rows. Called after every scenario. */
  async assertInvariants(t: ExecutionContext): Promise<void> {
    const database = this.deps.database as SqlDatabase;
    const wrong = await database.query(sql`
      select c.name, c.stored_bytes, c.reserved_bytes, c.trash_bytes
      from collections c
      where c.stored_bytes <> coalesce((select sum(size) from versions v where v.collection_id = c.id and v.state = 'live'), 0)
         or c.trash_bytes <> coalesce((select sum(size) from versions v where v.collection_id = c.id and v.state = 'removed'), 0)
         or c.live_versions <> (select count(*) from versions v where v.collection_id = c.id and v.state = 'live')
         or c.counted_bytes <> coalesce((select sum(greatest(size, 16384)) from versions v where v.collection_id = c.id and v.state = 'live'), 0)
         or c.reserved_bytes <> coalesce((select sum(reserved_bytes) from uploads u where u.collection_id = c.id), 0)
      union all
      select 'organization ' || o.name, o.stored_bytes, o.reserved_bytes, o.trash_bytes
      from organizations o
      where o.stored_bytes <> coalesce((select sum(size) from versions v where v.organization = o.name and v.state = 'live'), 0)
         or o.trash_bytes <> coalesce((select sum(size) from versions v where v.organization = o.name and v.state = 'removed'), 0)
         or o.reserved_bytes <> coalesce((select sum(reserved_bytes) from uploads u where u.organization = o.name), 0)
      union all
      select 'upload ' || u.id, u.reserved_bytes, 0, 0
      from uploads u
      where u.reserved_bytes <> coalesce((select sum(size) from segments s where s.upload_id = u.id), 0)`);
    t.deepEqual(wrong, [], "counters equal the rows");
    await this.#assertManifests(t);
  }

  /**
   * A manifest that is said to be of its version's revision says what the row says. Some tests took manifests away, or
   * damaged them.
   */
  async #assertManifests(t: ExecutionContext): Promise<void> {
    const database = this.deps.database as SqlDatabase;
    const rows = await database.query(
      sql`select key from versions where state <> 'purged' and manifest_revision = revision`,
    );
    const keys = rows.map(({ key }) => String(key));
    for (const row of await database.read(async (tx) => await tx.versions.byKeys(keys))) {
      const bytes = await this.deps.store.get(manifestKey(row.key), MIB);
      if (bytes === undefined) continue;
      const said = parsedManifest(bytes);
      if (said !== undefined) t.deepEqual(said, { ...row, verifiedAt: null }, `the manifest of ${row.key}`);
    }
  }

  /** What a collection counts. */
  async usage(name: string) {
    return (await this.deps.database.transaction(async (tx) => await tx.collections.findByName(name)))!;
  }
}

function parsedManifest(bytes: Uint8Array): Version | undefined {
  try {
    return parseManifest(bytes, "default").version;
  } catch (error) {
    if (error instanceof ManifestError) return undefined;
    throw error;
  }
}

/** Asserts that the call is refused with this reason, and returns the error. */
export async function refused(t: ExecutionContext, reason: Reason, call: Promise<unknown>): Promise<DomainError> {
  const error = await t.throwsAsync(call, { instanceOf: DomainError });
  t.is(error!.reason, reason, error!.message);
  return error as DomainError;
}

/**
 * Declares tests that run on each kind of database, all of a kind on one harness; its counters are checked after each.
 * @param options.fresh begin each test with an empty database and store.
 */
export function harnessTest(
  test: TestFn<{ h: Harness }>,
  options: { readonly fresh?: boolean } = {},
): DatabaseTest<{ h: Harness }> {
  return onEachDatabase(test, {
    open: async (kind) => await Harness.open(kind),
    use: async (t, h) => {
      t.context = { h: options.fresh === true ? await h.reset() : h };
    },
    check: async (t, h) => await h.assertInvariants(t),
    close: async (h) => await h.deps.database.close(),
  });
}

const EMPTY = sql`truncate installation, usage_days, collections, organizations, uploads, segments, versions, unknown_objects, audit_events, audit_chain, audit_configuration, sessions, signing_keys, login_budgets, notification_reviews, notification_signals, notification_told, notification_outbox, replicas, upkeep_runs`;

/** Deletes every row. What a test before has left running may be in the way of it: then again. */
export async function emptyTables(database: SqlDatabase): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return void (await database.query(EMPTY));
    } catch (error) {
      if (!isRetryable(error) || tries === 10) throw error;
    }
  }
}

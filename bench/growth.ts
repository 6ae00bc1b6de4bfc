/**
 * `npm run bench:growth`: what a call costs as a collection and an installation grow. The use cases run in this
 * process over a real database and a store in memory, so that the figures are those of the server's own work and of
 * its queries, without a wire. Rows are made by SQL.
 */
import { randomUUID } from "node:crypto";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { chunked, compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../server/src/adapters/memory/memory-blob-store.ts";
import { openPglite } from "../server/src/adapters/pglite/pglite.ts";
import type { SqlDatabase } from "../server/src/adapters/postgres/database.ts";
import { openPostgres } from "../server/src/adapters/postgres/postgres.ts";
import * as collectionUseCases from "../server/src/app/collections/collections.ts";
import { collectionFigures } from "../server/src/app/collections/figures.ts";
import { EVERY_COLLECTION, listCollections } from "../server/src/app/collections/list-collections.ts";
import { DEFAULT_UPLOAD_SETTINGS, type Log } from "../server/src/app/settings.ts";
import { commitUpload } from "../server/src/app/uploads/commit-upload.ts";
import { createUpload } from "../server/src/app/uploads/create-upload.ts";
import { SegmentAttempts } from "../server/src/app/uploads/segment-attempts.ts";
import { writeSegment } from "../server/src/app/uploads/write-segment.ts";
import { listVersions } from "../server/src/app/versions/versions.ts";
import type { Principal } from "../server/src/domain/access.ts";
import type { CollectionSpec } from "../server/src/domain/configuration.ts";
import { parsePostgresUrl } from "../server/src/domain/postgres-url.ts";

const USAGE = `Usage: npm run bench:growth -- [options]

  --runs N       runs of each call; the median is shown (9)
  --versions L   versions of one collection (10,1000,20000)
  --collections L  collections (10,1000,10000)
  --strategy S   fifo, full (fifo at its limit, so that every commit removes one) or gfs (fifo)
  --pglite       the embedded database in place of PostgreSQL
  --help         shows this
`;
const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "9" },
    versions: { type: "string", default: "10,1000,20000" },
    collections: { type: "string", default: "10,1000,10000" },
    strategy: { type: "string", default: "fifo" },
    pglite: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const runs = Number(values.runs);
const counts = (list: string) => list.split(",").filter(Boolean).map(Number);
const KIB = 1024n;
const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

function specOf(name: string, versions: number): CollectionSpec {
  const rotation =
    values.strategy === "gfs"
      ? {
          strategy: "gfs" as const,
          counts: {
            keepLast: versions + 1000,
            keepHourly: 0,
            keepDaily: 30,
            keepWeekly: 0,
            keepMonthly: 12,
            keepYearly: 0,
          },
        }
      : { strategy: "fifo" as const };
  return {
    name,
    description: "",
    organization: "",
    filenameTemplate: `${name}-\${version}`,
    maxBackupsCount: values.strategy === "full" ? versions : versions + 1000,
    maxOneVersionSize: 1024n * KIB,
    maxCollectionSize: BigInt(versions + 3000) * 1024n * KIB,
    maxParallelUploads: 1,
    windows: [],
    timezone: "UTC",
    rotation,
    maxAgeMs: 86_400_000,
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
  };
}

const admin: Principal = {
  user: {
    name: "admin",
    email: "",
    organization: "",
    about: "",
    deactivated: false,
    passwordHash: undefined,
    restrictByIp: [],
    roles: ["systemAdmin"],
    accessKeys: [],
  },
  accessKey: "",
  scope: [],
  sessionId: "bench",
};

/** Collections with so many live versions of 1 KiB each, one an hour up to now. */
async function fill(database: SqlDatabase, names: readonly string[], versions: number): Promise<void> {
  await database.query(sql`insert into collections (id, name, last_number, stored_bytes, reserved_bytes, trash_bytes, created_at)
    select gen_random_uuid(), name, ${versions}::int, ${versions}::int * 1024::bigint, 0, 0, now()
    from jsonb_array_elements_text(${JSON.stringify(names)}::text::jsonb) as name`);
  await database.query(sql`insert into versions (id, collection_id, collection_name, organization, storage, key, number,
      filename, size, segment_size, segment_count, composite_sha256, segment_digests, content_encoding, encryption_format,
      armored, begun_at, committed_at, user_name, access_key, session_id, labels, client_metadata, above_soft_limit, state,
      held, hold_reason, removed_by)
    select gen_random_uuid(), c.id, c.name, '', 'default', 'collections/' || c.name || '/' || gen_random_uuid(), n,
      c.name || '-' || n, 1024, 5242880, 1, '\\x00', '\\x00', 'none', 'openpgp', false,
      now() - (${versions}::int - n) * interval '1 hour', now() - (${versions}::int - n) * interval '1 hour', 'ann', '', '',
      '{"host":"db1"}', '{}', false, 'live', false, '', ''
    from collections c, generate_series(1, ${versions}::int) n
    where c.name in (select jsonb_array_elements_text(${JSON.stringify(names)}::text::jsonb))`);
  await database.query(sql`analyze`);
}

async function median(work: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let run = 0; run <= runs; run++) {
    const from = performance.now();
    await work();
    // The first one fills caches.
    if (run > 0) times.push(performance.now() - from);
  }
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
}

type Row = Record<string, number>;

async function open(): Promise<{ database: SqlDatabase; remove: () => Promise<void> }> {
  if (values.pglite) {
    const database = await openPglite({ directory: undefined });
    return { database, remove: async () => await database.close() };
  }
  const peer = await startPostgres({ shared_buffers: "256MB" });
  const database = await openPostgres({ location: parsePostgresUrl(peer.url), connections: 4, waitMs: 10_000 });
  return {
    database,
    async remove() {
      await database.close();
      await peer.remove();
    },
  };
}

async function ofVersions(versions: number): Promise<Row> {
  const { database, remove } = await open();
  await database.installation();
  const spec = specOf("one", versions);
  await fill(database, ["one"], versions);
  const configuration = { users: new Map(), collections: new Map([["one", spec]]), organizations: new Map() };
  const deps = {
    database,
    store: new MemoryBlobStore(),
    settings: DEFAULT_UPLOAD_SETTINGS,
    log: SILENT,
    attempts: new SegmentAttempts(),
    newId: randomUUID,
    config: { current: () => configuration },
    sha256: (text: string) => text,
  };
  const message = openpgpMessage(1024);
  const row: Row = { of: versions };
  const steps: Row = { create: 0, segment: 0, commit: 0 };
  const timed = async <T>(step: string, work: () => Promise<T>): Promise<T> => {
    const from = performance.now();
    const result = await work();
    steps[step]! += performance.now() - from;
    return result;
  };
  const backup = async () => {
    const input = {
      collection: "one",
      requestId: "",
      expectedSize: 0n,
      filename: "",
      contentEncoding: "none" as const,
    };
    const { upload } = await timed(
      "create",
      async () => await createUpload(deps, admin, { ...input, labels: {}, clientMetadata: {} }),
    );
    const [segment] = cutSegments(message, Number(upload.segmentSize));
    await timed(
      "segment",
      async () =>
        await writeSegment(
          deps,
          admin,
          { uploadId: upload.id, ...segment! },
          chunked(segment!.bytes),
          new AbortController().signal,
        ),
    );
    const commit = { uploadId: upload.id, size: 1024n, compositeSha256: compositeOf([segment!]) };
    await timed("commit", async () => await commitUpload(deps, admin, commit));
  };
  row.backup = await median(backup);
  for (const [step, ms] of Object.entries(steps)) row[`  ${step}`] = ms / (runs + 1);
  row.ls = await median(
    async () => await listVersions(deps, admin, { collection: "one", beforeNumber: undefined, pageSize: 100 }),
  );
  row.health = await median(
    async () => await collectionUseCases.getCollectionHealth(deps, { principal: admin, secret: undefined }, "one"),
  );
  row.describe = await median(async () => await collectionUseCases.getCollection(deps, admin, "one"));
  row.listCollections = await median(
    async () => await listCollections(deps, admin, { ...EVERY_COLLECTION, afterName: undefined, pageSize: 100 }),
  );
  row.metrics = await median(async () => await collectionFigures(deps));
  await remove();
  return row;
}

async function ofCollections(count: number): Promise<Row> {
  const { database, remove } = await open();
  await database.installation();
  const names = Array.from({ length: count }, (_, i) => `c-${String(i).padStart(5, "0")}`);
  const collections = new Map(names.map((name) => [name, specOf(name, 7)]));
  await fill(database, names, 7);
  const configuration = { users: new Map(), collections, organizations: new Map() };
  const deps = { database, config: { current: () => configuration }, sha256: (text: string) => text };
  const row: Row = { of: count };
  const middle = names[Math.floor(count / 2)]!;
  row["listCollections, 10"] = await median(
    async () => await listCollections(deps, admin, { ...EVERY_COLLECTION, afterName: undefined, pageSize: 10 }),
  );
  row["listCollections, 10 from the middle"] = await median(
    async () => await listCollections(deps, admin, { ...EVERY_COLLECTION, afterName: middle, pageSize: 10 }),
  );
  row["listCollections, the failed ones"] = await median(
    async () =>
      await listCollections(deps, admin, {
        ...EVERY_COLLECTION,
        health: ["failed"],
        afterName: undefined,
        pageSize: 10,
      }),
  );
  row.health = await median(
    async () => await collectionUseCases.getCollectionHealth(deps, { principal: admin, secret: undefined }, middle),
  );
  row.metrics = await median(async () => await collectionFigures(deps));
  await remove();
  return row;
}

function show(title: string, rows: readonly Row[]): void {
  console.log(`\n${title}, ms`);
  for (const name of Object.keys(rows[0] ?? {}))
    console.log(
      `${name.padEnd(38)}${rows.map((row) => (name === "of" ? String(row[name]) : row[name]!.toFixed(1)).padStart(10)).join("")}`,
    );
}

const where = values.pglite ? "embedded database" : "PostgreSQL";
const load = () =>
  loadavg()
    .map((n) => n.toFixed(1))
    .join(" ");
console.log(`load of the machine before: ${load()}`);
const byVersions: Row[] = [];
for (const count of counts(values.versions)) byVersions.push(await ofVersions(count));
if (byVersions.length > 0) show(`${where}, ${values.strategy}, versions of one collection`, byVersions);
const byCollections: Row[] = [];
for (const count of counts(values.collections)) byCollections.push(await ofCollections(count));
if (byCollections.length > 0) show(`${where}, collections of 7 versions`, byCollections);
console.log(`load of the machine after: ${load()}`);

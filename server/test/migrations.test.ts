/** Migrations of a database that holds rows: on PGlite and on a PostgreSQL server. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import test, { type ExecutionContext } from "ava";
import { sql } from "drizzle-orm";
import { drizzle as drizzlePglite } from "drizzle-orm/pglite";
import { migrate as migratePglite } from "drizzle-orm/pglite/migrator";
import { drizzle as drizzlePostgres } from "drizzle-orm/postgres-js";
import { migrate as migratePostgres } from "drizzle-orm/postgres-js/migrator";
import postgres from "postgres";
import { openPglite } from "../src/adapters/pglite/pglite.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { MIGRATIONS_FOLDER } from "../src/adapters/postgres/migrations.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";

test.after.always(async () => await removeSharedCluster());

/** A folder with the migrations up to this one only, as an older release had it. */
async function migrationsUpTo(last: string, place: string): Promise<string> {
  const folder = join(place, "migrations");
  await cp(MIGRATIONS_FOLDER, folder, { recursive: true });
  const journal = join(folder, "meta/_journal.json");
  const { entries, ...rest } = JSON.parse(await readFile(journal, "utf8")) as { entries: { tag: string }[] };
  const end = entries.findIndex(({ tag }) => tag === last);
  await writeFile(journal, JSON.stringify({ ...rest, entries: entries.slice(0, end + 1) }));
  return folder;
}

const ID = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;

/** A row as release 0.2 kept it. */
function versionOf(n: number, state: string, manifestState: string, damage: string): string {
  const removed = state === "live" ? "null, '', null" : "now(), 'user:ann', now()";
  return `insert into versions (id, collection_id, collection_name, organization, storage, key, number, filename, size, segment_size, segment_count,
    composite_sha256, segment_digests, content_encoding, encryption_format, armored, begun_at, committed_at, user_name, access_key, session_id, labels,
    client_metadata, above_soft_limit, state, held, hold_reason, protected_until, removed_at, removed_by, purge_after, manifest_state, damage)
    values ('${ID(n)}', '${ID(0)}', 'a', '', 'default', 'collections/a/${ID(n)}', ${n}, 'a.tar', 1, 1, 1, '\\x00', '\\x00', 'none', 'openpgp', false, now(),
    now(), 'ann', '', '', '{}', '{}', false, '${state}', false, '', null, ${removed}, '${manifestState}', '${damage}')`;
}

/** One of every state that release 0.2 knew. */
const OLD_ROWS = [
  `insert into collections values ('${ID(0)}', 'a', 7, 3, 0, 3, now())`,
  versionOf(1, "live", "live", ""),
  versionOf(2, "live", "live", "segment 0 has other bytes"),
  versionOf(3, "removed", "live", ""),
  versionOf(4, "removed", "removed", ""),
  versionOf(5, "removed", "removed", "gone"),
  versionOf(6, "purged", "live", ""),
  versionOf(7, "purged", "removed", ""),
  "insert into sessions values ('s', 'ann', '', '[]', '', '', '2026-01-01T00:00:00Z', '2026-01-01T06:00:00Z', null)",
];

/** Sessions go on: each is the first of a chain that began when it did, and fits any password. */
async function checkSessions(t: ExecutionContext, database: SqlDatabase): Promise<void> {
  const session = await database.read(async (tx) => await tx.sessions.find("s"));
  t.like(session, { chainId: "s", chainBeganAt: new Date("2026-01-01T00:00:00Z"), fingerprint: null, revokedAt: null });
}

async function checkRevisions(t: ExecutionContext, database: SqlDatabase): Promise<void> {
  const counted = await database.query(sql`select live_versions, counted_bytes::int from collections`);
  t.deepEqual(counted, [{ live_versions: 2, counted_bytes: 2 * 16_384 }], "what was there is counted");
  const rows = await database.query(sql`select number::int, revision, manifest_revision from versions order by number`);
  t.deepEqual(
    rows.map(Object.values),
    [
      [1, 1, 1],
      [2, 2, 1],
      [3, 2, 1],
      [4, 2, 2],
      [5, 3, 2],
      [6, 2, 1],
      [7, 2, 2],
    ],
    "number, revision, revision of the manifest",
  );
  const stale = await database.read(async (tx) => await tx.versions.staleManifests({ after: undefined, limit: 100 }));
  t.deepEqual(
    stale.map(({ number }) => number),
    [2n, 3n, 5n],
  );
}

const LAST_BEFORE = "0002_verification-and-recovery";

test.serial("PGlite: versions get revisions, by what their manifests say", async (t) => {
  const place = await mkdtemp(join(tmpdir(), "strongroom-migrations-"));
  t.teardown(async () => await rm(place, { recursive: true }));
  const directory = join(place, "database");
  await mkdir(directory);
  const client = await PGlite.create({ dataDir: join(directory, "data") });
  await migratePglite(drizzlePglite({ client }), { migrationsFolder: await migrationsUpTo(LAST_BEFORE, place) });
  for (const row of OLD_ROWS) await client.exec(row);
  await client.close();
  const database = await openPglite({ directory });
  await checkRevisions(t, database);
  await checkSessions(t, database);
  await database.close();
});

test.serial("PostgreSQL: versions get revisions, by what their manifests say", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const place = await mkdtemp(join(tmpdir(), "strongroom-migrations-"));
  t.teardown(async () => await rm(place, { recursive: true }));
  const url = await (await sharedCluster()).peer.createDatabase("before_revisions");
  const client = postgres(url, { max: 1, onnotice: () => {} });
  await migratePostgres(drizzlePostgres({ client }), { migrationsFolder: await migrationsUpTo(LAST_BEFORE, place) });
  for (const row of OLD_ROWS) await client.unsafe(row);
  await client.end();
  const database = await openServer(url);
  await checkRevisions(t, database);
  await checkSessions(t, database);
  await database.close();
});

/** Uploads as release 0.2 kept them: what lapsed or ended had nothing reserved, whatever the store still had. */
const OLD_UPLOADS = [
  `insert into collections values ('${ID(0)}', 'a', 7, 0, 10, 0, now())`,
  `insert into organizations values ('acme', 0, 10, 0)`,
  uploadOf(1, "open", false, 10, "null"),
  uploadOf(2, "open", true, 0, "null"),
  uploadOf(3, "aborted", true, 0, "null"),
  uploadOf(4, "expired", true, 0, "now()"),
  uploadOf(5, "committed", true, 0, "now()"),
  ...[1, 2, 3].map(
    (n) =>
      `insert into segments values ('${ID(n)}', 0, 10, '\\x00', 'stored', 1, '\\x00', '\\x00', now()), ('${ID(n)}', 1, ${n - 1} + 1, '\\x00', 'pending', 1, '\\x00', null, null)`,
  ),
  `delete from segments where upload_id = '${ID(1)}' and index = 1`,
  `insert into sessions values ('s1', 'ann', '', '[]', '', '', now(), now() + interval '1 day', null)`,
  `insert into sessions values ('s2', 'ann', '', to_jsonb(array_fill('backupUploader'::text, array[60000])), '', '', now(), now() + interval '1 day', null)`,
];

function uploadOf(n: number, state: string, lapsed: boolean, reserved: number, cleaned: string): string {
  const ended = state === "open" ? "null" : "now()";
  return `insert into uploads (id, collection_id, collection_name, organization, storage, key, state, user_name, access_key, session_id, request_id,
    request_digest, filename, content_encoding, labels, client_metadata, segment_size, max_size, reserved_bytes, lapsed, lease_expires_at, expires_at,
    begun_at, ended_at, abort_reason, cleaned_at)
    values ('${ID(n)}', '${ID(0)}', 'a', 'acme', 'default', 'collections/a/${ID(n)}', '${state}', 'ann', '', '', '', '', '', 'none', '{"a": "b"}', '{}', 10, 100,
    ${reserved}, ${lapsed}, now(), now(), now() + interval '${n} s', ${ended}, 'reason ${n}', ${cleaned})`;
}

async function checkReservations(t: ExecutionContext, database: SqlDatabase): Promise<void> {
  const rows = await database.query(sql`select reserved_bytes::int, labels <> '{}' as has from uploads order by id`);
  t.deepEqual(rows.map(Object.values), [
    [10, true],
    [12, true],
    [13, false],
    [0, false],
    [0, false],
  ]);
  const { collection, failed, tenant, sessions } = await database.transaction(async (tx) => ({
    collection: await tx.collections.findByName("a"),
    failed: await tx.collections.lastFailed(ID(0)),
    tenant: await tx.organizations.lock("acme"),
    sessions: [await tx.sessions.find("s1"), await tx.sessions.find("s2")],
  }));
  t.deepEqual([collection?.reservedBytes, tenant.reservedBytes], [35n, 35n]);
  t.deepEqual([failed?.uploadId, failed?.reason], [ID(4), "reason 4"]);
  const order = await database.query(sql`select id from uploads order by ordinal`);
  t.deepEqual(
    order.map(({ id }) => id),
    [1, 2, 3, 4, 5].map(ID),
  );
  t.deepEqual(await database.query(sql`select failed_ordinal::int as failed from collections`), [{ failed: 4 }]);
  t.deepEqual(
    sessions.map((session) => session?.revokedAt === null),
    [true, false],
  );
}

test.serial("PGlite: what lapsed and ended uploads have in the store is reserved again", async (t) => {
  const place = await mkdtemp(join(tmpdir(), "strongroom-migrations-"));
  t.teardown(async () => await rm(place, { recursive: true }));
  const directory = join(place, "database");
  await mkdir(directory);
  const client = await PGlite.create({ dataDir: join(directory, "data") });
  const migrationsFolder = await migrationsUpTo("0004_damage-reason", place);
  await migratePglite(drizzlePglite({ client }), { migrationsFolder });
  for (const row of OLD_UPLOADS) await client.exec(row);
  await client.close();
  const database = await openPglite({ directory });
  await checkReservations(t, database);
  await database.close();
});

test.serial("PostgreSQL: what lapsed and ended uploads have in the store is reserved again", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const place = await mkdtemp(join(tmpdir(), "strongroom-migrations-"));
  t.teardown(async () => await rm(place, { recursive: true }));
  const url = await (await sharedCluster()).peer.createDatabase("before_reservations");
  const client = postgres(url, { max: 1, onnotice: () => {} });
  const migrationsFolder = await migrationsUpTo("0004_damage-reason", place);
  await migratePostgres(drizzlePostgres({ client }), { migrationsFolder });
  for (const row of OLD_UPLOADS) await client.unsafe(row);
  await client.end();
  const database = await openServer(url);
  await checkReservations(t, database);
  await database.close();
});

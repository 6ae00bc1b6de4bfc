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
];

async function checkRevisions(t: ExecutionContext, database: SqlDatabase): Promise<void> {
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
  await database.close();
});

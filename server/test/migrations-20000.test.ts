/** Every earlier schema, holding 20,000 versions, becomes the present one: on PGlite and on a PostgreSQL server. */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
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

/** 20,000 versions in ten collections, every tenth removed, every fourth protected; columns that every schema has. */
const ROWS = [
  `insert into collections (id, name, last_number, stored_bytes, reserved_bytes, trash_bytes, created_at)
    select gen_random_uuid(), 'c' || n, 2000, 1800 * 20000, 0, 200 * 20000, now() from generate_series(1, 10) n`,
  `insert into versions (id, collection_id, collection_name, organization, storage, key, number, filename, size,
    segment_size, segment_count, composite_sha256, segment_digests, content_encoding, encryption_format, armored, begun_at,
    committed_at, user_name, access_key, session_id, labels, client_metadata, above_soft_limit, state, held, hold_reason,
    protected_until, removed_at, removed_by, purge_after)
    select gen_random_uuid(), c.id, c.name, '', 'default', c.name || '/' || n, n, 'a', 20000, 1048576, 1, '\\x00', '\\x00',
    'none', 'openpgp', false, now(), now(), 'ann', '', '', '{}', '{}', false,
    case when n % 10 = 0 then 'removed' else 'live' end, false, '',
    case when n % 4 = 0 then now() + interval '1 day' end, case when n % 10 = 0 then now() end, '',
    case when n % 10 = 0 then now() end from collections c, generate_series(1, 2000) n`,
  `insert into audit_events (id, at, kind, actor, collection_name, details)
    select id, committed_at, 'version.committed', 'user:ann', collection_name, '{}' from versions`,
];

async function tags(): Promise<string[]> {
  const journal = JSON.parse(await readFile(join(MIGRATIONS_FOLDER, "meta/_journal.json"), "utf8"));
  return (journal as { entries: { tag: string }[] }).entries.map(({ tag }) => tag);
}

/** A folder with so many migrations, as an older version had it. */
async function earlier(t: ExecutionContext, count: number): Promise<string> {
  const folder = join(await temporaryFolder(t), "migrations");
  await cp(MIGRATIONS_FOLDER, folder, { recursive: true });
  const journal = join(folder, "meta/_journal.json");
  const { entries, ...rest } = JSON.parse(await readFile(journal, "utf8")) as { entries: unknown[] };
  await writeFile(journal, JSON.stringify({ ...rest, entries: entries.slice(0, count) }));
  return folder;
}

async function check(t: ExecutionContext, database: SqlDatabase, from: string): Promise<void> {
  const wrong = sql`select count(*)::int as wrong from collections
    where live_versions <> 1800 or counted_bytes <> 1800 * 20000`;
  t.deepEqual(await database.query(wrong), [{ wrong: 0 }], `${from}: counters`);
  const rows = await database.query(sql`select count(*)::int as rows,
    count(*) filter (where protected_for_ms = 86400000)::int as protected from versions`);
  t.deepEqual(rows, [{ rows: 20_000, protected: 5000 }], from);
  const events = sql`select count(distinct ordinal)::int as events from audit_events`;
  t.deepEqual(await database.query(events), [{ events: 20_000 }], from);
}

test.serial("PGlite", async (t) => {
  t.timeout(600_000);
  for (const [index, from] of (await tags()).slice(0, -1).entries()) {
    const directory = join(await temporaryFolder(t), "database");
    await mkdir(directory);
    const client = await PGlite.create({ dataDir: join(directory, "data") });
    await migratePglite(drizzlePglite({ client }), { migrationsFolder: await earlier(t, index + 1) });
    for (const row of ROWS) await client.exec(row);
    await client.close();
    const began = performance.now();
    const database = await openPglite({ directory });
    t.log(`from ${from}: ${Math.round(performance.now() - began)} ms`);
    await check(t, database, from);
    await database.close();
  }
});

test.serial("PostgreSQL", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  t.timeout(600_000);
  for (const [index, from] of (await tags()).slice(0, -1).entries()) {
    const url = await (await sharedCluster()).peer.createDatabase(`earlier_${index}`);
    const client = postgres(url, { max: 1, onnotice: () => {} });
    await migratePostgres(drizzlePostgres({ client }), { migrationsFolder: await earlier(t, index + 1) });
    for (const row of ROWS) await client.unsafe(row);
    await client.end();
    const began = performance.now();
    const database = await openServer(url);
    t.log(`from ${from}: ${Math.round(performance.now() - began)} ms`);
    await check(t, database, from);
    await database.close();
  }
});

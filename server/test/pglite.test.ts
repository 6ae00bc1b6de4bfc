import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { type DiskEvent, DiskRecorder, type Inode } from "@strongroom/testkit/disk-recorder";
import test from "ava";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/pglite";
import { migrate } from "drizzle-orm/pglite/migrator";
import { NoDatabaseError } from "../src/adapters/pglite/data-directory.ts";
import { EmbeddedPostgres } from "../src/adapters/pglite/embedded-postgres.ts";
import { openPglite } from "../src/adapters/pglite/pglite.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { MIGRATIONS_FOLDER } from "../src/adapters/postgres/migrations.ts";
import { DomainError } from "../src/domain/errors.ts";

// All of them watch or change `node:fs`, which is one for the whole process.
const serial = test.serial;

let folder: string;
let count = 0;
const newDirectory = () => join(folder, `database-${++count}`);
/** A directory with an empty database, which takes seconds to make. */
const withDatabase = () => {
  const directory = newDirectory();
  fs.cpSync(join(folder, "template"), directory, { recursive: true });
  return directory;
};

test.before(async () => {
  // In memory where the system offers that: what counts here is what is asked of the disk.
  folder = fs.mkdtempSync(join(fs.existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "strongroom-pglite-"));
  await (await openPglite({ directory: join(folder, "template") })).close();
});
test.after.always(() => fs.rmSync(folder, { recursive: true }));

const event = (name: string) =>
  ({ kind: "upload.aborted", actor: "server", collectionName: name, details: {} }) as const;
const commit = async (database: SqlDatabase, name: string) =>
  await database.transaction(async (tx) => await tx.audit(event(name)));
const names = async (database: SqlDatabase) =>
  (await database.query(sql`select collection_name as name from audit_events order by 1`)).map(({ name }) => name);

/** Paths of the recorded files, as they were last. */
function paths(events: readonly DiskEvent[]): (inode: Inode) => string {
  const places = new Map<Inode, { directory: Inode; name: string }>();
  for (const each of events)
    if (each.kind === "names")
      for (const { inode, ...place } of each.set) if (inode !== undefined) places.set(inode, place);
  const pathOf = (inode: Inode): string => {
    const place = places.get(inode);
    return place === undefined ? "" : `${pathOf(place.directory)}/${place.name}`;
  };
  return pathOf;
}

serial("the settings that durability rests on are in force, also over those of an old data directory", async (t) => {
  const directory = withDatabase();
  const off = "\nfsync = off\nfull_page_writes = off\nsynchronous_commit = off\nwal_sync_method = open_datasync\n";
  fs.appendFileSync(join(directory, "data", "postgresql.conf"), off);
  const database = await openPglite({ directory });
  const settings = await database.query(
    sql`select name, setting from pg_settings
        where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'wal_sync_method', 'data_checksums') order by name`,
  );
  await database.close();
  t.deepEqual(Object.fromEntries(settings.map(({ name, setting }) => [name, setting])), {
    data_checksums: "on",
    fsync: "on",
    full_page_writes: "on",
    synchronous_commit: "on",
    wal_sync_method: "fsync",
  });
});

serial("a commit is answered after the log's last byte was synced", async (t) => {
  const directory = withDatabase();
  const recorder = new DiskRecorder(directory);
  let database: SqlDatabase | undefined;
  try {
    database = await openPglite({ directory });
    for (let i = 0; i < 20; i++) {
      recorder.mark("asked");
      await commit(database, `c${i}`);
      recorder.mark("answered");
    }
  } finally {
    recorder.stop();
    await database?.close();
  }
  const { events } = recorder;
  const pathOf = paths(events);
  let unsynced: string[] = [];
  let written = 0;
  let answers = 0;
  for (const each of events) {
    if (each.kind === "write" && pathOf(each.inode).startsWith("/data/pg_wal/")) {
      unsynced.push(pathOf(each.inode));
      written++;
    } else if (each.kind === "sync") unsynced = unsynced.filter((path) => path !== pathOf(each.inode));
    else if (each.kind === "mark" && each.text === "answered") {
      t.deepEqual(unsynced, []);
      t.true(written > 0, "the commit wrote to the log");
      answers++;
    } else if (each.kind === "mark") written = 0;
  }
  t.is(answers, 20);
});

serial(
  "what PostgreSQL syncs keeps its name: the directory is synced too, and a rename replaces in one step",
  async (t) => {
    const directory = newDirectory();
    await (await openPglite({ directory })).close();
    const recorder = new DiskRecorder(directory);
    const start = recorder.events.length;
    let database: SqlDatabase | undefined;
    try {
      database = await openPglite({ directory });
      await database.query(sql`create table made (x int)`);
      await database.query(sql`insert into made values (1)`);
      recorder.mark("made");
      await database.query(sql`checkpoint`);
      recorder.mark("checkpoint");
    } finally {
      recorder.stop();
      await database?.close();
    }
    const { events } = recorder;
    let changed = new Set<Inode>();
    let renames = 0;
    let marks = 0;
    for (const each of events.slice(start)) {
      if (each.kind === "names") {
        for (const { directory: changedIn } of each.set) changed.add(changedIn);
        if (each.set.length === 2) renames++;
      } else if (each.kind === "sync") changed = new Set([...changed].filter((inode) => inode !== each.inode));
      else if (each.kind === "mark") {
        t.deepEqual([...changed], [], `at "${each.text}" no name waits for a sync`);
        marks++;
      }
    }
    t.is(marks, 2);
    // A checkpoint moves `replorigin_checkpoint.tmp` over the file before.
    t.true(renames > 0);
  },
);

serial("fdatasync reaches the disk", async (t) => {
  const directory = join(withDatabase(), "data");
  const client = await EmbeddedPostgres.start(directory);
  const log = fs.readdirSync(join(directory, "pg_wal")).find((name) => name.length === 24)!;
  const real = fs.fsyncSync;
  let synced = 0;
  fs.fsyncSync = (descriptor) => {
    real(descriptor);
    if (fs.fstatSync(descriptor).ino === fs.statSync(join(directory, "pg_wal", log)).ino) synced++;
  };
  try {
    // With `wal_sync_method=fsync` PostgreSQL does not call it.
    const { FS } = client.Module as unknown as { FS: { open(path: string, flags: string): { fd: number } } };
    const { fd } = FS.open(`/pglite/data/pg_wal/${log}`, "r+");
    synced = 0;
    t.is((client.Module as unknown as { _fdatasync(descriptor: number): number })._fdatasync(fd), 0);
    t.is(synced, 1);
  } finally {
    fs.fsyncSync = real;
    await client.close();
  }
});

/** Makes a data directory as servers before version 0.2 did, with plain PGlite, and a row in it. */
async function openedTheOldWay(directory: string): Promise<PGlite> {
  fs.mkdirSync(directory, { mode: 0o700 });
  const client = await PGlite.create({ dataDir: join(directory, "data") });
  const db = drizzle({ client });
  await migrate(db, { migrationsFolder: MIGRATIONS_FOLDER });
  await db.execute(
    sql`insert into audit_events (id, at, kind, actor, collection_name, details)
        values (gen_random_uuid(), now(), 'test', 'server', 'old', '{}')`,
  );
  return client;
}

serial("a data directory of plain PGlite works on, and is synced as a whole before it is used", async (t) => {
  const directory = newDirectory();
  await (await openedTheOldWay(directory)).close();
  const control = fs.readFileSync(join(directory, "data", "global", "pg_control"));
  const recorder = new DiskRecorder(directory);
  const start = recorder.events.length;
  let database: SqlDatabase;
  try {
    database = await openPglite({ directory });
  } finally {
    recorder.stop();
  }
  t.deepEqual(await names(database), ["old"]);
  await commit(database, "young");
  await database.close();

  const inodes = new Set(recorder.events.slice(0, start).flatMap((each) => (each.kind === "make" ? [each.inode] : [])));
  // The folder around it holds the lock.
  inodes.delete(0);
  const later = recorder.events.slice(start);
  const firstWrite = later.findIndex((each) => each.kind === "write");
  for (const each of later.slice(0, firstWrite)) if (each.kind === "sync") inodes.delete(each.inode);
  t.is(inodes.size, 0);

  const again = await openPglite({ directory });
  t.deepEqual(await names(again), ["old", "young"]);
  await again.close();
  // The system's identifier, so that nobody made a new database in its place.
  t.deepEqual(fs.readFileSync(join(directory, "data", "global", "pg_control")).subarray(0, 8), control.subarray(0, 8));
});

serial("a data directory of plain PGlite whose server was killed works on", async (t) => {
  const directory = newDirectory();
  const killed = newDirectory();
  const client = await openedTheOldWay(directory);
  fs.cpSync(directory, killed, { recursive: true });
  await client.close();
  const database = await openPglite({ directory: killed });
  t.deepEqual(await names(database), ["old"]);
  await database.close();
});

serial("a directory that was closed by us is not synced as a whole again, a copy of it is", async (t) => {
  const directory = withDatabase();
  const syncs: number[] = [];
  for (let turn = 0; turn < 2; turn++) {
    const recorder = new DiskRecorder(directory);
    const start = recorder.events.length;
    try {
      await (await openPglite({ directory })).close();
    } finally {
      recorder.stop();
    }
    syncs.push(recorder.events.slice(start).filter((each) => each.kind === "sync").length);
  }
  t.true(syncs[0]! > 900 && syncs[1]! < 100, `${syncs} syncs`);
});

serial("a new database is there as a whole or not at all", async (t) => {
  const directory = newDirectory();
  fs.mkdirSync(join(directory, "data.new", "base"), { recursive: true });
  fs.writeFileSync(join(directory, "data.new", "PG_VERSION"), "18");
  const database = await openPglite({ directory });
  await commit(database, "first");
  t.deepEqual(await names(database), ["first"]);
  await database.close();
  t.false(fs.existsSync(join(directory, "data.new")));
});

serial("files without a database are refused, and stay", async (t) => {
  const directory = withDatabase();
  fs.rmSync(join(directory, "data", "PG_VERSION"));
  const error = await t.throwsAsync(openPglite({ directory }), { instanceOf: NoDatabaseError });
  t.regex(error.message, /holds files, but no database: it lacks PG_VERSION/);
  t.true(fs.existsSync(join(directory, "data", "global", "pg_control")));
});

/** Fails calls of the database's files until it is called again. */
function breakDisk(call: "fsyncSync" | "writeSync", code: "EIO" | "ENOSPC"): () => void {
  const real = fs[call];
  (fs as unknown as Record<string, unknown>)[call] = () => {
    throw Object.assign(new Error(`${code}: made by the test`), { code });
  };
  return () => {
    (fs as unknown as Record<string, unknown>)[call] = real;
  };
}

for (const [call, code] of [
  ["fsyncSync", "EIO"],
  ["writeSync", "EIO"],
  ["writeSync", "ENOSPC"],
] as const) {
  serial(
    `${call} that fails with ${code} acknowledges nothing, and the database starts again when it can`,
    async (t) => {
      const directory = newDirectory();
      const reasons: string[] = [];
      const database = await openPglite({ directory, onEnded: (reason) => reasons.push(reason) });
      await commit(database, "before");
      const mend = breakDisk(call, code);
      let failures: unknown[];
      try {
        failures = await Promise.all(
          ["lost", "lost too"].map(
            async (name) =>
              await commit(database, name).then(
                () => undefined,
                (error) => error,
              ),
          ),
        );
      } finally {
        mend();
      }
      for (const failure of failures)
        t.true(failure instanceof DomainError && failure.reason === "DATABASE_UNAVAILABLE");
      t.is(reasons.length, 1);
      t.regex(reasons[0]!, /ended: PANIC: {2}could not (fsync|write)/);
      // It is not tried again at once.
      for (;;) {
        const failure = await commit(database, "after").then(
          () => undefined,
          (error) => error,
        );
        if (failure === undefined) break;
        t.is(failure.reason, "DATABASE_UNAVAILABLE");
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const found = await names(database);
      t.true(found.includes("before") && found.includes("after"), String(found));
      await database.close();
    },
  );
}

serial("the log does not grow without end", async (t) => {
  const directory = withDatabase();
  const database = await openPglite({ directory });
  const text = Array.from({ length: 40_000 }, () => Math.random().toString(36).slice(2, 13)).join("");
  for (let i = 0; i < 250; i++)
    await database.transaction(async (tx) => await tx.auditLog.setConfiguration("big", { text }));
  const [row] = await database.query(
    sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint as written,
               pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::bigint as open from pg_control_checkpoint()`,
  );
  await database.close();
  t.true(Number(row!.written) > 90 * 2 ** 20, `${row!.written} bytes of log`);
  t.true(Number(row!.open) < 64 * 2 ** 20, `${row!.open} bytes of log since the checkpoint`);
});

test("a statement is planned for its values each time, so that partial indexes are used however tables grow", async (t) => {
  const client = await EmbeddedPostgres.start(undefined);
  t.teardown(async () => await client.close());
  await client.exec("create table v (c int not null, state text not null)");
  const text = "select * from v where c = $1 and state = $2";
  for (let i = 0; i < 12; i++) await client.query(text, [1, "live"]);
  const { rows } = await client.query(
    "select generic_plans, custom_plans from pg_prepared_statements where statement = $1",
    [text],
  );
  t.deepEqual(rows, [{ generic_plans: 0, custom_plans: 12 }]);
});

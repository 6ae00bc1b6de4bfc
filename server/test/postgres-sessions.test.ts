/** Sessions of a PostgreSQL server that are stuck, all busy, frozen or encrypted. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { Authority } from "@strongroom/testkit/peers/certificates";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { run } from "@strongroom/testkit/processes";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { PgConnection } from "../src/adapters/postgres/connection.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { ConnectionPool } from "../src/adapters/postgres/pool.ts";
import { DomainError } from "../src/domain/errors.ts";
import { parsePostgresUrl } from "../src/domain/postgres-url.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { user } from "./support/harness.ts";
import { LiveServer, reasonOf } from "./support/live-server.ts";

const test = anyTest as TestFn;
test.after.always(async () => await removeSharedCluster());

/** Two servers on a new database; the first has one session, so what it is set stays set. */
async function pair(t: ExecutionContext): Promise<{ url: string; one: SqlDatabase; two: SqlDatabase }> {
  const url = await (await sharedCluster()).createDatabase();
  const one = await openServer(url, undefined, 1);
  const two = await openServer(url);
  t.teardown(async () => void (await Promise.all([one.close(), two.close()])));
  return { url, one, two };
}

async function refusal(t: ExecutionContext, work: Promise<unknown>): Promise<DomainError> {
  const error = (await t.throwsAsync(work, { instanceOf: DomainError })) as DomainError;
  t.is(error.reason, "DATABASE_UNAVAILABLE");
  t.true(error.retryAfterMs! > 0);
  return error;
}

test.serial("sessions limit statements, waits for locks and idle transactions", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { one, two } = await pair(t);
  const limits = await one.query(
    sql`select name, setting from pg_settings where name in ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout') order by name`,
  );
  t.deepEqual(
    limits.map(({ setting }) => setting),
    ["60000", "15000", "60000"],
  );

  // A statement.
  await two.query(
    sql`create function stuck() returns trigger language plpgsql as 'begin perform pg_sleep(600); return new; end'`,
  );
  await two.query(
    sql`create trigger stuck before insert on collections for each row when (new.name = 'stuck') execute function stuck()`,
  );
  await one.query(sql`set statement_timeout = '100ms'`);
  await refusal(
    t,
    one.transaction(async (tx) => await tx.collections.lockByName("stuck")),
  );
  await one.query(sql`set statement_timeout = '60s'`);

  // A lock that another transaction holds.
  await one.query(sql`set lock_timeout = '100ms'`);
  await two.transaction(async (tx) => {
    await tx.collections.lockByName("held");
    await refusal(
      t,
      one.transaction(async (other) => await other.collections.lockByName("held")),
    );
  });
  t.is((await one.transaction(async (tx) => await tx.collections.lockByName("held"))).name, "held");

  // A transaction in which nothing happens: its session ends, others get its lock, and its work runs again.
  await one.query(sql`set idle_in_transaction_session_timeout = '2s'`);
  let runs = 0;
  await one.transaction(async (tx) => {
    await tx.collections.lockByName("held");
    if (++runs === 1) await two.transaction(async (other) => await other.collections.lockByName("held"));
    await tx.collections.lockByName("held");
  });
  t.is(runs, 2);
});

test.serial(
  "all connections are busy: the call is refused with a time to wait, and the next one goes on",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const url = await (await sharedCluster()).createDatabase();
    const database = await openServer(url, undefined, 1, { connectionWaitMs: 200 });
    const live = await LiveServer.open([user("ann", { passwordHash: "hash of ann-password" })], [], { database });
    const { sessions } = live.clients;
    const login = async () => await sessions.login({ username: "ann", password: "ann-password" });
    await database.transaction(async () => {
      const error = (await t.throwsAsync(login(), { instanceOf: ConnectError })) as ConnectError;
      t.is(await reasonOf(Promise.reject(error)), "DATABASE_UNAVAILABLE");
      t.is(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 2n);
    });
    t.not((await login()).token, "");
    await live.close();
    await database.close();
  },
);

test.serial("a connection that is opened for somebody who waits is not lost, however long that takes", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const location = parsePostgresUrl(await (await sharedCluster()).createDatabase());
  const gate = Promise.withResolvers<void>();
  let opened = 0;
  const open = async () => {
    if (++opened > 1) await gate.promise;
    return await PgConnection.open(location);
  };
  const pool = new ConnectionPool(open, 1, 100);
  let waiting: Promise<string> | undefined;
  await pool.use(async (connection) => {
    waiting = pool.use(async (other) => await other.command("select 1"));
    connection.destroy();
  });
  // Longer than the wait for a free one.
  const settled = Promise.allSettled([waiting]);
  await sleep(300);
  gate.resolve();
  const [outcome] = await settled;
  t.is(outcome!.status, "fulfilled");
  t.is(await pool.use(async (connection) => await connection.command("select 1")), "SELECT");
  await pool.close();
});

test.serial("a lock is kept while its holder lives, and goes on to others when the holder is frozen", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { url, two } = await pair(t);
  const program = fileURLToPath(new URL("support/lock-holder.ts", import.meta.url));
  const holder = spawn(process.execPath, [program, url, "4000"], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(holder, "close");
  try {
    await once(holder.stdout, "data");
    const beats = new Set<string>();
    while (beats.size < 3) {
      const [row] = await two.query(
        sql`select query_start::text as at from pg_stat_activity where pid = (select pid from pg_locks where locktype = 'advisory' and granted and database = (select oid from pg_database where datname = current_database()))`,
      );
      beats.add(String(row?.at));
      await sleep(50);
    }
    t.false(beats.has("undefined"));
    t.is(await two.exclusively("sweep", async () => 1), undefined);
    holder.kill("SIGSTOP");
    while ((await two.exclusively("sweep", async () => 1)) === undefined) await sleep(50);
    t.is(holder.exitCode, null);
  } finally {
    holder.kill("SIGKILL");
    await ended;
  }
});

test.serial("TLS: encrypted, the server proves who it is, and what is refused", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS, "openssl")) return;
  const dir = await mkdtemp(join(tmpdir(), "strongroom-postgres-tls-"));
  const authority = await Authority.make(dir, "authority");
  const stranger = await Authority.make(dir, "stranger");
  const listen_addresses = "127.0.0.1,127.0.0.2";
  const peer = await startPostgres({ listen_addresses }, await authority.issue("server"));
  t.teardown(async () => {
    await peer.remove();
    await rm(dir, { recursive: true, force: true });
  });
  const url = (mode: string, host = "127.0.0.1", ca?: string) =>
    `postgres://postgres@${host}:${peer.port}/postgres?sslmode=${mode}${ca === undefined ? "" : `&sslrootcert=${encodeURIComponent(ca)}`}`;
  const encrypted = async (at: string) => {
    const database = await openServer(at);
    const [row] = await database.query(sql`select ssl from pg_stat_ssl where pid = pg_backend_pid()`);
    await database.close();
    return row!.ssl;
  };
  t.is(await encrypted(url("disable")), false);
  t.is(await encrypted(url("require")), true);
  t.is(await encrypted(url("require", "127.0.0.2")), true);
  t.is(await encrypted(url("verify-full", "127.0.0.1", authority.certificate)), true);
  t.is(await encrypted(url("verify-full", "localhost", authority.certificate)), true);
  const refused = async (at: string, message: RegExp) => await t.throwsAsync(openServer(at), { message });
  await refused(url("verify-full", "127.0.0.2", authority.certificate), /127\.0\.0\.2.*TLS failed.*check sslrootcert/);
  await refused(url("verify-full", "127.0.0.1", stranger.certificate), /TLS failed.*check sslrootcert/);
  await refused(url("verify-full"), /TLS failed.*check sslrootcert/);
  const plain = (await sharedCluster()).peer.url;
  await refused(`${plain}?sslmode=require`, /offers no TLS, and sslmode is require/);
  await refused(`${plain}?sslmode=verify-full`, /offers no TLS, and sslmode is verify-full/);
});

test.serial("the role and the database of the operations page are enough, with a password", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS, "psql")) return;
  const page = await readFile(new URL("../../docs/operations.md", import.meta.url), "utf8");
  const script = /<!-- postgres-role -->\n```sql\n([\s\S]+?)```/.exec(page)![1]!;
  const dir = await mkdtemp(join(tmpdir(), "strongroom-postgres-role-"));
  await chmod(dir, 0o755);
  const hba = join(dir, "pg_hba.conf");
  await writeFile(hba, "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
  const peer = await startPostgres({ hba_file: hba });
  t.teardown(async () => {
    await peer.remove();
    await rm(dir, { recursive: true, force: true });
  });
  const psql = ["-X", "-v", "ON_ERROR_STOP=1", peer.url];
  const made = await run(findPeer("psql")!, psql, { input: script });
  t.is(made.code, 0, made.stderr);
  const as = (password: string, database: string) =>
    `postgres://strongroom:${password}@127.0.0.1:${peer.port}/${database}`;
  const database = await openServer(as("...", "strongroom"));
  t.true((await database.installation()).fresh);
  t.deepEqual(
    await database.query(sql`select rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname = current_user`),
    [{ rolsuper: false, rolcreatedb: false, rolcreaterole: false }],
  );
  t.deepEqual(await database.exclusively("sweep", async () => 1), { result: 1 });
  await database.close();
  await t.throwsAsync(openServer(as("wrong", "strongroom")), { message: /password authentication failed/ });
});

/** What only a PostgreSQL server shows: several replicas, real parallel connections, and a server that dies. */

import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { commitUpload } from "../src/app/uploads/commit-upload.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { DomainError } from "../src/domain/errors.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { Harness, MIB, TestClock } from "./support/harness.ts";

const test = anyTest as TestFn;
test.after.always(async () => await removeSharedCluster());

/** Two servers on one database, one store and one configuration. */
async function replicas(): Promise<{ url: string; h: Harness; two: SqlDatabase; close: () => Promise<void> }> {
  const url = await (await sharedCluster()).createDatabase();
  const clock = new TestClock();
  const one = await openServer(url, () => clock.now, 10);
  const two = await openServer(url, () => clock.now, 10);
  const h = Harness.on(one, clock, new MemoryBlobStore());
  return { url, h, two, close: async () => void (await Promise.all([one.close(), two.close()])) };
}

const unavailable = (error: unknown) => error instanceof DomainError && error.reason === "DATABASE_UNAVAILABLE";

test.serial("servers that start at once on an empty database migrate it once", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const url = await (await sharedCluster()).peer.createDatabase("empty");
  const opened = await Promise.all(Array.from({ length: 6 }, async () => await openServer(url)));
  const rows = await opened[0]!.query(
    sql`select count(*)::int as n, count(distinct hash)::int as d from drizzle.__drizzle_migrations`,
  );
  t.is(rows[0]!.n, rows[0]!.d);
  const ids = await Promise.all(opened.map(async (database) => (await database.installation()).id));
  t.is(new Set(ids).size, 1);
  await opened[0]!.query(sql`update drizzle.__drizzle_migrations set created_at = created_at + 1000000000000`);
  await t.throwsAsync(openServer(url), { message: /newer version of Strongroom/ });
  await Promise.all(opened.map(async (database) => await database.close()));
});

test.serial("sixty-four parallel uploads on two servers: the limit holds, counters equal the rows", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { h, two, close } = await replicas();
  const spec = h.add({
    maxBackupsCount: 10,
    maxOneVersionSize: 1_000_000n,
    maxCollectionSize: 20_000_000n,
    maxParallelUploads: 64,
  });
  const other = Harness.on(two, h.clock, h.deps.store);
  other.collections.set(spec.name, spec);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 64 }, async (_, i) => {
      const [on, elsewhere] = i % 2 === 0 ? [h, other] : [other, h];
      if (i % 8 < 6) return await on.upload(spec.name, openpgpMessage(1_000_000));
      const { upload } = await on.begin(spec.name);
      return await abortUpload(elsewhere.deps, h.admin, { uploadId: upload.id, reason: "" });
    }),
  );
  for (const outcome of outcomes) {
    if (outcome.status === "rejected")
      t.true(
        outcome.reason instanceof DomainError && outcome.reason.reason === "QUOTA_EXCEEDED",
        String(outcome.reason),
      );
  }
  const usage = await h.usage(spec.name);
  t.true(usage.storedBytes + usage.reservedBytes <= spec.maxCollectionSize);
  t.true(outcomes.some((o) => o.status === "fulfilled"));
  await h.assertInvariants(t);
  await close();
});

test.serial("two servers race on one request id and one commit: one upload, one version", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { h, two, close } = await replicas();
  const spec = h.add();
  const second = Harness.on(two, h.clock, h.deps.store);
  second.collections.set(spec.name, spec);
  const begun = await Promise.all([h, second, h, second].map(async (x) => await x.begin(spec.name, h.admin, "same")));
  t.is(new Set(begun.map((b) => b.upload.id)).size, 1);
  const { upload } = begun[0]!;
  const segments = cutSegments(openpgpMessage(MIB + 1), Number(upload.segmentSize));
  for (const segment of segments) await h.write(upload.id, segment);
  const input = { uploadId: upload.id, size: BigInt(MIB + 1), compositeSha256: compositeOf(segments) };
  const commits = await Promise.all(
    [h, second, h, second].map(async (x) => await commitUpload(x.deps, h.admin, input)),
  );
  t.deepEqual(new Set(commits.map((c) => c.version.number)), new Set([1n]));
  await h.assertInvariants(t);
  await close();
});

test.serial("work under a name runs on one server at a time, and the lock dies with its connection", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { h, two, close } = await replicas();
  const one = h.deps.database as SqlDatabase;
  const held = await one.exclusively("sweep", async () => {
    t.is(await two.exclusively("sweep", async () => t.fail("it is held")), undefined);
    t.deepEqual(await two.exclusively("other", async () => 1), { result: 1 });
    await two.query(sql`select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted`);
    for (;;) if ((await two.exclusively("sweep", async () => 2)) !== undefined) break;
    return 3;
  });
  t.deepEqual(held, { result: 3 });
  await close();
});

test.serial("two servers share the keys that sign tokens", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { h, two, close } = await replicas();
  const [a, b] = await Promise.all([h.deps.database, two].map(async (d) => await JoseSigner.fromDatabase(d)));
  t.is((await two.read(async (tx) => await tx.sessions.signingKeys())).length, 1);
  const at = h.clock.now;
  const token = await a!.sign({ subject: "ann", issuedAt: at, expiresAt: new Date(at.getTime() + 3_600_000) });
  t.true(await b!.verify(token, at));
  await close();
});

test.serial(
  "a connection that dies inside a transaction: the work runs again on another one, once in effect",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { h, two, close } = await replicas();
    let runs = 0;
    await h.deps.database.transaction(async (tx) => {
      await tx.collections.lockByName("cut");
      if (++runs === 1)
        await two.query(
          sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'`,
        );
      await tx.collections.nextNumber((await tx.collections.lockByName("cut")).id);
    });
    t.is(runs, 2);
    t.is((await h.usage("cut")).lastNumber, 1n);
    await close();
  },
);

test.serial(
  "a connection that dies during COMMIT: no success, no repetition, the outcome is said to be unknown",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { h, two, close } = await replicas();
    // A deferred trigger holds COMMIT open until its session is ended.
    await two.query(
      sql`create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(60); return null; end'`,
    );
    await two.query(
      sql`create constraint trigger slow after insert on collections deferrable initially deferred for each row execute function slow()`,
    );
    let runs = 0;
    const commit = h.deps.database.transaction(async (tx) => {
      runs++;
      await tx.collections.lockByName("unknown");
    });
    const outcome = commit.then(
      () => undefined,
      (error: unknown) => error,
    );
    for (let ended = false; !ended; ) {
      const rows = await two.query(
        sql`select pg_terminate_backend(pid) as ended from pg_stat_activity where datname = current_database() and query = 'commit' and state = 'active'`,
      );
      ended = rows.length > 0;
    }
    const error = await outcome;
    t.true(unavailable(error), String(error));
    t.regex((error as Error).message, /not known whether/);
    t.is(runs, 1);
    await close();
  },
);

test.serial("PostgreSQL is killed and comes back: unavailable meanwhile, then everything goes on", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { peer } = await sharedCluster();
  const { h, close } = await replicas();
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(MIB));
  await peer.stop("kill");
  const error = await t.throwsAsync(h.begin(spec.name), { instanceOf: DomainError });
  t.true(unavailable(error));
  t.is((error as DomainError).retryAfterMs, 1000);
  await t.throwsAsync(h.deps.database.ping());
  await peer.start();
  t.is((await h.upload(spec.name, openpgpMessage(MIB))).version.number, 2n);
  await h.assertInvariants(t);
  await close();
});

test.serial(
  "creations, aborts, expiries, rotation and removals at once on two servers: no deadlock, counters equal the rows",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { h, two, close } = await replicas();
    h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(30 * MIB) });
    const specs = [1, 2, 3].map(() => h.add({ organization: "acme", maxBackupsCount: 2, maxParallelUploads: 20 }));
    const second = Harness.on(two, h.clock, h.deps.store);
    for (const spec of specs) second.collections.set(spec.name, spec);
    second.organizations.set("acme", h.organizations.get("acme")!);
    const work = Array.from({ length: 48 }, async (_, i) => {
      const on = i % 2 === 0 ? h : second;
      const { name } = specs[i % 3]!;
      if (i % 8 === 6) return void (await sweep(on.deps, true));
      if (i % 8 === 7) return void (await deleteVersion(on.deps, on.admin, { collection: name, number: 1n }));
      if (i % 8 > 3) return void (await on.upload(name, openpgpMessage(100_000 + i)));
      const { upload } = await on.begin(name);
      await on.write(upload.id, cutSegments(openpgpMessage(50_000), MIB)[0]!);
      if (i % 8 === 0) h.clock.advance(3_600_000);
      if (i % 8 < 3) await abortUpload(on.deps, on.admin, { uploadId: upload.id, reason: "" });
    });
    for (const outcome of await Promise.allSettled(work)) {
      if (outcome.status === "fulfilled") continue;
      t.true(outcome.reason instanceof DomainError, String(outcome.reason));
      t.false(unavailable(outcome.reason), String(outcome.reason));
    }
    await h.assertInvariants(t);
    const rows = await two.query(
      sql`select deadlocks::int as n from pg_stat_database where datname = current_database()`,
    );
    t.is(rows[0]!.n, 0);
    await close();
  },
);

test.serial("a session revoked on one server is ended on the other", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { h, two, close } = await replicas();
  const now = h.clock.now;
  const row = { id: "s", userName: "ann", accessKey: "", scope: [], description: "", address: "", fingerprint: null };
  const expiresAt = new Date(now.getTime() + 3_600_000);
  await h.deps.database.transaction(
    async (tx) =>
      await tx.sessions.insert({
        ...row,
        chainId: "s",
        chainBeganAt: now,
        chainEndsAt: null,
        createdAt: now,
        expiresAt,
        revokedAt: null,
      }),
  );
  const revokedAt = async () => (await two.read(async (tx) => await tx.sessions.find("s")))?.revokedAt;
  t.is(await revokedAt(), null);
  await h.deps.database.transaction(async (tx) => await tx.sessions.revoke({ chainId: "s" }, tx.now));
  t.deepEqual(await revokedAt(), now);
  await close();
});

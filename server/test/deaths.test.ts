/**
 * The process is killed between any two steps of everything that changes database and store; the next sweep or call
 * brings all of it to its end.
 */

import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { checkInstallation } from "../src/app/installation.ts";
import { giveUpCommit } from "../src/app/upkeep/give-up-commit.ts";
import { deletableObjects, deleteUnknown, takeInventory } from "../src/app/upkeep/inventory.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { type SweepDeps, sweep } from "../src/app/upkeep/sweep.ts";
import { verifyNext } from "../src/app/upkeep/verifier.ts";
import { commitUpload } from "../src/app/uploads/commit-upload.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { SegmentAttempts } from "../src/app/uploads/segment-attempts.ts";
import { parseManifest } from "../src/app/versions/manifest.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { INSTALLATION_KEY, manifestKey } from "../src/domain/object-keys.ts";
import { type Death, DyingProcess } from "./support/dying-process.ts";
import { emptyTables, Harness, harnessTest, MIB } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const DAY = 24 * 3_600_000;
const never = new AbortController().signal;

/**
 * Lets a process die at each of its steps in turn, until it lives to its end. `scenario` prepares, runs the process
 * over the given dependencies, and checks what a living one makes of what it left.
 * @returns how many deaths there were.
 */
async function everyDeath(
  h: Harness,
  scenario: (run: (work: (deps: SweepDeps) => Promise<unknown>) => Promise<void>, death: Death) => Promise<void>,
): Promise<number> {
  let deaths = 0;
  for (let step = 1; ; step++) {
    let survived = false;
    for (const when of ["before", "after"] as const) {
      await scenario(
        async (work) => {
          const process = new DyingProcess(h.deps, { step, when });
          await work({
            ...h.deps,
            database: process.database,
            store: process.store,
            attempts: new SegmentAttempts(),
          }).catch((error: unknown) => {
            if (!process.died) throw error;
          });
          if (process.died) deaths++;
          else survived = true;
        },
        { step, when },
      );
    }
    if (survived) return deaths;
  }
}

/**
 * Begins again with nothing: sweeps look at every collection, so that what earlier scenarios left would give the process
 * more steps each time.
 */
async function empty(h: Harness): Promise<void> {
  const { store } = h.deps;
  await emptyTables(h.deps.database as SqlDatabase);
  for (const { key } of await Array.fromAsync(store.list(""))) await store.delete(key);
  for (const pending of await Array.fromAsync(store.listPending())) await store.abort(pending);
  h.collections.clear();
  await checkInstallation(h.deps.database, store);
}

/**
 * The store holds exactly the objects and manifests of live and removed versions, every manifest is true, and nothing
 * is unfinished.
 */
async function assertExact(t: ExecutionContext, h: Harness, message: string): Promise<void> {
  const rows = await (h.deps.database as SqlDatabase).query(
    sql`select key, state from versions where state <> 'purged' order by key`,
  );
  const expected = [INSTALLATION_KEY];
  for (const { key, state } of rows) {
    expected.push(String(key), manifestKey(String(key)));
    const bytes = await h.deps.store.get(manifestKey(String(key)), MIB);
    t.is(bytes && parseManifest(bytes, "default").version.state, state as "live", `${message}: the manifest of ${key}`);
  }
  const found: string[] = [];
  for await (const { key } of h.deps.store.list("")) found.push(key);
  t.deepEqual(found.sort(), expected.sort(), message);
  for await (const { key } of h.deps.store.listPending()) t.fail(`${message}: unfinished ${key}`);
  await h.assertInvariants(t);
}

async function numbers(h: Harness, collection: string): Promise<bigint[]> {
  const { id } = await h.usage(collection);
  const live = await h.deps.database.transaction(async (tx) => await tx.versions.allLive(id));
  return live.map(({ number }) => number).sort();
}

test("a commit, with rotation", async (t) => {
  const { h } = t.context;
  const deaths = await everyDeath(h, async (run, { step, when }) => {
    const at = `step ${step}, ${when}`;
    await empty(h);
    const spec = h.add({ maxBackupsCount: 1 });
    await h.upload(spec.name, openpgpMessage(1000));
    const { upload } = await h.begin(spec.name);
    const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
    for (const segment of segments) await h.write(upload.id, segment);
    const commit = async (deps: SweepDeps) =>
      await commitUpload(deps, h.admin, {
        uploadId: upload.id,
        size: BigInt(2 * MIB),
        compositeSha256: compositeOf(segments),
      });
    await run(commit);
    await h.assertInvariants(t);
    await sweep(h.deps, true, { wholeStore: true });
    // What was not prepared is open still; the client asks again, and gets the one answer in every case.
    t.is((await commit(h.deps)).version.number, 2n, at);
    t.deepEqual(await numbers(h, spec.name), [2n], at);
    await sweep(h.deps, true, { wholeStore: true });
    await assertExact(t, h, at);
  });
  t.true(deaths >= 8, `${deaths} deaths`);
  t.log(`${deaths} deaths`);
});

test("a removal, and sweeps: ended uploads, manifests, purges", async (t) => {
  const { h } = t.context;
  const deaths = await everyDeath(h, async (run, { step, when }) => {
    const at = `step ${step}, ${when}`;
    await empty(h);
    const spec = h.add({ maxParallelUploads: 3 });
    const expiring = (await h.begin(spec.name)).upload;
    await h.write(expiring.id, cutSegments(openpgpMessage(MIB), MIB)[0]!);
    await h.upload(spec.name, openpgpMessage(1000));
    await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
    h.clock.advance(DAY);
    await h.upload(spec.name, openpgpMessage(2000));
    const aborted = (await h.begin(spec.name)).upload;
    await abortUpload(h.deps, h.admin, { uploadId: aborted.id, reason: "" });
    await h.deps.store.begin(aborted.key, aborted.id);
    await h.upload(spec.name, openpgpMessage(3000));
    await run(async (deps) => {
      await deleteVersion(deps, h.admin, { collection: spec.name, number: 2n });
      await sweep(deps, true, { wholeStore: true });
    });
    await h.assertInvariants(t);
    await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 2n });
    const report = await sweep(h.deps, true, { wholeStore: true });
    t.deepEqual([report.failed, report.unknown], [0, []], at);
    await assertExact(t, h, at);
    t.deepEqual(await numbers(h, spec.name), [3n], at);
    t.is((await h.usage(spec.name)).trashBytes, 2000n, at);
    // The next scenario begins without a trash that is due.
    h.clock.advance(DAY);
    await sweep(h.deps, true, { wholeStore: true });
    await assertExact(t, h, at);
  });
  t.true(deaths >= 20, `${deaths} deaths`);
  t.log(`${deaths} deaths`);
});

test("giving up a commit, and deleting unrecorded objects", async (t) => {
  const { h } = t.context;
  const deaths = await everyDeath(h, async (run, { step, when }) => {
    const at = `step ${step}, ${when}`;
    await empty(h);
    const spec = h.add();
    const { upload } = await h.begin(spec.name);
    const segments = cutSegments(openpgpMessage(MIB), MIB);
    await h.write(upload.id, segments[0]!);
    await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
    await t.throwsAsync(h.commit(upload.id, segments));
    const lost = `collections/${spec.name}/00000000-0000-4000-8000-000000000000`;
    await h.deps.store.put(lost, new Uint8Array(3));
    await sweep(h.deps, true, { wholeStore: true });
    h.clock.advance(DAY);
    const clear = async (deps: SweepDeps) => {
      const found = await takeInventory(deps, { finished: true, record: true });
      await deleteUnknown(deps, found, await deletableObjects(deps, found));
    };
    await run(async (deps) => {
      await giveUpCommit(deps, upload.id);
      await clear(deps);
    });
    await h.assertInvariants(t);
    await giveUpCommit(h.deps, upload.id).catch(() => {});
    await clear(h.deps);
    await sweep(h.deps, true, { wholeStore: true });
    t.is((await h.usage(spec.name)).reservedBytes, 0n, at);
    await assertExact(t, h, at);
  });
  t.true(deaths >= 12, `${deaths} deaths`);
  t.log(`${deaths} deaths`);
});

test("a verification", async (t) => {
  const { h } = t.context;
  const plan = { everyMs: 30 * DAY, bytesPerSecond: 1_000_000_000n };
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(3 * MIB));
  const deaths = await everyDeath(h, async (run, { step, when }) => {
    const at = `step ${step}, ${when}`;
    h.clock.advance(16 * DAY);
    const due = h.clock.now;
    await run(async (deps) => await verifyNext(deps, plan, never, async () => {}));
    // The claim of a dead server ends.
    h.clock.advance(3_600_000);
    while (await verifyNext(h.deps, plan, never, async () => {}));
    const [row] = await (h.deps.database as SqlDatabase).query(
      sql`select verified_at >= ${due.toISOString()}::timestamptz as done, damage, verifying_until from versions where state = 'live'`,
    );
    t.deepEqual(row, { done: true, damage: "", verifying_until: null }, at);
    await assertExact(t, h, at);
  });
  t.true(deaths >= 10, `${deaths} deaths`);
  t.log(`${deaths} deaths`);
});

test("a rebuild", async (t) => {
  const { h } = t.context;
  for (const name of ["a", "b"]) {
    h.add({ name, maxBackupsCount: 1 });
    for (let i = 0; i < 2; i++) await h.upload(name, openpgpMessage(1000 + i));
  }
  await sweep(h.deps, true);
  const rows = async (database: SqlDatabase) =>
    await database.query(sql`select id, number::text, state, removed_by, size::text from versions order by id`);
  const lost = await rows(h.deps.database as SqlDatabase);
  const database = await openMemoryDatabase(() => h.clock.now);
  let deaths = 0;
  for (let step = 1, survived = false; !survived; step++) {
    await emptyTables(database);
    const process = new DyingProcess(
      { database, store: h.deps.store },
      { step, when: step % 2 === 0 ? "before" : "after" },
    );
    await recover(process).catch((error: unknown) => {
      if (!process.died) throw error;
    });
    survived = !process.died;
    if (process.died) deaths++;
    // Died after its last step: nothing is left to do, and the command says so.
    await recover({ database, store: h.deps.store }).catch((error: Error) =>
      t.regex(error.message, /database is in use/),
    );
    await checkInstallation(database, h.deps.store);
    t.deepEqual(await rows(database), lost, `step ${step}`);
    const restored = Harness.on(database, h.clock, h.deps.store);
    await assertExact(t, restored, `step ${step}`);
  }
  await database.close();
  t.true(deaths >= 10, `${deaths} deaths`);
  t.log(`${deaths} deaths`);
});

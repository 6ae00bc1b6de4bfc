/** Store and database that disagree: what the comparison finds, and that it deletes nothing. */
import { createHash } from "node:crypto";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import type { VersionRow } from "../src/app/ports/database.ts";
import { type CompareAct, compareStore } from "../src/app/upkeep/compare-store.ts";
import { ALL_COLLECTIONS, confirmRollback } from "../src/app/upkeep/confirm-rollback.ts";
import { deleteUnknown, takeInventory, UnsafeError } from "../src/app/upkeep/inventory.ts";
import { StartComparison } from "../src/app/upkeep/start-comparison.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { commitUpload } from "../src/app/uploads/commit-upload.ts";
import { parseManifest } from "../src/app/versions/manifest.ts";
import { undeleteVersion } from "../src/app/versions/undelete-version.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { manifestKey } from "../src/domain/object-keys.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";
import { LiveServer } from "./support/live-server.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const DAY = 24 * 3_600_000;
const whole = { wholeStore: true };

async function health(h: Harness, name: string) {
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const { checks } = await getCollectionHealth({ ...h.deps, sha256 }, { principal: h.admin, secret: undefined }, name);
  return Object.fromEntries(checks.map((check) => [check.name, check]));
}

const rows = async (h: Harness, name: string): Promise<VersionRow[]> =>
  await h.deps.database.transaction(async (tx) => {
    const { versions } = tx;
    const numbers = [1n, 2n, 3n, 4n, 5n];
    const { id } = (await tx.collections.findByName(name))!;
    const found = await Promise.all(numbers.map(async (number) => await versions.findByNumber(id, number)));
    return found.filter((row) => row !== undefined);
  });

/** As at the start of a server. */
async function compare(h: Harness): Promise<string[]> {
  const done: string[] = [];
  const act: CompareAct = async (kind, _what, _fields, work) => {
    if ((await work()) !== false) done.push(kind);
  };
  await compareStore(h.deps, act, { contents: false });
  return done;
}

/** The database as it was before these versions of a collection: their rows, uploads, bytes and numbers are gone. */
async function rollBack(h: Harness, name: string, to: bigint): Promise<void> {
  const database = h.deps.database as SqlDatabase;
  const later = sql`collection_name = ${name} and number > ${to}`;
  await database.query(sql`delete from uploads where id in (select id from versions where ${later})`);
  await database.query(sql`delete from versions where ${later}`);
  await database.query(sql`update collections set last_number = ${to},
    stored_bytes = coalesce((select sum(size) from versions where collection_name = ${name} and state = 'live'), 0),
    trash_bytes = coalesce((select sum(size) from versions where collection_name = ${name} and state = 'removed'), 0)
    where name = ${name}`);
}

test("a live version without its object, or with one of another size, is marked by the look at the whole store", async (t) => {
  const { h } = t.context;
  const [gone, short, fine] = [h.add().name, h.add().name, h.add().name];
  const first = await h.upload(gone, openpgpMessage(1000));
  const second = await h.upload(short, openpgpMessage(1000));
  await h.upload(fine, openpgpMessage(1000));
  await h.deps.store.delete(first.version.key);
  await h.deps.store.delete(manifestKey(first.version.key));
  await h.deps.store.delete(second.version.key);
  await h.deps.store.put(second.version.key, new Uint8Array(999));
  t.is((await sweep(h.deps, true)).missing, 0, "an ordinary sweep does not read the whole list");
  t.like(await sweep(h.deps, true, { ...whole, dryRun: true }), { missing: 2 });
  t.is((await health(h, gone)).integrity!.status, "ok", "a dry run marks nothing");
  t.like(await sweep(h.deps, true, whole), { missing: 2, failed: 0 });
  t.regex((await health(h, gone)).integrity!.message, /the object is missing in the store/);
  t.regex((await health(h, short)).integrity!.message, /has 999 bytes; 1000 were/);
  t.is((await health(h, fine)).integrity!.status, "ok");
  t.is((await sweep(h.deps, true, whole)).missing, 0, "once");
  const figures = await collectionFigures(h.deps);
  t.deepEqual(
    figures.collections.map(({ damaged, health: status }) => [damaged, status]),
    [
      [1, "failed"],
      [1, "failed"],
      [0, "ok"],
    ],
  );
});

test("a store that is another one marks nothing, and holds the rest of a sweep not up", async (t) => {
  const { h } = t.context;
  const name = h.add().name;
  await h.upload(name, openpgpMessage(1000));
  await t.throwsAsync(
    compareStore({ ...h.deps, store: new MemoryBlobStore() }, async () => {}, { contents: true }),
    {
      message: /installation id/,
    },
  );
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("list", { when: "before" });
  t.is((await sweep(h.over(store), true, whole)).failed, 1);
  t.is((await health(h, name)).integrity!.status, "ok");
});

test("manifests that are missing, cannot be read, or say something else are written again from the rows", async (t) => {
  const { h } = t.context;
  const name = h.add({ maxBackupsCount: 9, maxCollectionSize: BigInt(100 * MIB) }).name;
  const { store } = h.deps;
  for (let i = 0; i < 5; i++) await h.upload(name, openpgpMessage(1000 + i));
  await deleteVersion(h.deps, h.admin, { collection: name, number: 5n });
  await sweep(h.deps, true);
  const all = await rows(h, name);
  const before = await Promise.all(all.map(async ({ key }) => Buffer.from((await store.get(manifestKey(key), MIB))!)));
  const keys = all.map(({ key }) => manifestKey(key));
  await store.delete(keys[0]!);
  await store.put(keys[1]!, new TextEncoder().encode("{"));
  await store.put(
    keys[2]!,
    new TextEncoder().encode(before[2]!.toString().replace('"uploaded_by": "admin"', '"uploaded_by": "eve"')),
  );
  await store.put(keys[3]!, before[0]!);
  await store.delete(keys[4]!);
  t.like(await sweep(h.deps, true, whole), { manifestsWrong: 5, manifests: 5, failed: 0 });
  for (const [i, key] of keys.entries())
    t.deepEqual(Buffer.from((await store.get(key, MIB))!), before[i], `version ${i + 1}`);
  t.like(await sweep(h.deps, true, whole), { manifestsWrong: 0, manifests: 0 });
  t.is((await health(h, name)).store!.status, "ok");
});

test("a rolled-back database: versions of the store are added, their numbers skipped, and health says so until confirmed", async (t) => {
  const { h } = t.context;
  h.organizations.set("acme", { name: "acme", maxTotalSize: undefined });
  const name = h.add({ maxBackupsCount: 9, maxCollectionSize: BigInt(100 * MIB) }).name;
  const untouched = h.add().name;
  for (let i = 0; i < 4; i++) await h.upload(name, openpgpMessage(1000 + i));
  await h.upload(untouched, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: name, number: 3n });
  await sweep(h.deps, true);
  const lost = await rows(h, name);
  await rollBack(h, name, 1n);
  // Its time has passed while the database was away.
  h.clock.advance(2 * DAY);
  t.deepEqual(await compare(h), ["added", "added", "added"]);
  t.deepEqual(await compare(h), [], "nothing is added twice");
  const found = await rows(h, name);
  t.deepEqual(
    found.map(({ number, state, id }) => [number, state, id]),
    lost.map(({ number, state, id }) => [number, state, id]),
  );
  t.is((await h.upload(name, openpgpMessage(1000))).version.number, 5n);
  const { store } = await health(h, name);
  t.is(store!.status, "failed");
  t.regex(store!.message, /rolled back .* 3 versions were added/);
  t.regex(store!.advice, /--confirm-rollback/);
  t.is((await health(h, untouched)).store!.status, "ok");
  t.deepEqual(
    (await collectionFigures(h.deps)).collections.map((each) => each.rolledBack),
    [true, false],
  );

  h.clock.advance(9 * DAY);
  t.is((await sweep(h.deps, true, whole)).purged, 0, "nothing is deleted before somebody has looked");
  t.deepEqual((await sweep(h.deps, true, whole)).unknown, []);
  await t.throwsAsync(confirmRollback(h.deps, untouched), { instanceOf: UnsafeError });
  t.deepEqual(await confirmRollback(h.deps, ALL_COLLECTIONS), [name]);
  t.is((await health(h, name)).store!.status, "ok");
  t.is((await sweep(h.deps, true, whole)).purged, 1);
});

test("a server adds them before it takes a call", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  for (let i = 0; i < 2; i++) await h.upload(spec.name, openpgpMessage(1000 + i));
  await rollBack(h, spec.name, 1n);
  const database = h.deps.database as SqlDatabase;
  const live = await LiveServer.open([], [spec], { database, store: h.deps.store });
  const found = await rows(h, spec.name);
  await live.close();
  t.deepEqual(
    found.map(({ number }) => number),
    [1n, 2n],
  );
});

test("where it cannot add them at its start, it gives out no number before it has", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  for (let i = 0; i < 2; i++) await h.upload(spec.name, openpgpMessage(1000 + i));
  await rollBack(h, spec.name, 1n);
  const store = new FaultyBlobStore(h.deps.store);
  for (const nth of [1, 2]) store.fail("list", { nth });
  const comparison = new StartComparison(h.over(store));
  t.false(await comparison.run());
  const deps = { ...h.deps, startComparison: comparison };
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(1000), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const input = { uploadId: upload.id, size: segments[0]!.size, compositeSha256: compositeOf(segments) };
  t.regex((await refused(t, "STORE_UNAVAILABLE", commitUpload(deps, h.admin, input))).message, /gets a number/);
  t.is((await commitUpload(deps, h.admin, input)).version.number, 3n, "2 is in the store");
});

test("a collection that the database does not know, and an upload that it thinks is open, become versions", async (t) => {
  const { h } = t.context;
  const [unknown, open] = [h.add().name, h.add().name];
  await h.upload(unknown, openpgpMessage(1000));
  const { version } = await h.upload(open, openpgpMessage(2000));
  const database = h.deps.database as SqlDatabase;
  await rollBack(h, unknown, 0n);
  await database.query(sql`delete from collections where name = ${unknown}`);
  await database.query(sql`delete from versions where id = ${version.id}`);
  await database.query(
    sql`update uploads set state = 'open', ended_at = null, cleaned_at = null, version_number = null where id = ${version.id}`,
  );
  await database.query(sql`update collections set last_number = 0, stored_bytes = 0 where name = ${open}`);
  t.deepEqual(await compare(h), ["added", "added"]);
  for (const name of [unknown, open]) {
    t.is((await rows(h, name))[0]?.number, 1n);
    t.is((await h.upload(name, openpgpMessage(1000))).version.number, 2n);
  }
});

test("a number that was given out again stays with its new version; the other one stays in the store", async (t) => {
  const { h } = t.context;
  const name = h.add({ maxBackupsCount: 9, maxCollectionSize: BigInt(100 * MIB) }).name;
  await h.upload(name, openpgpMessage(1000));
  const { version } = await h.upload(name, openpgpMessage(1001));
  await rollBack(h, name, 1n);
  const second = await h.upload(name, openpgpMessage(1002));
  t.is(second.version.number, 2n);
  t.deepEqual(await compare(h), []);
  t.is((await rows(h, name))[1]!.id, second.version.id);
  t.truthy(await h.deps.store.stat(version.key));
  t.is((await health(h, name)).store!.status, "failed");
  const found = await takeInventory(h.deps, { finished: true, record: true });
  await t.throwsAsync(deleteUnknown(h.deps, found, found.unknown), {
    instanceOf: UnsafeError,
    message: /rolled back.*--confirm-rollback/,
  });

  await confirmRollback(h.deps, name);
  h.clock.advance(2 * DAY);
  t.deepEqual(await compare(h), []);
  await sweep(h.deps, true, whole);
  t.is((await health(h, name)).store!.status, "ok", "what was confirmed is no news at the next look");
  await deleteUnknown(h.deps, found, found.unknown);
  t.is(await h.deps.store.stat(version.key), undefined);
  t.deepEqual((await sweep(h.deps, true, whole)).unknown, []);
});

test("a version that was brought back after the state of the database is live again, and not deleted", async (t) => {
  const { h } = t.context;
  const name = h.add().name;
  const { version } = await h.upload(name, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: name, number: 1n });
  const database = h.deps.database as SqlDatabase;
  const [removed] = await database.query(sql`select revision, removed_at, removed_by, purge_after from versions`);
  await undeleteVersion(h.deps, h.admin, { collection: name, number: 1n });
  await sweep(h.deps, true);
  await database.query(sql`update versions set state = 'removed', revision = ${removed!.revision},
    manifest_revision = ${removed!.revision}, manifest_writes = manifest_writes + 1, removed_by = ${removed!.removed_by},
    removed_at = ${String(removed!.removed_at)}::timestamptz, purge_after = ${String(removed!.purge_after)}::timestamptz`);
  await database.query(sql`update collections set trash_bytes = stored_bytes, stored_bytes = 0`);
  h.clock.advance(2 * DAY);
  t.like(await sweep(h.deps, true, whole), { purged: 0, manifestsWrong: 1 });
  t.is((await rows(h, name))[0]!.state, "live");
  t.truthy(await h.deps.store.stat(version.key));
  t.is((await health(h, name)).store!.status, "failed");
});

test("it is not deleted either while the store can not be compared, and nothing else of its collection is", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  const { version } = await h.upload(name, openpgpMessage(1000));
  await h.upload(name, openpgpMessage(1000));
  for (const number of [1n, 2n]) await deleteVersion(h.deps, h.admin, { collection: name, number });
  await sweep(h.deps, true);
  const database = h.deps.database as SqlDatabase;
  const [removed] = await database.query(
    sql`select removed_at, removed_by, purge_after from versions where number = 1`,
  );
  await undeleteVersion(h.deps, h.admin, { collection: name, number: 1n });
  await sweep(h.deps, true);
  await database.query(sql`update versions set state = 'removed', revision = 2, manifest_revision = 2,
    manifest_writes = manifest_writes + 1, removed_by = ${removed!.removed_by}, removed_at = ${String(removed!.removed_at)}::timestamptz,
    purge_after = ${String(removed!.purge_after)}::timestamptz where number = 1`);
  await database.query(sql`update collections set trash_bytes = 2000, stored_bytes = 0`);
  h.clock.advance(2 * DAY);

  const store = new FaultyBlobStore(h.deps.store);
  store.fail("list", { when: "before" });
  const first = await sweep(h.over(store), true, whole);
  store.assertAllFired(t);
  t.false(first.compared);
  t.like((await rows(h, name))[0], { id: version.id, state: "live" });
  t.truthy(await h.deps.store.stat(version.key));
  t.is((await health(h, name)).store!.status, "failed");
  const second = await sweep(h.deps, true, whole);
  t.true(second.compared);
  t.true(first.purged + second.purged <= 1, "version 2 at most, when its turn came first");
  await confirmRollback(h.deps, name);
  await sweep(h.deps, true, whole);
  t.is((await rows(h, name))[1]!.state, "purged");
  t.is((await rows(h, name))[0]!.state, "live");
});

test("one manifest that the store cannot read keeps no other from being compared", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  const { version } = await h.upload(name, openpgpMessage(1000));
  const other = h.add().name;
  const gone = await h.upload(other, openpgpMessage(1000));
  await h.deps.store.delete(gone.version.key);
  class OneUnreadable extends FaultyBlobStore {
    override async get(key: string, mostBytes: number): Promise<Uint8Array | undefined> {
      if (key === manifestKey(version.key)) throw new BlobStoreError("the disk gives other bytes than were written");
      return await super.get(key, mostBytes);
    }
  }
  const deps = h.over(new OneUnreadable(h.deps.store));
  t.like(await sweep(deps, true, whole), { missing: 1, failed: 1, compared: true });
});

test("what is being uploaded and committed is not added", async (t) => {
  const { h } = t.context;
  const name = h.add().name;
  const { upload } = await h.begin(name);
  const segments = cutSegments(openpgpMessage(MIB), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("put", { when: "after" });
  const broken = { ...h, deps: h.over(store) };
  await assertCommitFails(t, h, broken.deps, upload.id, segments);
  t.deepEqual(await compare(h), []);
  t.is((await sweep(h.deps, true, whole)).committed, 1);
  t.deepEqual(await compare(h), []);
  const [row] = await rows(h, name);
  t.deepEqual(parseManifest((await h.deps.store.get(manifestKey(row!.key), MIB))!, "default").version.id, upload.id);
});

async function assertCommitFails(
  t: ExecutionContext,
  h: Harness,
  deps: Harness["deps"],
  uploadId: string,
  segments: ReturnType<typeof cutSegments>,
): Promise<void> {
  const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
  const { compositeOf } = await import("@strongroom/testkit/ciphertext");
  const size = segments.reduce((sum, segment) => sum + segment.size, 0n);
  await t.throwsAsync(commitUpload(deps, h.admin, { uploadId, size, compositeSha256: compositeOf(segments) }));
}

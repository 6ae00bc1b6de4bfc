import { randomUUID } from "node:crypto";
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { PendingBlob } from "../src/app/ports/blob-store.ts";
import { giveUpCommit } from "../src/app/upkeep/give-up-commit.ts";
import { deletableObjects, deleteUnknown, takeInventory, UnsafeError } from "../src/app/upkeep/inventory.ts";
import { type SweepReport, sweep } from "../src/app/upkeep/sweep.ts";
import { finishCommit } from "../src/app/uploads/commit-upload.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { parseManifest } from "../src/app/versions/manifest.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { INSTALLATION_KEY, manifestKey } from "../src/domain/object-keys.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

async function pendingOf(h: Harness): Promise<PendingBlob[]> {
  const all: PendingBlob[] = [];
  for await (const pending of h.deps.store.listPending()) all.push(pending);
  return all;
}

async function keysOf(h: Harness): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of h.deps.store.list("collections/")) keys.push(key);
  return keys;
}

/** The numbers that are not 0. */
function did({ unknown: _, deletions: __, compared: ___, ...counts }: SweepReport): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count !== 0));
}

const whole = { wholeStore: true };

test("unfinished objects of ended uploads go, also later ones; those of open ones and foreign ones stay", async (t) => {
  const { h } = t.context;
  const { store } = h.deps;
  const [open, aborted, committed] = [h.add().name, h.add().name, h.add().name];
  const opened = (await h.begin(open)).upload;
  const second = { key: opened.key, token: await store.begin(opened.key, opened.id) };
  const gone = (await h.begin(aborted)).upload;
  await abortUpload(h.deps, h.admin, { uploadId: gone.id, reason: "" });
  const { version } = await h.upload(committed, openpgpMessage(1000));
  t.deepEqual(did(await sweep(h.deps, true)), { cleaned: 1 });

  // As a server leaves them that woke up too late and died.
  await store.begin(gone.key, gone.id);
  await store.begin(version.key, version.id);
  const foreign = { key: "somebody/else", token: await store.begin("somebody/else", "x") };
  const lost = `collections/${open}/${randomUUID()}`;
  const unknown = { key: lost, token: await store.begin(lost, "y") };
  const report = await sweep(h.deps, true);
  t.deepEqual(did(report), { unfinished: 2 });
  const left = [{ key: opened.key, token: opened.storeToken! }, second, foreign, unknown];
  t.deepEqual(new Set(await pendingOf(h)), new Set(left));
  t.deepEqual(
    report.unknown.map(({ key, token, isOurs }) => ({ key, token, isOurs })),
    [
      { ...foreign, isOurs: false },
      { ...unknown, isOurs: true },
    ],
  );
  t.is((await store.stat(version.key))?.size, 1000n, "the version of a committed upload stays");

  h.clock.advance(23 * HOUR);
  const young = await takeInventory(h.deps, { finished: true, record: true });
  t.deepEqual(await deletableObjects(h.deps, young), []);
  h.clock.advance(HOUR);
  const old = await takeInventory(h.deps, { finished: true, record: true });
  const deletable = await deletableObjects(h.deps, old);
  t.deepEqual(
    deletable.map(({ key }) => key),
    [lost],
    "never a foreign one",
  );
  await deleteUnknown(h.deps, old, deletable);
  t.false((await pendingOf(h)).some(({ key }) => key === lost));
});

test("unknown objects are reported by a look at the whole store, and deleted only by an explicit act", async (t) => {
  const { h } = t.context;
  const { store } = h.deps;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(1000));
  const lost = `collections/${spec.name}/${randomUUID()}`;
  await store.put(lost, new Uint8Array(10));
  await store.put("notes.txt", new Uint8Array(10));
  t.deepEqual((await sweep(h.deps, true)).unknown, [], "an ordinary sweep does not read the whole list");
  const report = await sweep(h.deps, true, whole);
  t.deepEqual(did(report), {});
  t.deepEqual(
    report.unknown.map(({ key, size, isOurs }) => [key, size, isOurs]),
    [
      [lost, 10n, true],
      ["notes.txt", 10n, false],
    ],
  );
  h.clock.advance(10 * DAY);
  const found = await takeInventory(h.deps, { finished: true, record: true });
  await deleteUnknown(h.deps, found, await deletableObjects(h.deps, found));
  t.is(await store.stat(lost), undefined);
  t.truthy(await store.stat("notes.txt"));
  t.is((await keysOf(h)).length, 2, "the version and its manifest stay");
});

test("what was unknown and then known, or gone, begins again", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.begin(spec.name);
  const lost = `collections/${spec.name}/${randomUUID()}`;
  await h.deps.store.put(lost, new Uint8Array(10));
  await sweep(h.deps, true, whole);
  await h.deps.store.delete(lost);
  h.clock.advance(10 * HOUR);
  await sweep(h.deps, true, whole);
  await h.deps.store.put(lost, new Uint8Array(10));
  h.clock.advance(14 * HOUR);
  const found = await takeInventory(h.deps, { finished: true, record: true });
  t.deepEqual(await deletableObjects(h.deps, found), []);
});

test("a rolled-back database adds what was published after it, or leaves it alone, and never deletes it", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  let later = await Harness.open();
  for (const change of [
    "the number is another version's",
    "the upload is older than its version",
    "the collection is unknown",
    "the number was not given out",
  ] as const) {
    // What a later state of the database published, in the store of this one.
    later = await later.reset();
    const name = change === "the collection is unknown" ? "never-heard-of" : spec.name;
    later.add({ name });
    let { version } = await later.upload(name, openpgpMessage(1000));
    if (change === "the number was not given out")
      for (let i = 0; i < 9; i++) ({ version } = await later.upload(name, openpgpMessage(1000)));
    else if (change !== "the collection is unknown") await h.upload(name, openpgpMessage(1000));
    for (const key of [version.key, manifestKey(version.key)]) {
      await h.deps.store.put(key, (await later.deps.store.get(key, MIB))!);
    }
    if (change === "the upload is older than its version") {
      // The rolled-back database still has the upload as open, and lets it expire.
      const row = (await later.deps.database.transaction(async (tx) => await tx.uploads.find(version.id)))!;
      const { id: collectionId } = await h.usage(name);
      const past = new Date(h.clock.now.getTime() - 1);
      await h.deps.database.transaction(
        async (tx) =>
          await tx.uploads.insert({
            ...row,
            collectionId,
            state: "open",
            lapsed: true,
            storeToken: "gone",
            cleanedAt: null,
            completingUntil: null,
            lostSince: null,
            endedAt: null,
            expiresAt: past,
          }),
      );
    }
    h.clock.advance(2 * DAY);
    await sweep(h.deps, true, whole);
    h.clock.advance(2 * DAY);
    const report = await sweep(h.deps, true, whole);
    const isUnknown = report.unknown.some(({ key }) => key === version.key);
    if (change === "the collection is unknown" || change === "the number was not given out") {
      t.false(isUnknown, change);
      const row = await h.deps.database.transaction(async (tx) => await tx.versions.findById(version.id));
      t.is(row?.number, version.number, change);
      continue;
    }
    t.true(isUnknown, change);
    const found = await takeInventory(h.deps, { finished: true, record: true });
    const deletable = await deletableObjects(h.deps, found);
    t.true(deletable.length > 0);
    const error = await t.throwsAsync(deleteUnknown(h.deps, found, deletable), { instanceOf: UnsafeError }, change);
    t.regex(error!.message, /rolled back.*recover/);
    t.truthy(await h.deps.store.stat(version.key), change);
    for (const { key } of found.unknown) await h.deps.store.delete(key);
  }
  await later.deps.database.close();
});

test("nothing is deleted in a store that is another one", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  h.clock.advance(2 * DAY);
  const mark = (await h.deps.store.get(INSTALLATION_KEY, 4096))!;
  for (const bytes of [undefined, new TextEncoder().encode(`{"installation_id":"${randomUUID()}"}`)]) {
    await h.deps.store.delete(INSTALLATION_KEY);
    if (bytes !== undefined) await h.deps.store.put(INSTALLATION_KEY, bytes);
    const report = await sweep(h.deps, true, whole);
    t.false(report.deletions);
    t.truthy(await h.deps.store.stat(version.key));
  }
  await h.deps.store.put(INSTALLATION_KEY, mark);
  t.deepEqual(did(await sweep(h.deps, true)), { purged: 1 });
  t.is(await h.deps.store.stat(version.key), undefined);
});

test("a dry run tells what a sweep then does, and does nothing", async (t) => {
  const { h } = t.context;
  const [a, b, c, d] = [h.add().name, h.add().name, h.add().name, h.add().name];
  await h.begin(a);
  const aborted = (await h.begin(b)).upload;
  await abortUpload(h.deps, h.admin, { uploadId: aborted.id, reason: "" });
  await h.upload(c, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: c, number: 1n });
  h.clock.advance(2 * DAY);
  await h.begin(a);
  h.clock.advance(HOUR);
  await h.upload(d, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: d, number: 1n });
  const before = { keys: await keysOf(h), pending: await pendingOf(h) };
  const kinds: string[] = [];
  const dry = await sweep(h.deps, true, { ...whole, dryRun: true, onAction: ({ kind }) => kinds.push(kind) });
  t.deepEqual({ keys: await keysOf(h), pending: await pendingOf(h) }, before);
  t.deepEqual([...kinds].sort(), ["cleaned", "expired", "lapsed", "manifests", "purged"]);
  const real = await sweep(h.deps, true, whole);
  t.deepEqual(did(real), { ...did(dry), cleaned: 2 }, "what expired is cleaned in the same sweep");
  t.deepEqual(did(await sweep(h.deps, true, whole)), {});
});

test("rows that fail hold nothing up, however many they are", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxParallelUploads: 1000 });
  const rows = 520;
  const first = (await h.begin(spec.name)).upload;
  await h.deps.database.transaction(async (tx) => {
    for (let i = 0; i < rows; i++) {
      const id = randomUUID();
      const key = `collections/${spec.name}/${id}`;
      await tx.uploads.insert({ ...first, id, key, storeToken: "x", state: "aborted", lapsed: true, endedAt: tx.now });
    }
  });
  const store = new FaultyBlobStore(h.deps.store);
  for (let nth = 1; nth <= rows - 1; nth++) store.fail("abort", { nth });
  const report = await sweep(h.over(store), true);
  store.assertAllFired(t);
  t.deepEqual([report.failed, report.cleaned], [rows - 1, 1]);
  t.deepEqual(did(await sweep(h.deps, true)), { cleaned: rows - 1 });
});

test("the manifest of a removed version says so, and goes with it", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 1 });
  const { version } = await h.upload(spec.name, openpgpMessage(2 * MIB + 5));
  const read = async () => parseManifest((await h.deps.store.get(manifestKey(version.key), MIB))!, "default");
  const before = await read();
  t.is(before.version.state, "live");
  const next = await h.upload(spec.name, openpgpMessage(1000));
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("put", { when: "before" });
  t.deepEqual(did(await sweep(h.over(store), true)), { failed: 1 });
  t.deepEqual(did(await sweep(h.deps, true)), { manifests: 1 });
  t.deepEqual(did(await sweep(h.deps, true)), {}, "once");
  const after = await read();
  t.is(after.version.state, "removed");
  t.is(after.version.removedBy, next.version.id);
  t.deepEqual(after.version.purgeAfter, new Date(h.clock.now.getTime() + DAY));
  t.deepEqual(after.segmentDigests, before.segmentDigests);
  h.clock.advance(DAY);
  await sweep(h.deps, true);
  t.is((await keysOf(h)).length, 2);
  // As another server leaves it that woke up late.
  await h.deps.store.put(manifestKey(version.key), new Uint8Array(3));
  t.deepEqual(did(await sweep(h.deps, true, whole)), { leftovers: 1 });
  t.is((await keysOf(h)).length, 2);
});

test("a commit that can never end is given up; one that can is not", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  await t.throwsAsync(giveUpCommit(h.deps, upload.id), { instanceOf: UnsafeError, message: /is open/ });
  const segments = cutSegments(openpgpMessage(MIB), MIB);
  await h.write(upload.id, segments[0]!);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("complete");
  const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
  const { compositeOf } = await import("@strongroom/testkit/ciphertext");
  const commit = () =>
    commitUpload(h.over(store), h.admin, {
      uploadId: upload.id,
      size: BigInt(MIB),
      compositeSha256: compositeOf(segments),
    });
  await refused(t, "STORE_UNAVAILABLE", commit());
  await t.throwsAsync(giveUpCommit(h.deps, upload.id), { instanceOf: UnsafeError, message: /unfinished object/ });
  const committing = (await h.deps.database.transaction(async (tx) => await tx.uploads.find(upload.id)))!;
  await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
  t.deepEqual(did(await sweep(h.deps, true)), { failed: 1 });

  await h.deps.store.put(upload.key, new Uint8Array(5));
  await t.throwsAsync(giveUpCommit(h.deps, upload.id), { instanceOf: UnsafeError, message: /is in the store/ });
  await h.deps.store.delete(upload.key);
  await t.throwsAsync(giveUpCommit(h.over(new MemoryBlobStore()), upload.id), { instanceOf: UnsafeError });
  t.is((await giveUpCommit(h.deps, upload.id)).state, "aborted");
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  await t.throwsAsync(giveUpCommit(h.deps, upload.id), { instanceOf: UnsafeError, message: /is aborted/ });
  await refused(t, "UPLOAD_NOT_OPEN", commit());
  t.deepEqual(did(await sweep(h.deps, true)), {});
  await refused(t, "UPLOAD_NOT_OPEN", finishCommit(h.deps, committing));
  t.is((await h.upload(spec.name, openpgpMessage(1000))).version.number, 2n, "its number is not given out again");
});

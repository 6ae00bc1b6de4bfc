import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { getCollection, getCollectionHealth } from "../src/app/collections/collections.ts";
import { checkInstallation, InstallationMismatchError } from "../src/app/installation.ts";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { finishCommit } from "../src/app/uploads/commit-upload.ts";
import { SegmentAttempts } from "../src/app/uploads/segment-attempts.ts";
import { deleteVersion, listVersions, readVersion } from "../src/app/versions/versions.ts";
import { INSTALLATION_KEY, manifestKey } from "../src/domain/object-keys.ts";
import { parseWindow } from "../src/domain/window.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const never = new AbortController().signal;
const DAY = 24 * 3_600_000;

async function numbers(h: Harness, name: string): Promise<bigint[]> {
  const { versions } = await listVersions(h.deps, h.admin, {
    collection: name,
    beforeNumber: undefined,
    pageSize: 100,
  });
  return versions.map((v) => v.number);
}

async function keysOf(h: Harness, name: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const object of h.deps.store.list(`collections/${name}/`)) keys.push(object.key);
  return keys;
}

test("fourteen days of backups: fifo keeps three, trash goes after a day, the bucket holds only these", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  for (let day = 1; day <= 14; day++) {
    const { version, removedNumbers } = await h.upload(spec.name, openpgpMessage(MIB + day));
    t.is(version.number, BigInt(day));
    t.deepEqual(removedNumbers, day > 3 ? [BigInt(day - 3)] : []);
    t.true((await numbers(h, spec.name)).length <= 3);
    await h.assertInvariants(t);
    h.clock.advance(DAY);
    await sweep(h.deps, true);
  }
  t.deepEqual(await numbers(h, spec.name), [14n, 13n, 12n]);
  t.is((await keysOf(h, spec.name)).length, 6, "three objects with their manifests");
  t.is((await h.usage(spec.name)).trashBytes, 0n);
});

test("a removed version is invisible, stays readable by number for a day, and is purged after it", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(5000));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  t.deepEqual(await numbers(h, spec.name), []);
  t.is(
    (await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n })).alreadyRemoved,
    true,
    "idempotent",
  );
  const read = (number: bigint) =>
    readVersion(h.deps, h.admin, { collection: spec.name, number, offset: 0n, limit: 0n }, never);
  await refused(t, "VERSION_NOT_FOUND", read(0n));
  t.is((await read(1n)).length, version.size);
  t.is((await h.usage(spec.name)).trashBytes, version.size);
  await sweep(h.deps, true);
  t.is((await keysOf(h, spec.name)).length, 2, "not before its time");
  h.clock.advance(DAY);
  await sweep(h.deps, false);
  t.is((await keysOf(h, spec.name)).length, 2, "not while deletions are paused");
  await sweep(h.deps, true);
  t.deepEqual(await keysOf(h, spec.name), []);
  await refused(t, "VERSION_NOT_FOUND", read(1n));
  t.is((await h.upload(spec.name, openpgpMessage(5000))).version.number, 2n, "numbers are not used again");
});

test("the quota: soft limit, extra space, hard limit", async (t) => {
  const { h } = t.context;
  // Of the protocol: count 5, soft 1 MiB, hard 10 MiB, so 5 MiB extra.
  const spec = h.add({ maxBackupsCount: 5, maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(10 * MIB) });
  const allowance = async () =>
    (await getCollection({ ...h.deps, sha256: String }, h.admin, spec.name)).usage.nextUploadAllowance;
  t.is(await allowance(), BigInt(6 * MIB));
  await refused(t, "QUOTA_EXCEEDED", h.upload(spec.name, openpgpMessage(6 * MIB + 1)));
  await h.assertInvariants(t);
  h.clock.advance(16 * 60_000);
  const { version } = await h.upload(spec.name, openpgpMessage(4 * MIB));
  t.true(version.aboveSoftLimit);
  t.is(await allowance(), BigInt(3 * MIB));
  const health = await getCollectionHealth(
    { ...h.deps, sha256: String },
    { principal: h.admin, secret: undefined },
    spec.name,
  );
  t.is(health.status, "warning");
  for (let i = 0; i < 5; i++) await h.upload(spec.name, openpgpMessage(MIB));
  t.is(await allowance(), BigInt(6 * MIB));
});

test("sixty-four parallel uploads against one hard limit: not one byte over", async (t) => {
  const { h } = t.context;
  const spec = h.add({
    maxBackupsCount: 100,
    maxOneVersionSize: BigInt(200_000),
    maxCollectionSize: BigInt(20_000_000),
    maxParallelUploads: 64,
  });
  const outcomes = await Promise.allSettled(
    Array.from({ length: 64 }, async () => await h.upload(spec.name, openpgpMessage(1_000_000))),
  );
  const stored = outcomes.filter((o) => o.status === "fulfilled").length;
  const usage = await h.usage(spec.name);
  t.is(usage.storedBytes, BigInt(stored) * 1_000_000n);
  t.true(usage.storedBytes + usage.reservedBytes <= spec.maxCollectionSize);
  // All are above the soft limit by 800,000 and share 0 extra bytes: 20,000,000 - 100 * 200,000.
  t.is(stored, 0);
  const roomy = h.add({
    maxBackupsCount: 10,
    maxOneVersionSize: BigInt(1_000_000),
    maxCollectionSize: BigInt(20_000_000),
    maxParallelUploads: 64,
  });
  const second = await Promise.allSettled(
    Array.from({ length: 64 }, async () => await h.upload(roomy.name, openpgpMessage(1_000_000))),
  );
  t.true(second.filter((o) => o.status === "fulfilled").length >= 20);
  const after = await h.usage(roomy.name);
  t.true(after.storedBytes + after.reservedBytes <= roomy.maxCollectionSize);
});

test("a tenant's limit covers stored, reserved and trash bytes of all its collections", async (t) => {
  const { h } = t.context;
  h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(3 * MIB) });
  const one = h.add({ organization: "acme", maxBackupsCount: 1 });
  const two = h.add({ organization: "acme", maxBackupsCount: 1 });
  await h.upload(one.name, openpgpMessage(MIB));
  await h.upload(one.name, openpgpMessage(MIB));
  const error = await refused(t, "QUOTA_EXCEEDED", h.upload(two.name, openpgpMessage(MIB + 1)));
  t.is(error.metadata.limit, "organization");
  h.clock.advance(2 * DAY);
  await sweep(h.deps, true);
  await h.upload(two.name, openpgpMessage(2 * MIB));
});

test("a protected version is kept by rotation and people; when it leaves no room, uploads are refused", async (t) => {
  const { h } = t.context;
  const spec = h.add({
    maxBackupsCount: 1,
    maxOneVersionSize: BigInt(MIB),
    maxCollectionSize: BigInt(2 * MIB),
    minRetentionMs: 10 * DAY,
  });
  await h.upload(spec.name, openpgpMessage(MIB));
  await h.upload(spec.name, openpgpMessage(MIB));
  t.deepEqual(await numbers(h, spec.name), [2n, 1n]);
  await refused(t, "ROTATION_BLOCKED", h.begin(spec.name));
  await refused(t, "VERSION_PROTECTED", deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n }));
  h.clock.advance(11 * DAY);
  t.deepEqual((await h.upload(spec.name, openpgpMessage(MIB))).removedNumbers, [1n, 2n]);
});

test("uploads begin only in a window, except for the role that may; one begun in it may end after it", async (t) => {
  const { h } = t.context;
  h.clock.now = new Date("2026-03-01T02:30:00Z");
  const spec = h.add({
    windows: [parseWindow({ from: "0 2 * * *", duration: "1h" })],
    accessControl: [{ userName: "bob", roles: ["backupUploader"] }],
    maxParallelUploads: 3,
  });
  const bob = principal(user("bob"));
  const { upload } = await h.begin(spec.name, bob);
  h.clock.advance(31 * 60_000);
  const error = await refused(t, "WINDOW_CLOSED", h.begin(spec.name, bob));
  t.is(error.metadata.next_window_at, "2026-03-02T02:00:00.000Z");
  await h.begin(spec.name, h.admin);
  h.clock.advance(-10 * 60_000);
  const segments = cutSegments(openpgpMessage(1000), MIB);
  h.clock.advance(10 * 60_000);
  await h.write(upload.id, segments[0]!, undefined, bob);
  await h.commit(upload.id, segments, bob);
});

for (const moment of ["before", "after"] as const) {
  for (const operation of ["complete", "put"] as const) {
    test(`the store fails ${moment} the effect of ${operation}: the commit goes on to the same version`, async (t) => {
      const { h } = t.context;
      const store = new FaultyBlobStore(h.deps.store);
      store.fail(operation, { nth: 1, when: moment, error: new BlobStoreError("injected") });
      const deps = { ...h.over(store) };
      const spec = h.add();
      const { upload } = await h.begin(spec.name);
      const segments = cutSegments(openpgpMessage(MIB + 3), MIB);
      for (const segment of segments) await h.write(upload.id, segment);
      const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
      const { compositeOf } = await import("@strongroom/testkit/ciphertext");
      const input = { uploadId: upload.id, size: BigInt(MIB + 3), compositeSha256: compositeOf(segments) };
      // A completed object whose answer was lost is found by looking; every other fault is reported and repeated.
      if (operation === "complete" && moment === "after") await commitUpload(deps, h.admin, input);
      else await refused(t, "STORE_UNAVAILABLE", commitUpload(deps, h.admin, input));
      store.assertAllFired(t);
      t.is((await commitUpload(deps, h.admin, input)).version.number, 1n);
      t.is((await keysOf(h, spec.name)).length, 2);
    });
  }
}

test("a commit that died after any step is finished by the sweeper", async (t) => {
  const { h } = t.context;
  for (const died of ["prepared", "completed", "manifest"] as const) {
    const spec = h.add();
    const { upload } = await h.begin(spec.name);
    const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
    for (const segment of segments) await h.write(upload.id, segment);
    const committing = await h.deps.database.transaction(async (tx) => {
      await tx.collections.lockById(upload.collectionId);
      const versionNumber = await tx.collections.nextNumber(upload.collectionId);
      await tx.uploads.update(upload.id, "open", { state: "committing", versionNumber });
      return (await tx.uploads.find(upload.id))!;
    });
    const blob = { key: committing.key, token: committing.storeToken! };
    if (died !== "prepared") await h.deps.store.complete(blob, committing.id, segments);
    if (died === "manifest") await h.deps.store.put(manifestKey(committing.key), new TextEncoder().encode("{}"));
    // An abort comes too late, an expiry as well: from here it only goes forward.
    const { abortUpload } = await import("../src/app/uploads/manage-uploads.ts");
    await refused(t, "UPLOAD_NOT_OPEN", abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" }));
    h.clock.advance(2 * DAY);
    const report = await sweep(h.deps, true);
    t.is(report.committed, 1);
    t.deepEqual(await numbers(h, spec.name), [1n]);
    const manifest = await h.deps.store.get(manifestKey(committing.key), MIB);
    t.is(JSON.parse(new TextDecoder().decode(manifest)).number, "1");
    t.is((await finishCommit(h.deps, committing)).version.number, 1n, "once more, as another server would");
  }
});

test("a store that fails at creation leaves no open upload; the same request id is tried again", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const inner = new MemoryBlobStore();
  await inner.put(INSTALLATION_KEY, (await h.deps.store.get(INSTALLATION_KEY, 4096))!);
  const store = new FaultyBlobStore(inner);
  store.fail("begin", { nth: 1, when: "after", error: new BlobStoreError("injected") });
  const { createUpload } = await import("../src/app/uploads/create-upload.ts");
  const deps = h.over(store);
  const input = {
    collection: spec.name,
    requestId: "",
    expectedSize: 0n,
    filename: "",
    contentEncoding: "none" as const,
    labels: {},
    clientMetadata: {},
  };
  await refused(t, "STORE_UNAVAILABLE", createUpload(deps, h.admin, input));
  store.assertAllFired(t);
  await sweep({ ...deps, attempts: new SegmentAttempts() }, true);
  for await (const pending of store.listPending()) t.fail(`unfinished ${pending.key}`);
  await createUpload(deps, h.admin, input);
});

test("a failed creation does not bind its request id: the same call again is another try", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("begin", { nth: 1, when: "before" });
  const { createUpload } = await import("../src/app/uploads/create-upload.ts");
  const input = {
    collection: spec.name,
    requestId: "the same",
    expectedSize: 0n,
    filename: "",
    contentEncoding: "none" as const,
    labels: {},
    clientMetadata: {},
  };
  await refused(t, "STORE_UNAVAILABLE", createUpload(h.over(store), h.admin, input));
  t.is((await createUpload(h.over(store), h.admin, input)).upload.state, "open");
});

test("of two calls with one request id, the failure of one is the failure of the other", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const store = new FaultyBlobStore(h.deps.store);
  const stall = store.stall("begin", { nth: 1, when: "after" });
  store.fail("begin", { nth: 2 });
  const { createUpload } = await import("../src/app/uploads/create-upload.ts");
  const input = {
    collection: spec.name,
    requestId: "from two calls",
    expectedSize: 0n,
    filename: "",
    contentEncoding: "none" as const,
    labels: {},
    clientMetadata: {},
  };
  const slow = createUpload(h.over(store), h.admin, input);
  await stall.reached;
  await refused(t, "STORE_UNAVAILABLE", createUpload(h.over(store), h.admin, input));
  stall.release();
  await refused(t, "STORE_UNAVAILABLE", slow);
  store.assertAllFired(t);
  t.is((await createUpload(h.over(store), h.admin, input)).upload.state, "open");
});

test("an unfinished object nobody wrote down goes when the upload ends", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  // As a server leaves it that died between asking the store and noting its token, before the client asked again.
  await h.deps.store.begin(upload.key, upload.id);
  const { abortUpload } = await import("../src/app/uploads/manage-uploads.ts");
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  await sweep(h.deps, true);
  for await (const pending of h.deps.store.listPending()) t.not(pending.key, upload.key);
});

test("an unfinished object nobody wrote down goes also when its upload was committed", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  await h.deps.store.begin(upload.key, upload.id);
  const segments = cutSegments(openpgpMessage(MIB), MIB);
  await h.write(upload.id, segments[0]!);
  await h.commit(upload.id, segments);
  await sweep(h.deps, true);
  for await (const pending of h.deps.store.listPending()) t.not(pending.key, upload.key);
  t.is((await keysOf(h, spec.name)).length, 2, "the object and its manifest stay");
});

test("an unfinished object that comes after its upload was swept goes with the next sweep", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const { abortUpload } = await import("../src/app/uploads/manage-uploads.ts");
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  await sweep(h.deps, true);
  await h.deps.store.begin(upload.key, upload.id);
  await sweep(h.deps, true);
  for await (const pending of h.deps.store.listPending()) t.not(pending.key, upload.key);
});

test("a store that cannot list unfinished objects does not keep the sweeper from purging", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  h.clock.advance(DAY);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("listPending");
  const report = await sweep(h.over(store), true);
  store.assertAllFired(t);
  t.is(report.failed, 1);
  t.deepEqual(await keysOf(h, spec.name), []);
});

test("an upload whose collection goes to another tenant stays under the limit of the one that its bytes count for", async (t) => {
  const { h } = t.context;
  h.organizations.set("old", { name: "old", maxTotalSize: BigInt(2 * MIB) });
  h.organizations.set("new", { name: "new", maxTotalSize: BigInt(100 * MIB) });
  const spec = h.add({ organization: "old" });
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(3 * MIB), MIB);
  await h.write(upload.id, segments[0]!);
  for (const organization of ["new", ""]) {
    h.collections.set(spec.name, { ...spec, organization });
    if (organization === "new") await h.write(upload.id, segments[1]!);
    const error = await refused(t, "QUOTA_EXCEEDED", h.write(upload.id, segments[2]!));
    t.like(error.metadata, { limit: "organization", limit_bytes: String(2 * MIB), remaining_bytes: "0" });
    t.regex(error.message, /raise its maxTotalSize/);
  }
});

test("a lapsed upload of a tenant commits: its own bytes do not count against it twice", async (t) => {
  const { h } = t.context;
  h.organizations.set("lapsing", { name: "lapsing", maxTotalSize: BigInt(3 * MIB) });
  const spec = h.add({ organization: "lapsing" });
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  h.clock.advance(16 * 60_000);
  t.is((await h.commit(upload.id, segments)).version.size, BigInt(2 * MIB));
});

test("a commit that the store never finishes keeps its space, but not its place", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(MIB), MIB);
  await h.write(upload.id, segments[0]!);
  await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
  await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
  await h.upload(spec.name, openpgpMessage(1000));
  t.is((await h.usage(spec.name)).reservedBytes, BigInt(MIB));
});

test("a later attempt that is refused keeps the row, so that its number is not given out again", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(MIB), MIB);
  const { BodyBrokenError } = await import("../src/app/uploads/segment-body.ts");
  async function* broken() {
    yield segment!.bytes.subarray(0, 10);
    throw new BodyBrokenError("gone");
  }
  await t.throwsAsync(h.write(upload.id, segment!, broken()));
  await refused(t, "SEGMENT_SIZE_MISMATCH", h.write(upload.id, segment!, chunked(segment!.bytes.subarray(0, -1))));
  const [other] = cutSegments(openpgpMessage(MIB), MIB);
  await refused(t, "SEGMENT_CONFLICT", h.write(upload.id, other!));
  await h.write(upload.id, segment!);
  await h.commit(upload.id, [segment!]);
});

test("a deletion waits for a commit that would not fit beside the older version it brings back", async (t) => {
  const { h } = t.context;
  const limits = { maxBackupsCount: 2, maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(4 * MIB) };
  const spec = h.add(limits);
  await h.upload(spec.name, openpgpMessage(3 * MIB));
  h.clock.advance(1000);
  await h.upload(spec.name, openpgpMessage(MIB));
  h.clock.advance(1000);
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(3 * MIB), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("put");
  const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
  const { compositeOf } = await import("@strongroom/testkit/ciphertext");
  const input = { uploadId: upload.id, size: BigInt(3 * MIB), compositeSha256: compositeOf(segments) };
  await refused(t, "STORE_UNAVAILABLE", commitUpload(h.over(store), h.admin, input));
  store.assertAllFired(t);
  const remove = (number: bigint) => deleteVersion(h.deps, h.admin, { collection: spec.name, number });
  await refused(t, "COLLECTION_BUSY", remove(2n));
  t.deepEqual((await h.commit(upload.id, segments)).removedNumbers, [1n]);
  t.is((await h.usage(spec.name)).storedBytes, BigInt(4 * MIB));
  t.is((await remove(2n)).version.state, "removed");
});

test("a session narrowed to other collections cannot end an upload of its user", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const scope = [{ type: "collection", name: "elsewhere", roles: ["backupUploader" as const] }];
  const { abortUpload } = await import("../src/app/uploads/manage-uploads.ts");
  const narrowed = { ...h.admin, scope };
  await refused(t, "COLLECTION_NOT_FOUND", abortUpload(h.deps, narrowed, { uploadId: upload.id, reason: "" }));
});

test("a protection lengthened in the configuration holds for old versions; a shortened one does not", async (t) => {
  const { h } = t.context;
  const spec = h.add({ minRetentionMs: DAY });
  await h.upload(spec.name, openpgpMessage(1000));
  const remove = () => deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  h.collections.set(spec.name, { ...spec, minRetentionMs: undefined });
  await refused(t, "VERSION_PROTECTED", remove());
  h.collections.set(spec.name, { ...spec, minRetentionMs: 10 * DAY });
  h.clock.advance(2 * DAY);
  await refused(t, "VERSION_PROTECTED", remove());
  h.collections.set(spec.name, { ...spec, minRetentionMs: undefined });
  t.is((await remove()).version.state, "removed");
});

test("a damaged object is reported as such", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(5000));
  const read = async () => {
    const { body } = await readVersion(
      h.deps,
      h.admin,
      { collection: spec.name, number: 1n, offset: 0n, limit: 0n },
      never,
    );
    for await (const _ of body);
  };
  await read();
  await h.deps.store.delete(version.key);
  await refused(t, "VERSION_DAMAGED", read());
  await h.deps.store.put(version.key, new Uint8Array(10));
  await refused(t, "VERSION_DAMAGED", read());
});

test("a failed query tells no values", async (t) => {
  const { h } = t.context;
  const insert = async () =>
    await h.deps.database.transaction(async (tx) => {
      const row = { id: "twice", jwk: { d: "very secret" }, createdAt: tx.now };
      await tx.sessions.insertSigningKey(row);
      await tx.sessions.insertSigningKey(row);
    });
  const error = await t.throwsAsync(insert());
  t.regex(error!.message, /duplicate key/);
  for (let e: unknown = error; e instanceof Error; e = e.cause) {
    t.false(`${e.message}${e.stack}${JSON.stringify(e)}`.includes("very secret"));
  }
});

test("a store and a database that do not belong together are refused", async (t) => {
  const { h } = t.context;
  const store = new MemoryBlobStore();
  h.add({ name: "marked" });
  await h.begin("marked");
  const unmarked = await t.throwsAsync(checkInstallation(h.deps.database, store), {
    instanceOf: InstallationMismatchError,
  });
  t.regex(unmarked!.message, /database is in use/);
  const other = await Harness.open();
  const id = await checkInstallation(other.deps.database, store);
  t.is(await checkInstallation(other.deps.database, store), id);
  await t.throwsAsync(checkInstallation(h.deps.database, store), { instanceOf: InstallationMismatchError });
  await other.deps.database.close();
});

test("health says how the last upload failed until a version is begun after it", async (t: ExecutionContext<{
  h: Harness;
}>) => {
  const { h } = t.context;
  const spec = h.add({ maxAgeMs: DAY });
  const health = async () =>
    await getCollectionHealth({ ...h.deps, sha256: String }, { principal: h.admin, secret: undefined }, spec.name);
  const { upload } = await h.begin(spec.name);
  const { abortUpload } = await import("../src/app/uploads/manage-uploads.ts");
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "the dump command exited with 1" });
  t.is((await health()).lastFailed?.reason, "the dump command exited with 1");
  t.is((await health()).status, "failed");
  h.clock.advance(1000);
  await h.upload(spec.name, openpgpMessage(1000));
  t.is((await health()).lastFailed, undefined);
  t.is((await health()).status, "ok");
  h.clock.advance(2 * DAY);
  t.is((await health()).status, "failed");
});

test("uploads under way are seen and ended by whoever began them, and by managers of the collection", async (t) => {
  const { h } = t.context;
  const { abortUpload, listUploads } = await import("../src/app/uploads/manage-uploads.ts");
  const spec = h.add({
    maxParallelUploads: 3,
    accessControl: [
      { userName: "una", roles: ["backupUploader"] },
      { userName: "max", roles: ["collectionManager"] },
      { userName: "dora", roles: ["backupDownloader"] },
    ],
  });
  const [una, max, dora, stranger] = ["una", "max", "dora", "stranger"].map((name) => principal(user(name)));
  const list = async (by = una!, from = 0, pageSize = 10) =>
    await listUploads(h.deps, by, { collection: spec.name, from, pageSize });
  const first = await h.begin(spec.name, una);
  h.clock.advance(1000);
  const second = await h.begin(spec.name);
  const [a, b] = [first.upload.id, second.upload.id];
  const ids = async (by = una!) => (await list(by)).uploads.map(({ upload }) => upload.id);
  t.deepEqual(await ids(una), [a]);
  t.deepEqual(await ids(max), [b, a], "the newest first");
  t.deepEqual(await ids(h.admin), [b, a]);
  t.deepEqual(await ids(dora), []);
  await refused(t, "COLLECTION_NOT_FOUND", list(stranger));
  const page = await list(max, 0, 1);
  t.deepEqual([page.uploads.map(({ upload }) => upload.id), page.next], [[b], 1]);
  t.is((await list(max, 1, 1)).next, undefined);
  const narrowed = principal(user("max"), {
    scope: [{ type: "collection", name: "other", roles: ["collectionManager"] }],
  });
  for (const by of [una!, dora!, stranger!, narrowed]) {
    await refused(t, "UPLOAD_NOT_FOUND", abortUpload(h.deps, by, { uploadId: b, reason: "" }));
  }
  const { upload: ended } = await abortUpload(h.deps, max!, { uploadId: a, reason: "killed" });
  t.deepEqual([ended.state, ended.abortReason], ["aborted", "killed"]);
  t.deepEqual(await ids(max), [b]);
  await abortUpload(h.deps, h.admin, { uploadId: b, reason: "" });
});

import { createHash, randomUUID } from "node:crypto";
import { join } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { startS3 } from "@strongroom/testkit/peers/s3";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { BlobStore } from "../src/app/ports/blob-store.ts";
import { type CopiedObject, CopyRefusedError, copyStorage } from "../src/app/upkeep/copy-storage.ts";
import { MANIFEST_FORMAT } from "../src/app/versions/manifest.ts";
import { INSTALLATION_KEY, manifestKey } from "../src/domain/object-keys.ts";
import { body, bytesOf, collect, never, read } from "./support/blob-store-tools.ts";
import { openDirectory } from "./support/directory-store-tools.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { locationIn, openS3, useCredentials } from "./support/s3-tools.ts";

const MIB = 1024 * 1024;
const ID = "6b1e8c7e-0000-4000-8000-000000000001";

async function mark(store: BlobStore, id = ID): Promise<void> {
  await store.put(INSTALLATION_KEY, Buffer.from(JSON.stringify({ installation_id: id })));
}

/** A version as a server stores it: the object, and its manifest with the digests of its segments. */
async function version(store: BlobStore, key: string, size: number, { damaged = false } = {}): Promise<Uint8Array> {
  const data = bytesOf(key, size);
  const input = { key, uploadId: `of-${key.replaceAll("/", "-")}`, partSize: BigInt(MIB), signal: never };
  await store.putStream(input, body(damaged ? bytesOf("damage", size) : data));
  const manifest = {
    format: MANIFEST_FORMAT,
    key,
    size: String(size),
    segment_size: String(MIB),
    segment_sha256: cutDigests(data).map((digest) => Buffer.from(digest).toString("hex")),
  };
  await store.put(manifestKey(key), Buffer.from(JSON.stringify(manifest)));
  return data;
}

function cutDigests(data: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(data.length / MIB) || 1 }, (_, index) =>
    createHash("sha256")
      .update(data.subarray(index * MIB, (index + 1) * MIB))
      .digest(),
  );
}

async function copy(from: BlobStore, to: BlobStore, signal = never, leaveDamaged = false) {
  const objects: CopiedObject[] = [];
  const report = await copyStorage({ from, to, signal, leaveDamaged, onObject: (object) => objects.push(object) });
  return { report, objects };
}

async function sourceOf(t: ExecutionContext): Promise<{ source: BlobStore; data: Map<string, Uint8Array> }> {
  const source = await openDirectory(t, join(await temporaryFolder(t), "source"));
  await mark(source);
  const data = new Map<string, Uint8Array>();
  for (const [key, size] of [
    ["collections/a/1", 1],
    ["collections/a/2", 2 * MIB],
    ["collections/b/1", 12 * MIB + 77],
  ] as const) {
    data.set(key, await version(source, key, size));
  }
  return { source, data };
}

async function assertSame(t: ExecutionContext, from: BlobStore, to: BlobStore): Promise<void> {
  const there = await collect(to.list(""));
  t.deepEqual(there, await collect(from.list("")));
  for (const { key, size } of there) {
    t.deepEqual(await to.stat(key), await from.stat(key));
    if (size > 0n) t.true((await read(to, key)).equals(await read(from, key)), key);
  }
  t.deepEqual(await collect(to.listPending()), []);
}

test.serial("everything of an installation comes over to S3 and back, once", async (t) => {
  if (!hasPeers(t, "versitygw")) return;
  const peer = await startS3("versitygw");
  t.teardown(() => peer.remove());
  useCredentials(peer);
  const { source } = await sourceOf(t);
  const bucket = await openS3(t, locationIn(peer, "copied"));
  const { report, objects } = await copy(source, bucket);
  t.like(report, { installation: ID, copied: 6, present: 0, failed: 0, pending: 0 });
  t.is(objects.filter(({ verified }) => verified).length, 3, "all versions were compared with their digests");
  await assertSame(t, source, bucket);

  const again = await copy(source, bucket);
  t.like(again.report, { copied: 0, present: 6, failed: 0, bytes: 0n });
  const back = await openDirectory(t, join(await temporaryFolder(t), "back"));
  t.like((await copy(bucket, back)).report, { copied: 6, failed: 0 });
  await assertSame(t, source, back);
});

test("a copy that broke off goes on, and the target has no marker before the end", async (t) => {
  const { source } = await sourceOf(t);
  const target = new MemoryBlobStore();
  const faulty = new FaultyBlobStore(target);
  faulty.fail("putStream", { nth: 3, when: "during" });
  const { report, objects } = await copy(source, faulty);
  t.is(report.failed, 1);
  t.regex(objects.find(({ outcome }) => outcome === "failed")?.problem ?? "", /Injected/);
  faulty.assertAllFired(t);
  t.is(await target.get(INSTALLATION_KEY, 4096), undefined);

  t.like((await copy(source, target)).report, { failed: 0, copied: 1, present: 5 });
  await assertSame(t, source, target);
});

test("a copy that was stopped goes on", async (t) => {
  const { source } = await sourceOf(t);
  const target = new MemoryBlobStore();
  const stop = new AbortController();
  const stopped = copyStorage({
    from: source,
    to: target,
    signal: stop.signal,
    onObject: () => stop.abort(new Error("Ctrl-C")),
  });
  await t.throwsAsync(stopped, { message: "Ctrl-C" });
  t.is(await target.get(INSTALLATION_KEY, 4096), undefined);
  t.like((await copy(source, target)).report, { failed: 0, copied: 5, present: 1 });
  await assertSame(t, source, target);
});

test("a damaged object does not come over, and everything else does", async (t) => {
  const { source } = await sourceOf(t);
  await version(source, "collections/c/1", 3 * MIB, { damaged: true });
  const target = new MemoryBlobStore();
  const { report, objects } = await copy(source, target);
  t.like(report, { failed: 1, copied: 7 });
  t.like(
    objects.find(({ outcome }) => outcome === "failed"),
    { key: "collections/c/1" },
  );
  t.regex(objects.find(({ outcome }) => outcome === "failed")?.problem ?? "", /Segment 0.*damaged/);
  t.is(await target.stat("collections/c/1"), undefined);
  t.deepEqual(await collect(target.listPending()), []);
});

test("what is damaged in the source is left behind when it is said, and the copy is complete without it", async (t) => {
  const { source } = await sourceOf(t);
  await version(source, "collections/b/2", 2 * MIB + 5, { damaged: true });
  const target = new MemoryBlobStore();
  const { report, objects } = await copy(source, target, never, true);
  t.like(report, { failed: 0, left: 1, copied: 7 });
  const left = objects.filter(({ outcome }) => outcome === "left");
  t.deepEqual(
    left.map(({ key }) => key),
    ["collections/b/2"],
  );
  t.regex(left[0]!.problem!, /does not have the digest/);
  t.is(await target.stat("collections/b/2"), undefined);
  t.truthy(await target.get(manifestKey("collections/b/2"), MIB), "the version is known, without its bytes");
  t.truthy(await target.get(INSTALLATION_KEY, MIB), "it can be served");
  t.like((await copy(source, target, never, true)).report, { failed: 0, left: 1, copied: 0 });
});

test("a source that is away is no damage: nothing is left behind for it", async (t) => {
  const { source } = await sourceOf(t);
  const reads: string[] = [];
  const away: Pick<BlobStore, "get" | "read" | "stat" | "list" | "listPending"> = {
    get: async (key, most) => {
      if (reads.length > 0) throw new Error("away");
      return await source.get(key, most);
    },
    stat: async (key) => await source.stat(key),
    list: (prefix) => source.list(prefix),
    listPending: () => source.listPending(),
    async *read(key) {
      reads.push(key);
      yield* [];
      throw new Error("away");
    },
  };
  const target = new MemoryBlobStore();
  const report = await copyStorage({ from: away, to: target, signal: never, leaveDamaged: true, onObject: () => {} });
  t.is(report.left, 0);
  t.true(report.failed > 0);
  t.is(await target.get(INSTALLATION_KEY, MIB), undefined);
});

test("unfinished uploads stay behind and are counted", async (t) => {
  const { source } = await sourceOf(t);
  await source.begin("collections/a/3", randomUUID());
  t.is((await copy(source, new MemoryBlobStore())).report.pending, 1);
});

test("a target of another installation, one that is not empty, and a source of nobody are refused", async (t) => {
  const { source } = await sourceOf(t);
  const refused = (from: BlobStore, to: BlobStore, message: RegExp) =>
    t.throwsAsync(copy(from, to), { instanceOf: CopyRefusedError, message });
  const other = new MemoryBlobStore();
  await mark(other, "another");
  await refused(source, other, /belongs to the installation another/);
  const used = new MemoryBlobStore();
  await used.put("something", Buffer.from("x"));
  await refused(source, used, /not empty \(it has something\)/);
  await refused(new MemoryBlobStore(), new MemoryBlobStore(), /--from/);
});

test("an object of another upload under a key of the source is reported, not replaced", async (t) => {
  const { source } = await sourceOf(t);
  const target = new MemoryBlobStore();
  await mark(target);
  const input = { key: "collections/a/1", uploadId: "foreign", partSize: BigInt(MIB), signal: never };
  await target.putStream(input, body(Buffer.from("foreign")));
  const { objects } = await copy(source, target);
  t.regex(objects.find(({ outcome }) => outcome === "failed")?.problem ?? "", /another object: 7 bytes instead of 1/);
  t.is(String(await read(target, "collections/a/1")), "foreign");
});

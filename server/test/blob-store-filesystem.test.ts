import { mkdir, readdir, readlink, rename, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { FileLockedError } from "../src/adapters/file-lock/file-lock.ts";
import { DirectoryBlobStore } from "../src/adapters/filesystem/directory-blob-store.ts";
import { moveDurably, pruneUpTo } from "../src/adapters/filesystem/durable-files.ts";
import { BlobNotFoundError, BlobStoreError } from "../src/app/ports/blob-store.ts";
import { blobStoreSuite } from "./support/blob-store-suite.ts";
import {
  begin,
  body,
  brokenBody,
  bytesOf,
  collect,
  cut,
  eventually,
  HangingBody,
  never,
  partsOf,
  placementFor,
  read,
  storedIndexes,
  threeParts,
  upload,
  write,
} from "./support/blob-store-tools.ts";
import { filesBelow, openDirectory } from "./support/directory-store-tools.ts";

blobStoreSuite(test, "directory", async (t) => {
  const root = await temporaryFolder(t);
  let store = await openDirectory(t, root);
  const reopen = async () => {
    await store.close();
    store = await openDirectory(t, root);
    return store;
  };
  return { store, reopen };
});

/** For what only Linux has: `/dev/full`, `/proc`. */
const onLinux = process.platform === "linux" ? test : test.skip;
const EMPTY = ["meta/", "objects/", "pending/"];

test("a directory serves one store at a time", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  await t.throwsAsync(DirectoryBlobStore.open(root), { instanceOf: FileLockedError });
  await store.close();
  await store.close();
  const next = await openDirectory(t, root);
  await next.put("notes/1", Buffer.from("x"));
  await t.throwsAsync(store.put("notes/1", Buffer.from("y")), {
    instanceOf: BlobStoreError,
    message: /has been closed/,
  });
  await t.throwsAsync(collect(store.list("")), { instanceOf: BlobStoreError, message: /has been closed/ });
  t.is(String(await next.get("notes/1", 10)), "x");
});

test("only the user of the server may enter the directory", async (t) => {
  const root = join(await temporaryFolder(t), "made", "here");
  const store = await openDirectory(t, root);
  await upload(store, "dumps/1", "upload-1", threeParts(store, t.title).pieces);
  for (const path of ["", "objects", "objects/dumps", "meta", "meta/dumps", "pending"]) {
    t.is((await stat(join(root, path))).mode & 0o777, 0o700, path);
  }
  for (const path of ["objects/dumps/1", "meta/dumps/1"])
    t.is((await stat(join(root, path))).mode & 0o777, 0o600, path);
});

test("nothing is left of what was aborted, deleted or replaced", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  const { pieces } = threeParts(store, t.title);
  const blob = await begin(store, "a/b/aborted", "upload-1");
  for (const piece of pieces) await write(store, blob, piece);
  await store.abort(blob);
  await upload(store, "a/b/c/deleted", "upload-2", pieces);
  await store.put("a/put", Buffer.from("x"));
  await store.put("a/put", Buffer.from("y"));
  t.deepEqual(await filesBelow(root), ["meta/a/b/c/deleted", "objects/a/b/c/deleted", "objects/a/put", "pending/"]);
  await store.delete("a/b/c/deleted");
  await store.delete("a/put");
  t.deepEqual(await filesBelow(root), EMPTY);
});

test("a key below another one, or above it, is refused and harms nothing", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  const { pieces } = threeParts(store, t.title);
  await store.put("a/b", Buffer.from("x"));
  const refusal = { instanceOf: BlobStoreError, message: /one key must not be the beginning of another up to a slash/ };
  for (const key of ["a", "a/b/c", "a/b/c/d"]) {
    await t.throwsAsync(store.put(key, Buffer.from("y")), refusal, key);
    const blob = await begin(store, key, "upload-1");
    for (const piece of pieces) await write(store, blob, piece);
    await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces)), refusal, key);
    t.is(await store.stat(key), undefined);
    await store.abort(blob);
    await store.delete(key);
  }
  t.deepEqual(await filesBelow(root), ["meta/", "objects/a/b", "pending/"]);
});

test("a token that this store never gave leads nowhere", async (t) => {
  const outside = await temporaryFolder(t);
  const store = await openDirectory(t, join(outside, "store"));
  const { pieces } = threeParts(store, t.title);
  const info = JSON.stringify({ key: "dumps/1", uploadId: "upload-1" });
  await mkdir(join(outside, "victim"));
  await writeFile(join(outside, "victim", "upload.json"), info);
  await writeFile(join(outside, "victim", "data"), "precious");
  const before = await filesBelow(outside);
  for (const token of ["../../victim", "/victim", "", ".", "..", "0".repeat(32), "../victim", "A".repeat(32)]) {
    const blob = { key: "dumps/1", token };
    await t.throwsAsync(write(store, blob, pieces[0]), { instanceOf: BlobNotFoundError }, token);
    await t.throwsAsync(store.listParts(blob), { instanceOf: BlobNotFoundError }, token);
    await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces)), { instanceOf: BlobNotFoundError }, token);
    await store.abort(blob);
  }
  t.deepEqual(await filesBelow(outside), before);
});

test("bytes that a broken attempt left after the end are cut off", async (t) => {
  const store = await openDirectory(t, await temporaryFolder(t));
  const { data, pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  for (const piece of pieces) await write(store, blob, piece);
  const extra = cut(bytesOf("extra", Number(placementFor(store).segmentSize) * 4), placementFor(store).segmentSize)[3]!;
  await t.throwsAsync(
    write(store, blob, extra, { from: brokenBody(extra.bytes, extra.bytes.length - 1, new Error("gone")) }),
  );
  await store.complete(blob, "upload-1", partsOf(pieces));
  t.true((await read(store, "dumps/1")).equals(data));
});

test("completing breaks off attempts under way, which cannot touch the object any more", async (t) => {
  const store = await openDirectory(t, await temporaryFolder(t));
  const { data, pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  for (const piece of pieces) await write(store, blob, piece);
  const bytes = bytesOf("extra", 5000);
  const extra = { part: { ...pieces[0].part, index: 3, size: 5000n }, bytes };
  const from = new HangingBody(bytes.subarray(0, 100));
  const attempt = t.throwsAsync(write(store, blob, extra, { from }), { instanceOf: BlobNotFoundError });
  await from.hangs;
  await store.complete(blob, "upload-1", partsOf(pieces));
  from.finish(bytes.subarray(100));
  await attempt;
  t.true((await read(store, "dumps/1")).equals(data));
});

test("of two uploads that are completed under one key at the same time, one wins whole", async (t) => {
  const store = await openDirectory(t, await temporaryFolder(t));
  for (let round = 0; round < 4; round++) {
    const key = `dumps/${round}`;
    const uploads = await Promise.all(
      ["upload-1", "upload-2"].map(async (uploadId) => {
        const { data, pieces } = threeParts(store, `${uploadId} ${round}`);
        const blob = await begin(store, key, uploadId);
        for (const piece of pieces) await write(store, blob, piece);
        return { uploadId, data, complete: () => store.complete(blob, uploadId, partsOf(pieces)) };
      }),
    );
    const results = await Promise.allSettled(uploads.map(({ complete }) => complete()));
    const winners = uploads.filter((_, index) => results[index]?.status === "fulfilled");
    t.is(winners.length, 1);
    t.is((await store.stat(key))?.uploadId, winners[0]?.uploadId);
    t.true((await read(store, key)).equals(winners[0]!.data));
  }
});

test("a file finds its place even while its directory is being pruned away", async (t) => {
  const root = await temporaryFolder(t);
  const directory = join(root, "base", "a", "b");
  await mkdir(directory, { recursive: true });
  let moving = true;
  const prune = async () => {
    while (moving) await pruneUpTo(join(root, "base"), directory);
  };
  const pruning = [prune(), prune(), prune()];
  for (let round = 0; round < 60; round++) {
    await writeFile(join(root, "source"), String(round));
    await moveDurably(join(root, "base"), join(root, "source"), join(directory, "file"));
    t.deepEqual(await filesBelow(root), ["base/a/b/file"]);
    await rm(join(directory, "file"));
  }
  moving = false;
  await Promise.all(pruning);
  const missing = moveDurably(join(root, "base"), join(root, "source"), join(directory, "file"));
  await t.throwsAsync(missing, { code: "ENOENT" });
});

test("closing breaks off attempts under way and then lets the directory go", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  const { pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  const from = new HangingBody(pieces[0].bytes.subarray(0, 100));
  const attempt = t.throwsAsync(write(store, blob, pieces[0], { from }), { message: /has been closed/ });
  await from.hangs;
  await store.close();
  await attempt;
  const again = await openDirectory(t, root);
  t.deepEqual(await storedIndexes(again, blob), []);
});

test("parts that were placed with differing segment sizes make no object", async (t) => {
  const store = await openDirectory(t, await temporaryFolder(t));
  const [first, second] = cut(bytesOf(t.title, 2000), 1000n);
  const blob = await begin(store, "dumps/1", "upload-1");
  await store.writePart(blob, first!.part, { segmentSize: 1000n }, body(first!.bytes), never);
  await store.writePart(blob, second!.part, { segmentSize: 1500n }, body(second!.bytes), never);
  const completing = store.complete(blob, "upload-1", [first!.part, second!.part]);
  await t.throwsAsync(completing, {
    instanceOf: BlobStoreError,
    message: /was written at 1500, but the parts before it end at 1000/,
  });
});

onLinux("a full disk leaves no part, says what to do, and is got over", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  const { data, pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  const path = join(root, "pending", blob.token, "data");
  await write(store, blob, pieces[0]);
  await rename(path, `${path}-aside`);
  // A device that is always full.
  await symlink("/dev/full", path);
  const error = await t.throwsAsync(write(store, blob, pieces[1]), {
    instanceOf: BlobStoreError,
    message:
      /Cannot store part 1 of dumps\/1 in .*: the file system is full. Free space on it or enlarge it; then the call can be repeated/,
  });
  t.is((error?.cause as NodeJS.ErrnoException | undefined)?.code, "ENOSPC");
  await rename(`${path}-aside`, path);
  t.deepEqual(await storedIndexes(store, blob), [0]);
  for (const piece of pieces) await write(store, blob, piece);
  await store.complete(blob, "upload-1", partsOf(pieces));
  t.true((await read(store, "dumps/1")).equals(data));
});

test("damage from outside is noticed instead of published", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  const { pieces } = threeParts(store, t.title);
  const damaged = await begin(store, "dumps/1", "upload-1");
  for (const piece of pieces) await write(store, damaged, piece);
  await truncate(join(root, "pending", damaged.token, "data"), 100);
  await t.throwsAsync(store.complete(damaged, "upload-1", partsOf(pieces)), { message: /its file has 100 bytes/ });
  const marker = `part-0-0-5-${"0".repeat(64)}`;
  await writeFile(join(root, "pending", damaged.token, marker), "");
  await t.throwsAsync(store.listParts(damaged), { message: /differing parts under one index/ });
  await store.abort(damaged);

  const unreadable = await begin(store, "dumps/2", "upload-2");
  await writeFile(join(root, "pending", unreadable.token, "upload.json"), "{");
  await t.throwsAsync(store.listParts(unreadable), { instanceOf: BlobStoreError, message: /upload.json is damaged/ });
  await upload(store, "dumps/3", "upload-3", pieces);
  await writeFile(join(root, "meta", "dumps", "3"), "");
  await t.throwsAsync(store.stat("dumps/3"), { instanceOf: BlobStoreError, message: /3 is damaged/ });
});

onLinux("no file stays open after calls that end in whatever way", async (t) => {
  const root = await temporaryFolder(t);
  const store = await openDirectory(t, root);
  const { data, pieces } = threeParts(store, t.title);
  await upload(store, "dumps/1", "upload-1", pieces);
  const blob = await begin(store, "dumps/2", "upload-2");
  await t.throwsAsync(write(store, blob, pieces[0], { from: brokenBody(pieces[0].bytes, 10, new Error("gone")) }));
  const from = new HangingBody(pieces[1].bytes.subarray(0, 100));
  const abort = new AbortController();
  const attempt = t.throwsAsync(write(store, blob, pieces[1], { from, signal: abort.signal }));
  await from.hangs;
  // Readers that stop at once, are aborted while nobody asks for more, ask for too much.
  for await (const _ of store.read("dumps/1", 0n, 10n, never)) break;
  const idle = store.read("dumps/1", 0n, BigInt(data.length), abort.signal)[Symbol.asyncIterator]();
  await idle.next();
  await t.throwsAsync(read(store, "dumps/1", { length: data.length + 1 }));
  await t.throwsAsync(store.get("dumps/1", 10));
  abort.abort();
  await attempt;
  await store.abort(blob);
  await store.close();

  // A reader that was aborted closes its file on its own time.
  await eventually(async () => (await openBelow(root)).length === 0);
  t.deepEqual(await openBelow(root), []);
});

/** The files and directories below a directory that this process has open. */
async function openBelow(root: string): Promise<string[]> {
  const descriptors = await readdir("/proc/self/fd");
  const targets = descriptors.map((descriptor) => readlink(join("/proc/self/fd", descriptor)).catch(() => ""));
  return (await Promise.all(targets)).filter((target) => target.startsWith(root));
}

import test from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import { blobStoreSuite } from "./support/blob-store-suite.ts";
import {
  begin,
  body,
  collect,
  partsOf,
  read,
  storedIndexes,
  threeParts,
  upload,
  write,
} from "./support/blob-store-tools.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";

blobStoreSuite(test, "memory", async () => ({ store: new MemoryBlobStore() }));
blobStoreSuite(test, "faulty without faults", async () => ({ store: new FaultyBlobStore(new MemoryBlobStore()) }));

test("a store that discards keeps sizes, checks them, and reads zeros", async (t) => {
  const store = new MemoryBlobStore({ discard: true });
  const { data, pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  await t.throwsAsync(write(store, blob, pieces[0], { from: body(new Uint8Array(5)) }), { instanceOf: BlobStoreError });
  for (const piece of pieces) await write(store, blob, piece);
  await store.complete(blob, "upload-1", partsOf(pieces));
  t.is((await store.stat("dumps/1"))?.size, BigInt(data.length));
  t.true((await read(store, "dumps/1")).equals(Buffer.alloc(data.length)));
  t.is((await read(store, "dumps/1", { offset: 7, length: 100 })).length, 100);
  t.deepEqual(await store.get("dumps/1", data.length), new Uint8Array(data.length));
  await store.put("notes/1", Buffer.from("kept"));
  t.is(String(await store.get("notes/1", 10)), "kept");
});

test("an object made of parts is not replaced by a small one, nor the other way", async (t) => {
  const store = new MemoryBlobStore();
  const { data, pieces } = threeParts(store, t.title);
  await upload(store, "dumps/1", "upload-1", pieces);
  await t.throwsAsync(store.put("dumps/1", Buffer.from("x")), { instanceOf: BlobStoreError });
  await store.put("notes/1", Buffer.from("x"));
  await t.throwsAsync(upload(store, "notes/1", "upload-2", pieces), { instanceOf: BlobStoreError });
  t.true((await read(store, "dumps/1")).equals(data));
});

test("a fault before a call prevents it, one after it loses the answer only", async (t) => {
  const store = new FaultyBlobStore(new MemoryBlobStore());
  const { data, pieces } = threeParts(store, t.title);
  const [piece] = pieces;
  const blob = await begin(store, "dumps/1", "upload-1");
  const lost = new Error("the answer was lost");
  store.fail("writePart");
  await t.throwsAsync(write(store, blob, piece), {
    instanceOf: BlobStoreError,
    message: /fail before writePart number 1/,
  });
  t.deepEqual(await storedIndexes(store, blob), []);
  store.fail("writePart", { when: "during", error: lost });
  t.is(await t.throwsAsync(write(store, blob, piece)), lost);
  t.deepEqual(await storedIndexes(store, blob), []);
  store.fail("writePart", { when: "after", error: lost });
  t.is(await t.throwsAsync(write(store, blob, piece)), lost);
  t.deepEqual(await storedIndexes(store, blob), [0]);

  for (const each of pieces) await write(store, blob, each);
  store.fail("complete", { when: "after", error: lost });
  t.is(await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces))), lost);
  t.is((await store.stat("dumps/1"))?.uploadId, "upload-1");
  await store.complete(blob, "upload-1", partsOf(pieces));

  store.fail("read", { when: "during", error: lost });
  t.is(await t.throwsAsync(read(store, "dumps/1")), lost);
  store.fail("list", { when: "after", error: lost });
  t.is(await t.throwsAsync(collect(store.list(""))), lost);
  t.true((await read(store, "dumps/1")).equals(data));
  store.assertAllFired(t);
  t.is(store.fired.length, 6);
});

test("a fault strikes the call it was set for, and a silent one is noticed", async (t) => {
  const store = new FaultyBlobStore(new MemoryBlobStore());
  await store.put("notes/1", Buffer.from("x"));
  store.fail("get", { nth: 2 });
  store.fail("get", { nth: 4 });
  const results: string[] = [];
  for (let call = 1; call <= 3; call++) {
    results.push(
      await store.get("notes/1", 10).then(
        () => "works",
        () => "fails",
      ),
    );
  }
  t.deepEqual(results, ["works", "fails", "works"]);
  const noticed = await t.try((attempt) => store.assertAllFired(attempt));
  noticed.discard();
  t.false(noticed.passed);
  await t.throwsAsync(store.get("notes/1", 10));
  store.assertAllFired(t);
});

test("a stalled call hangs until it is released or aborted", async (t) => {
  const store = new FaultyBlobStore(new MemoryBlobStore());
  const stalled = store.stall("put");
  let done = false;
  const putting = store.put("notes/1", Buffer.from("x")).then(() => {
    done = true;
  });
  await stalled.reached;
  t.is(await store.get("notes/1", 10), undefined);
  t.false(done);
  stalled.release();
  await putting;
  t.is(String(await store.get("notes/1", 10)), "x");

  const { pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  const { reached } = store.stall("writePart", { when: "after" });
  const abort = new AbortController();
  const writing = write(store, blob, pieces[0], { signal: abort.signal });
  await reached;
  const reason = new Error("it takes too long");
  abort.abort(reason);
  t.is(await t.throwsAsync(writing), reason);
  t.deepEqual(await storedIndexes(store, blob), [0]);
  store.assertAllFired(t);
});

test("a call may happen twice", async (t) => {
  const store = new FaultyBlobStore(new MemoryBlobStore());
  const { data, pieces } = threeParts(store, t.title);
  for (const operation of ["begin", "complete", "put", "delete", "abort"] as const) store.twice(operation);
  const blob = await upload(store, "dumps/1", "upload-1", pieces);
  const left = await collect(store.listPending());
  t.is(left.length, 1);
  await store.abort(left[0]!);
  t.not(left[0]?.token, blob.token);
  await store.put("notes/1", Buffer.from("x"));
  await store.delete("notes/1");
  t.true((await read(store, "dumps/1")).equals(data));
  store.assertAllFired(t);
});

test("a fault that cannot be is refused", (t) => {
  const store = new FaultyBlobStore(new MemoryBlobStore());
  t.throws(() => store.fail("put", { when: "during" }), { instanceOf: TypeError, message: /put does not stream/ });
  t.throws(() => store.fail("put", { nth: 0 }), { instanceOf: RangeError });
  t.throws(() => store.twice("writePart"), { instanceOf: TypeError });
});

import fc from "fast-check";
import { BlobNotFoundError, type BlobStore, BlobStoreError } from "../../src/app/ports/blob-store.ts";
import type { DeclareTest } from "./blob-store-tools.ts";
import {
  begin,
  bytesOf,
  collect,
  cut,
  never,
  placementFor,
  read,
  threeParts,
  upload,
  write,
} from "./blob-store-tools.ts";

/** Keys that other programs may have given an object that is adopted; no store makes one. */
const FOREIGN_KEYS = [".hidden", "a/.hidden", "a b", "ä", "a%2fb", "C:a"];

const UNUSABLE_KEYS = [
  "",
  "/",
  "/absolute",
  "ends/with/slash/",
  "two//slashes",
  ".",
  "..",
  "../outside",
  "a/../../outside",
  "a/./b",
  "a\\b",
  "a\0b",
  "a\nb",
  "x".repeat(256),
  "x/".repeat(600).concat("x"),
];

/** What {@link blobStoreSuite} asks of reading, small objects, listing and deleting. */
export function objectBehaviour(test: DeclareTest): void {
  test("any range of an object can be read", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    await upload(store, "dumps/1", "upload-1", pieces);
    const segment = Number(placementFor(store).segmentSize);
    const ranges: [number, number][] = [
      [0, 1],
      [0, segment],
      [segment - 1, 2],
      [segment, segment],
      [1, data.length - 2],
      [data.length - 1, 1],
    ];
    const anyRange = fc
      .nat({ max: data.length - 1 })
      .chain((offset) => fc.tuple(fc.constant(offset), fc.integer({ min: 1, max: data.length - offset })));
    ranges.push(...fc.sample(anyRange, { numRuns: 20, seed: 1 }));
    for (const [offset, length] of ranges) {
      const bytes = await read(store, "dumps/1", { offset, length });
      t.true(bytes.equals(data.subarray(offset, offset + length)), `${length} bytes from ${offset}`);
    }
    t.is((await read(store, "dumps/1", { offset: 5, length: 0 })).length, 0);
  });

  test("a range beyond the end, a negative one and a missing object are errors", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    await upload(store, "dumps/1", "upload-1", pieces);
    const beyond: [number, number][] = [
      [0, data.length + 1],
      [data.length - 1, 2],
      [data.length, 1],
      [data.length + 1, 1],
      [-1, 2],
      [1, -1],
    ];
    for (const [offset, length] of beyond) {
      const error = await t.throwsAsync(read(store, "dumps/1", { offset, length }), { instanceOf: BlobStoreError });
      t.false(error instanceof BlobNotFoundError);
    }
    for (const key of ["dumps", "dumps/2", "dumps/1/2"]) {
      await t.throwsAsync(read(store, key, { length: 1 }), { instanceOf: BlobNotFoundError }, key);
    }
  });

  test("reading may stop in the middle, by its consumer or by the signal", async (t, { store }) => {
    const data = bytesOf(t.title, 3 * 1024 * 1024);
    const { segmentSize } = placementFor(store);
    await upload(store, "dumps/1", "upload-1", cut(data, segmentSize));
    const size = BigInt(data.length);
    for await (const chunk of store.read("dumps/1", 0n, size, never)) {
      t.true(chunk.length > 0);
      break;
    }
    const abort = new AbortController();
    const chunks: Uint8Array[] = [];
    await t.throwsAsync(async () => {
      for await (const chunk of store.read("dumps/1", 0n, size, abort.signal)) {
        chunks.push(chunk);
        abort.abort(new Error("the reader has gone"));
      }
    });
    t.is(chunks.length, 1);
    await t.throwsAsync(collect(store.read("dumps/1", 0n, size, AbortSignal.abort())));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("a chunk that was read stays as it is", async (t, { store }) => {
    const data = bytesOf(t.title, 3 * 1024 * 1024);
    await upload(store, "dumps/1", "upload-1", cut(data, placementFor(store).segmentSize));
    const chunks = await collect(store.read("dumps/1", 0n, BigInt(data.length), never));
    t.true(Buffer.concat(chunks).equals(data));
    for (const chunk of chunks) chunk.fill(0);
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("small objects are put, replaced and got whole", async (t, { store }) => {
    t.is(await store.get("notes/1", 10), undefined);
    const bytes = Buffer.from("the first");
    await store.put("notes/1", bytes);
    bytes.fill(0);
    t.deepEqual(await store.get("notes/1", 9), Buffer.from("the first"));
    await store.put("notes/1", Buffer.from("second"));
    t.deepEqual(await store.get("notes/1", 9), Buffer.from("second"));
    t.deepEqual(await store.stat("notes/1"), { key: "notes/1", size: 6n, uploadId: undefined });
    t.is((await read(store, "notes/1", { offset: 1, length: 3 })).toString(), "eco");
    await store.put("notes/empty", new Uint8Array());
    t.is((await store.get("notes/empty", 0))?.length, 0);
  });

  test("a small object that is larger than expected is not read", async (t, { store }) => {
    await store.put("notes/1", Buffer.from("eight by"));
    await t.throwsAsync(store.get("notes/1", 7), { instanceOf: BlobStoreError });
    t.is((await store.get("notes/1", 8))?.length, 8);
  });

  test("a reader sees one put whole or the other, never a mixture", async (t, { store }) => {
    const versions = ["a", "b", "c"].map((letter, index) => Buffer.from(letter.repeat(50_000 + index)));
    const known = new Set(versions.map(String));
    await store.put("notes/1", versions[0]!);
    let writing = true;
    const writer = (async () => {
      for (let round = 0; round < 5; round++) await Promise.all(versions.map((bytes) => store.put("notes/1", bytes)));
      writing = false;
    })();
    while (writing) t.true(known.has(String(await store.get("notes/1", 60_000))));
    await writer;
    t.true(known.has(String(await store.get("notes/1", 60_000))));
  });

  test("deleting removes the object, and a missing one is no error", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    const blob = await upload(store, "dumps/1", "upload-1", pieces);
    await store.put("dumps/1.json", Buffer.from("{}"));
    await store.delete("dumps");
    t.is((await store.stat("dumps/1"))?.uploadId, "upload-1", "a beginning of keys is not an object");
    await store.delete("dumps/1");
    t.is(await store.stat("dumps/1"), undefined);
    t.is(await store.get("dumps/1", 10), undefined);
    await t.throwsAsync(read(store, "dumps/1"), { instanceOf: BlobNotFoundError });
    const completing = store.complete(
      blob,
      "upload-1",
      pieces.map(({ part }) => part),
    );
    await t.throwsAsync(completing, { instanceOf: BlobNotFoundError });
    await store.delete("dumps/1");
    await store.delete("never/was");
    t.deepEqual(await collect(store.list("")), [{ key: "dumps/1.json", size: 2n }]);
  });

  test("deleting and publishing side by side lose nothing", async (t, { store }) => {
    await store.put("a/b/0-old", Buffer.from("old"));
    for (let round = 0; round < 25; round++) {
      const publish = async () => await store.put(`a/b/${round + 1}-old`, Buffer.from("new"));
      // MinIO on one disk may refuse an object whose folder goes at that moment, as not allowed; the caller repeats it.
      const published = publish().catch(async (error: unknown) => {
        if (!String(error).includes("(AccessDenied)")) throw error;
        t.log("refused once beside a deletion");
        await publish();
      });
      await Promise.all([store.delete(`a/b/${round}-old`), published]);
      t.deepEqual(
        (await collect(store.list("a/"))).map(({ key }) => key),
        [`a/b/${round + 1}-old`],
      );
    }
  });

  test("objects are listed by key, and by what the key begins with", async (t, { store }) => {
    const keys = ["a", "b-c", "b.d", "b/c", "b/d/e", "b/d/f", "b0", "b_", "c/a.json", "c/a/b"];
    for (const key of keys.toReversed()) await store.put(key, Buffer.from(key));
    const listed = async (prefix: string) => (await collect(store.list(prefix))).map(({ key }) => key);
    for (const prefix of ["", "a", "b", "b/", "b/d", "b/d/", "b/d/e", "c/a", "c/a.", "x", "x/y", "b/d/e/f"]) {
      t.deepEqual(await listed(prefix), keys.filter((key) => key.startsWith(prefix)).sort(), prefix);
    }
    for await (const { key, size } of store.list("b/")) t.is(size, BigInt(key.length));
    for (const prefix of ["/", "..", "../", "b//", "b/../", ".", "b c"]) {
      await t.throwsAsync(collect(store.list(prefix)), { instanceOf: BlobStoreError }, prefix);
    }
  });

  test("more objects are listed than fit one page of any store", async (t, { store }) => {
    const keys = Array.from(
      { length: 1101 },
      (_, number) => `many/${String(number % 7)}/${String(number).padStart(4, "0")}`,
    );
    await store.put("after", Buffer.from("x"));
    await putAll(store, keys);
    t.deepEqual(
      (await collect(store.list("many/"))).map(({ key }) => key),
      keys.toSorted(),
    );
    let seen = 0;
    // Deleting what the listing gives, while it goes on, is what a sweeper does.
    for await (const { key } of store.list("many/3/")) {
      await store.delete(key);
      seen += 1;
    }
    t.is(seen, keys.filter((key) => key.startsWith("many/3/")).length);
    t.deepEqual(await collect(store.list("many/3/")), []);
  });

  test("keys that some store could not keep are refused by every call", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    const real = await begin(store, "dumps/1", "upload-1");
    for (const key of [...UNUSABLE_KEYS, ...FOREIGN_KEYS]) {
      const blob = { key, token: real.token };
      const calls: (() => Promise<unknown>)[] = [
        () => store.begin(key, "upload-1"),
        () => write(store, blob, pieces[0]),
        () => store.listParts(blob),
        () => store.complete(blob, "upload-1", [pieces[0].part]),
        () => store.abort(blob),
        () => store.put(key, Buffer.from("x")),
      ];
      for (const call of calls) await t.throwsAsync(call, { instanceOf: BlobStoreError }, `${call} with ${key}`);
    }
    for (const key of UNUSABLE_KEYS) {
      const calls: (() => Promise<unknown>)[] = [
        () => store.get(key, 10),
        () => store.stat(key),
        () => read(store, key, { length: 1 }),
        () => store.delete(key),
        () => store.adopt(key),
        () => store.forgetForeign(key),
      ];
      for (const call of calls) await t.throwsAsync(call, { instanceOf: BlobStoreError }, `${call} with ${key}`);
    }
    for (const key of FOREIGN_KEYS) {
      t.is(await store.get(key, 10), undefined, key);
      t.is(await store.stat(key), undefined, key);
      await t.throwsAsync(read(store, key, { length: 1 }), { instanceOf: BlobNotFoundError }, key);
      await t.throwsAsync(store.adopt(key), { instanceOf: BlobNotFoundError }, key);
    }
    t.deepEqual(await collect(store.list("")), []);
    t.deepEqual(await collect(store.listPending()), [real]);
    for (const key of ["a", "-", "_", "a.b", "a..b", "0", "x".repeat(255), `${"x/".repeat(30)}x`]) {
      await store.put(key, Buffer.from("x"));
      await store.delete(key);
    }
  });
}

async function putAll(store: BlobStore, keys: readonly string[]): Promise<void> {
  const left = [...keys];
  const worker = async () => {
    for (let key = left.pop(); key !== undefined; key = left.pop()) await store.put(key, Buffer.from(key));
  };
  await Promise.all(Array.from({ length: 32 }, worker));
}

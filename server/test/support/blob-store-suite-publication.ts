import { BlobNotFoundError, BlobStoreError } from "../../src/app/ports/blob-store.ts";
import type { DeclareTest } from "./blob-store-tools.ts";
import {
  begin,
  bytesOf,
  collect,
  cut,
  partsOf,
  placementFor,
  read,
  storedIndexes,
  threeParts,
  upload,
  write,
} from "./blob-store-tools.ts";

/** What {@link blobStoreSuite} asks of completing, aborting and listing unfinished objects. */
export function publicationBehaviour(test: DeclareTest): void {
  test("nothing of an object is seen before it is complete, and all of it then", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) await write(store, blob, piece);
    t.is(await store.stat("dumps/1"), undefined);
    t.is(await store.get("dumps/1", 1_000_000_000), undefined);
    t.deepEqual(await collect(store.list("")), []);
    await t.throwsAsync(read(store, "dumps/1"), { instanceOf: BlobNotFoundError });

    await store.complete(blob, "upload-1", partsOf(pieces));
    const stat = { key: "dumps/1", size: BigInt(data.length), uploadId: "upload-1" };
    t.deepEqual(await store.stat("dumps/1"), stat);
    t.deepEqual(await collect(store.list("")), [{ key: stat.key, size: stat.size }]);
    t.true((await read(store, "dumps/1")).equals(data));
    t.true(Buffer.from(data).equals((await store.get("dumps/1", data.length))!));
    await t.throwsAsync(store.listParts(blob), { instanceOf: BlobNotFoundError });
  });

  test("an object may be of one part smaller than the segment size, or of exactly whole segments", async (t, {
    store,
  }) => {
    const { segmentSize } = placementFor(store);
    for (const size of [1, 777, Number(segmentSize), 2 * Number(segmentSize)]) {
      const data = bytesOf(t.title, size);
      await upload(store, `dumps/${size}`, "upload-1", cut(data, segmentSize));
      t.true((await read(store, `dumps/${size}`)).equals(data));
    }
  });

  test("parts that are not what is stored make no object", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const [{ part: first }, { part: second }, { part: third }] = pieces;
    const blob = await begin(store, "dumps/1", "upload-1");
    await write(store, blob, pieces[0]);
    await write(store, blob, pieces[2]);
    const refused = async (name: string, parts: (typeof first)[]) => {
      await t.throwsAsync(store.complete(blob, "upload-1", parts), { instanceOf: BlobStoreError }, name);
      t.is(await store.stat("dumps/1"), undefined, name);
    };
    await refused("none", []);
    await refused("a hole in the given parts", [first, third]);
    await refused("a part that is not stored", [first, second, third]);
    await refused("a first part that is not the first", [second, third]);

    await write(store, blob, pieces[1]);
    await refused("a wrong size", [first, second, { ...third, size: third.size - 1n }]);
    await refused("a wrong digest", [first, { ...second, sha256: third.sha256 }, third]);
    await refused("one more than there are", [first, second, third, { ...third, index: 3 }]);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("completing again succeeds and changes nothing", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await upload(store, "dumps/1", "upload-1", pieces);
    await store.complete(blob, "upload-1", partsOf(pieces));
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("completing at the same time makes one whole object", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) await write(store, blob, piece);
    const calls = Array.from({ length: 5 }, () => store.complete(blob, "upload-1", partsOf(pieces)));
    const results = await Promise.allSettled(calls);
    t.true(results.some(({ status }) => status === "fulfilled"));
    // A store may lose sight of the object for a moment while another call completes it; the answer is then unknown,
    // and asking again helps.
    for (const result of results) t.true(result.status === "fulfilled" || result.reason instanceof BlobStoreError);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("an aborted object is gone for every call", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) await write(store, blob, piece);
    await store.abort(blob);
    await store.abort(blob);
    await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces)), { instanceOf: BlobNotFoundError });
    await t.throwsAsync(store.listParts(blob), { instanceOf: BlobNotFoundError });
    await t.throwsAsync(write(store, blob, pieces[0]), { instanceOf: BlobStoreError });
    t.is(await store.stat("dumps/1"), undefined);
    t.deepEqual(await collect(store.listPending()), []);
    t.deepEqual(await collect(store.list("")), []);
  });

  test("aborting a finished object leaves it alone", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await upload(store, "dumps/1", "upload-1", pieces);
    await store.abort(blob);
    t.true((await read(store, "dumps/1")).equals(data));
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.is((await store.stat("dumps/1"))?.uploadId, "upload-1");
  });

  test("of two creators of one key the second does not overwrite the first", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const { pieces: otherPieces } = threeParts(store, `${t.title}, the other`);
    const first = await begin(store, "dumps/1", "upload-1");
    const second = await begin(store, "dumps/1", "upload-2");
    t.not(first.token, second.token);
    for (const piece of otherPieces) await write(store, second, piece);
    for (const piece of pieces) await write(store, first, piece);
    await store.complete(first, "upload-1", partsOf(pieces));

    const refused = store.complete(second, "upload-2", partsOf(otherPieces));
    await t.throwsAsync(refused, { instanceOf: BlobStoreError });
    await store.abort(second);
    t.deepEqual(await store.stat("dumps/1"), { key: "dumps/1", size: BigInt(data.length), uploadId: "upload-1" });
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("beginning again after a lost answer gives another unfinished object, and either does", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const lost = await begin(store, "dumps/1", "upload-1");
    const blob = await begin(store, "dumps/1", "upload-1");
    t.not(lost.token, blob.token);
    await write(store, lost, pieces[0]);
    t.deepEqual(await store.listParts(blob), []);
    for (const piece of pieces) await write(store, blob, piece);
    await store.complete(blob, "upload-1", partsOf(pieces));
    await store.abort(lost);
    t.deepEqual(await collect(store.listPending()), []);
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("only unfinished objects are listed as such", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    t.deepEqual(await collect(store.listPending()), []);
    const empty = await begin(store, "dumps/empty", "upload-1");
    const begun = await begin(store, "dumps/begun", "upload-2");
    await write(store, begun, pieces[1]);
    const aborted = await begin(store, "dumps/aborted", "upload-3");
    await store.abort(aborted);
    await upload(store, "dumps/finished", "upload-4", pieces);
    await store.put("notes/put", Buffer.from("small"));

    const pending = await collect(store.listPending());
    pending.sort((a, b) => (a.key < b.key ? -1 : 1));
    t.deepEqual(pending, [begun, empty]);
    for (const blob of pending) await store.abort(blob);
    t.deepEqual(await collect(store.listPending()), []);
    t.deepEqual(
      (await collect(store.list(""))).map(({ key }) => key),
      ["dumps/finished", "notes/put"],
    );
  });

  test("what was acknowledged is there after a restart", async (t, { store, reopen }) => {
    // Other stores keep nothing beyond the process.
    if (reopen === undefined) {
      t.pass();
      return;
    }
    const { data, pieces } = threeParts(store, t.title);
    const finished = await upload(store, "dumps/finished", "upload-1", pieces);
    const begun = await begin(store, "dumps/begun", "upload-2");
    await write(store, begun, pieces[2]);
    await write(store, begun, pieces[0]);
    const aborted = await begin(store, "dumps/aborted", "upload-3");
    await write(store, aborted, pieces[0]);
    await store.abort(aborted);
    await upload(store, "dumps/deleted", "upload-4", pieces);
    await store.delete("dumps/deleted");
    await store.put("notes/put", Buffer.from("small"));

    const again = await reopen();
    t.deepEqual(await collect(again.list("")), [
      { key: "dumps/finished", size: BigInt(data.length) },
      { key: "notes/put", size: 5n },
    ]);
    t.is((await again.stat("dumps/finished"))?.uploadId, "upload-1");
    t.true((await read(again, "dumps/finished")).equals(data));
    await again.complete(finished, "upload-1", partsOf(pieces));
    t.deepEqual(await again.get("notes/put", 10), Buffer.from("small"));
    t.deepEqual(await collect(again.listPending()), [begun]);
    t.deepEqual(await storedIndexes(again, begun), [0, 2]);
    await write(again, begun, pieces[1]);
    await again.complete(begun, "upload-2", partsOf(pieces));
    t.true((await read(again, "dumps/begun")).equals(data));
  });
}

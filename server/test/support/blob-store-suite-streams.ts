import { BlobStoreError } from "../../src/app/ports/blob-store.ts";
import type { DeclareTest } from "./blob-store-tools.ts";
import {
  body,
  brokenBody,
  bytesOf,
  collect,
  eventually,
  HangingBody,
  never,
  placementFor,
  read,
  threeParts,
} from "./blob-store-tools.ts";

/** What every store does with bodies of unknown length. */
export function streamBehaviour(test: DeclareTest): void {
  test("a body of unknown length becomes an object, whatever its length", async (t, { store }) => {
    const { segmentSize: partSize } = placementFor(store);
    const part = Number(partSize);
    for (const size of [0, 1, part, part + 1, 5 * part]) {
      const data = bytesOf(t.title, size);
      const input = { key: `dumps/${size}`, uploadId: `upload-${size}`, partSize, signal: never };
      t.is(await store.putStream(input, body(data)), BigInt(size));
      t.deepEqual(await store.stat(input.key), { key: input.key, size: BigInt(size), uploadId: input.uploadId });
      t.true((await read(store, input.key, { length: size })).equals(data), `${size} bytes`);
    }
    t.deepEqual(await collect(store.listPending()), []);
  });

  test("a body of unknown length that breaks off leaves nothing", async (t, { store }) => {
    const { data } = threeParts(store, t.title);
    const { segmentSize: partSize } = placementFor(store);
    const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
    const part = Number(partSize);
    for (const length of [0, 1, part, part + 1, 2 * part, data.length]) {
      const broken = new Error("the sender is gone");
      t.is(await t.throwsAsync(store.putStream(input, brokenBody(data, length, broken))), broken);
      t.deepEqual(await collect(store.list("")), []);
      t.deepEqual(await collect(store.listPending()), []);
    }
  });

  test("a signal that aborts while a body of unknown length is silent leaves nothing", async (t, { store }) => {
    const { data } = threeParts(store, t.title);
    const { segmentSize: partSize } = placementFor(store);
    for (const length of [1, Number(partSize), data.length]) {
      const abort = new AbortController();
      const hanging = new HangingBody(data.subarray(0, length));
      const gone = new Error("the caller has gone");
      const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: abort.signal };
      const stopped = t.throwsAsync(store.putStream(input, hanging));
      await hanging.hangs;
      abort.abort(gone);
      t.is(await stopped, gone);
      await eventually(() => hanging.released);
      t.deepEqual(await collect(store.list("")), []);
      t.deepEqual(await collect(store.listPending()), []);
    }
    const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: AbortSignal.abort(new Error("before")) };
    await t.throwsAsync(store.putStream(input, body(data)), { message: "before" });
    t.deepEqual(await collect(store.listPending()), []);
  });

  test("a body of unknown length does not replace an object, and may be stored again", async (t, { store }) => {
    const { data } = threeParts(store, t.title);
    const { segmentSize: partSize } = placementFor(store);
    const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
    await store.putStream(input, body(data));
    await store.putStream(input, body(data));
    const other = store.putStream({ ...input, uploadId: "upload-2" }, body(bytesOf("other", data.length)));
    await t.throwsAsync(other, { instanceOf: BlobStoreError });
    t.deepEqual(await collect(store.listPending()), []);
    const shorter = store.putStream(input, body(data.subarray(1)));
    await t.throwsAsync(shorter, { instanceOf: BlobStoreError });
    t.deepEqual(await collect(store.listPending()), []);
    t.true((await read(store, "dumps/1")).equals(data));
  });
}

import { BlobStoreError } from "../../src/app/ports.ts";
import { storeStream } from "../../src/app/store-stream.ts";
import type { DeclareTest } from "./blob-store-suite.ts";
import {
  body,
  brokenBody,
  bytesOf,
  collect,
  cut,
  eventually,
  HangingBody,
  never,
  placementFor,
  read,
  sha256,
  threeParts,
} from "./blob-store-tools.ts";

/** What every store does with bodies of unknown length, by `storeStream`. */
export function streamBehaviour(test: DeclareTest): void {
  test("a body of unknown length becomes an object, whatever its length", async (t, { store }) => {
    const { segmentSize: partSize } = placementFor(store);
    const part = Number(partSize);
    for (const size of [0, 1, part, part + 1, 5 * part]) {
      const data = bytesOf(t.title, size);
      const input = { key: `dumps/${size}`, uploadId: `upload-${size}`, partSize, signal: never };
      const { digests, ...stored } = await storeStream(store, input, body(data));
      t.deepEqual(stored, { size: BigInt(size) });
      const pieces = size === 0 ? [sha256(data)] : cut(data, partSize).map(({ part: { sha256: digest } }) => digest);
      t.deepEqual(digests.map(String), pieces.map(String));
      t.deepEqual(await store.stat(input.key), { key: input.key, size: BigInt(size), uploadId: input.uploadId });
      t.true((await read(store, input.key, { length: size })).equals(data), `${size} bytes`);
    }
    t.deepEqual(await collect(store.listPending()), []);
  });

  test("a body of unknown length that breaks off leaves nothing", async (t, { store }) => {
    const { data } = threeParts(store, t.title);
    const { segmentSize: partSize } = placementFor(store);
    const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
    for (const length of [0, 1, Number(partSize) + 1, data.length]) {
      const broken = new Error("the sender is gone");
      t.is(await t.throwsAsync(storeStream(store, input, brokenBody(data, length, broken))), broken);
      t.deepEqual(await collect(store.list("")), []);
      t.deepEqual(await collect(store.listPending()), []);
    }
    const abort = new AbortController();
    const hanging = new HangingBody(data);
    const stopped = t.throwsAsync(storeStream(store, { ...input, signal: abort.signal }, hanging));
    await hanging.hangs;
    abort.abort(new Error("the caller has gone"));
    await stopped;
    await eventually(() => hanging.released);
    t.deepEqual(await collect(store.list("")), []);
    t.deepEqual(await collect(store.listPending()), []);
  });

  test("a body of unknown length does not replace an object, and may be stored again", async (t, { store }) => {
    const { data } = threeParts(store, t.title);
    const { segmentSize: partSize } = placementFor(store);
    const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
    await storeStream(store, input, body(data));
    await storeStream(store, input, body(data));
    const other = storeStream(store, { ...input, uploadId: "upload-2" }, body(bytesOf("other", data.length)));
    await t.throwsAsync(other, { instanceOf: BlobStoreError });
    t.true((await read(store, "dumps/1")).equals(data));
    for await (const pending of store.listPending()) await store.abort(pending);
    t.true((await read(store, "dumps/1")).equals(data));
  });
}

import test from "ava";
import { MeasuredBlobStore } from "../src/adapters/measured/measured-blob-store.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { BlobNotFoundError, BlobStoreError } from "../src/app/ports/blob-store.ts";
import { blobStoreSuite } from "./support/blob-store-suite.ts";
import { begin, body, collect, partsOf, threeParts, write } from "./support/blob-store-tools.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";

blobStoreSuite(test, "measured", async () => {
  const inner = new MemoryBlobStore();
  const listParts = inner.listParts.bind(inner);
  return { store: Object.assign(new MeasuredBlobStore(inner, () => {}), { listParts }) };
});

test("each call is reported once, with its outcome", async (t) => {
  const reports: string[] = [];
  const faulty = new FaultyBlobStore(new MemoryBlobStore());
  const store = new MeasuredBlobStore(faulty, (operation, seconds, outcome) => {
    t.true(seconds >= 0);
    reports.push(`${operation} ${outcome}`);
  });
  const { pieces } = threeParts(store, t.title);
  const blob = await begin(store, "a/1", "u");
  await t.throwsAsync(write(store, blob, pieces[0], { from: body(new Uint8Array(1)) }), { instanceOf: BlobStoreError });
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(1);
    throw new Error("the client is gone");
  };
  await t.throwsAsync(write(store, blob, pieces[0], { from: broken() }), { message: "the client is gone" });
  for (const piece of pieces) await write(store, blob, piece);
  faulty.fail("complete");
  await t.throwsAsync(store.complete(blob, "u", partsOf(pieces)));
  await store.complete(blob, "u", partsOf(pieces));
  await t.throwsAsync(store.complete({ key: "b/2", token: "x" }, "u", partsOf(pieces)), {
    instanceOf: BlobNotFoundError,
  });
  await t.throwsAsync(collect(store.read("none", 0n, 1n, new AbortController().signal)), {
    instanceOf: BlobNotFoundError,
  });
  for await (const _ of store.read("a/1", 0n, 10n, new AbortController().signal)) break;
  await collect(store.read("a/1", 0n, 10n, new AbortController().signal));
  t.deepEqual(reports, [
    "begin ok",
    "writePart error",
    "writePart canceled",
    "writePart ok",
    "writePart ok",
    "writePart ok",
    "complete error",
    "complete ok",
    "complete missing",
    "read missing",
    "read canceled",
    "read ok",
  ]);
});

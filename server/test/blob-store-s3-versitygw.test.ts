import { hasPeers } from "@strongroom/testkit/peers/programs";
import { startS3 } from "@strongroom/testkit/peers/s3";
import test from "ava";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import { begin, bytesOf, cut, partsOf, write } from "./support/blob-store-tools.ts";
import { locationIn, openS3, s3Suite, useCredentials } from "./support/s3-tools.ts";

s3Suite(test, "versitygw");

test.serial("versitygw: more parts are listed than fit one page", async (t) => {
  if (!hasPeers(t, "versitygw")) return;
  const peer = await startS3("versitygw");
  t.teardown(() => peer.remove());
  useCredentials(peer);
  const store = await openS3(t, locationIn(peer, undefined, "&minPart=1"));
  const blob = await begin(store, "dumps/1", "upload-1");
  const pieces = cut(bytesOf(t.title, 1003), 1n);
  const left = [...pieces];
  const worker = async () => {
    for (let piece = left.pop(); piece !== undefined; piece = left.pop()) await write(store, blob, piece);
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  const listed = await store.listParts(blob);
  t.deepEqual(
    listed.map(({ index, size }) => ({ index, size })),
    pieces.map(({ part: { index, size } }) => ({ index, size })),
  );
  // Parts this small make no object: all of them were compared before the store said so.
  await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces)), {
    instanceOf: BlobStoreError,
    message: /EntityTooSmall/,
  });
  await store.abort(blob);
});

import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { S3_PEERS, startS3 } from "@strongroom/testkit/peers/s3";
import test from "ava";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { readVersion } from "../src/app/versions/versions.ts";
import { collect } from "./support/blob-store-tools.ts";
import { Harness, MIB, refused } from "./support/harness.ts";
import { locationIn, openS3, useCredentials } from "./support/s3-tools.ts";

/* The use cases over real S3 servers that verify digests, so that this server does not hash. */

for (const name of S3_PEERS) {
  test.serial(`${name}: a wrong digest is found by the store, an upload is published, read and purged`, async (t) => {
    if (!hasPeers(t, name)) return;
    const peer = await startS3(name);
    t.teardown(() => peer.remove());
    useCredentials(peer);
    const store = await openS3(t, locationIn(peer));
    const h = await Harness.open("PGlite", store);
    t.teardown(() => h.deps.database.close());
    const spec = h.add({ maxOneVersionSize: BigInt(20 * MIB), maxCollectionSize: BigInt(100 * MIB) });
    const message = openpgpMessage(11 * MIB);
    const { upload } = await h.begin(spec.name);
    const segments = cutSegments(message, Number(upload.segmentSize));
    t.is(upload.segmentSize, store.capabilities.minPartSize);

    const damaged = Uint8Array.from(segments[0]!.bytes);
    damaged[2_000_000]! ^= 1;
    await refused(t, "SEGMENT_DIGEST_MISMATCH", h.write(upload.id, segments[0]!, chunked(damaged, 100_000)));
    t.deepEqual(await store.listParts({ key: upload.key, token: upload.storeToken! }), []);
    t.is((await h.usage(spec.name)).reservedBytes, 0n);

    for (const segment of segments.toReversed()) await h.write(upload.id, segment, chunked(segment.bytes, 500_000));
    const { version } = await h.commit(upload.id, segments);
    t.is((await store.stat(version.key))?.uploadId, upload.id);
    const input = { collection: spec.name, number: "newest" as const, offset: 0n, limit: 0n };
    const read = await readVersion(h.deps, h.admin, input, new AbortController().signal);
    t.true(Buffer.concat(await collect(read.body)).equals(message));
    const abandoned = await h.begin(spec.name);
    await h.write(abandoned.upload.id, segments[0]!);
    h.clock.advance(25 * 3_600_000);
    await sweep(h.deps, true);
    t.deepEqual(await collect(store.listPending()), []);
    await h.assertInvariants(t);
  });
}

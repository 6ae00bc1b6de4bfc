import { chunked, compositeOf, cutSegments, openpgpMessage, sha256 } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import type { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { abortUpload, getUpload } from "../src/app/uploads/manage-uploads.ts";
import { listSegmentDigests, readVersion } from "../src/app/versions/versions.ts";
import { manifestKey } from "../src/domain/object-keys.ts";
import { type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const never = new AbortController().signal;

async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** No object, no unfinished object, no reservation, no version. */
async function nothingStored(t: ExecutionContext<{ h: Harness }>, name: string) {
  const { h } = t.context;
  await sweep(h.deps, true);
  const usage = await h.usage(name);
  t.is(usage.reservedBytes, 0n);
  t.is(usage.storedBytes, 0n);
  for await (const pending of h.deps.store.listPending())
    t.false(pending.key.includes(`/${name}/`), "unfinished object");
  for await (const object of h.deps.store.list(`collections/${name}/`)) t.fail(`object ${object.key}`);
}

test("a dump of several segments becomes a version and is read back byte for byte", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const message = openpgpMessage(3 * MIB + 12_345);
  const { version, removedNumbers } = await h.upload(spec.name, message);
  t.is(version.number, 1n);
  t.is(version.size, BigInt(message.length));
  t.is(version.segmentCount, 4);
  t.is(version.filename, `${spec.name}-1.tar.gpg`);
  t.deepEqual(removedNumbers, []);
  const read = await readVersion(
    h.deps,
    h.admin,
    { collection: spec.name, number: "newest", offset: 0n, limit: 0n },
    never,
  );
  t.true((await bytesOf(read.body)).equals(message));
  const range = await readVersion(
    h.deps,
    h.admin,
    { collection: spec.name, number: 1n, offset: 1_000_000n, limit: 100_000n },
    never,
  );
  t.true((await bytesOf(range.body)).equals(message.subarray(1_000_000, 1_100_000)));
  const { digests } = await listSegmentDigests(h.deps, h.admin, {
    collection: spec.name,
    number: 1n,
    first: 0,
    pageSize: 10,
  });
  t.deepEqual(
    digests,
    cutSegments(message, MIB).map((s) => s.sha256),
  );
  const usage = await h.usage(spec.name);
  t.is(usage.storedBytes, BigInt(message.length));
  t.is(usage.reservedBytes, 0n);
});

test("segments arrive in any order and twice; create, segment and commit are idempotent", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const first = await h.begin(spec.name, h.admin, "request-1");
  t.is((await h.begin(spec.name, h.admin, "request-1")).upload.id, first.upload.id);
  const segments = cutSegments(openpgpMessage(2 * MIB + 5), MIB);
  for (const i of [2, 0, 1]) await h.write(first.upload.id, segments[i]!);
  const unread = {
    [Symbol.asyncIterator]() {
      throw new Error("an acknowledged segment is answered without reading");
    },
  };
  await h.write(first.upload.id, segments[0]!, unread);
  const { version } = await h.commit(first.upload.id, segments);
  t.deepEqual((await h.commit(first.upload.id, segments)).version, version);
  t.is((await h.begin(spec.name, h.admin, "request-1")).upload.state, "committed");
  await refused(t, "COMMIT_MISMATCH", h.commit(first.upload.id, segments.slice(1)));
});

test("a request id with another content is refused", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxParallelUploads: 5 });
  const { upload } = await h.begin(spec.name, h.admin, "request-2");
  const { createUpload } = await import("../src/app/uploads/create-upload.ts");
  const other = {
    collection: spec.name,
    requestId: "request-2",
    expectedSize: 7n,
    filename: "",
    contentEncoding: "none" as const,
    labels: {},
    clientMetadata: {},
  };
  await refused(t, "REQUEST_ID_REUSED", createUpload(h.deps, h.admin, other));
  // An open upload is known by its id for as long as it is open.
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  h.clock.advance(8 * 24 * 3_600_000);
  t.not((await createUpload(h.deps, h.admin, other)).upload.id, "");
});

test("without framing_in a segment goes on from the one before, which must be stored", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(2 * MIB + 5), MIB);
  const bare = segments.map((s) => ({ ...s, framingIn: new Uint8Array() }));
  await refused(t, "PREVIOUS_SEGMENT_MISSING", h.write(upload.id, bare[1]!));
  for (const segment of bare) await h.write(upload.id, segment);
  t.is((await h.commit(upload.id, segments)).version.number, 1n);
});

test("plaintext is refused, the upload is aborted with the reason, nothing stays", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(new TextEncoder().encode("--\n-- PostgreSQL database dump\n--\n".repeat(100)), MIB);
  const error = await refused(t, "CIPHERTEXT_REFUSED", h.write(upload.id, segment!));
  t.is(error.metadata.violation, "not-ciphertext");
  const status = await getUpload(h.deps, h.admin, { uploadId: upload.id, fromIndex: 0, pageSize: 10 });
  t.is(status.upload.state, "aborted");
  t.regex(status.upload.abortReason, /ciphertext was refused/);
  await refused(t, "UPLOAD_NOT_OPEN", h.write(upload.id, segment!));
  await nothingStored(t, spec.name);
});

test("ciphertext of a format the collection does not accept is refused", async (t) => {
  const { h } = t.context;
  const spec = h.add({ encryptionFormats: ["age"] });
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(5000), MIB);
  const error = await refused(t, "CIPHERTEXT_REFUSED", h.write(upload.id, segment!));
  t.is(error.metadata.violation, "format-not-accepted");
});

test("truncated ciphertext is refused at the commit and never becomes a version", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(2 * MIB).subarray(0, 2 * MIB - 1), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const error = await refused(t, "CIPHERTEXT_REFUSED", h.commit(upload.id, segments));
  t.is(error.metadata.violation, "truncated");
  await refused(t, "UPLOAD_NOT_OPEN", h.commit(upload.id, segments));
  await nothingStored(t, spec.name);
});

test("an empty upload is refused", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  await refused(t, "UPLOAD_EMPTY", h.commit(upload.id, []));
});

test("sizes that lie are refused and give their quota back", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(100_000), MIB);
  await refused(t, "SEGMENT_SIZE_MISMATCH", h.write(upload.id, segment!, chunked(segment!.bytes.subarray(0, 99_999))));
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  const longer = Buffer.concat([segment!.bytes, Buffer.of(1)]);
  await refused(t, "SEGMENT_SIZE_MISMATCH", h.write(upload.id, segment!, chunked(longer)));
  await refused(t, "SEGMENT_SIZE_MISMATCH", h.write(upload.id, { ...segment!, size: BigInt(MIB + 1) }));
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  await h.write(upload.id, segment!);
  await h.commit(upload.id, [segment!]);
});

test("only the last segment may be short", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(2 * MIB + 7), MIB);
  const short = { ...segments[0]!, size: 7n, bytes: segments[0]!.bytes.subarray(0, 7) };
  await h.write(upload.id, segments[2]!);
  await refused(t, "SEGMENT_SIZE_MISMATCH", h.write(upload.id, { ...short, sha256: sha256(short.bytes) }));
  await refused(t, "SEGMENT_SIZE_MISMATCH", h.write(upload.id, { ...segments[1]!, index: 4 }));
});

test("a wrong digest is refused, stores no part, and can be repeated", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(300_000), MIB);
  const damaged = Uint8Array.from(segment!.bytes);
  damaged[200_000]! ^= 1;
  await refused(t, "SEGMENT_DIGEST_MISMATCH", h.write(upload.id, segment!, chunked(damaged, 10_000)));
  t.deepEqual(await (h.deps.store as MemoryBlobStore).listParts({ key: upload.key, token: upload.storeToken! }), []);
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  await h.write(upload.id, segment!);
});

test("chunks above the limit and empty chunks are refused", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(MIB), MIB);
  const tooLarge = Buffer.concat([segment!.bytes, Buffer.alloc(1)]);
  await refused(t, "SEGMENT_FRAMES_INVALID", h.write(upload.id, segment!, chunked(tooLarge, MIB + 1)));
  async function* empty() {
    yield new Uint8Array();
  }
  await refused(t, "SEGMENT_FRAMES_INVALID", h.write(upload.id, segment!, empty()));
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
});

test("another segment under the same index is refused", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [one] = cutSegments(openpgpMessage(100_000), MIB);
  const [two] = cutSegments(openpgpMessage(100_000), MIB);
  const [three] = cutSegments(openpgpMessage(100_001), MIB);
  await h.write(upload.id, one!);
  await refused(t, "SEGMENT_CONFLICT", h.write(upload.id, two!));
  await refused(t, "SEGMENT_CONFLICT", h.write(upload.id, three!));
});

test("segments of two streams do not chain", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const one = cutSegments(openpgpMessage(3 * MIB), MIB);
  const two = cutSegments(openpgpMessage(4 * MIB), MIB);
  await h.write(upload.id, two[1]!);
  await refused(t, "FRAMING_STATE_INVALID", h.write(upload.id, one[0]!));
  await nothingStored(t, spec.name);
  const next = await h.begin(spec.name);
  await h.write(next.upload.id, one[0]!);
  await refused(t, "FRAMING_STATE_INVALID", h.write(next.upload.id, two[1]!));
  await refused(t, "FRAMING_STATE_INVALID", h.write(next.upload.id, { ...one[1]!, framingIn: Uint8Array.of(1, 2, 3) }));
});

test("a newer attempt takes over; the superseded one that wakes up cannot settle", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(500_000), MIB);
  const wake = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  async function* slow() {
    yield segment!.bytes.subarray(0, 1000);
    reading.resolve();
    await wake.promise;
    yield segment!.bytes.subarray(1000);
  }
  // In the same process: the older attempt is ended.
  const older = h.write(upload.id, segment!, slow());
  await reading.promise;
  const superseded = refused(t, "SEGMENT_SUPERSEDED", older);
  const accepted = await h.write(upload.id, segment!);
  await superseded;
  wake.resolve();
  t.is(accepted.size, 500_000n);

  // On another server: the older attempt goes on to its end and fails to settle.
  const second = await h.begin(h.add().name);
  const elsewhere = h.over(h.deps.store);
  const wake2 = Promise.withResolvers<void>();
  const reading2 = Promise.withResolvers<void>();
  async function* slow2() {
    yield segment!.bytes.subarray(0, 1000);
    reading2.resolve();
    await wake2.promise;
    yield segment!.bytes.subarray(1000);
  }
  const { writeSegment } = await import("../src/app/uploads/write-segment.ts");
  const sleeper = writeSegment(elsewhere, h.admin, { uploadId: second.upload.id, ...segment! }, slow2(), never);
  await reading2.promise;
  const taken = h.write(second.upload.id, segment!);
  await taken;
  wake2.resolve();
  await refused(t, "SEGMENT_SUPERSEDED", sleeper);
  await h.commit(second.upload.id, [segment!]);
});

test("a broken connection keeps place and space, and the upload goes on", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(MIB + 9), MIB);
  await h.write(upload.id, segments[1]!);
  const { BodyBrokenError } = await import("../src/app/uploads/segment-body.ts");
  async function* broken() {
    yield segments[0]!.bytes.subarray(0, 5000);
    throw new BodyBrokenError("gone");
  }
  await t.throwsAsync(h.write(upload.id, segments[0]!, broken()), { instanceOf: BodyBrokenError });
  const status = await getUpload(h.deps, h.admin, { uploadId: upload.id, fromIndex: 0, pageSize: 10 });
  t.deepEqual(
    status.segments.map((s) => s.index),
    [1],
  );
  t.is(status.upload.reservedBytes, BigInt(MIB + 9));
  await refused(t, "SEGMENTS_INCOMPLETE", h.commit(upload.id, segments));
  await h.write(upload.id, segments[0]!);
  t.is((await h.commit(upload.id, segments)).version.size, BigInt(MIB + 9));
});

test("a commit with a wrong size or digest is refused and leaves the upload open", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(1000), MIB);
  await h.write(upload.id, segments[0]!);
  const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
  const right = { uploadId: upload.id, size: 1000n, compositeSha256: compositeOf(segments) };
  const hex = (digest: Uint8Array) => Buffer.from(digest).toString("hex");
  const values = [hex(compositeOf(segments)), hex(segments[0]!.sha256)] as const;
  for (const state of ["open", "committed"]) {
    const size = await refused(t, "COMMIT_MISMATCH", commitUpload(h.deps, h.admin, { ...right, size: 999n }));
    t.regex(size.message, /received: 1000, stated: 999/, state);
    t.deepEqual(size.metadata, { field: "size_bytes", received: "1000", stated: "999" });
    const digest = await refused(
      t,
      "COMMIT_MISMATCH",
      commitUpload(h.deps, h.admin, { ...right, compositeSha256: segments[0]!.sha256 }),
    );
    t.true(digest.message.includes(`received: ${values[0]}, stated: ${values[1]}`), `${state}: ${digest.message}`);
    t.deepEqual(digest.metadata, { field: "composite_sha256", received: values[0], stated: values[1] });
    t.is((await h.commit(upload.id, segments)).version.size, 1000n);
  }
});

test("a warning of the dump is kept with the version, the first commit's for good", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(1000), MIB);
  await h.write(upload.id, segments[0]!);
  const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
  const input = { uploadId: upload.id, size: 1000n, compositeSha256: compositeOf(segments) };
  const warning = "the dump command exited with 1";
  const { version } = await commitUpload(h.deps, h.admin, { ...input, warning });
  t.deepEqual(version.clientMetadata, { ...upload.clientMetadata, warning });
  t.is((await commitUpload(h.deps, h.admin, { ...input, warning: "another" })).version.clientMetadata.warning, warning);
  const manifest = (await h.deps.store.get(manifestKey(upload.key), MIB))!;
  t.is(JSON.parse(Buffer.from(manifest).toString()).client_metadata.warning, warning);
});

test("somebody else's upload does not exist", async (t) => {
  const { h } = t.context;
  const spec = h.add({ accessControl: [{ userName: "mallory", roles: ["backupUploader"] }] });
  const mallory = principal(user("mallory"));
  const withKey = principal(h.admin.user, { accessKey: "key" });
  const { upload } = await h.begin(spec.name);
  const [segment] = cutSegments(openpgpMessage(1000), MIB);
  for (const stranger of [mallory, withKey]) {
    const answers = [
      await refused(t, "UPLOAD_NOT_FOUND", h.write(upload.id, segment!, chunked(segment!.bytes), stranger)),
      await refused(t, "UPLOAD_NOT_FOUND", h.commit(upload.id, [segment!], stranger)),
      await refused(t, "UPLOAD_NOT_FOUND", abortUpload(h.deps, stranger, { uploadId: upload.id, reason: "" })),
      await refused(
        t,
        "UPLOAD_NOT_FOUND",
        getUpload(h.deps, stranger, { uploadId: upload.id, fromIndex: 0, pageSize: 1 }),
      ),
    ];
    t.is(new Set(answers.map((a) => a.message)).size, 1);
  }
});

test("a collection that does not exist and one that may not be seen have the same answer", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const stranger = principal(user("stranger"));
  const hidden = await refused(t, "COLLECTION_NOT_FOUND", h.begin(spec.name, stranger));
  const missing = await refused(t, "COLLECTION_NOT_FOUND", h.begin("no-such", stranger));
  t.is(hidden.message.replaceAll(spec.name, "X"), missing.message.replaceAll("no-such", "X"));
});

test("one upload at a time; an abort frees the place, and its reason is kept", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const busy = await refused(t, "COLLECTION_BUSY", h.begin(spec.name));
  t.true(busy.retryAfterMs! > 0);
  const { upload: ended } = await abortUpload(h.deps, h.admin, {
    uploadId: upload.id,
    reason: "dump command exited with 1",
  });
  t.is(ended.abortReason, "dump command exited with 1");
  t.is(
    (await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "again" })).upload.abortReason,
    "dump command exited with 1",
  );
  await h.begin(spec.name);
});

test("a lapsed lease gives the place back; the upload goes on if it is free, or expires in a day", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
  const { upload } = await h.begin(spec.name);
  await h.write(upload.id, segments[0]!);
  h.clock.advance(16 * 60_000);
  const other = await h.begin(spec.name);
  t.is((await h.usage(spec.name)).reservedBytes, BigInt(MIB), "what is stored stays reserved");
  await refused(t, "COLLECTION_BUSY", h.write(upload.id, segments[1]!));
  await abortUpload(h.deps, h.admin, { uploadId: other.upload.id, reason: "" });
  await h.write(upload.id, segments[1]!);
  t.is((await h.usage(spec.name)).reservedBytes, BigInt(2 * MIB));
  h.clock.advance(25 * 3_600_000);
  await sweep(h.deps, true);
  await refused(t, "UPLOAD_NOT_OPEN", h.commit(upload.id, segments));
  await nothingStored(t, spec.name);
});

/** What uploads that ended or fell silent take: their bytes count until the store has deleted them, and give way. */
import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { giveUpCommit } from "../src/app/upkeep/give-up-commit.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { createUpload } from "../src/app/uploads/create-upload.ts";
import { abortUpload, renewUpload } from "../src/app/uploads/manage-uploads.ts";
import { openServer, POSTGRES_PROGRAMS, sharedCluster } from "./support/databases.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { Harness, harnessTest, MIB, refused, TestClock } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const LAPSE = 16 * 60_000;
const DAY = 24 * 3_600_000;

/** Bytes that the store really has of unfinished objects. */
async function unfinishedBytes(h: Harness): Promise<bigint> {
  const store = h.deps.store as MemoryBlobStore;
  let bytes = 0n;
  for await (const pending of store.listPending())
    for (const part of await store.listParts(pending)) bytes += part.size;
  return bytes;
}

/** An upload with a message of so many bytes, all of it stored, that nobody commits. */
async function send(h: Harness, collection: string, bytes: number) {
  const { upload } = await h.begin(collection);
  const segments = cutSegments(openpgpMessage(bytes), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  return { upload, segments };
}

async function isReserved(t: ExecutionContext, h: Harness, collection: string, bytes: number) {
  t.is((await h.usage(collection)).reservedBytes, BigInt(bytes));
  await h.assertInvariants(t);
}

const TIGHT = { maxBackupsCount: 1, maxOneVersionSize: BigInt(4 * MIB), maxCollectionSize: BigInt(4 * MIB) };

test("a lapsed upload keeps its bytes reserved, and can go on", async (t) => {
  const { h } = t.context;
  h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(9 * MIB) });
  const spec = h.add({ organization: "acme" });
  const { upload, segments } = await send(h, spec.name, 2 * MIB);
  h.clock.advance(LAPSE);
  await sweep(h.deps, true);
  await isReserved(t, h, spec.name, 2 * MIB);
  const tenant = await h.deps.database.transaction(async (tx) => await tx.organizations.lock("acme"));
  t.is(tenant.reservedBytes, BigInt(2 * MIB));
  await h.upload(spec.name, openpgpMessage(MIB));
  t.is((await h.commit(upload.id, segments)).version.size, BigInt(2 * MIB), "its space was not needed");
  await isReserved(t, h, spec.name, 0);
});

test("however many uploads lapse, the store never has more than the limit, and the next backup is made", async (t) => {
  const { h } = t.context;
  h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(10 * MIB) });
  const spec = h.add({ organization: "acme" });
  const uploads: string[] = [];
  for (let i = 0; i < 12; i++) {
    uploads.push((await send(h, spec.name, 3 * MIB)).upload.id);
    t.true((await unfinishedBytes(h)) <= BigInt(10 * MIB), `after ${i + 1}`);
    h.clock.advance(LAPSE);
  }
  await h.assertInvariants(t);
  const { version } = await h.upload(spec.name, openpgpMessage(4 * MIB));
  t.is(version.number, 1n);
  const states = await h.deps.database.transaction(
    async (tx) => await Promise.all(uploads.map(async (id) => (await tx.uploads.find(id))!.state)),
  );
  t.deepEqual(states, [...Array.from({ length: 10 }, () => "expired" as const), "open", "open"], "the oldest first");
});

test("older copies and what lapsed are within the hard limit together, and copies stay before what lapsed", async (t) => {
  const { h } = t.context;
  const spec = h.add({
    maxBackupsCount: 1,
    rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 9, maxAgeMs: 365 * DAY } },
    maxOneVersionSize: BigInt(MIB),
    maxCollectionSize: BigInt(6 * MIB),
  });
  for (let day = 0; day < 4; day++) {
    await h.upload(spec.name, openpgpMessage(MIB));
    h.clock.advance(DAY);
  }
  for (let i = 0; i < 2; i++) {
    await send(h, spec.name, MIB);
    h.clock.advance(LAPSE);
  }
  const whole = await h.upload(spec.name, openpgpMessage(MIB));
  t.deepEqual(whole.removedNumbers, []);
  const { storedBytes, reservedBytes } = await h.usage(spec.name);
  t.deepEqual(
    [storedBytes, reservedBytes],
    [5n, 1n].map((count) => count * BigInt(MIB)),
  );
  t.true((await unfinishedBytes(h)) <= BigInt(MIB));
  // With nothing left that gives way, the oldest copy does.
  await h.upload(spec.name, openpgpMessage(MIB));
  t.deepEqual((await h.upload(spec.name, openpgpMessage(MIB))).removedNumbers, [1n]);
});

test("an upload of known size and one of unknown size end lapsed ones only where they need their room", async (t) => {
  const { h } = t.context;
  const spec = h.add(TIGHT);
  const first = await send(h, spec.name, 3 * MIB);
  h.clock.advance(LAPSE);
  const create = async (expectedSize: bigint) =>
    await createUpload(h.deps, h.admin, {
      collection: spec.name,
      requestId: "",
      expectedSize,
      filename: "",
      contentEncoding: "none",
      labels: {},
      clientMetadata: {},
    });
  await refused(t, "QUOTA_EXCEEDED", create(BigInt(5 * MIB)));
  t.truthy((await renewUpload(h.deps, h.admin, first.upload.id)).leaseExpiresAt, "what cannot fit ends nothing");
  h.clock.advance(LAPSE);
  const { upload, remaining } = await create(BigInt(MIB));
  t.is(remaining, BigInt(4 * MIB), "what gives way counts as room");
  await isReserved(t, h, spec.name, 3 * MIB);
  const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
  await h.write(upload.id, segments[0]!);
  await isReserved(t, h, spec.name, 4 * MIB);
  const { remaining: left } = await h.write(upload.id, segments[1]!);
  t.is(left, BigInt(2 * MIB));
  await isReserved(t, h, spec.name, 2 * MIB);
  t.is(await unfinishedBytes(h), BigInt(2 * MIB));
  const ended = await refused(t, "UPLOAD_NOT_OPEN", h.commit(first.upload.id, first.segments));
  t.regex(ended.message, /another upload needed its space/);
});

test("the bytes of an ended upload stay reserved until the store has deleted them", async (t) => {
  const { h } = t.context;
  const spec = h.add(TIGHT);
  const { upload } = await send(h, spec.name, 3 * MIB);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  await isReserved(t, h, spec.name, 3 * MIB);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("abort");
  t.is((await sweep(h.over(store), true)).failed, 1);
  await isReserved(t, h, spec.name, 3 * MIB);
  await sweep(h.deps, true);
  await isReserved(t, h, spec.name, 0);

  // An abort and the next backup right after it: nobody has to wait for the sweeper.
  const next = await send(h, spec.name, 3 * MIB);
  await abortUpload(h.deps, h.admin, { uploadId: next.upload.id, reason: "" });
  await h.upload(spec.name, openpgpMessage(4 * MIB));
  // Nor, of an expired one.
  const last = await send(h, spec.name, MIB - 1);
  h.clock.advance(2 * DAY);
  await sweep(h.deps, false);
  await isReserved(t, h, spec.name, MIB - 1);
  await sweep(h.deps, true);
  await isReserved(t, h, spec.name, 0);
  await refused(t, "UPLOAD_NOT_OPEN", h.commit(last.upload.id, last.segments));
});

test("where the store does not delete what is in the way, the call may be repeated", async (t) => {
  const { h } = t.context;
  const spec = h.add(TIGHT);
  await send(h, spec.name, 3 * MIB);
  h.clock.advance(LAPSE);
  const { upload } = await h.begin(spec.name);
  const [segment, second] = cutSegments(openpgpMessage(2 * MIB), MIB);
  await h.write(upload.id, segment!);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("abort");
  const { writeSegment } = await import("../src/app/uploads/write-segment.ts");
  const write = writeSegment(
    h.over(store),
    h.admin,
    { uploadId: upload.id, ...second! },
    chunked(second!.bytes),
    new AbortController().signal,
  );
  const error = await refused(t, "STORE_UNAVAILABLE", write);
  t.true(error.retryAfterMs! > 0);
  store.assertAllFired(t);
  await isReserved(t, h, spec.name, 4 * MIB);
  await h.write(upload.id, second!);
  await isReserved(t, h, spec.name, 2 * MIB);
});

test("two silent uploads that both go on do not end each other", async (t) => {
  const { h } = t.context;
  const spec = h.add({ ...TIGHT, maxParallelUploads: 2 });
  const [first, second, third] = cutSegments(openpgpMessage(3 * MIB), MIB);
  const both = [(await h.begin(spec.name)).upload, (await h.begin(spec.name)).upload];
  for (const { id } of both) for (const segment of [first!, second!]) await h.write(id, segment);
  h.clock.advance(LAPSE);
  const written = await Promise.allSettled(both.map(async ({ id }) => await h.write(id, third!)));
  const reasons = written.map((r) => (r.status === "fulfilled" ? "ok" : (r.reason as { reason: string }).reason));
  t.deepEqual(reasons.toSorted(), ["UPLOAD_NOT_OPEN", "ok"]);
  await isReserved(t, h, spec.name, 3 * MIB);
});

test("a commit that was given up gives its space back", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload, segments } = await send(h, spec.name, MIB);
  await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
  await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
  t.is((await giveUpCommit(h.deps, upload.id)).state, "aborted");
  await isReserved(t, h, spec.name, 0);
});

test("refused bytes that the store keeps stay reserved", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  for (const keepsRefusedBytes of [false, true]) {
    const memory = h.deps.store;
    const store = new Proxy(memory, {
      get: (of, name) => {
        if (name === "capabilities") return { ...memory.capabilities, keepsRefusedBytes };
        const value = Reflect.get(of, name) as unknown;
        return typeof value === "function" ? value.bind(of) : value;
      },
    });
    const { upload } = await h.begin(spec.name);
    const [segment] = cutSegments(openpgpMessage(MIB), MIB);
    const { writeSegment } = await import("../src/app/uploads/write-segment.ts");
    const wrong = Uint8Array.from(segment!.bytes);
    wrong[wrong.length - 1]! ^= 1;
    const signal = new AbortController().signal;
    const write = async (bytes: Uint8Array) =>
      await writeSegment(h.over(store), h.admin, { uploadId: upload.id, ...segment! }, chunked(bytes), signal);
    await refused(t, "SEGMENT_DIGEST_MISMATCH", write(wrong));
    await isReserved(t, h, spec.name, keepsRefusedBytes ? MIB : 0);
    await write(segment!.bytes);
    await isReserved(t, h, spec.name, MIB);
    await h.commit(upload.id, [segment!]);
  }
});

anyTest.serial(
  "uploads on two servers at a limit, many of them lapsed: not a byte over, and none is stuck",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const url = await (await sharedCluster()).createDatabase();
    const clock = new TestClock();
    const databases = [await openServer(url, () => clock.now, 10), await openServer(url, () => clock.now, 10)];
    const one = Harness.on(databases[0]!, clock, new MemoryBlobStore());
    const two = Harness.on(databases[1]!, clock, one.deps.store);
    const { checkInstallation } = await import("../src/app/installation.ts");
    await checkInstallation(databases[0]!, one.deps.store);
    const limits = { maxBackupsCount: 2, maxOneVersionSize: BigInt(4 * MIB), maxCollectionSize: BigInt(12 * MIB) };
    for (const h of [one, two]) h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(16 * MIB) });
    const spec = one.add({ ...limits, organization: "acme", maxParallelUploads: 24 });
    two.collections.set(spec.name, spec);
    for (let round = 0; round < 4; round++) {
      const ended = await Promise.allSettled(
        Array.from({ length: 24 }, async (_, i) => {
          const h = i % 2 === 0 ? one : two;
          const { upload, segments } = await send(h, spec.name, 2 * MIB);
          if (i % 3 === 0) await h.commit(upload.id, segments);
        }),
      );
      const reasons = new Set(
        ended.flatMap((r) => (r.status === "rejected" ? [(r.reason as { reason?: string }).reason ?? r.reason] : [])),
      );
      reasons.delete("QUOTA_EXCEEDED");
      t.deepEqual([...reasons], []);
      const { reservedBytes } = await one.usage(spec.name);
      t.true(reservedBytes <= limits.maxCollectionSize);
      t.true((await unfinishedBytes(one)) <= reservedBytes);
      await one.assertInvariants(t);
      clock.advance(LAPSE);
      const { version } = await two.upload(spec.name, openpgpMessage(4 * MIB));
      t.is(version.size, BigInt(4 * MIB), "the next backup after them");
      clock.advance(2 * DAY);
      await sweep(one.deps, true);
      await isReserved(t, one, spec.name, 0);
    }
    for (const database of databases) await database.close();
  },
);

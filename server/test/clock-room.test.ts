/** While the clock is in doubt: rotation by time removes nothing, and no open upload ends for the room it takes. */
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { confirmClock } from "../src/app/upkeep/clock-watch.ts";
import { finishCommit } from "../src/app/uploads/commit-upload.ts";
import { createUpload } from "../src/app/uploads/create-upload.ts";
import { abortUpload, renewUpload } from "../src/app/uploads/manage-uploads.ts";
import { undeleteVersion } from "../src/app/versions/undelete-version.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { ClockedServer } from "./support/clocked-server.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import type { Harness } from "./support/harness.ts";
import { harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const MESSAGE = openpgpMessage(1000);

const GFS = {
  rotation: {
    strategy: "gfs",
    counts: { keepLast: 1, keepHourly: 0, keepDaily: 2, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 },
  },
} satisfies Partial<CollectionSpec>;
const OLDER = {
  maxBackupsCount: 1,
  rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 1, maxAgeMs: 7 * DAY } },
} satisfies Partial<CollectionSpec>;

const live = async (h: Harness, name: string) => {
  const { id } = await h.deps.database.transaction(async (tx) => await tx.collections.lockByName(name));
  const versions = await h.deps.database.read(async (tx) => await tx.versions.allLive(id));
  return versions.map(({ number }) => Number(number)).sort((a, b) => a - b);
};

/** A version every day, so many; rotation is free. */
async function daily(h: Harness, server: ClockedServer, name: string, days: number, bytes = MESSAGE): Promise<void> {
  for (let day = 0; day < days; day++) {
    server.pass(DAY);
    await server.sweep();
    await h.upload(name, bytes);
  }
}

/** The clock leaps by 40 days, past every time that rotation looks at. */
async function leap(t: ExecutionContext, server: ClockedServer): Promise<void> {
  server.jump(40 * DAY);
  t.is((await server.sweep()).status, "paused");
}

for (const [title, policy, kept, after] of [
  ["gfs", GFS, [3, 4, 5], [4, 5, 8]],
  ["fifo-plus-older", OLDER, [1, 5], [6, 8]],
] as const) {
  test(`${title} removes nothing by its time while the clock is in doubt, and goes on after that`, async (t) => {
    const { h } = t.context;
    const { name } = h.add(policy);
    const server = new ClockedServer(h);
    await daily(h, server, name, 5);
    t.deepEqual(await live(h, name), [...kept], "what it keeps otherwise");
    await leap(t, server);
    t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, []);
    server.pass(HOUR / 2);
    await server.sweep();
    t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, []);
    t.deepEqual(await live(h, name), [...kept, 6, 7]);
    server.pass(HOUR / 2);
    t.is((await server.sweep()).status, "right");
    await h.upload(name, MESSAGE);
    t.deepEqual(await live(h, name), [...after]);
    await h.assertInvariants(t);
  });

  test(`${title} removes nothing by its time in the minute before a server sees the leap, nor behind`, async (t) => {
    const { h } = t.context;
    const { name } = h.add(policy);
    const server = new ClockedServer(h);
    await daily(h, server, name, 5);
    server.jump(40 * DAY);
    t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, [], "nobody has looked yet");
    await server.sweep();
    server.jump(-40 * DAY);
    t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, [], "right again, and behind what was seen");
    server.restart();
    t.is((await server.sweep()).status, "behind");
    t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, []);
    await confirmClock(h.deps.database);
    t.not((await h.upload(name, MESSAGE)).removedNumbers.length, 0);
  });

  test(`${title}: what stays because of the clock counts, and the refusal says why and until when`, async (t) => {
    const { h } = t.context;
    const size = BigInt(MIB);
    const { name } = h.add({ ...policy, maxOneVersionSize: size, maxCollectionSize: size * BigInt(kept.length + 1) });
    const server = new ClockedServer(h);
    await daily(h, server, name, 5, openpgpMessage(MIB));
    await leap(t, server);
    await h.upload(name, openpgpMessage(MIB));
    t.is((await live(h, name)).length, kept.length + 1);
    const error = await refused(t, "ROTATION_BLOCKED", h.begin(name));
    t.regex(
      error.message,
      /nothing by its time while the clock is in doubt: the database.* leapt forward by 40d.*Until 2026-.*--clock-is-right/,
    );
    t.like(error.metadata, { guard: "clock", clock: "paused", limit: "collection" });
    t.is(Date.parse(error.metadata.clock_until!), h.clock.now.getTime() + HOUR);
    await confirmClock(h.deps.database);
    await h.upload(name, openpgpMessage(MIB));
    t.true((await h.usage(name)).storedBytes <= size * BigInt(kept.length + 1));
    await h.assertInvariants(t);
  });

  test(`${title}: a commit prepared before the doubt stays within the hard limit, and removes no more than that`, async (t) => {
    const { h } = t.context;
    const size = BigInt(MIB);
    const { name } = h.add({ ...policy, maxOneVersionSize: size, maxCollectionSize: size * BigInt(kept.length + 1) });
    const server = new ClockedServer(h);
    await daily(h, server, name, 5, openpgpMessage(MIB));
    server.pass(DAY);
    await server.sweep();
    await h.upload(name, openpgpMessage(1000));
    const before = await live(h, name);
    server.pass(DAY);
    await server.sweep();
    const { upload } = await h.begin(name);
    const segments = cutSegments(openpgpMessage(MIB), MIB);
    for (const segment of segments) await h.write(upload.id, segment);
    const store = new FaultyBlobStore(h.deps.store);
    store.fail("complete");
    const size_ = segments.reduce((sum, s) => sum + s.size, 0n);
    const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
    const { compositeOf } = await import("@strongroom/testkit/ciphertext");
    const input = { uploadId: upload.id, size: size_, compositeSha256: compositeOf(segments) };
    await refused(t, "STORE_UNAVAILABLE", commitUpload(h.over(store), h.admin, input));
    await leap(t, server);
    const held = (await h.deps.database.read(async (tx) => await tx.uploads.find(upload.id)))!;
    const state = held.state === "committing" ? (await finishCommit(h.deps, held)).version.number : 7n;
    t.is(state, 7n);
    t.deepEqual(await live(h, name), [...before, 7], "all of it had room");
    t.true((await h.usage(name)).storedBytes <= size * BigInt(kept.length + 1));
    await h.assertInvariants(t);
  });
}

test("a backup while the clock is behind does not bring rules by time into force", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 10, removalShare: 0.5, maxCollectionSize: BigInt(100 * MIB) });
  const server = new ClockedServer(h);
  await daily(h, server, spec.name, 8);
  const older = { maxOlderCopies: 20, maxAgeMs: 2 * DAY };
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 1, rotation: { strategy: "fifo-plus-older", older } });
  server.jump(-40 * DAY);
  server.restart();
  t.is((await server.sweep()).status, "behind");
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
  server.jump(40 * DAY);
  await confirmClock(h.deps.database);
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, [], "they still wait for a confirmation");
});

test("fifo goes on by number while the clock is in doubt", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  const server = new ClockedServer(h);
  await daily(h, server, name, 3);
  await leap(t, server);
  t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, [1n]);
  server.jump(-40 * DAY);
  t.is((await server.sweep()).status, "behind");
  t.deepEqual((await h.upload(name, MESSAGE)).removedNumbers, [2n]);
});

test("an undelete counts what stays because of the clock", async (t) => {
  const { h } = t.context;
  const size = BigInt(MIB);
  const { name } = h.add({ ...GFS, maxOneVersionSize: size, maxCollectionSize: 4n * size });
  const server = new ClockedServer(h);
  await daily(h, server, name, 4, openpgpMessage(MIB));
  await leap(t, server);
  await deleteVersion(h.deps, h.admin, { collection: name, number: 4n });
  await h.upload(name, openpgpMessage(MIB));
  const { upload } = await h.begin(name);
  for (const segment of cutSegments(openpgpMessage(MIB), MIB)) await h.write(upload.id, segment);
  await refused(t, "QUOTA_EXCEEDED", undeleteVersion(h.deps, h.admin, { collection: name, number: 4n }));
});

const TIGHT = { maxBackupsCount: 1, maxOneVersionSize: BigInt(4 * MIB), maxCollectionSize: BigInt(4 * MIB) };

for (const [title, ms, status] of [
  ["leapt forward", 2 * DAY, "paused"],
  ["went back, and leases ran out since", -2 * DAY, "behind"],
] as const) {
  test(`no open upload ends for room while the clock is in doubt: it ${title}`, async (t) => {
    const { h } = t.context;
    const { name } = h.add(TIGHT);
    const server = new ClockedServer(h);
    await server.sweep();
    const living = (await h.begin(name)).upload;
    const segments = cutSegments(openpgpMessage(3 * MIB), MIB);
    for (const segment of segments.slice(0, 2)) await h.write(living.id, segment);
    server.jump(ms);
    await server.sweep();
    if (ms < 0) server.pass(2 * HOUR);
    t.is((await server.sweep()).status, status);
    // Its lease has run out: that frees its place.
    const other = (await h.begin(name)).upload;
    const [first, second, third] = cutSegments(openpgpMessage(3 * MIB), MIB);
    await h.write(other.id, first!);
    await h.write(other.id, second!);
    const error = await refused(t, "COLLECTION_BUSY", h.write(other.id, third!));
    t.regex(
      error.message,
      /leases ran out take the room.*in doubt.*strongroom uploads c-1`\), or wait: .*--clock-is-right/,
    );
    t.like(error.metadata, { guard: "clock", clock: status });
    t.true(Date.parse(error.metadata.clock_until!) > h.clock.now.getTime());
    t.true(error.retryAfterMs! > 0 && error.retryAfterMs! <= HOUR);
    const create = createUpload(h.deps, h.admin, {
      collection: name,
      requestId: "",
      expectedSize: BigInt(4 * MIB),
      filename: "",
      contentEncoding: "none",
      labels: {},
      clientMetadata: {},
    });
    await refused(t, "COLLECTION_BUSY", create);
    // What has ended gives way, and what was silent can go on.
    await abortUpload(h.deps, h.admin, { uploadId: other.id, reason: "" });
    await renewUpload(h.deps, h.admin, living.id);
    await h.write(living.id, segments[2]!);
    t.is((await h.commit(living.id, segments)).version.number, 1n);
    await h.assertInvariants(t);
  });
}

test("when the clock is right again, a silent upload gives way as ever", async (t) => {
  const { h } = t.context;
  const { name } = h.add(TIGHT);
  const server = new ClockedServer(h);
  await server.sweep();
  const silent = (await h.begin(name)).upload;
  for (const segment of cutSegments(openpgpMessage(3 * MIB), MIB)) await h.write(silent.id, segment);
  server.jump(2 * DAY);
  await server.sweep();
  server.pass(HOUR - 1);
  await refused(t, "COLLECTION_BUSY", h.upload(name, openpgpMessage(4 * MIB)));
  server.pass(1);
  await server.sweep();
  server.pass(16 * 60_000);
  await server.sweep();
  t.is((await h.upload(name, openpgpMessage(4 * MIB))).version.number, 1n);
  t.is((await h.deps.database.read(async (tx) => await tx.uploads.find(silent.id)))!.state, "expired");
});

for (const minutes of [16, 30, 59]) {
  test(`a leap of ${minutes} minutes does not end a living upload for the room of another`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ ...TIGHT, maxParallelUploads: 4 });
    const server = new ClockedServer(h);
    await server.sweep();
    const { upload } = await h.begin(name);
    const segments = cutSegments(openpgpMessage(3 * MIB), MIB);
    for (const segment of segments.slice(1)) await h.write(upload.id, segment);
    server.jump(minutes * 60_000);
    // Before a server sees the leap, and afterwards.
    await refused(t, "COLLECTION_BUSY", h.upload(name, openpgpMessage(4 * MIB)));
    t.is((await server.sweep()).status, "paused");
    await refused(t, "COLLECTION_BUSY", h.upload(name, openpgpMessage(4 * MIB)));
    server.pass(5 * 60_000);
    await renewUpload(h.deps, h.admin, upload.id);
    server.pass(10 * 60_000);
    t.is((await server.sweep()).status, "right");
    await h.write(upload.id, segments[0]!);
    t.is((await h.commit(upload.id, segments)).version.number, 1n);
  });
}

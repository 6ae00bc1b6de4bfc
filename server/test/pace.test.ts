/** How often versions come, how small they may be, and how old an upload may get. */
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import type { CollectionHealth } from "../src/app/collections/collections.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { renewUpload } from "../src/app/uploads/manage-uploads.ts";
import { deleteVersion, listVersions } from "../src/app/versions/versions.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { requireInterval } from "../src/domain/pace.ts";
import { parseWindow } from "../src/domain/window.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { collection, type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const SEGMENTS = cutSegments(openpgpMessage(1000), MIB);

const NIGHTLY = { windows: [parseWindow({ from: "0 1 * * *", duration: "1h" })] };

async function count(h: Harness, name: string): Promise<number> {
  const input = { collection: name, beforeNumber: undefined, pageSize: 100 };
  return (await listVersions(h.deps, h.admin, input)).versions.length;
}

async function health(h: Harness, name: string): Promise<CollectionHealth> {
  const caller = { principal: h.admin, secret: undefined };
  return await getCollectionHealth({ ...h.deps, sha256: String }, caller, name);
}

/** Uploads that are whole, and not committed. */
async function ready(h: Harness, name: string, many: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < many; i++) {
    const { upload } = await h.begin(name);
    await h.write(upload.id, SEGMENTS[0]!);
    ids.push(upload.id);
    h.clock.advance(1000);
  }
  return ids;
}

/** A collection with good versions, and a clock that stands at the beginning of a nightly window. */
async function stored(h: Harness, change: Partial<CollectionSpec>): Promise<CollectionSpec> {
  h.clock.now = new Date("2026-01-01T01:10:00Z");
  const spec = h.add({ maxParallelUploads: 5, ...change });
  for (let i = 0; i < 3; i++) {
    await h.upload(spec.name, openpgpMessage(50_000));
    h.clock.advance(DAY);
  }
  return spec;
}

test("uploads begun in one window, renewed and committed outside of it, do not empty a collection", async (t) => {
  const { h } = t.context;
  const spec = await stored(h, { ...NIGHTLY, maxVersionsPerWindow: 1 });
  const ids = await ready(h, spec.name, 5);
  h.clock.advance(2 * HOUR);
  for (const id of ids) await renewUpload(h.deps, h.admin, id);
  t.deepEqual((await h.commit(ids[0]!, SEGMENTS)).removedNumbers, [1n]);
  for (const id of ids.slice(1)) {
    const error = await refused(t, "WINDOW_FULL", h.commit(id, SEGMENTS));
    const next = { next_window_at: "2026-01-05T01:00:00.000Z", timezone: spec.timezone };
    t.deepEqual(error.metadata, { max_versions_per_window: "1", ...next });
    // Final: it gives its place and space back.
    await refused(t, "UPLOAD_NOT_OPEN", h.commit(id, SEGMENTS));
  }
  t.is(await count(h, spec.name), 3);
  t.regex((await health(h, spec.name)).lastFailed?.reason ?? "", /has 1 version, and maxVersionsPerWindow is 1/);
  h.clock.now = new Date("2026-01-05T01:00:00Z");
  await h.upload(spec.name, openpgpMessage(1000));
  await refused(t, "WINDOW_FULL", h.begin(spec.name));
});

test("in a window what rotation removed counts, what a person removed does not", async (t) => {
  const { h } = t.context;
  h.clock.now = new Date("2026-01-01T01:10:00Z");
  const spec = h.add({ ...NIGHTLY, maxBackupsCount: 1, maxVersionsPerWindow: 2 });
  await h.upload(spec.name, openpgpMessage(1000));
  await h.upload(spec.name, openpgpMessage(1000));
  t.is(await count(h, spec.name), 1);
  await refused(t, "WINDOW_FULL", h.begin(spec.name));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 2n });
  await h.upload(spec.name, openpgpMessage(1000));
  await refused(t, "WINDOW_FULL", h.begin(spec.name));
});

test("a version that is just being published has its place in the window and begins the interval", async (t) => {
  const { h } = t.context;
  for (const limit of [{ maxVersionsPerWindow: 1 }, { minIntervalMs: HOUR }]) {
    h.clock.now = new Date("2026-01-01T01:10:00Z");
    const spec = h.add({ ...NIGHTLY, ...limit, maxParallelUploads: 2 });
    const [first, second] = await ready(h, spec.name, 2);
    const store = new FaultyBlobStore(h.deps.store);
    store.fail("put");
    const { commitUpload } = await import("../src/app/uploads/commit-upload.ts");
    const { compositeOf } = await import("@strongroom/testkit/ciphertext");
    const input = { uploadId: first!, size: 1000n, compositeSha256: compositeOf(SEGMENTS) };
    await refused(t, "STORE_UNAVAILABLE", commitUpload(h.over(store), h.admin, input));
    const reason = "minIntervalMs" in limit ? "VERSION_TOO_SOON" : "WINDOW_FULL";
    await refused(t, reason, h.commit(second!, SEGMENTS));
    await h.commit(first!, SEGMENTS);
    t.is(await count(h, spec.name), 1);
  }
});

test("minInterval is asked at creation and at commit, and says when the next version is taken", async (t) => {
  const { h } = t.context;
  const spec = await stored(h, { minIntervalMs: 20 * HOUR });
  const ids = await ready(h, spec.name, 3);
  await h.commit(ids[0]!, SEGMENTS);
  const error = await refused(t, "VERSION_TOO_SOON", h.commit(ids[1]!, SEGMENTS));
  t.is(error.metadata.next_version_at, new Date(h.clock.now.getTime() + 20 * HOUR).toISOString());
  t.is(error.retryAfterMs, 20 * HOUR);
  await refused(t, "VERSION_TOO_SOON", h.begin(spec.name));
  // Not final: the upload stays, and is taken when its time has come.
  h.clock.advance(20 * HOUR);
  await h.commit(ids[1]!, SEGMENTS);
  await refused(t, "VERSION_TOO_SOON", h.commit(ids[2]!, SEGMENTS));
  // One request id is one upload, also when it is asked for again too soon.
  h.clock.advance(20 * HOUR);
  const first = await h.begin(spec.name, h.admin, "same");
  await h.write(first.upload.id, SEGMENTS[0]!);
  await h.commit(first.upload.id, SEGMENTS);
  t.is((await h.begin(spec.name, h.admin, "same")).upload.state, "committed");
});

test("requireInterval: the last known time counts, one beyond now does not", (t) => {
  const now = new Date("2026-01-02T00:00:00Z");
  const before = (ms: number) => new Date(now.getTime() - ms);
  const limits = collection("c", { minIntervalMs: HOUR });
  t.notThrows(() => requireInterval(limits, [], now));
  t.notThrows(() => requireInterval(limits, [before(HOUR)], now));
  t.throws(() => requireInterval(limits, [before(HOUR - 1)], now));
  t.throws(() => requireInterval(limits, [before(2 * HOUR), now], now));
  t.notThrows(() => requireInterval(limits, [before(-DAY), before(HOUR)], now), "read from a clock that was ahead");
  t.notThrows(() => requireInterval(collection("c"), [now], now));
});

test("a commit that the store never finishes holds the interval up once, not for good", async (t) => {
  const { h } = t.context;
  const spec = h.add({ minIntervalMs: HOUR, maxParallelUploads: 2 });
  const { upload } = await h.begin(spec.name);
  await h.write(upload.id, SEGMENTS[0]!);
  await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
  await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, SEGMENTS));
  await refused(t, "VERSION_TOO_SOON", h.begin(spec.name));
  h.clock.advance(HOUR);
  await h.upload(spec.name, openpgpMessage(1000));
  t.is(await count(h, spec.name), 1);
});

test("a version below minVersionSize is refused at its commit, and pushes nothing out", async (t) => {
  const { h } = t.context;
  const spec = await stored(h, { minVersionSize: 10_000n });
  const [id] = await ready(h, spec.name, 1);
  const error = await refused(t, "VERSION_TOO_SMALL", h.commit(id!, SEGMENTS));
  t.deepEqual(error.metadata, { size_bytes: "1000", min_version_size_bytes: "10000" });
  t.is(await count(h, spec.name), 3);
  await sweep(h.deps, true);
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  t.regex((await health(h, spec.name)).lastFailed?.reason ?? "", /takes none below .*minVersionSize/);
  t.is((await h.upload(spec.name, openpgpMessage(10_000))).version.size, 10_000n);
});

test("an upload that only renews its lease ends: no sign of life moves its last moment", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxUploadAgeMs: 6 * HOUR, maxParallelUploads: 2 });
  const { upload } = await h.begin(spec.name);
  await h.write(upload.id, SEGMENTS[0]!);
  const last = new Date(upload.begunAt.getTime() + 6 * HOUR);
  t.deepEqual(upload.expiresAt, last);
  for (let i = 0; i < 35; i++) {
    h.clock.advance(10 * MINUTE);
    t.deepEqual((await renewUpload(h.deps, h.admin, upload.id)).expiresAt, last);
  }
  h.clock.advance(10 * MINUTE);
  const error = await refused(t, "UPLOAD_TOO_OLD", renewUpload(h.deps, h.admin, upload.id));
  t.deepEqual(error.metadata, { begun_at: upload.begunAt.toISOString(), max_upload_age: "6h" });
  await refused(t, "UPLOAD_TOO_OLD", h.commit(upload.id, SEGMENTS));
  await refused(t, "UPLOAD_TOO_OLD", h.write(upload.id, SEGMENTS[0]!));
  await sweep(h.deps, true);
  await refused(t, "UPLOAD_NOT_OPEN", h.commit(upload.id, SEGMENTS));
  const { lastFailed } = await health(h, spec.name);
  t.is(lastFailed?.reason, "it did not become a version within 6h, maxUploadAge");
});

test("without a word in the collection an upload may take 7 days, and a shorter age counts for those under way", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  await h.write(upload.id, SEGMENTS[0]!);
  for (let hours = 0; hours < 7 * 24 - 1; hours += 1) {
    h.clock.advance(HOUR);
    await renewUpload(h.deps, h.admin, upload.id);
  }
  h.collections.set(spec.name, { ...spec, maxUploadAgeMs: DAY });
  await refused(t, "UPLOAD_TOO_OLD", h.commit(upload.id, SEGMENTS));
  h.collections.set(spec.name, spec);
  h.clock.advance(HOUR - 1);
  await h.commit(upload.id, SEGMENTS);
});

test("a segment whose bytes came after the last moment is not acknowledged", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxUploadAgeMs: HOUR });
  const { upload } = await h.begin(spec.name);
  async function* late() {
    yield SEGMENTS[0]!.bytes.subarray(0, 500);
    h.clock.advance(HOUR);
    yield SEGMENTS[0]!.bytes.subarray(500);
  }
  await refused(t, "UPLOAD_TOO_OLD", h.write(upload.id, SEGMENTS[0]!, late()));
});

test("who may upload outside windows is not counted there, and is counted inside", async (t) => {
  const { h } = t.context;
  h.clock.now = new Date("2026-01-01T12:00:00Z");
  const accessControl = [{ userName: "eve", roles: ["uploadsAnytime" as const] }];
  const spec = h.add({ ...NIGHTLY, maxVersionsPerWindow: 1, accessControl });
  const eve = principal(user("eve"));
  for (let i = 0; i < 2; i++) await h.upload(spec.name, openpgpMessage(1000), eve);
  h.clock.now = new Date("2026-01-02T01:30:00Z");
  await h.upload(spec.name, openpgpMessage(1000), eve);
  await refused(t, "WINDOW_FULL", h.begin(spec.name, eve));
});

/** What passes is waited for while a body becomes a version, since its client cannot send it again. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { BufferPool } from "../src/app/uploads/buffer-pool.ts";
import { abortUpload, listUploads } from "../src/app/uploads/manage-uploads.ts";
import { receiveVersion } from "../src/app/uploads/receive-version.ts";
import { TenantShares } from "../src/app/uploads/tenant-shares.ts";
import { DomainError } from "../src/domain/errors.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";
import { ShareTime } from "./support/share-time.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const PASSING = [
  new DomainError("DATABASE_UNAVAILABLE", "away", { retryAfterMs: 1 }),
  new DomainError("STORE_UNAVAILABLE", "away", { retryAfterMs: 1 }),
  new DomainError("RATE_LIMITED", "places taken", { metadata: { budget: "organization" }, retryAfterMs: 1 }),
  new DomainError("COLLECTION_BUSY", "being committed", { retryAfterMs: 1 }),
];

/** Fails so often with each of these before it goes through. */
function failing(errors: readonly DomainError[], times: number): () => Promise<void> {
  const left = errors.flatMap((error) => Array.from({ length: times }, () => error));
  return async () => {
    const error = left.shift();
    if (error !== undefined) throw error;
  };
}

const input = (collection: string, size: number) => ({
  collection,
  size: undefined,
  body: (async function* () {
    yield openpgpMessage(size);
  })(),
  stands: async () => {},
  confirmed: async () => {},
  signal: new AbortController().signal,
});

test("what passes is waited for, at a segment and at the commit, however often it fails", async (t) => {
  const { h } = t.context;
  h.add({ name: "db" });
  const deps = { ...h.deps, buffers: new BufferPool(4 * MIB) };
  const stands = failing(PASSING, 7);
  const atCommit = failing(PASSING, 7);
  let confirmed = 0;
  const startComparison = { ready: false, require: atCommit };
  const version = await receiveVersion({ ...deps, startComparison }, h.admin, {
    ...input("db", MIB + 5),
    stands,
    confirmed: async () => void confirmed++,
  });
  t.is(version.number, 1n);
  t.is(confirmed, 4 * 7 + 1, "a client that left meanwhile is seen");
});

test("what does not pass ends the upload at once", async (t) => {
  const { h } = t.context;
  h.add({ name: "db" });
  const deps = { ...h.deps, buffers: new BufferPool(4 * MIB) };
  for (const error of [
    new DomainError("SESSION_INVALID", "revoked"),
    new DomainError("RATE_LIMITED", "too many calls", { metadata: { budget: "requests" }, retryAfterMs: 1 }),
    new DomainError("COLLECTION_BUSY", "another upload"),
  ])
    await refused(
      t,
      error.reason,
      receiveVersion(deps, h.admin, { ...input("db", 3000), stands: failing([error], 1) }),
    );
});

/** Waits until something is so. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("an upload waits for its organization's place as long as it takes, and holds no memory meanwhile", async (t) => {
  const { h } = t.context;
  const limits = { name: "acme", maxTotalSize: undefined, maxParallelSegments: 1, maxUploadRate: undefined };
  h.organizations.set("acme", limits);
  h.add({ name: "db", organization: "acme" });
  const time = new ShareTime();
  const shares = new TenantShares(time);
  const buffers = new BufferPool(4 * MIB);
  const leave = await shares.enter(limits, new AbortController().signal);
  const done = receiveVersion({ ...h.deps, shares, buffers }, h.admin, input("db", MIB + 5));
  await until(() => time.slept.length > 0);
  time.advance(3_600_000);
  await new Promise((resolve) => setImmediate(resolve));
  t.is(buffers.allocated, 0);
  t.is(buffers.waiting, 0);
  leave();
  t.is((await done).number, 1n);
  (await shares.enter(limits, new AbortController().signal))();
  t.true(buffers.allocated > 0);
});

test("an upload that waits learns that it was ended", async (t) => {
  const { h } = t.context;
  const limits = { name: "acme", maxTotalSize: undefined, maxParallelSegments: 1, maxUploadRate: undefined };
  h.organizations.set("acme", limits);
  const spec = h.add({ name: "db", organization: "acme" });
  const shares = new TenantShares(new ShareTime());
  await shares.enter(limits, new AbortController().signal);
  const settings = { ...h.deps.settings, leaseMs: 30 };
  const deps = { ...h.deps, settings, shares, buffers: new BufferPool(4 * MIB) };
  const done = receiveVersion(deps, h.admin, input(spec.name, MIB));
  const list = async () =>
    (await listUploads(h.deps, h.admin, { collection: spec.name, from: 0, pageSize: 10 })).uploads;
  await until(async () => (await list()).length > 0);
  await abortUpload(h.deps, h.admin, { uploadId: (await list())[0]!.upload.id, reason: "not needed" });
  await refused(t, "UPLOAD_NOT_OPEN", done);
});

for (const waits of [true, false])
  test(`a body of a kilobyte a second ${waits ? "ends while" : "goes on unless"} another waits for its memory`, async (t) => {
    const { h } = t.context;
    h.add({ name: "db" });
    let now = 0;
    const buffers = new BufferPool(MIB, () => now);
    const message = openpgpMessage(100_000);
    const body = (async function* () {
      for (let at = 0; at < message.length; at += 1000) {
        now += 1000;
        yield message.subarray(at, at + 1000);
        if (waits && at === 40_000) void buffers.take(1, "another", new AbortController().signal);
      }
    })();
    const done = receiveVersion({ ...h.deps, buffers }, h.admin, { ...input("db", 0), body });
    if (!waits) return void t.is((await done).size, BigInt(message.length));
    const error = await refused(t, "SEGMENT_IDLE", done);
    t.regex(error.message, /1000 bytes a second, and others wait/);
    t.is(buffers.waiting, 0, "who waited has it");
  });

/** An organization with one place, and a collection of it. */
function onePlace(h: Harness) {
  const limits = { name: "acme", maxTotalSize: undefined, maxParallelSegments: 1, maxUploadRate: undefined };
  h.organizations.set("acme", limits);
  h.add({ name: "db", organization: "acme" });
  const time = new ShareTime();
  const shares = new TenantShares(time);
  const buffers = new BufferPool(4 * MIB, time.monotonic);
  return { limits, time, shares, buffers };
}

test("a slow body gives its place to an upload that waits for one, which was asked to come again meanwhile", async (t) => {
  const { h } = t.context;
  const { limits, time, shares, buffers } = onePlace(h);
  const never = new AbortController().signal;
  const message = openpgpMessage(100_000);
  const refusals: Promise<unknown>[] = [];
  const body = (async function* () {
    for (let at = 0; at < message.length; at += 1000) {
      yield message.subarray(at, at + 1000);
      // Comes again and again, as its client does.
      if (at % 12_000 === 0) {
        refusals.push(shares.enter(limits, never, { upload: "other" }).catch((error: unknown) => error));
        await new Promise((resolve) => setImmediate(resolve));
      }
      time.advance(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  const error = await refused(
    t,
    "SEGMENT_IDLE",
    receiveVersion({ ...h.deps, shares, buffers }, h.admin, { ...input("db", 0), body }),
  );
  t.regex(error.message, /1000 bytes a second, and others wait/);
  t.like(await refusals[0], { reason: "RATE_LIMITED" });
  t.is(typeof (await refusals.at(-1)), "function", "it has the place");
});

test("an upload that was ended gives place and memory back while its client is silent", async (t) => {
  const { h } = t.context;
  const { limits, shares, buffers } = onePlace(h);
  const settings = { ...h.deps.settings, leaseMs: 30 };
  const body = (async function* () {
    yield openpgpMessage(1000);
    await new Promise(() => {});
  })();
  const done = receiveVersion({ ...h.deps, settings, shares, buffers }, h.admin, { ...input("db", 0), body });
  const list = async () => (await listUploads(h.deps, h.admin, { collection: "db", from: 0, pageSize: 10 })).uploads;
  await until(async () => buffers.allocated > 0 && (await list()).length > 0);
  await abortUpload(h.deps, h.admin, { uploadId: (await list())[0]!.upload.id, reason: "not needed" });
  await refused(t, "UPLOAD_NOT_OPEN", done);
  (await shares.enter(limits, new AbortController().signal))();
  const all = await Promise.all([buffers.take(MIB, "organization:acme", new AbortController().signal)]);
  t.is(all.length, 1);
});

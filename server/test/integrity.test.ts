import { createHash } from "node:crypto";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import type { VersionRow } from "../src/app/ports/database.ts";
import { type VerificationPlan, Verifier, verificationRate, verifyNext } from "../src/app/upkeep/verifier.ts";
import { recordVerification, verifyVersion } from "../src/app/versions/verify-version.ts";
import { deleteVersion, getVersion } from "../src/app/versions/versions.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const DAY = 24 * 3_600_000;
const PLAN: VerificationPlan = { everyMs: 30 * DAY, bytesPerSecond: 1_000_000_000n };
const never = new AbortController().signal;
const atOnce = async () => {};

/** Puts other bytes in the place of a stored object. */
async function damage(h: Harness, version: VersionRow, change: (bytes: Uint8Array) => Uint8Array): Promise<Uint8Array> {
  const { store } = h.deps;
  const whole = (await store.get(version.key, 100 * MIB))!;
  await store.delete(version.key);
  await store.put(version.key, change(new Uint8Array(whole)));
  return whole;
}

const flip = (at: number) => (bytes: Uint8Array) => {
  bytes[at]! ^= 1;
  return bytes;
};

async function health(h: Harness, name: string) {
  const { checks } = await getCollectionHealth(
    { ...h.deps, sha256: (text) => createHash("sha256").update(text).digest("hex") },
    { principal: h.admin, secret: undefined },
    name,
  );
  return checks.find((check) => check.name === "integrity")!;
}

const see = (h: Harness, name: string, number: bigint | "newest" = "newest") =>
  getVersion(h.deps, h.admin, { collection: name, number });

test("a version is due after half the period, and then whole", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(3 * MIB + 7));
  t.false(await verifyNext(h.deps, PLAN, never, atOnce), "it was checked on arrival");
  h.clock.advance(15 * DAY);
  let bytes = 0;
  const count = async (ms: number) => {
    bytes += ms;
  };
  t.true(await verifyNext(h.deps, { ...PLAN, bytesPerSecond: 1000n }, never, count));
  t.is(Math.round(bytes), 3 * MIB + 7, "every byte was read, at 1000 bytes in 1000 milliseconds");
  const seen = await see(h, spec.name);
  t.deepEqual([seen.verifiedAt, seen.damage], [h.clock.now, ""]);
  t.false(await verifyNext(h.deps, PLAN, never, atOnce));
});

test("the version verified longest ago comes first, and each gets its turn", async (t) => {
  const { h } = t.context;
  const names = [h.add().name, h.add().name, h.add().name];
  for (const name of names) {
    await h.upload(name, openpgpMessage(1000));
    h.clock.advance(1000);
  }
  h.clock.advance(16 * DAY);
  for (const [i] of names.entries()) {
    t.true(await verifyNext(h.deps, PLAN, never, atOnce));
    for (const [j, name] of names.entries()) t.is((await see(h, name)).verifiedAt !== null, j <= i);
  }
});

test("one flipped bit in any segment is found, named, kept, shown by health, and cleared after a repair", async (t) => {
  const { h } = t.context;
  for (const index of [0, 1, 2]) {
    const spec = h.add();
    const { version } = await h.upload(spec.name, openpgpMessage(2 * MIB + 100));
    t.is((await health(h, spec.name)).status, "ok");
    const whole = await damage(h, version, flip(index * MIB + 50));
    h.clock.advance(16 * DAY);
    while (await verifyNext(h.deps, PLAN, never, atOnce));
    const seen = await see(h, spec.name);
    t.deepEqual([seen.damageReason, seen.damagedSegment], ["bytes-differ", index]);
    t.is(seen.state, "live", "the version stays");
    const check = await health(h, spec.name);
    t.is(check.status, "failed");
    t.regex(check.message, new RegExp(`version 1: segment ${index} `));
    t.false(await verifyNext(h.deps, PLAN, never, atOnce), "a damaged one waits a day");

    await h.deps.store.delete(version.key);
    await h.deps.store.put(version.key, whole);
    h.clock.advance(DAY);
    t.true(await verifyNext(h.deps, PLAN, never, atOnce));
    t.is((await health(h, spec.name)).status, "ok", "whole again");
    t.is((await see(h, spec.name)).damagedSegment, null);
  }
  const kinds = await (h.deps.database as SqlDatabase).query(
    sql`select kind, count(*)::int as n from audit_events where kind in ('version.damaged', 'version.repaired') group by kind order by kind`,
  );
  t.deepEqual(kinds, [
    { kind: "version.damaged", n: 3 },
    { kind: "version.repaired", n: 3 },
  ]);
});

test("a missing object and one of another size are damage", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(5000));
  await damage(h, version, (bytes) => bytes.subarray(1));
  const short = await verifyVersion(h.deps, version, { signal: never });
  t.regex(short.damage, /has 4999 bytes; 5000 were/);
  t.is(short.damageReason, "size-differs");
  await h.deps.store.delete(version.key);
  const gone = await verifyVersion(h.deps, version, { signal: never });
  t.regex(gone.damage, /missing/);
  t.is(gone.damageReason, "object-missing");
});

test("a store that is another one, or does not answer, is no damage", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(5000));
  const verify = (store: FaultyBlobStore | MemoryBlobStore) =>
    verifyVersion({ ...h.deps, store }, version, { signal: never });
  await t.throwsAsync(verify(new MemoryBlobStore()), { instanceOf: BlobStoreError, message: /installation id/ });
  for (const [operation, when] of [
    ["stat", "before"],
    ["read", "before"],
    ["read", "during"],
  ] as const) {
    const store = new FaultyBlobStore(h.deps.store);
    // As often as it is tried; of one version alone it says nothing, since there is no other that can be read.
    for (const nth of operation === "read" ? [1, 2, 3] : [1]) store.fail(operation, { when, nth });
    if (operation === "read") for (const nth of [1, 2]) store.fail("get", { nth });
    await t.throwsAsync(verify(store), { instanceOf: BlobStoreError });
  }
  t.deepEqual(await verify(new FaultyBlobStore(h.deps.store)), { damage: "", damageReason: "", damagedSegment: null });
  t.is((await health(h, spec.name)).status, "ok");
});

test("bytes that were wrong only on the way are no damage", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(MIB));
  let reads = 0;
  const store = new FaultyBlobStore(h.deps.store);
  const read = store.read.bind(store);
  store.read = async function* (...given) {
    const isFirst = reads++ === 0;
    for await (const chunk of read(...given)) yield isFirst ? flip(3)(chunk.slice()) : chunk;
  };
  t.is((await verifyVersion({ ...h.deps, store }, version, { signal: never })).damage, "");
  t.is(reads, 2);
});

test("a version whose reading fails holds the others up not longer than once, and comes again", async (t) => {
  const { h } = t.context;
  const [first, second] = [h.add().name, h.add().name];
  await h.upload(first, openpgpMessage(1000));
  h.clock.advance(1000);
  await h.upload(second, openpgpMessage(1000));
  h.clock.advance(16 * DAY);
  const store = new FaultyBlobStore(h.deps.store);
  // The tries of the first, and the look at the other.
  for (const nth of [1, 2, 3, 4]) store.fail("read", { nth });
  const deps = { ...h.deps, store };
  await t.throwsAsync(verifyNext(deps, PLAN, never, atOnce), { instanceOf: BlobStoreError });
  t.true(await verifyNext(deps, PLAN, never, atOnce));
  t.not((await see(h, second)).verifiedAt, null);
  t.is((await see(h, first)).verifiedAt, null);
  t.false(await verifyNext(deps, PLAN, never, atOnce), "still claimed");
  h.clock.advance(16 * 60_000);
  t.true(await verifyNext(deps, PLAN, never, atOnce));
  t.not((await see(h, first)).verifiedAt, null);
});

test("two servers never verify the same version; one that died leaves its claim for a while", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(1000));
  h.clock.advance(16 * DAY);
  const store = new FaultyBlobStore(h.deps.store);
  const stall = store.stall("read");
  const dying = new AbortController();
  const running = verifyNext({ ...h.deps, store }, PLAN, dying.signal, atOnce);
  await stall.reached;
  t.false(await verifyNext(h.deps, PLAN, never, atOnce));
  dying.abort(new Error("the server stops"));
  await t.throwsAsync(running, { message: "the server stops" });
  t.true(await verifyNext(h.deps, PLAN, never, atOnce), "a server that stops gives its claim back");
});

test("a version removed while it is read is not marked", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  await recordVerification(h.deps, version, { damage: "too late", damageReason: "bytes-differ", damagedSegment: null });
  const row = await h.deps.database.transaction(async (tx) => await tx.versions.findById(version.id));
  t.is(row!.damage, "");
});

test("in the background: what is due is verified, and a stop breaks off what is under way", async (t) => {
  const { h } = t.context;
  const names = [h.add().name, h.add().name];
  for (const name of names) await h.upload(name, openpgpMessage(MIB + 1));
  h.clock.advance(16 * DAY);
  const store = new FaultyBlobStore(h.deps.store);
  const stall = store.stall("read", { nth: 3 });
  const verifier = new Verifier({ ...h.deps, store }, PLAN);
  verifier.start();
  await stall.reached;
  const verified = async () => {
    const rows = await Promise.all(names.map(async (name) => await see(h, name)));
    return rows.filter(({ verifiedAt }) => verifiedAt !== null).length;
  };
  t.is(await verified(), 1, "the first has two segments; the third read is of the second");
  await verifier.stop();
  t.is(await verified(), 1);
  t.true(await verifyNext(h.deps, PLAN, never, atOnce), "its claim was given back");
  t.is(await verified(), 2);
});

test("the rate adapts to what is stored, up to the bound, which is reported when it is too low", (t) => {
  const plan = { everyMs: 10_000, bytesPerSecond: 100n * BigInt(MIB) };
  t.deepEqual(verificationRate(plan, 0n), { rate: BigInt(MIB), isEnough: true });
  t.deepEqual(verificationRate(plan, 500n * BigInt(MIB)), { rate: 100n * BigInt(MIB), isEnough: true });
  t.deepEqual(verificationRate(plan, 250n * BigInt(MIB)), { rate: 50n * BigInt(MIB), isEnough: true });
  t.deepEqual(verificationRate(plan, 501n * BigInt(MIB)), { rate: 100n * BigInt(MIB), isEnough: false });
});

test("a rate that is too low is reported only when something is late", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(MIB));
  const warnings: string[] = [];
  const deps = { ...h.deps, log: { ...h.deps.log, warn: (_: object, message: string) => void warnings.push(message) } };
  const slow = { everyMs: 30 * DAY, bytesPerSecond: 0n + 1n };
  h.clock.advance(16 * DAY);
  // 2 * 1 MiB in 30 days are 0.8 bytes a second.
  t.true(await verifyNext(deps, slow, never, atOnce));
  t.deepEqual(warnings, []);
  await h.upload(spec.name, openpgpMessage(2 * MIB));
  h.clock.advance(31 * DAY);
  t.true(await verifyNext(deps, slow, never, atOnce));
  t.regex(warnings.join(), /--verify-rate is too low/);
});

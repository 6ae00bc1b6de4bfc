/** Versions that are far smaller than usual: what is usual, what guards rotation, and how that ends. */
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { Random } from "@strongroom/testkit/random";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollection, getCollectionHealth } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { commitUpload } from "../src/app/uploads/commit-upload.ts";
import { confirmVersion } from "../src/app/versions/confirm-version.ts";
import { undeleteVersion } from "../src/app/versions/undelete-version.ts";
import { deleteVersion, listVersions } from "../src/app/versions/versions.ts";
import { LEAST_COUNTED_SIZE } from "../src/domain/quota.ts";
import { guardingVersion, isShrunk, type SizedVersion, usualSize } from "../src/domain/shrunk.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const BIG = 200_000;
const TINY = 500;
const DAY = 24 * 3_600_000;

const FOUR = { shrunkFactor: 4 };
const GUARD = { shrunkFactor: 4, rotationGuard: "shrunk" as const };

/** Versions of these sizes, one after the other, each judged by those before it. */
function history(sizes: readonly number[], limits = FOUR, confirmed: readonly number[] = []): SizedVersion[] {
  const live: SizedVersion[] = [];
  sizes.forEach((size, i) => {
    const confirmedAt = confirmed.includes(i + 1) ? new Date(0) : null;
    live.push({ number: BigInt(i + 1), size: BigInt(size), usualSize: usualSize(live, limits), confirmedAt });
  });
  return live;
}

test("what is usual: the median of the last ten, without shrunk ones, back to a confirmed one", (t) => {
  const usual = (sizes: readonly number[], confirmed: readonly number[] = []) =>
    usualSize(history(sizes, FOUR, confirmed), FOUR);
  t.is(usual([]), null);
  t.is(usual([7]), 7n);
  t.is(usual([10, 20]), 10n, "of two in the middle the smaller");
  t.is(usual([10, 30, 20]), 20n);
  t.is(usual([1000, ...Array.from({ length: 10 }, () => 2000)]), 2000n, "only the last ten");
  t.is(usual([100, 100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 100n, "many tiny ones never become usual");
  t.is(usual([100, 100, 1], [3]), 1n, "what was confirmed is usual from then on");
  t.is(usual([100, 100, 1, 1, 1], [3]), 1n);
  t.is(usual([100, 100, 1, 100, 100], [3]), 100n);
  const onlyShrunk = history([100, 100, 1, 1]).slice(2);
  t.is(usualSize(onlyShrunk, FOUR), 100n, "what was usual before them still is, when the others are gone");
  t.is(usualSize(history([100, 1, 1, 1]), { shrunkFactor: undefined }), 1n, "without the check all count");
});

test("isShrunk and guardingVersion: the newest, or one that comes; not one that was confirmed", (t) => {
  const live = history([100, 100, 24, 100]);
  t.deepEqual(
    live.map((v) => isShrunk(v, FOUR)),
    [false, false, true, false],
  );
  t.is(guardingVersion(GUARD, live, []), undefined, "a version of the usual size came after it");
  t.is(guardingVersion(GUARD, live.slice(0, 3), [])?.number, 3n);
  t.is(guardingVersion({ ...FOUR, rotationGuard: undefined }, live.slice(0, 3), []), undefined);
  const coming = { number: 5n, size: 1n, usualSize: 100n, confirmedAt: null };
  t.is(guardingVersion(GUARD, live, [coming])?.number, 5n);
  t.is(guardingVersion(GUARD, history([100, 1], FOUR, [2]), []), undefined);
});

test("property: whatever tiny versions come and however many, what is usual stays", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 24 }), { maxLength: 40 }), (tiny) => {
      const live = history([100, 100, 100, ...tiny]);
      return usualSize(live, FOUR) === 100n && live.slice(3).every((v) => isShrunk(v, FOUR));
    }),
  );
});

async function numbers(h: Harness, name: string): Promise<number[]> {
  const input = { collection: name, beforeNumber: undefined, pageSize: 100 };
  return (await listVersions(h.deps, h.admin, input)).versions.map((v) => Number(v.number));
}

async function shrunkCheck(h: Harness, name: string) {
  const caller = { principal: h.admin, secret: undefined };
  const { checks } = await getCollectionHealth({ ...h.deps, sha256: String }, caller, name);
  return checks.find((check) => check.name === "shrunk")!;
}

const confirm = (h: Harness, collection: string, number: bigint) =>
  confirmVersion(h.deps, h.admin, { collection, number });
const big = () => openpgpMessage(BIG);
const tiny = () => openpgpMessage(TINY);

/** Three big versions in a collection that keeps three. */
async function filled(h: Harness, change: Parameters<Harness["add"]>[0]) {
  const spec = h.add({ maxOneVersionSize: BigInt(BIG), maxCollectionSize: BigInt(5 * BIG), ...change });
  for (let i = 0; i < 3; i++) await h.upload(spec.name, big());
  return spec;
}

test("without a guard tiny dumps still push the big ones out, and health warns for as long as they come", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, {});
  t.is((await shrunkCheck(h, spec.name)).status, "ok");
  for (let i = 0; i < 5; i++) {
    await h.upload(spec.name, tiny());
    t.is((await shrunkCheck(h, spec.name)).status, "warning");
    const { collections } = await collectionFigures(h.deps);
    const figures = collections.find((c) => c.name === spec.name)!;
    t.is(figures.health, "warning", "for metrics too");
    t.is(figures.newestSize, BigInt(TINY));
  }
  t.deepEqual(await numbers(h, spec.name), [8, 7, 6]);
  await confirm(h, spec.name, 8n);
  t.is((await shrunkCheck(h, spec.name)).status, "ok");
  await h.upload(spec.name, tiny());
  t.is((await shrunkCheck(h, spec.name)).status, "ok", "it is usual now");
});

test("guarded: tiny dumps push nothing out, however many; somebody's confirmation ends it", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, { rotationGuard: "shrunk" });
  for (let i = 0; i < 6; i++) t.deepEqual((await h.upload(spec.name, tiny())).removedNumbers, []);
  t.deepEqual(await numbers(h, spec.name), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
  t.regex((await shrunkCheck(h, spec.name)).advice, /strongroom confirm [^ ]+ 9`.*rotation removes nothing/);
  const details = await getCollection({ ...h.deps, sha256: String }, h.admin, spec.name);
  t.is(
    details.usage.nextUploadAllowance,
    BigInt(5 * BIG - 3 * BIG) - 6n * LEAST_COUNTED_SIZE,
    "K is all live versions",
  );
  const confirmed = await confirm(h, spec.name, 9n);
  t.deepEqual(confirmed.confirmedAt, h.clock.now);
  t.is((await confirm(h, spec.name, 9n)).revision, confirmed.revision, "idempotent");
  const events = await (h.deps.database as SqlDatabase).query(
    sql`select actor, details from audit_events where collection_name = ${spec.name} and kind = 'version.confirmed'`,
  );
  t.is(events.length, 1);
  t.like(events[0], { actor: "user:admin", details: { number: "9", size: String(TINY), usual_size: String(BIG) } });
  t.is((await shrunkCheck(h, spec.name)).status, "ok");
  // Confirming removes nothing; the next version does. The tiny ones that nobody confirmed take no place.
  t.deepEqual((await h.upload(spec.name, tiny())).removedNumbers, [1n, 2n]);
  t.true((await sweep(h.deps, true)).manifests >= 3, "manifests say it too");
});

for (const rotation of [
  {
    strategy: "gfs",
    counts: { keepLast: 1, keepHourly: 0, keepDaily: 2, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 },
  },
  { strategy: "fifo-plus-older", older: { maxOlderCopies: 0, maxAgeMs: 3_600_000 } },
] as const)
  test(`guarded: under ${rotation.strategy} tiny dumps push nothing out either, until somebody confirms`, async (t) => {
    const { h } = t.context;
    const spec = h.add({
      rotation,
      rotationGuard: "shrunk",
      maxOneVersionSize: BigInt(BIG),
      maxCollectionSize: BigInt(5 * BIG),
    });
    const daily = async (message: Uint8Array) => {
      h.clock.advance(24 * 3_600_000);
      return (await h.upload(spec.name, message)).removedNumbers;
    };
    for (let i = 0; i < 3; i++) t.deepEqual(await daily(big()), []);
    for (let i = 0; i < 4; i++) t.deepEqual(await daily(tiny()), []);
    t.deepEqual(await numbers(h, spec.name), [7, 6, 5, 4, 3, 2, 1]);
    await confirm(h, spec.name, 7n);
    t.true((await daily(tiny())).length > 0);
  });

test("guarded: after tiny dumps one of the usual size pushes out the tiny ones, not the big ones", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, { rotationGuard: "shrunk" });
  for (let i = 0; i < 4; i++) await h.upload(spec.name, tiny());
  t.deepEqual((await h.upload(spec.name, big())).removedNumbers, [], "nobody has looked yet");
  t.is((await shrunkCheck(h, spec.name)).status, "ok");
  t.deepEqual((await h.upload(spec.name, big())).removedNumbers, [1n, 2n]);
  t.deepEqual((await h.upload(spec.name, big())).removedNumbers, [3n, 4n, 5n, 6n, 7n]);
  t.deepEqual(await numbers(h, spec.name), [10, 9, 8]);
});

test("guarded: the hard limit still holds, and the refusal names the command", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, { rotationGuard: "shrunk", maxCollectionSize: BigInt(4 * BIG) });
  await h.upload(spec.name, tiny());
  const error = await refused(t, "ROTATION_BLOCKED", h.upload(spec.name, big()));
  t.true(error.message.includes(`\`strongroom confirm ${spec.name} 4\``), error.message);
  t.like(error.metadata, { guard: "shrunk", number: "4", limit: "collection" });
  await confirm(h, spec.name, 4n);
  h.clock.advance(DAY);
  t.deepEqual((await h.upload(spec.name, big())).removedNumbers, [1n, 2n]);
});

test("guarded: a tiny dump for which something would have to go is refused itself, and says what to do", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, { rotationGuard: "shrunk", maxCollectionSize: BigInt(3 * BIG) });
  const error = await refused(t, "ROTATION_BLOCKED", h.upload(spec.name, tiny()));
  t.regex(error.message, /this version would have 500 B, far below .*strongroom rm/);
  t.is(error.metadata.guard, "shrunk");
  t.deepEqual(await numbers(h, spec.name), [3, 2, 1]);
  h.clock.advance(DAY);
  t.deepEqual((await h.upload(spec.name, big())).removedNumbers, [1n]);
});

test("guarded: a tiny version that is just being committed guards the commits beside it", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, {
    rotationGuard: "shrunk",
    maxParallelUploads: 2,
    maxCollectionSize: BigInt(3 * BIG + TINY),
  });
  const segments = [cutSegments(tiny(), MIB), cutSegments(big(), MIB)] as const;
  const { upload: small } = await h.begin(spec.name);
  const { upload: large } = await h.begin(spec.name);
  await h.write(small.id, segments[0][0]!);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("put");
  const input = { uploadId: small.id, size: BigInt(TINY), compositeSha256: compositeOf(segments[0]) };
  await refused(t, "STORE_UNAVAILABLE", commitUpload(h.over(store), h.admin, input));
  // Without it there would be room for one more big one.
  await refused(t, "ROTATION_BLOCKED", h.write(large.id, segments[1][0]!));
  await h.commit(small.id, segments[0]);
  t.deepEqual(await numbers(h, spec.name), [4, 3, 2, 1]);
});

test("guarded: uploads, deaths in commits, deletions and confirmations in any order stay under the hard limit", async (t) => {
  const { h } = t.context;
  const seen = { guarded: 0, removed: 0, died: 0, undeleted: 0, blocked: 0 };
  const name = t.title;
  for (let seed = 1; seed <= 6; seed++) {
    const random = new Random(`${name} ${seed}`);
    const spec = h.add({
      rotationGuard: "shrunk",
      maxBackupsCount: random.int(1, 4),
      maxOneVersionSize: 10_000n,
      maxCollectionSize: 60_000n,
      maxParallelUploads: 3,
    });
    await h.upload(spec.name, openpgpMessage(10_000));
    const live = async () => (await h.usage(spec.name)).storedBytes;
    for (let step = 0; step < 40; step++) {
      const size = random.pick([10_000, 9000, 11_000, 600, 500]);
      const pick = async (removed: boolean) => {
        const input = { collection: spec.name, beforeNumber: undefined, pageSize: 100, removed };
        const { versions } = await listVersions(h.deps, h.admin, input);
        return versions.length === 0 ? undefined : random.pick(versions).number;
      };
      try {
        const what = random.int(0, 9);
        const number = what === 0 ? await pick(true) : await pick(false);
        if (what === 0 && number !== undefined) {
          await undeleteVersion(h.deps, h.admin, { collection: spec.name, number });
          seen.undeleted++;
        } else if (what === 1 && number !== undefined)
          await deleteVersion(h.deps, h.admin, { collection: spec.name, number });
        else if (what === 2 && number !== undefined) await confirm(h, spec.name, number);
        else if (what === 3) await sweep(h.deps, true);
        else {
          const { upload } = await h.begin(spec.name);
          const segments = cutSegments(openpgpMessage(size), MIB);
          await h.write(upload.id, segments[0]!);
          const store = new FaultyBlobStore(h.deps.store);
          if (what === 4) store.fail("put");
          const input = { uploadId: upload.id, size: BigInt(size), compositeSha256: compositeOf(segments) };
          const { removedNumbers } = await commitUpload(h.over(store), h.admin, input);
          seen.removed += removedNumbers.length;
        }
      } catch (error) {
        const { reason, metadata } = error as { reason: string; metadata: Record<string, string> };
        if (reason === "STORE_UNAVAILABLE") seen.died++;
        else if (reason === "ROTATION_BLOCKED") seen.blocked++;
        else if (!["QUOTA_EXCEEDED", "COLLECTION_BUSY", "VERSION_PROTECTED", "VERSION_NOT_FOUND"].includes(reason))
          throw error;
        if (metadata?.guard === "shrunk") seen.guarded++;
      }
      t.true((await live()) <= spec.maxCollectionSize, `seed ${seed}, step ${step}: ${await live()} bytes`);
      h.clock.advance(60_000);
    }
  }
  for (const [what, times] of Object.entries(seen)) t.true(times > 0, `${what}: ${times}`);
});

test("only who manages the collection confirms, and only what is there", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, { accessControl: [{ userName: "bob", roles: ["backupUploader", "backupDownloader"] }] });
  const bob = principal(user("bob"));
  await refused(t, "ACCESS_DENIED", confirmVersion(h.deps, bob, { collection: spec.name, number: 1n }));
  await refused(t, "VERSION_NOT_FOUND", confirm(h, spec.name, 9n));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  await refused(t, "VERSION_NOT_FOUND", confirm(h, spec.name, 1n));
});

/**
 * Costs that do not grow: what the counters and the questions about live versions say is what all rows say, and no
 * query of an upload, a commit, a list, or health reads a table from end to end.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollection, getCollectionHealth } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import { EVERY_COLLECTION, listCollections } from "../src/app/collections/list-collections.ts";
import { reviewNext } from "../src/app/notifications/review.ts";
import { type LiveVersion, TOLD_OF } from "../src/app/ports/live-versions.ts";
import { checkUpload } from "../src/app/uploads/create-upload.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { confirmVersion } from "../src/app/versions/confirm-version.ts";
import { holdVersion, releaseVersion } from "../src/app/versions/hold-version.ts";
import { keptSums, livePlan, usualSizeIn } from "../src/app/versions/live-plan.ts";
import { rotationOf } from "../src/app/versions/removal.ts";
import { undeleteVersion } from "../src/app/versions/undelete-version.ts";
import { deleteVersion, getVersion, listVersions } from "../src/app/versions/versions.ts";
import { CLOCK_SLACK_MS } from "../src/domain/clock.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { healthFacts } from "../src/domain/health.ts";
import { removalRules } from "../src/domain/policy-guard.ts";
import { sumVersions } from "../src/domain/quota.ts";
import { usualSize } from "../src/domain/shrunk.ts";
import { storedFacts } from "../src/domain/store-health.ts";
import { openServer, POSTGRES_PROGRAMS, sharedCluster } from "./support/databases.ts";
import { insertMany, insertVersions, type SomeVersion } from "./support/growth.ts";
import { collection, Harness, harnessTest, principal, TestClock, user } from "./support/harness.ts";

const test = anyTest as TestFn<{ h: Harness }>;
const harness = harnessTest(test);

const HOUR = 3_600_000;

const someVersions: fc.Arbitrary<SomeVersion[]> = fc.array(
  fc.record({
    size: fc.constantFrom(1n, 100n, 999n, 1001n, 20_000n, 50_000n),
    ageHours: fc.integer({ min: -48, max: 400 }),
    held: fc.constantFrom(false, false, false, true),
    protectedHours: fc.constantFrom(null, null, -5, 5),
    damage: fc.constantFrom("", "", "", "segment 1 differs"),
    usualSize: fc.constantFrom(null, 0n, 100n, 5000n, 90_000n),
    isConfirmed: fc.constantFrom(false, false, true),
    damageReason: fc.constantFrom("", "object-missing", "bytes-differ", "unreadable"),
    manifestRevision: fc.constantFrom(0, 1, 1, 2),
    state: fc.constantFrom("live", "live", "live", "removed", "purged"),
  }),
  { maxLength: 14 },
);

const gfs = {
  strategy: "gfs",
  counts: { keepLast: 1, keepHourly: 2, keepDaily: 2, keepWeekly: 1, keepMonthly: 0, keepYearly: 1 },
} as const;

const rotations = fc.constantFrom<Parameters<typeof collection>[1]>(
  { rotation: { strategy: "fifo" } },
  { rotation: { strategy: "fifo" }, rotationGuard: "shrunk" },
  { rotation: { strategy: "fifo" }, rotationGuard: "shrunk", minRetentionMs: 3 * HOUR },
  { rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 3, maxAgeMs: 300 * HOUR } } },
  {
    rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 3, maxAgeMs: 300 * HOUR } },
    rotationGuard: "shrunk",
  },
  { rotation: gfs, minRetentionMs: 3 * HOUR },
  { rotation: gfs, rotationGuard: "shrunk", timezone: "Europe/Berlin" },
);

const limits = fc.record({
  maxBackupsCount: fc.constantFrom(1, 2, 3, 7, 30),
  maxOneVersionSize: fc.constantFrom(1000n, 20_000n, 60_000n),
  maxCollectionSize: fc.constantFrom(30_000n, 10_000_000n),
  shrunkFactor: fc.constantFrom(undefined, 1.5, 4, 10),
});

const byNumber = (versions: readonly LiveVersion[]) =>
  versions.map(({ number }) => Number(number)).sort((a, b) => a - b);

harness("what is asked of live versions is what all of them say", async (t) => {
  const { h } = t.context;
  const database = h.deps.database as SqlDatabase;
  const spec = h.add();
  const runs = 60;
  await fc.assert(
    fc.asyncProperty(someVersions, rotations, limits, fc.boolean(), async (versions, rotation, sizes, isComing) => {
      await database.query(sql`truncate versions`);
      await database.query(
        sql`update collections set live_versions = 0, counted_bytes = 0, stored_bytes = 0, trash_bytes = 0`,
      );
      await insertVersions(database, spec.name, versions, h.clock.now);
      const checked = collection(spec.name, { ...sizes, ...rotation });
      const coming = isComing ? [{ number: 99n, size: 3n, usualSize: 90_000n, confirmedAt: null }] : [];
      await database.transaction(async (tx) => {
        // Changed rules are judged by every version, until they are in force.
        const confirmedPolicy = removalRules(checked);
        const row = { ...(await tx.collections.lockByName(spec.name)), confirmedPolicy };
        const live = await tx.versions.allLive(row.id);
        t.is(row.liveVersions, live.length);
        const expected = rotationOf(live, checked, tx.now, tx.now, coming, row);
        const allLive = async () => t.fail("a plan reads no whole versions that stay") as never;
        const bounded = { ...tx, versions: { ...tx.versions, allLive } };
        const plan = await livePlan(bounded, row, checked, { begunAt: tx.now, coming });
        t.deepEqual(byNumber(plan.remove), byNumber(expected.remove), "removed");
        t.deepEqual(
          plan.older.map(({ number }) => number),
          expected.older.map(({ number }) => number),
          "older",
        );
        t.deepEqual(plan.guard?.number, expected.guard?.number);
        t.deepEqual(keptSums(plan, checked), sumVersions(checked, expected.keep));
        const isAnyBlocked = expected.keep.some((v) => v.held || (v.protectedUntil ?? 0) > tx.now);
        t.is(await tx.live.anyBlocked(row.id, tx.now, checked.minRetentionMs), isAnyBlocked);
        t.is(await usualSizeIn(tx, row.id, checked), usualSize(live, checked));
        const facts = (await tx.live.facts([checked], tx.now)).get(spec.name)!;
        const whole = healthFacts(checked, live, tx.now);
        for (const kind of ["above", "damaged", "beyond"] as const) {
          t.deepEqual(facts[kind].since, whole[kind].since, `${kind} since`);
          t.is(facts[kind].count, whole[kind].count, kind);
          t.deepEqual(
            facts[kind].few.map(({ number, size, begunAt, damage }) => ({ number, size, begunAt, damage })),
            whole[kind].few.map(({ number, size, begunAt, damage }) => ({ number, size, begunAt, damage })),
          );
        }
        const beyond = new Date(tx.now.getTime() + CLOCK_SLACK_MS);
        const newest = live.toSorted((a, b) => Number(b.number - a.number));
        const notable = await tx.live.notable(row.id, checked, beyond);
        t.is(notable.newest?.number, newest[0]?.number);
        const isUnreadable = (v: LiveVersion) => v.damageReason === "unreadable";
        const kinds = {
          above: (v: LiveVersion) => v.size > checked.maxOneVersionSize,
          damaged: (v: LiveVersion) => v.damage !== "" && !isUnreadable(v),
          unreadable: (v: LiveVersion) => v.damage !== "" && isUnreadable(v),
          beyond: (v: LiveVersion) => v.begunAt > beyond,
        };
        for (const [kind, is] of Object.entries(kinds)) {
          const of = notable[kind as keyof typeof kinds];
          t.is(of.count, newest.filter(is).length, kind);
          t.deepEqual(
            of.few.map(({ number }) => number),
            newest.filter(is).map(({ number }) => number),
          );
        }
        const earliestOf = (times: readonly (Date | null)[]) =>
          times.reduce<Date | undefined>((a, b) => (a === undefined || b! < a ? b! : a), undefined);
        t.deepEqual(notable.above.since, earliestOf(newest.filter(kinds.above).map((v) => v.committedAt)));
        t.deepEqual(notable.damaged.since, earliestOf(newest.filter(kinds.damaged).map((v) => v.damagedAt)));
        t.deepEqual(notable.beyondFrom, earliestOf(newest.filter(kinds.beyond).map((v) => v.begunAt)));
        t.is(
          notable.largest,
          newest.filter(kinds.above).reduce((most, { size }) => (size > most ? size : most), 0n),
        );
        const stored = storedFacts(live);
        for (const kind of ["gone", "withoutManifest"] as const) {
          t.is(facts[kind].count, stored[kind].count, kind);
          t.deepEqual(facts[kind].since, stored[kind].since, `${kind} since`);
        }
        t.deepEqual(facts.overfullSince, whole.overfullSince, "overfull since");
        t.deepEqual(facts.shrunkSince, whole.shrunkSince, "shrunk since");
        t.is(facts.storedBytes, whole.storedBytes);
        t.is(facts.newest?.number, whole.newest?.number);
        t.deepEqual(facts.newest?.begunAt, whole.newest?.begunAt);
      });
    }),
    { numRuns: runs },
  );
  await database.query(sql`delete from versions`);
  await database.query(sql`update collections set stored_bytes = 0, trash_bytes = 0`);
});

harness("of versions that stand out the newest few are read, however many there are", async (t) => {
  const { h } = t.context;
  const database = h.deps.database as SqlDatabase;
  const spec = h.add({ maxOneVersionSize: 1000n });
  const odd: SomeVersion = {
    size: 5000n,
    ageHours: -48,
    held: false,
    protectedHours: null,
    damage: "gone",
    usualSize: null,
    isConfirmed: false,
    damageReason: "object-missing",
    manifestRevision: 1,
    state: "live",
  };
  const count = 3 * TOLD_OF;
  await insertVersions(
    database,
    spec.name,
    Array.from({ length: count }, () => odd),
    h.clock.now,
  );
  await database.transaction(async (tx) => {
    const row = await tx.collections.lockByName(spec.name);
    const notable = await tx.live.notable(row.id, spec, tx.now);
    for (const kind of ["above", "damaged", "beyond"] as const) {
      t.is(notable[kind].count, count, kind);
      t.deepEqual(
        notable[kind].few.map(({ number }) => number),
        Array.from({ length: TOLD_OF }, (_, i) => BigInt(count - i)),
      );
    }
    t.like(notable, { unreadable: { count: 0, few: [] }, largest: 5000n });
  });
  await database.query(sql`delete from versions`);
  await database.query(sql`update collections set stored_bytes = 0, trash_bytes = 0`);
});

/** Tables whose rows grow with backups, collections or time. */
const GROWING = ["versions", "uploads", "segments", "collections", "audit_events", "sessions"] as const;

const ROWS = 20_000;

const NO_UPLOAD = {
  requestId: "",
  expectedSize: 0n,
  filename: "",
  contentEncoding: undefined,
  labels: {},
  clientMetadata: {},
};

const COLLECTIONS = 5_000;

/**
 * Calls are made over a connection of their own, more often than a statement is planned anew; then PostgreSQL is asked
 * which tables it has read from end to end for them.
 */
async function wholeReads(
  url: string,
  statistics: SqlDatabase,
  work: (database: SqlDatabase) => Promise<void>,
): Promise<string[]> {
  const counts = async () => {
    const rows = await statistics.query(sql`select relname, seq_scan::int as scans from pg_stat_user_tables`);
    return new Map(rows.map(({ relname, scans }) => [String(relname), Number(scans)]));
  };
  const before = await counts();
  const database = await openServer(url, undefined, 1);
  await work(database);
  // Closing it makes its counts visible, in a moment.
  await database.close();
  for (;;) {
    const rows = await statistics.query(
      sql`select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
    );
    if (rows.length === 0) break;
    await sleep(20);
  }
  const after = await counts();
  return GROWING.filter((table) => after.get(table) !== before.get(table));
}

test("PostgreSQL: no call reads a growing table from end to end", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  t.timeout(600_000);
  const url = await (await sharedCluster()).createDatabase();
  const filled = await openServer(url);
  await filled.installation();
  await insertMany(filled, ROWS, COLLECTIONS);
  const names = await filled.query(sql`select name from collections`);
  await filled.close();
  const statistics = await openServer(url, undefined, 1);
  t.teardown(async () => await statistics.close());
  const collections = new Map(
    names.map(({ name }) => [
      String(name),
      collection(String(name), {
        maxAgeMs: HOUR,
        maxBackupsCount: ROWS,
        maxCollectionSize: 10n ** 12n,
        rotationGuard: "shrunk",
      }),
    ]),
  );
  const store = new MemoryBlobStore();
  const ann = principal(user("ann", { roles: ["backupDownloader"] }));
  const clock = new TestClock();
  const on = (database: SqlDatabase) => {
    const h = Harness.on(database, clock, store);
    for (const [name, spec] of collections) h.collections.set(name, spec);
    return h;
  };
  const review = async (h: Harness) => {
    await h.deps.database.transaction(async (tx) => await tx.notifications.mark(["many"]));
    // Other calls made reviews of other collections due.
    for (let subject: string | undefined; subject !== "many"; ) {
      subject = (await reviewNext(h.deps))?.subject;
      if (subject === undefined) throw new Error("expected a review of many to be due");
    }
  };
  const often = async (work: () => Promise<unknown>) => {
    for (let i = 0; i < 6; i++) await work();
  };
  // Changed rules are judged by every version, until they are in force.
  const inForce = async (h: Harness, spec: CollectionSpec) =>
    await h.deps.database.transaction(async (tx) => {
      const { id } = await tx.collections.lockByName(spec.name);
      await tx.collections.confirmPolicy(id, removalRules(spec));
    });
  const calls: Record<string, (h: Harness) => Promise<unknown>> = {
    "a backup, which rotates one out": async (h) => await h.upload("many", openpgpMessage(1024)),
    "a backup to another collection": async (h) => await h.upload("c-00007", openpgpMessage(1024)),
    "an upload that is aborted": async (h) =>
      await abortUpload(h.deps, h.admin, { uploadId: (await h.begin("c-00008")).upload.id, reason: "" }),
    "a question whether it would be taken": async (h) =>
      await checkUpload(h.deps, h.admin, { ...NO_UPLOAD, collection: "many" }),
    "a backup under fifo-plus-older": async (h) => {
      const older = { maxOlderCopies: 5, maxAgeMs: 1000 * HOUR };
      const before = collections.get("many")!;
      const spec = { ...before, rotation: { strategy: "fifo-plus-older" as const, older } };
      h.collections.set("many", spec);
      await inForce(h, spec);
      await h.upload("many", openpgpMessage(1024));
      await inForce(h, before);
    },
    "rm and undelete": async (h) => {
      await deleteVersion(h.deps, h.admin, { collection: "many", number: 8000n });
      await undeleteVersion(h.deps, h.admin, { collection: "many", number: 8000n });
    },
    "hold, release and confirm": async (h) => {
      const name = { collection: "many", number: 8001n };
      await holdVersion(h.deps, h.admin, { ...name, reason: "why" });
      await releaseVersion(h.deps, h.admin, name);
      await confirmVersion(h.deps, h.admin, name);
    },
    ls: async (h) =>
      await listVersions(h.deps, h.admin, { collection: "many", beforeNumber: undefined, pageSize: 100 }),
    "ls, from the middle": async (h) =>
      await listVersions(h.deps, h.admin, { collection: "many", beforeNumber: 9000n, pageSize: 100 }),
    "ls of removed ones": async (h) =>
      await listVersions(h.deps, h.admin, {
        collection: "many",
        beforeNumber: undefined,
        pageSize: 100,
        removed: true,
      }),
    "a version": async (h) => await getVersion(h.deps, h.admin, { collection: "many", number: 9000n }),
    "a collection": async (h) => await getCollection({ ...h.deps, sha256: String }, h.admin, "many"),
    "an overview": async (h) =>
      await listCollections({ ...h.deps, sha256: String }, ann, {
        ...EVERY_COLLECTION,
        afterName: "c-00100",
        pageSize: 10,
      }),
    "a review": async (h) => await review(h),
    health: async (h) => {
      for (const name of ["many", "c-00009"])
        await getCollectionHealth({ ...h.deps, sha256: String }, { principal: h.admin, secret: undefined }, name);
    },
  };
  for (const [name, call] of Object.entries(calls)) {
    const tables = await wholeReads(url, statistics, async (database) => {
      const h = on(database);
      await often(async () => await call(h));
    });
    t.deepEqual(tables, [], name);
  }
  const ofAll = await wholeReads(url, statistics, async (database) => {
    await collectionFigures(on(database).deps);
  });
  t.deepEqual(ofAll, ["collections"], "what looks at every collection reads no version that it does not show");
});

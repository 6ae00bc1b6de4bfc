/** Every health check in every status: what it found, since when, and what to do. */
import test from "ava";
import { type ClockState, clockState } from "../src/domain/clock.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import {
  checkHealth,
  frozenCheck,
  type HealthCheck,
  type HealthStatus,
  type HealthVersion,
  healthFacts,
  policyCheck,
} from "../src/domain/health.ts";
import { type StoredVersion, storeCheck, storedFacts } from "../src/domain/store-health.ts";
import { collection, MIB } from "./support/harness.ts";

const NOW = new Date("2026-03-10T12:00:00Z");
const at = (day: number, time = "01:30") => new Date(`2026-03-${String(day).padStart(2, "0")}T${time}:00Z`);
const RIGHT: ClockState = { status: "right", message: "right" };

/** Published half an hour after it was begun. */
function version(number: number, begunAt: Date, more: Partial<HealthVersion> = {}): HealthVersion {
  const committedAt = new Date(begunAt.getTime() + 30 * 60_000);
  const rest = { size: 100n, damage: "", damagedAt: null, usualSize: null, confirmedAt: null };
  return { number: BigInt(number), begunAt, committedAt, ...rest, ...more };
}

const health =
  (change: Partial<CollectionSpec>, versions: readonly HealthVersion[], clock: ClockState = RIGHT) =>
  (name: string) =>
    checkHealth(collection("pg", change), healthFacts(collection("pg", change), versions, NOW), clock, NOW).find(
      (check) => check.name === name,
    );
const store =
  (row: Parameters<typeof storeCheck>[1], lost: Parameters<typeof storeCheck>[2], versions: StoredVersion[]) => () =>
    storeCheck({ name: "db", timezone: "UTC" }, row, lost, storedFacts(versions), NOW);

const nightly = { windows: [{ from: "0 1 * * *", durationMs: 3_600_000 }] };
const daily = { maxAgeMs: 86_400_000 };
const small = { maxOneVersionSize: 1000n, maxCollectionSize: 3000n };
const of = (number: number, size: bigint) => version(number, at(number), { size });
const shrunk = (number: number) => version(number, at(number), { size: 1n, usualSize: 100n });
const ahead = version(4, at(20));
const stored = (more: Partial<StoredVersion> = {}): StoredVersion => ({
  number: 7n,
  damageReason: "",
  damagedAt: null,
  manifestRevision: 1,
  ...more,
});
const ROW = { rolledBackAt: null, addedVersions: 0 };
const lost = { id: "u-1", versionNumber: 8n, reservedBytes: BigInt(MIB), lostSince: at(9) };

interface Case {
  readonly name: HealthCheck["name"];
  readonly status: HealthStatus;
  readonly check: (name: string) => HealthCheck | undefined;
  readonly found: RegExp;
  readonly since?: Date;
  readonly advice: RegExp;
}

const NOTHING = /^$/;
const BACKUP = /^Make a backup now, and find out why/;

const CASES: readonly Case[] = [
  { name: "window", status: "ok", check: health(nightly, [version(1, at(10))]), found: /version 1/, advice: NOTHING },
  {
    name: "window",
    status: "failed",
    check: health(nightly, [version(1, at(7))]),
    found: /newest version was begun 2026-03-07 01:30 UTC$/,
    // Nothing came in the window of the 8th, which ended at 2.
    since: at(8, "02:00"),
    advice: BACKUP,
  },
  { name: "window", status: "failed", check: health(nightly, []), found: /there is no version$/, advice: BACKUP },
  { name: "window", status: "failed", check: health(nightly, [ahead]), found: /beyond now/, advice: /clock/ },
  { name: "age", status: "ok", check: health(daily, [version(1, at(10))]), found: /version 1/, advice: NOTHING },
  {
    name: "age",
    status: "failed",
    check: health(daily, [version(1, at(7))]),
    found: /not older than 1d; the newest, version 1 was begun 2026-03-07/,
    since: at(8),
    advice: BACKUP,
  },
  { name: "age", status: "failed", check: health(daily, []), found: /there is no version$/, advice: BACKUP },
  { name: "age", status: "failed", check: health(daily, [ahead]), found: /beyond now/, advice: /clock/ },
  { name: "size", status: "ok", check: health(small, [of(1, 1000n)]), found: /no version is above/, advice: NOTHING },
  {
    name: "size",
    status: "warning",
    check: health(small, [of(1, 10n), of(2, 1001n), of(3, 1002n)]),
    found: /version 2 \(1001 B\), 3/,
    since: at(2, "02:00"),
    advice: /^Raise maxOneVersionSize/,
  },
  { name: "sum", status: "ok", check: health(small, [of(1, 1000n)]), found: /of 2\.92 KiB used/, advice: NOTHING },
  {
    name: "sum",
    status: "failed",
    check: health(small, [of(4, 10n), of(3, 1000n), of(2, 1001n), of(1, 1000n)]),
    found: /2.94 KiB together, above maxCollectionSize, 2.92 KiB/,
    since: at(3, "02:00"),
    advice: /^Raise maxCollectionSize, or remove versions with `strongroom rm`/,
  },
  { name: "integrity", status: "ok", check: health({}, [of(1, 1n)]), found: /no version failed/, advice: NOTHING },
  {
    name: "integrity",
    status: "failed",
    check: health({}, [
      version(1, at(1), { damage: "segment 3 differs", damagedAt: at(9) }),
      version(2, at(2), { damage: "segment 1 differs", damagedAt: at(8) }),
    ]),
    found: /^2 versions failed .*: version 1: segment 3 differs; version 2: segment 1 differs$/,
    since: at(8),
    advice: /^Make a new backup.*`strongroom verify`.*`strongroom rm`/,
  },
  {
    name: "shrunk",
    status: "ok",
    check: health({}, [{ ...of(1, 90n), usualSize: 100n }]),
    found: /90 B/,
    advice: NOTHING,
  },
  {
    name: "shrunk",
    status: "warning",
    check: health({ rotationGuard: "shrunk" }, [shrunk(3), of(2, 100n), shrunk(1), shrunk(4)]),
    found: /^version 4 has 1 B, far below 100 B/,
    since: at(3, "02:00"),
    advice: /`strongroom confirm pg 4`\. Until then rotation removes nothing\.$/,
  },
  { name: "clock", status: "ok", check: health({}, []), found: /right/, advice: NOTHING },
  {
    name: "clock",
    status: "warning",
    check: health({}, [], clockState({ newestAt: NOW, pausedUntil: at(10, "12:30"), pauseReason: "it leapt" }, NOW)),
    found: /^it leapt\. Until/,
    advice: /`strongroom sweep --clock-is-right`/,
  },
  {
    name: "clock",
    status: "failed",
    check: health({}, [], clockState({ newestAt: at(12), pausedUntil: null, pauseReason: "" }, NOW)),
    found: /behind/,
    advice: /`strongroom sweep --clock-is-right`/,
  },
  { name: "clock", status: "failed", check: health({}, [ahead]), found: /got version 4/, advice: /correct it.*Remove/ },
  {
    name: "frozen",
    status: "failed",
    check: () => frozenCheck(at(5), false),
    found: /configuration object; it is gone/,
    since: at(5),
    advice: /^Put the configuration object back/,
  },
  { name: "store", status: "ok", check: store(ROW, [], [stored()]), found: /agree/, advice: NOTHING },
  {
    name: "store",
    status: "warning",
    check: store(ROW, [], [stored({ manifestRevision: 0 })]),
    found: /^the manifest of version 7 is missing/,
    advice: /^The next sweep writes it again/,
  },
  {
    name: "store",
    status: "failed",
    check: store(ROW, [lost], [stored()]),
    found: /^the backup of upload u-1 \(version 8, 1 MiB\) cannot be completed/,
    since: at(9),
    advice: /^Make a new backup; .*`strongroom sweep --give-up-commit u-1 --yes`/,
  },
  {
    name: "store",
    status: "failed",
    check: store({ rolledBackAt: at(6), addedVersions: 3 }, [lost], [stored()]),
    found: /; the store showed at 2026-03-06 01:30 UTC.*rolled back.* 3 versions were added/,
    since: at(6),
    advice: /--give-up-commit u-1 .*--confirm-rollback db --yes/,
  },
  {
    name: "policy",
    status: "ok",
    check: () => policyCheck("pg", undefined, at(5)),
    found: /rules|rotation goes by/,
    advice: NOTHING,
  },
  {
    name: "policy",
    status: "warning",
    check: () => policyCheck("pg", { removes: 7, live: 9, waits: true, share: 0.5 }, at(5)),
    found: /7 of 9 versions would go, with the next backup or in time/,
    since: at(5),
    advice: /`strongroom confirm-policy pg 7`.*undo the change/,
  },
  ...(["object-missing", "unreadable"] as const).map(
    (damageReason): Case => ({
      name: "store",
      status: "failed",
      check: store(ROW, [], [stored({ damageReason, damagedAt: at(4) })]),
      found: /^the object of version 7 is missing in the store or cannot be read$/,
      since: at(4),
      advice: /^Look at the store/,
    }),
  ),
];

for (const [index, { name, status, check, found, since, advice }] of CASES.entries())
  test(`${index + 1}: ${name} ${status}: ${found.source}`, (t) => {
    const result = check(name);
    t.is(result?.status, status, result?.message);
    t.regex(result!.message, found);
    t.deepEqual(result!.since, since);
    t.regex(result!.advice, advice);
    t.is(result!.advice === "", status === "ok", "what is not ok says what to do");
  });

test("every check has a case that is well and one that is not", (t) => {
  // `room` needs what a database holds: room-check.test.ts.
  const names: Record<Exclude<HealthCheck["name"], "room">, true> = {
    window: true,
    age: true,
    size: true,
    sum: true,
    integrity: true,
    shrunk: true,
    clock: true,
    frozen: true,
    store: true,
    policy: true,
  };
  const has = (isOk: boolean) =>
    new Set(CASES.filter(({ status }) => (status === "ok") === isOk).map(({ name }) => name));
  t.deepEqual([...has(false)].sort(), Object.keys(names).sort());
  t.deepEqual([...has(true), "frozen"].sort(), Object.keys(names).sort());
});

import test from "ava";
import type { ClockState } from "../src/domain/clock.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import {
  checkHealth as checkFacts,
  type HealthCheck,
  type HealthVersion,
  healthFacts,
  newestOf,
  worst,
} from "../src/domain/health.ts";

const HOUR = 3_600_000;
const NOW = new Date("2026-03-10T12:00:00Z");

const RIGHT: ClockState = { status: "right", message: "right" };

function spec(more: Partial<CollectionSpec> = {}): CollectionSpec {
  return {
    name: "db",
    description: "",
    organization: "",
    filenameTemplate: "db-${version}",
    maxBackupsCount: 3,
    maxOneVersionSize: 1000n,
    maxCollectionSize: 4000n,
    maxParallelUploads: 1,
    windows: [],
    timezone: "UTC",
    rotation: { strategy: "fifo" },
    maxAgeMs: undefined,
    minRetentionMs: undefined,
    minVersionSize: 0n,
    minIntervalMs: undefined,
    maxVersionsPerWindow: undefined,
    maxUploadAgeMs: undefined,
    shrunkFactor: 4,
    rotationGuard: undefined,
    removalShare: 0.5,
    trashRetentionMs: undefined,
    encryptionFormats: ["openpgp"],
    recipientKeyIds: undefined,
    healthSecretSha256: undefined,
    accessControl: [],
    ...more,
  };
}

function version(number: number, begunAt: string, size = 100n): HealthVersion {
  const at = new Date(begunAt);
  const facts = { begunAt: at, committedAt: at, size, damage: "", damagedAt: null, usualSize: null, confirmedAt: null };
  return { number: BigInt(number), ...facts };
}

const checkHealth = (of: CollectionSpec, versions: readonly HealthVersion[], clock: ClockState, now: Date) =>
  checkFacts(of, healthFacts(of, versions, now), clock, now);

function check(
  name: HealthCheck["name"],
  of: CollectionSpec,
  versions: readonly HealthVersion[],
  now = NOW,
): HealthCheck {
  const found = checkHealth(of, versions, RIGHT, now).filter((c) => c.name === name);
  if (found.length !== 1) throw new Error(`${found.length} checks of the name ${name}`);
  return found[0]!;
}

test("worst", (t) => {
  t.is(worst([]), "ok");
  t.is(worst(["ok", "ok"]), "ok");
  t.is(worst(["ok", "warning", "ok"]), "warning");
  t.is(worst(["warning", "failed", "ok"]), "failed");
});

test("newestOf goes by the number, not by a clock or the order", (t) => {
  t.is(newestOf([]), undefined);
  const old = version(1, "2027-03-01T00:00:00Z");
  const middle = version(2, "2026-03-02T00:00:00Z");
  const newest = version(9, "2026-03-01T00:00:00Z");
  t.is(newestOf([middle, newest, old]), newest);
  t.is(newestOf([newest, middle]), newest);
});

test("which checks run depends on the configuration", (t) => {
  const names = (of: CollectionSpec) => checkHealth(of, [], RIGHT, NOW).map((c) => c.name);
  const windows = [{ from: "0 1 * * *", durationMs: HOUR }];
  t.deepEqual(names(spec()), ["size", "sum", "integrity", "clock"]);
  t.deepEqual(names(spec({ windows })), ["window", "size", "sum", "integrity", "clock"]);
  t.deepEqual(names(spec({ maxAgeMs: HOUR })), ["age", "size", "sum", "integrity", "clock"]);
  t.deepEqual(names(spec({ windows, maxAgeMs: HOUR })), ["window", "age", "size", "sum", "integrity", "clock"]);
});

test("a collection without windows and age is healthy while it is empty", (t) => {
  t.is(worst(checkHealth(spec(), [], RIGHT, NOW).map((c) => c.status)), "ok");
});

/** From 01:00 to 02:00 every day. */
const nightly = spec({ windows: [{ from: "0 1 * * *", durationMs: HOUR }] });

const windowCases: [title: string, now: string, newest: string | undefined, status: HealthCheck["status"]][] = [
  ["no version at all", "2026-03-10T12:00:00Z", undefined, "failed"],
  ["in the last window", "2026-03-10T12:00:00Z", "2026-03-10T01:30:00Z", "ok"],
  ["at its first instant", "2026-03-10T12:00:00Z", "2026-03-10T01:00:00.000Z", "ok"],
  ["at its last instant", "2026-03-10T12:00:00Z", "2026-03-10T01:59:59.999Z", "ok"],
  ["a moment before the last window", "2026-03-10T12:00:00Z", "2026-03-10T00:59:59.999Z", "failed"],
  ["in the window before the last", "2026-03-10T12:00:00Z", "2026-03-09T01:30:00Z", "failed"],
  ["after the last window, by a role that may", "2026-03-10T12:00:00Z", "2026-03-10T09:00:00Z", "ok"],
  ["a window is open, nothing yet in it", "2026-03-10T01:30:00Z", "2026-03-09T01:30:00Z", "ok"],
  ["a window opens at this instant", "2026-03-10T01:00:00Z", undefined, "ok"],
  ["the window closes at this instant", "2026-03-10T02:00:00Z", "2026-03-09T01:30:00Z", "failed"],
  ["the window has closed, the version is of it", "2026-03-10T02:00:00Z", "2026-03-10T01:59:00Z", "ok"],
];

for (const [title, now, newest, status] of windowCases) {
  test(`window: ${title}`, (t) => {
    const versions = newest === undefined ? [] : [version(3, "2026-03-01T01:30:00Z"), version(4, newest)];
    const found = check("window", nightly, versions, new Date(now));
    t.is(found.status, status, found.message);
  });
}

test("window: the message says what was expected and what was found", (t) => {
  const empty = check("window", nightly, []);
  t.regex(empty.message, /2026-03-10 01:00 UTC to 2026-03-10 02:00 UTC; there is no version/);
  const elsewhere = check("window", { ...nightly, timezone: "Asia/Kolkata" }, []);
  t.regex(elsewhere.message, /window, 2026-03-10 01:00 \+05:30 to 2026-03-10 02:00 \+05:30/);
  const late = check("window", nightly, [version(7, "2026-03-09T01:30:00Z")]);
  t.regex(late.message, /the newest version was begun 2026-03-09 01:30 UTC/);
  t.regex(check("window", nightly, [version(7, "2026-03-10T01:30:00Z")]).message, /version 7/);
  t.regex(check("window", nightly, [], new Date("2026-03-10T01:30:00Z")).message, /open now/);
});

test("window: of several windows the one that ended last counts", (t) => {
  const both = spec({
    windows: [
      { from: "0 1 * * *", durationMs: HOUR },
      { from: "0 10 * * *", durationMs: HOUR },
    ],
  });
  t.is(check("window", both, [version(1, "2026-03-10T10:30:00Z")]).status, "ok");
  t.is(check("window", both, [version(1, "2026-03-10T01:30:00Z")]).status, "failed");
  t.is(check("window", both, [version(1, "2026-03-10T01:30:00Z")], new Date("2026-03-10T09:00:00Z")).status, "ok");
});

test("window: the time zone is that of the collection", (t) => {
  // 01:00 to 02:00 in Tokyo is 16:00 to 17:00 UTC the day before.
  const tokyo = { ...nightly, timezone: "Asia/Tokyo" };
  t.is(check("window", tokyo, [version(1, "2026-03-09T16:30:00Z")]).status, "ok");
  t.is(check("window", tokyo, [version(1, "2026-03-09T15:30:00Z")]).status, "failed");
  t.is(check("window", tokyo, [], new Date("2026-03-10T16:30:00Z")).status, "ok");
});

const DAY = 24 * HOUR;
const ageCases: [title: string, begunAt: string | undefined, status: HealthCheck["status"]][] = [
  ["no version", undefined, "failed"],
  ["begun just now", "2026-03-10T12:00:00.000Z", "ok"],
  ["exactly as old as allowed", "2026-03-09T12:00:00.000Z", "ok"],
  ["a millisecond older", "2026-03-09T11:59:59.999Z", "failed"],
  ["a clock that went back", "2026-03-10T12:00:05.000Z", "ok"],
];

for (const [title, begunAt, status] of ageCases) {
  test(`age: ${title}`, (t) => {
    const versions = begunAt === undefined ? [] : [version(1, "2026-01-01T00:00:00Z"), version(2, begunAt)];
    const found = check("age", spec({ maxAgeMs: DAY }), versions);
    t.is(found.status, status);
    if (status === "failed") t.regex(found.message, /not older than 1d/);
  });
}

test("age: a collection whose windows are fine can be too old", (t) => {
  const weekly = spec({ windows: [{ from: "0 1 * * 0", durationMs: HOUR }], maxAgeMs: DAY });
  const statuses = checkHealth(weekly, [version(1, "2026-03-08T01:30:00Z")], RIGHT, NOW).map((c) => [c.name, c.status]);
  t.deepEqual(statuses, [
    ["window", "ok"],
    ["age", "failed"],
    ["size", "ok"],
    ["sum", "ok"],
    ["integrity", "ok"],
    ["clock", "ok"],
  ]);
});

test("size: a version of exactly the soft limit is fine, a byte above it warns", (t) => {
  const begunAt = "2026-03-10T00:00:00Z";
  t.is(check("size", spec(), []).status, "ok");
  t.is(check("size", spec(), [version(1, begunAt, 1000n)]).status, "ok");
  t.is(check("size", spec(), [version(1, begunAt, 1001n)]).status, "warning");
  const old = check("size", spec(), [version(1, "2020-01-01T00:00:00Z", 2048n), version(2, begunAt, 5n)]);
  t.is(old.status, "warning");
  t.regex(old.message, /version 1 \(2 KiB\)/);
  const several = check("size", spec(), [version(1, begunAt, 1001n), version(2, begunAt), version(3, begunAt, 1500n)]);
  t.regex(several.message, /version 1 .*, 3 /);
});

test("sum: exactly the hard limit is fine, a byte above it fails", (t) => {
  const begunAt = "2026-03-10T00:00:00Z";
  t.is(check("sum", spec(), []).status, "ok");
  t.is(check("sum", spec(), [version(1, begunAt, 3000n), version(2, begunAt, 1000n)]).status, "ok");
  const over = check("sum", spec(), [version(1, begunAt, 3000n), version(2, begunAt, 1001n)]);
  t.is(over.status, "failed");
  t.regex(over.message, /4001 bytes together.*above maxCollectionSize, 4000 bytes/);
});

test("sum: sizes beyond 2^53", (t) => {
  const huge = spec({ maxOneVersionSize: 2n ** 54n, maxCollectionSize: 2n ** 54n });
  const begunAt = "2026-03-10T00:00:00Z";
  t.is(check("sum", huge, [version(1, begunAt, 2n ** 54n)]).status, "ok");
  t.is(check("sum", huge, [version(1, begunAt, 2n ** 54n), version(2, begunAt, 1n)]).status, "failed");
});

test("integrity: a version that failed its last verification fails, and the message says which and why", (t) => {
  const damaged = { ...version(7, "2026-03-08T00:00:00Z"), damage: "segment 3 differs" };
  t.is(check("integrity", spec(), [version(6, "2026-03-07T00:00:00Z")]).status, "ok");
  const found = check("integrity", spec(), [damaged, version(8, "2026-03-09T00:00:00Z")]);
  t.is(found.status, "failed");
  t.regex(found.message, /version 7: segment 3 differs/);
  const many = Array.from({ length: 9 }, (_, i) => ({ ...damaged, number: BigInt(i + 1) }));
  t.regex(check("integrity", spec(), many).message, /^9 versions .*and 4 more/);
});

test("shrunk: the newest version warns when it is far below what was usual, until it is confirmed", (t) => {
  const usual = (number: number, size: bigint, more: Partial<HealthVersion> = {}) => ({
    ...version(number, "2026-03-09T00:00:00Z", size),
    usualSize: 100n,
    ...more,
  });
  const isChecked = (of: CollectionSpec, live: HealthVersion[]) =>
    checkHealth(of, live, RIGHT, NOW).some((c) => c.name === "shrunk");
  t.false(isChecked(spec(), []));
  t.false(isChecked(spec(), [version(1, "2026-03-09T00:00:00Z", 1n)]), "nothing to compare with");
  t.is(check("shrunk", spec(), [usual(2, 25n)]).status, "ok", "a quarter is not below a quarter");
  const found = check("shrunk", spec(), [usual(1, 100n), usual(2, 24n)]);
  t.is(found.status, "warning");
  t.regex(found.message, /^version 2 has 24 B, far below 100 B/);
  t.regex(found.advice, /`strongroom confirm [^ ]+ 2`\.$/);
  t.regex(check("shrunk", spec({ rotationGuard: "shrunk" }), [usual(2, 24n)]).advice, /rotation removes nothing/);
  t.is(check("shrunk", spec(), [usual(2, 24n), usual(3, 90n)]).status, "ok", "only the newest counts");
  t.is(check("shrunk", spec(), [usual(2, 24n, { confirmedAt: NOW })]).status, "ok");
  t.is(check("shrunk", spec({ shrunkFactor: 5 }), [usual(2, 24n)]).status, "ok");
  t.false(isChecked(spec({ shrunkFactor: undefined }), [usual(2, 1n)]));
});

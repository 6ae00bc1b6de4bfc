import test from "ava";
import { type GuardedRules, type GuardedVersion, unguardedRotation } from "../src/domain/guarded-rotation.ts";
import { simulateNext, simulateSeries } from "../src/domain/simulate.ts";
import { startsBetween } from "../src/domain/window.ts";

const DAY = 24 * 3_600_000;
const NOW = new Date("2026-11-27T12:00:00Z");
const FIFO: GuardedRules = {
  rotation: { strategy: "fifo" },
  maxBackupsCount: 3,
  timezone: "UTC",
  shrunkFactor: 4,
  rotationGuard: undefined,
  minRetentionMs: undefined,
};
const version = (number: number, at: Date, more: Partial<GuardedVersion> = {}): GuardedVersion => ({
  number: BigInt(number),
  size: 100n,
  begunAt: at,
  committedAt: at,
  held: false,
  protectedUntil: null,
  protectedForMs: null,
  damage: "",
  usualSize: 100n,
  confirmedAt: null,
  ...more,
});
const daily = startsBetween(["0 2 * * *"], "UTC", new Date(NOW.getTime() - 10 * DAY), NOW, 100);

test("times of a schedule: after the first instant, up to the last, in order, over several starts", (t) => {
  t.is(daily.length, 10);
  t.is(daily.at(-1)!.toISOString(), "2026-11-27T02:00:00.000Z");
  const both = startsBetween(["0 2 * * *", "30 1 * * *"], "Europe/Warsaw", new Date(NOW.getTime() - DAY), NOW, 100);
  t.deepEqual(
    both.map((at) => at.toISOString()),
    ["2026-11-27T00:30:00.000Z", "2026-11-27T01:00:00.000Z"],
  );
  t.is(startsBetween(["* * * * *"], "UTC", new Date(0), NOW, 7).length, 7);
});

test("a series under fifo: the newest three, and those that are protected", (t) => {
  const { left, most } = simulateSeries(daily, FIFO);
  t.deepEqual(
    left.map(({ number, reason }) => [number, reason]),
    [
      [10n, { rule: "newest", place: 1 }],
      [9n, { rule: "newest", place: 2 }],
      [8n, { rule: "newest", place: 3 }],
    ],
  );
  t.is(most, 3);
  const guarded = simulateSeries(daily, { ...FIFO, minRetentionMs: 5 * DAY + 1 });
  t.deepEqual(
    guarded.left.map(({ number }) => number),
    [10n, 9n, 8n, 7n, 6n, 5n],
  );
  t.is(guarded.left.at(-1)!.reason, "protected");
});

test("real versions: what the next one removes", (t) => {
  const live = [1, 2, 3, 4].map((number) =>
    version(number, new Date(NOW.getTime() - (5 - number) * DAY), { held: number === 1 }),
  );
  t.deepEqual(
    simulateNext(live, FIFO, NOW).versions.map(({ number, reason }) => [
      number,
      typeof reason === "object" ? reason.rule : reason,
    ]),
    [
      [5n, "newest"],
      [4n, "newest"],
      [3n, "newest"],
      [2n, undefined],
      [1n, "held"],
    ],
  );
});

test("a version whose time is beyond now counts as begun when the next higher known one was", (t) => {
  const rules: GuardedRules = {
    ...FIFO,
    rotation: {
      strategy: "gfs",
      counts: { keepLast: 0, keepHourly: 0, keepDaily: 2, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 },
    },
  };
  const at = [-3, 400, -1].map((days) => new Date(NOW.getTime() + days * DAY));
  const live = at.map((begunAt, i) => version(i + 1, begunAt));
  // The second is taken for one of yesterday, and loses to the third there.
  const kept = simulateNext(live, rules, NOW).versions.filter(({ reason }) => reason !== undefined);
  t.deepEqual(
    kept.map(({ number }) => number),
    [4n, 3n],
  );
});

test("shrunk and damaged versions take no place, and a shrunk newest one keeps everything, as in a commit", (t) => {
  const ago = (days: number) => new Date(NOW.getTime() - days * DAY);
  const live = [
    version(1, ago(6)),
    version(2, ago(5)),
    version(3, ago(4), { damage: "its object is missing" }),
    version(4, ago(3), { size: 1n }),
    version(5, ago(2)),
  ];
  const GUARDED: GuardedRules = { ...FIFO, rotationGuard: "shrunk" };
  const shown = (versions: readonly GuardedVersion[], rules: GuardedRules) =>
    simulateNext(versions, rules, NOW).versions.map(({ number, reason, aside }) => [
      Number(number),
      typeof reason === "object" ? `${reason.rule} ${reason.place}` : reason,
      aside,
    ]);
  t.deepEqual(shown(live, GUARDED), [
    [6, "newest 1", undefined],
    [5, "newest 2", undefined],
    [4, "newest 3", "shrunk"],
    [3, "newest 3", "damaged"],
    [2, "newest 3", undefined],
    [1, undefined, undefined],
  ]);
  const shrunk = [...live, version(6, ago(1), { size: 1n })];
  t.is(simulateNext(shrunk, GUARDED, NOW).guard, 6n);
  t.deepEqual(shown(shrunk, GUARDED).at(-1), [1, "guard", undefined]);
  t.is(simulateNext(shrunk, FIFO, NOW).guard, undefined);
  for (const rules of [GUARDED, FIFO]) {
    for (const versions of [live, shrunk]) {
      const gone = unguardedRotation(versions, rules, NOW, NOW, []).remove.map(({ number }) => number);
      const shownGone = simulateNext(versions, rules, NOW).versions.filter(({ reason }) => reason === undefined);
      t.deepEqual(shownGone.map(({ number }) => number).sort(), gone.sort());
    }
  }
});

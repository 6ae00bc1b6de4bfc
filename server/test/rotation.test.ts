import test from "ava";
import fc from "fast-check";
import { isRemovalBlocked, planRotation, type RotatableVersion } from "../src/domain/rotation.ts";

const NOW = new Date("2026-03-01T12:00:00Z");
const HOUR = 3_600_000;

/** Rotation by `fifo`, for a version that is begun now. */
function planFifo<V extends RotatableVersion>(live: readonly V[], maxBackupsCount: number, now: Date) {
  return planRotation(
    live,
    { rotation: { strategy: "fifo" }, maxBackupsCount, timezone: "UTC" },
    { begunAt: now },
    now,
  );
}

/** A version; `hours` is how long before now it was begun. */
function version(number: number, hours: number, more: Partial<RotatableVersion> = {}): RotatableVersion {
  return {
    number: BigInt(number),
    size: 1n,
    begunAt: new Date(NOW.getTime() - hours * HOUR),
    held: false,
    protectedUntil: null,
    ...more,
  };
}

const later = new Date(NOW.getTime() + 1);
const sorted = (versions: readonly RotatableVersion[]): number[] =>
  versions.map((v) => Number(v.number)).sort((a, b) => a - b);

interface Case {
  readonly title: string;
  readonly live: readonly RotatableVersion[];
  readonly max: number;
  readonly keep: readonly number[];
}

const five = [1, 2, 3, 4, 5].map((number) => version(number, 10 - number));
/** The five with something else for one of them. */
const fiveBut = (number: number, more: Partial<RotatableVersion>) =>
  five.map((v) => (v.number === BigInt(number) ? { ...v, ...more } : v));

const cases: readonly Case[] = [
  { title: "nothing to rotate", live: [], max: 3, keep: [] },
  { title: "room for one more", live: five, max: 6, keep: [1, 2, 3, 4, 5] },
  { title: "the oldest goes", live: five, max: 5, keep: [2, 3, 4, 5] },
  { title: "a lowered count removes several", live: five, max: 3, keep: [4, 5] },
  { title: "a count of one keeps nothing beside the new version", live: five, max: 1, keep: [] },
  { title: "a count of one keeps what is held", live: fiveBut(2, { held: true }), max: 1, keep: [2] },
  { title: "a held old version stays besides", live: fiveBut(1, { held: true }), max: 5, keep: [1, 2, 3, 4, 5] },
  { title: "a held new version uses its own place", live: fiveBut(5, { held: true }), max: 3, keep: [4, 5] },
  { title: "a protected old version stays", live: fiveBut(1, { protectedUntil: later }), max: 3, keep: [1, 4, 5] },
  { title: "protection ends at its instant", live: fiveBut(1, { protectedUntil: NOW }), max: 3, keep: [4, 5] },
  {
    title: "held, though protection ended",
    live: fiveBut(1, { held: true, protectedUntil: NOW }),
    max: 3,
    keep: [1, 4, 5],
  },
  {
    title: "everything is blocked",
    live: five.map((v) => ({ ...v, held: true })),
    max: 2,
    keep: [1, 2, 3, 4, 5],
  },
  {
    title: "the number decides, not the time of the beginning",
    live: [version(1, 1), version(2, 5), version(3, 3)],
    max: 3,
    keep: [2, 3],
  },
  {
    title: "versions begun by a clock that was a year ahead hold no place",
    live: [version(8, -9000), version(10, 1), version(9, -8000)],
    max: 2,
    keep: [10],
  },
  { title: "sizes do not matter", live: fiveBut(5, { size: 2n ** 60n }), max: 3, keep: [4, 5] },
];

for (const { title, live, max, keep } of cases) {
  test(`fifo: ${title}`, (t) => {
    const plan = planFifo(live, max, NOW);
    t.deepEqual(sorted(plan.keep), [...keep]);
    t.deepEqual(
      sorted(plan.remove),
      sorted(live).filter((number) => !keep.includes(number)),
    );
  });
}

test("isRemovalBlocked", (t) => {
  t.false(isRemovalBlocked(version(1, 1), NOW));
  t.true(isRemovalBlocked(version(1, 1, { held: true }), NOW));
  t.true(isRemovalBlocked(version(1, 1, { protectedUntil: later }), NOW));
  t.false(isRemovalBlocked(version(1, 1, { protectedUntil: NOW }), NOW));
  t.false(isRemovalBlocked(version(1, 1, { protectedUntil: new Date(0) }), NOW));
});

test("planRotation gives the very objects it was given and leaves the list alone", (t) => {
  const live = Object.freeze([version(1, 3), version(3, 1), version(2, 2)]);
  const { keep, remove } = planFifo(live, 2, NOW);
  t.is(keep[0], live[1]);
  t.deepEqual(sorted(remove), [1, 2]);
  t.true(remove.every((v) => live.includes(v)));
});

const protectedUntil = fc.option(
  fc.integer({ min: -2, max: 2 }).map((ms) => new Date(NOW.getTime() + ms)),
  { nil: undefined },
);

/** Lists in any order, with times that say nothing of it. */
const lists: fc.Arbitrary<RotatableVersion[]> = fc
  .array(fc.record({ hours: fc.integer({ min: -6, max: 6 }), held: fc.boolean(), protectedUntil }), { maxLength: 12 })
  .chain((rows) => {
    const versions = rows.map(({ hours, ...more }, i) => version(i + 1, hours, more));
    return fc.shuffledSubarray(versions, { minLength: versions.length });
  });

const counts = fc.integer({ min: 1, max: 8 });

const isOlder = (a: RotatableVersion, b: RotatableVersion) => a.number < b.number;

test("a plan divides the versions, removes nothing blocked and keeps the newest", (t) => {
  fc.assert(
    fc.property(lists, counts, (live, max) => {
      const { keep, remove } = planFifo(live, max, NOW);
      t.deepEqual(sorted([...keep, ...remove]), sorted(live));
      t.false(remove.some((v) => isRemovalBlocked(v, NOW)));
      const free = keep.filter((v) => !isRemovalBlocked(v, NOW));
      t.true(free.length <= max - 1);
      t.true(
        free.every((kept) => remove.every((gone) => isOlder(gone, kept))),
        "what goes is older than what stays",
      );
      const newest = [...live].sort((a, b) => (isOlder(a, b) ? 1 : -1)).slice(0, max - 1);
      t.true(newest.every((v) => keep.includes(v)));
      t.true(keep.length >= Math.min(live.length, max - 1));
    }),
    { numRuns: 500 },
  );
});

test("the order of the list does not matter, and a second plan removes nothing more", (t) => {
  fc.assert(
    fc.property(lists, counts, (live, max) => {
      const { keep } = planFifo(live, max, NOW);
      t.deepEqual(sorted(planFifo([...live].reverse(), max, NOW).keep), sorted(keep));
      t.deepEqual(planFifo(keep, max, NOW).remove, []);
    }),
    { numRuns: 500 },
  );
});

test("holding a version never pushes out another, and time only frees", (t) => {
  fc.assert(
    fc.property(lists, counts, fc.nat(11), (live, max, which) => {
      const kept = sorted(planFifo(live, max, NOW).keep);
      const holding = live.map((v, i) => (i === which ? { ...v, held: true } : v));
      const keptThen = sorted(planFifo(holding, max, NOW).keep);
      t.true(kept.every((number) => keptThen.includes(number)));
      const keptLater = sorted(planFifo(live, max, new Date(NOW.getTime() + HOUR)).keep);
      t.true(keptLater.every((number) => kept.includes(number)));
    }),
    { numRuns: 500 },
  );
});

import test from "ava";
import fc from "fast-check";
import type { DatedVersion } from "../src/domain/gfs.ts";
import { keptOlderCopies, type OlderCopiesPolicy } from "../src/domain/older-copies.ts";

const DAY = 86_400_000;
const NOW = new Date("2026-06-30T03:00:00Z");
const daysAgo = (days: number) => new Date(NOW.getTime() - days * DAY);

/** Rotates after each backup, as commits do, and gives the older copies that are left, the oldest first. */
function rotate(times: readonly number[], newest: number, policy: OlderCopiesPolicy): DatedVersion[] {
  let older: DatedVersion[] = [];
  const fifo: DatedVersion[] = [];
  times.forEach((at, index) => {
    fifo.push({ number: BigInt(index + 1), at: new Date(at) });
    const candidates = fifo.length > newest ? [...older, fifo.shift()!] : older;
    const kept = keptOlderCopies(candidates, fifo[0], policy, new Date(at));
    older = candidates.filter((version) => kept.has(version.number));
  });
  return older;
}

test("a collection in use for long has its older copies evenly over the time", (t) => {
  const times = Array.from({ length: 1500 }, (_, day) => NOW.getTime() + day * DAY);
  const older = rotate(times, 7, { maxOlderCopies: 12, maxAgeMs: 365 * DAY });
  t.is(older.length, 12);
  const gaps = older.slice(1).map((version, i) => (version.at.getTime() - older[i]!.at.getTime()) / DAY);
  // 365 days in 12 slots are 30.4 days each, and backups come once a day; the newest slot is not full yet.
  t.deepEqual(
    gaps.slice(0, -1).filter((gap) => gap < 29 || gap > 32),
    [],
  );
});

test("a young collection has as many copies as it may", (t) => {
  const times = Array.from({ length: 30 }, (_, day) => NOW.getTime() + day * DAY);
  t.is(rotate(times, 7, { maxOlderCopies: 12, maxAgeMs: 365 * DAY }).length, 12);
});

test("too old goes, whatever places are left", (t) => {
  const candidates = [50, 31, 30, 29, 10].map((days, i) => ({ number: BigInt(i + 1), at: daysAgo(days) }));
  const kept = keptOlderCopies(candidates, undefined, { maxOlderCopies: 10, maxAgeMs: 30 * DAY }, NOW);
  t.deepEqual([...kept].sort(), [3n, 4n, 5n]);
});

test("no older copies asked for, none kept", (t) => {
  const candidates = [{ number: 1n, at: daysAgo(1) }];
  t.is(keptOlderCopies(candidates, undefined, { maxOlderCopies: 0, maxAgeMs: 30 * DAY }, NOW).size, 0);
});

test("places left go to the farthest from what stays", (t) => {
  // Slots of 10 days: days 29 and 28 share one, 27 to 1 is empty. Of the rest, 14 is farther from all than 28 or 2.
  const candidates = [29, 28, 14, 2].map((days, i) => ({ number: BigInt(i + 1), at: daysAgo(days) }));
  const kept = keptOlderCopies(candidates, { at: daysAgo(1) }, { maxOlderCopies: 2, maxAgeMs: 60 * DAY }, NOW);
  t.true(kept.has(1n));
  t.true(kept.has(3n));
});

test("whatever the times: within the bound of number and age, and as many as there can be", (t) => {
  const ages = fc.array(fc.integer({ min: 0, max: 100 * DAY }), { maxLength: 60 });
  fc.assert(
    fc.property(ages, fc.integer({ min: 0, max: 20 }), fc.integer({ min: 1, max: 90 }), (list, most, days) => {
      const candidates = list.map((age, i) => ({ number: BigInt(i + 1), at: new Date(NOW.getTime() - age) }));
      const policy = { maxOlderCopies: most, maxAgeMs: days * DAY };
      const kept = keptOlderCopies(candidates, { at: NOW }, policy, NOW);
      const young = candidates.filter((version) => NOW.getTime() - version.at.getTime() <= policy.maxAgeMs);
      t.is(kept.size, Math.min(most, young.length));
      t.true([...kept].every((number) => young.some((version) => version.number === number)));
    }),
  );
});

import test from "ava";
import { type ClockRecord, clockState, isBeyond, watchClock } from "../src/domain/clock.ts";
import { knownTimes } from "../src/domain/rotation.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOW = new Date("2026-03-01T12:00:00Z").getTime();
const at = (ms: number) => new Date(NOW + ms);

const record = (more: Partial<ClockRecord> = {}): ClockRecord => ({
  newestAt: at(0),
  pausedUntil: null,
  pauseReason: "",
  ...more,
});

test("a time is beyond now when servers' clocks cannot differ by so much", (t) => {
  t.false(isBeyond(at(0), at(0)));
  t.false(isBeyond(at(5 * MINUTE), at(0)));
  t.true(isBeyond(at(5 * MINUTE + 1), at(0)));
});

test("at the first look the time is remembered, and nothing speaks against it", (t) => {
  const found = watchClock(record({ newestAt: null }), { database: NOW, process: 5 }, undefined);
  t.deepEqual(found, record());
  t.is(clockState(found, at(0)).status, "right");
});

test("the newest time is never lowered by a look, and the clock is behind until it gets there", (t) => {
  const found = watchClock(record({ newestAt: at(2 * DAY) }), { database: NOW, process: 0 }, undefined);
  t.deepEqual(found.newestAt, at(2 * DAY));
  const state = clockState(found, at(0));
  t.is(state.status, "behind");
  t.regex(state.message, /before what was stored, 2026-03-03T12:00:00\.000Z; it is 2d behind.*--clock-is-right/);
  t.is(clockState(found, at(2 * DAY - 5 * MINUTE)).status, "right");
  t.is(clockState(found, at(2 * DAY - 5 * MINUTE - 1)).status, "behind");
});

for (const [title, ms, says] of [
  ["forward", 2 * DAY, /leapt forward by 2d/],
  ["back", -2 * DAY, /leapt back by 2d/],
  ["a year forward", 365 * DAY, /leapt forward by 365d/],
] as const) {
  test(`a leap ${title} against the process's own clock pauses for an hour`, (t) => {
    const before = { database: NOW - MINUTE, process: 1000 };
    const found = watchClock(record(), { database: NOW + ms, process: 1000 + MINUTE }, before);
    t.deepEqual(found.pausedUntil, at(ms + HOUR));
    t.regex(found.pauseReason, says);
    t.is(clockState({ ...found, newestAt: null }, at(ms + HOUR - 1)).status, "paused");
    t.is(clockState({ ...found, newestAt: null }, at(ms + HOUR)).status, "right");
    const later = { database: NOW + ms + HOUR, process: 1000 + MINUTE + HOUR };
    const over = watchClock(found, later, { database: NOW + ms, process: 1000 + MINUTE });
    t.deepEqual([over.pausedUntil, over.pauseReason], [null, ""]);
  });
}

test("a smaller leap forward pauses for as long as a lease; a process that was alone for days has seen none", (t) => {
  const look = (database: number, process: number, before = record({ newestAt: at(-9 * DAY) })) =>
    watchClock(before, { database, process }, { database: NOW, process: 0 }).pausedUntil;
  t.is(look(NOW + 5 * MINUTE, 0), null);
  t.deepEqual(look(NOW + 5 * MINUTE + 1, 0), at(20 * MINUTE + 1));
  t.deepEqual(look(NOW + HOUR, 0), at(HOUR + 15 * MINUTE));
  t.deepEqual(look(NOW + HOUR + 1, 0), at(2 * HOUR + 1));
  t.is(look(NOW - HOUR, 0), null);
  t.not(look(NOW - HOUR - 1, 0), null);
  t.is(look(NOW + 9 * DAY, 9 * DAY), null);
  // It does not end a pause that lasts longer.
  t.deepEqual(look(NOW + 20 * MINUTE, 0, record({ pausedUntil: at(HOUR), pauseReason: "a leap" })), at(HOUR));
});

test("a server that starts after more than seven days pauses for an hour, since that may have been a leap", (t) => {
  const start = (gap: number) => watchClock(record({ newestAt: at(-gap) }), { database: NOW, process: 0 }, undefined);
  t.is(start(7 * DAY).pausedUntil, null);
  const found = start(7 * DAY + 1);
  t.deepEqual([found.pausedUntil, found.newestAt], [at(HOUR), at(0)]);
  t.regex(found.pauseReason, /nothing was stored for 7d before a server started/);
  t.is(start(365 * DAY).pausedUntil?.getTime(), NOW + HOUR);
});

test("the end of a pause that a wrong clock wrote is written again", (t) => {
  const reading = { database: NOW, process: 0 };
  const found = watchClock(record({ pausedUntil: at(365 * DAY), pauseReason: "a leap" }), reading, reading);
  t.deepEqual([found.pausedUntil, found.pauseReason], [at(HOUR), "a leap"]);
  const right = record({ pausedUntil: at(HOUR), pauseReason: "a leap" });
  t.deepEqual(watchClock(right, reading, reading), right);
});

test("rotation by time: an unknown time is that of the next higher number with a known one, else now", (t) => {
  const times = (...begun: number[]) => {
    const versions = begun.map((ms, i) => ({ number: BigInt(i + 1), begunAt: at(ms) }));
    return knownTimes([...versions].reverse(), at(0))
      .map((version) => version.at.getTime() - NOW)
      .reverse();
  };
  t.deepEqual(times(), []);
  t.deepEqual(times(-3 * DAY, -2 * DAY, -DAY), [-3 * DAY, -2 * DAY, -DAY]);
  t.deepEqual(times(-3 * DAY, 365 * DAY, 366 * DAY, -DAY), [-3 * DAY, -DAY, -DAY, -DAY]);
  t.deepEqual(times(-3 * DAY, 2 * DAY), [-3 * DAY, 0]);
  t.deepEqual(times(HOUR), [0]);
});

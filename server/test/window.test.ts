import { ValueError } from "@strongroom/protocol/sizes";
import test from "ava";
import fc from "fast-check";
import {
  isTimezone,
  lastFinishedWindow,
  nextWindowStart,
  openWindow,
  parseWindow,
  parseWindowStart,
  type UploadWindow,
  type WindowOccurrence,
} from "../src/domain/window.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

function at(text: string): Date {
  return new Date(text);
}

function shown(occurrence: WindowOccurrence | undefined): string | undefined {
  return occurrence && `${occurrence.start.toISOString()}/${occurrence.end.toISOString()}`;
}

test("parseWindow gives five fields and milliseconds", (t) => {
  t.deepEqual(parseWindow({ from: "*/30 * * * *", duration: "30m" }), {
    from: "*/30 * * * *",
    durationMs: 30 * MINUTE,
  });
  t.deepEqual(parseWindow({ from: "0 1 * *", duration: "1h30m" }), { from: "0 1 * * *", durationMs: 90 * MINUTE });
  t.is(parseWindowStart("  0   1 *  * 1-5 "), "0 1 * * 1-5");
});

test("a day that no month has is refused without a search through the years", (t) => {
  for (const day of ["31 2", "30-31 2", "31 feb", "31 2,4", "31W 2", "31 4,6,9,11", "30/1 feb,Feb", "31 2-2"])
    for (const weekday of ["*", "+5"])
      t.throws(() => parseWindowStart(`0 0 ${day} ${weekday}`), { message: /fires some day/ }, `${day} ${weekday}`);
  for (const day of ["29 2", "31 1-2", "31 2-3", "30 4", "31 *", "L 2", "31 */6", "1,31 2", "31 dec", "5-31 2"])
    t.notThrows(() => parseWindowStart(`0 0 ${day} *`), day);
  // With a weekday the day of the month is one of two.
  t.notThrows(() => parseWindowStart("0 0 31 2 1"));
});

test("forms of the former parser that croner reads differently are rewritten", (t) => {
  t.is(parseWindowStart("5/15 3/4 ? * ?"), "5-59/15 3-23/4 * * *");
  t.is(parseWindowStart("0 0 */1 * 1"), "0 0 * * 1");
  t.is(parseWindowStart("0,5/20 0 * * 1/2"), "0,5-59/20 0 * * 1-6/2");
});

for (const from of [
  "",
  "* * *",
  "* * * * * *",
  "60 * * * *",
  "* 24 * * *",
  "0 0 32 * *",
  "0 0 * * 8",
  "a b c d e",
  "@daily",
]) {
  test(`parseWindow refuses the start ${JSON.stringify(from)}`, (t) => {
    const error = t.throws(() => parseWindow({ from, duration: "1h" }), { instanceOf: ValueError });
    t.true(error!.message.startsWith("expected a cron expression of five fields"), error!.message);
    t.true(error!.message.includes(`got ${JSON.stringify(from)}`), error!.message);
  });
}

test("parseWindow refuses days that never come, time zones in the expression and empty durations", (t) => {
  const refused = (from: string, duration: string) =>
    t.throws(() => parseWindow({ from, duration }), { instanceOf: ValueError })!.message;
  t.regex(refused("0 0 30 2 *", "1h"), /fires some day/);
  t.regex(refused("0 0 31 4,6,9,11 *", "1h"), /fires some day/);
  t.regex(refused("CRON_TZ=Europe/Warsaw 0 1 * * *", "1h"), /spec\.timezone/);
  t.regex(refused("0 1 * * *", "0s"), /above zero/);
  t.regex(refused("0 1 * * *", "1"), /unit is missing/);
});

test("the start belongs to a window, the end does not", (t) => {
  const windows = [parseWindow({ from: "0 1 * * *", duration: "1h" })];
  const open = "2026-01-05T01:00:00.000Z/2026-01-05T02:00:00.000Z";
  t.is(openWindow(windows, "UTC", at("2026-01-05T00:59:59.999Z")), undefined);
  t.is(shown(openWindow(windows, "UTC", at("2026-01-05T01:00:00.000Z"))), open);
  t.is(shown(openWindow(windows, "UTC", at("2026-01-05T01:00:00.001Z"))), open);
  t.is(shown(openWindow(windows, "UTC", at("2026-01-05T01:59:59.999Z"))), open);
  t.is(openWindow(windows, "UTC", at("2026-01-05T02:00:00.000Z")), undefined);
});

test("next start and last finished window of a daily one", (t) => {
  const windows = [parseWindow({ from: "0 1 * * *", duration: "1h" })];
  const next = (now: string) => nextWindowStart(windows, "UTC", at(now))?.toISOString();
  const last = (now: string) => shown(lastFinishedWindow(windows, "UTC", at(now)));
  t.is(next("2026-01-05T00:59:59.999Z"), "2026-01-05T01:00:00.000Z");
  t.is(next("2026-01-05T01:00:00.000Z"), "2026-01-06T01:00:00.000Z");
  t.is(last("2026-01-05T01:59:59.999Z"), "2026-01-04T01:00:00.000Z/2026-01-04T02:00:00.000Z");
  t.is(last("2026-01-05T02:00:00.000Z"), "2026-01-05T01:00:00.000Z/2026-01-05T02:00:00.000Z");
});

test("no windows: nothing is open, next or finished", (t) => {
  const now = at("2026-01-05T01:00:00Z");
  t.is(openWindow([], "UTC", now), undefined);
  t.is(nextWindowStart([], "UTC", now), undefined);
  t.is(lastFinishedWindow([], "UTC", now), undefined);
});

test("a window longer than its interval is always open, and the one ending last is given", (t) => {
  const windows = [parseWindow({ from: "0 * * * *", duration: "3h" })];
  const now = at("2026-01-05T10:30:00Z");
  t.is(shown(openWindow(windows, "UTC", now)), "2026-01-05T10:00:00.000Z/2026-01-05T13:00:00.000Z");
  t.is(shown(lastFinishedWindow(windows, "UTC", now)), "2026-01-05T07:00:00.000Z/2026-01-05T10:00:00.000Z");
});

test("of windows that finished together the longest counts", (t) => {
  const windows = [
    parseWindow({ from: "0 1 * * *", duration: "1h" }),
    parseWindow({ from: "0 0 * * *", duration: "2h" }),
  ];
  const wanted = "2026-01-05T00:00:00.000Z/2026-01-05T02:00:00.000Z";
  t.is(shown(lastFinishedWindow(windows, "UTC", at("2026-01-05T09:00:00Z"))), wanted);
  t.is(shown(lastFinishedWindow(windows.toReversed(), "UTC", at("2026-01-05T09:00:00Z"))), wanted);
});

test("29 February, across a century without one", (t) => {
  const windows = [parseWindow({ from: "0 0 29 2 *", duration: "1d" })];
  t.is(
    shown(openWindow(windows, "UTC", at("2028-02-29T23:59:59Z"))),
    "2028-02-29T00:00:00.000Z/2028-03-01T00:00:00.000Z",
  );
  t.is(openWindow(windows, "UTC", at("2027-03-01T00:00:00Z")), undefined);
  t.is(nextWindowStart(windows, "UTC", at("2096-03-01T00:00:00Z"))?.toISOString(), "2104-02-29T00:00:00.000Z");
  t.is(
    shown(lastFinishedWindow(windows, "UTC", at("2103-12-31T00:00:00Z"))),
    "2096-02-29T00:00:00.000Z/2096-03-01T00:00:00.000Z",
  );
});

test("a window that spans a change of the clock keeps its length", (t) => {
  const windows = [parseWindow({ from: "0 1 * * *", duration: "4h" })];
  // On 29 March 2026 Warsaw goes from 02:00 CET to 03:00 CEST; on 25 October from 03:00 CEST back to 02:00 CET.
  t.is(
    shown(openWindow(windows, "Europe/Warsaw", at("2026-03-29T01:00:00Z"))),
    "2026-03-29T00:00:00.000Z/2026-03-29T04:00:00.000Z",
  );
  t.is(
    shown(openWindow(windows, "Europe/Warsaw", at("2026-10-25T01:00:00Z"))),
    "2026-10-24T23:00:00.000Z/2026-10-25T03:00:00.000Z",
  );
});

test("a start in the hour left out comes when the clock has jumped, one in the repeated hour comes once", (t) => {
  const windows = [parseWindow({ from: "30 2 * * *", duration: "30m" })];
  const next = (now: string) => nextWindowStart(windows, "Europe/Warsaw", at(now))?.toISOString();
  t.is(next("2026-03-28T12:00:00Z"), "2026-03-29T01:00:00.000Z");
  t.is(next("2026-03-29T01:00:00Z"), "2026-03-30T00:30:00.000Z");
  t.is(next("2026-10-24T12:00:00Z"), "2026-10-25T00:30:00.000Z");
  t.is(next("2026-10-25T00:30:00Z"), "2026-10-26T01:30:00.000Z");
  t.is(openWindow(windows, "Europe/Warsaw", at("2026-10-25T01:45:00Z")), undefined);
});

test("isTimezone knows names and nothing else", (t) => {
  for (const name of ["UTC", "Europe/Warsaw", "America/Argentina/Buenos_Aires", "Etc/GMT+3"])
    t.true(isTimezone(name), name);
  for (const name of ["", "Mars/Olympus", "+02:00", "Europe/Warsaw ", "warsaw"]) t.false(isTimezone(name), name);
});

/** A local time of a zone in the form that is compared with a cron expression. */
interface Minute {
  readonly utc: number;
  /** Local time as if it were UTC, which makes minutes comparable. */
  readonly wall: number;
}

/** Every minute of some weeks in a zone, found by asking Intl for the offset of each. */
function minutesOf(timezone: string, from: string, days: number): Minute[] {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
  });
  const minutes: Minute[] = [];
  const first = Date.parse(from);
  for (let utc = first; utc < first + days * 24 * HOUR; utc += MINUTE) {
    const part: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(utc)) part[type] = Number(value);
    minutes.push({ utc, wall: Date.UTC(part.year!, part.month! - 1, part.day!, part.hour!, part.minute!) });
  }
  return minutes;
}

/** A cron expression taken apart by the test itself; undefined means any. */
interface Pattern {
  readonly minutes: readonly number[];
  readonly hours: readonly number[] | undefined;
  readonly days: readonly number[] | undefined;
  readonly weekdays: readonly number[] | undefined;
}

function cronOf({ minutes, hours, days, weekdays }: Pattern): string {
  const field = (values: readonly number[] | undefined) => values?.join(",") ?? "*";
  return `${field(minutes)} ${field(hours)} ${field(days)} * ${field(weekdays)}`;
}

function matches(pattern: Pattern, wall: number): boolean {
  const date = new Date(wall);
  const day = pattern.days?.includes(date.getUTCDate());
  const weekday = pattern.weekdays?.includes(date.getUTCDay());
  // Cron: where both day fields are given, either suffices.
  const either = day === undefined || weekday === undefined ? (day ?? weekday ?? true) : day || weekday;
  return (
    either && pattern.minutes.includes(date.getUTCMinutes()) && (pattern.hours?.includes(date.getUTCHours()) ?? true)
  );
}

/** All starts, by walking over every minute. */
function startsOf(pattern: Pattern, minutes: readonly Minute[]): number[] {
  const fixed = pattern.minutes.length === 1 && pattern.hours?.length === 1;
  const starts: number[] = [];
  let latestWall = Number.NEGATIVE_INFINITY;
  for (const { utc, wall } of minutes) {
    let begins = matches(pattern, wall) && !(fixed && wall <= latestWall);
    if (fixed && latestWall !== Number.NEGATIVE_INFINITY) {
      for (let missing = latestWall + MINUTE; missing < wall; missing += MINUTE) {
        if (matches(pattern, missing)) begins = true;
      }
    }
    if (begins) starts.push(utc);
    latestWall = Math.max(latestWall, wall);
  }
  return starts;
}

// Each walk has a change of the clock in its middle: one hour forward and back, half an hour (Lord Howe), at midnight
// (Cairo), and none.
const WALKS = [
  ["UTC", "2024-02-15"],
  ["Europe/Warsaw", "2026-03-15"],
  ["Europe/Warsaw", "2026-10-11"],
  ["America/New_York", "2026-02-22"],
  ["Australia/Lord_Howe", "2026-09-20"],
  ["Australia/Lord_Howe", "2026-03-22"],
  ["Africa/Cairo", "2026-04-10"],
  ["Africa/Cairo", "2026-10-16"],
  ["Asia/Kathmandu", "2026-01-01"],
].map(([timezone = "", from = ""]) => ({ timezone, minutes: minutesOf(timezone, `${from}T00:00:00Z`, 28) }));

function some(last: number, first = 0): fc.Arbitrary<number[]> {
  return fc.uniqueArray(fc.integer({ min: first, max: last }), { minLength: 1, maxLength: 4 });
}

const pattern: fc.Arbitrary<Pattern> = fc.record({
  minutes: fc.oneof(some(59), fc.constantFrom([0], [30], [0, 30])),
  hours: fc.oneof(fc.constant(undefined), some(23), some(3), fc.constantFrom([0], [1], [2], [3])),
  days: fc.option(some(31, 1), { nil: undefined, freq: 3 }),
  weekdays: fc.option(some(6), { nil: undefined, freq: 3 }),
});

const windowPattern = fc.record({
  pattern,
  minutes: fc.oneof(fc.integer({ min: 1, max: 90 }), fc.integer({ min: 1, max: 3 * 24 * 60 })),
});

/** The same answers as the functions under test, from the walk alone. */
function answersOf(list: readonly { pattern: Pattern; minutes: number }[], minutes: readonly Minute[], now: number) {
  const all = list.flatMap((one) =>
    startsOf(one.pattern, minutes).map((start) => ({ start, end: start + one.minutes * MINUTE })),
  );
  return {
    open: all.filter(({ start, end }) => start <= now && now < end).sort((a, b) => b.end - a.end),
    next: all
      .map(({ start }) => start)
      .sort((a, b) => a - b)
      .find((start) => start > now),
    last: all.filter(({ end }) => end <= now).sort((a, b) => b.end - a.end || a.start - b.start)[0],
  };
}

function same(name: string, found: Date | number | undefined, wanted: number | undefined): void {
  const number = found === undefined ? undefined : Number(found);
  if (number !== wanted) throw new Error(`${name}: found ${number}, the walk ${wanted}`);
}

test("property: a walk over every minute finds the same windows", (t) => {
  const walk = fc.constantFrom(...WALKS);
  const moment = fc.record({
    minute: fc.integer({ min: 10 * 1440, max: 18 * 1440 }),
    ms: fc.constantFrom(0, 0, 1, 59_999),
  });
  const list = fc.array(windowPattern, { minLength: 1, maxLength: 3 });
  const property = fc.property(walk, list, moment, ({ timezone, minutes }, list, { minute, ms }) => {
    const now = minutes[minute]!.utc + ms;
    const windows: UploadWindow[] = list.map((one) => ({
      from: cronOf(one.pattern),
      durationMs: one.minutes * MINUTE,
    }));
    const wanted = answersOf(list, minutes, now);

    const open = openWindow(windows, timezone, new Date(now));
    same("end of the open window", open?.end, wanted.open[0]?.end);
    if (open && !wanted.open.some(({ start, end }) => start === Number(open.start) && end === Number(open.end))) {
      throw new Error("the open window is none of the walk's");
    }

    const next = nextWindowStart(windows, timezone, new Date(now));
    const inSight = next && Number(next) <= minutes.at(-1)!.utc;
    same("next start", inSight ? next : undefined, wanted.next);

    // What began before the walk did is beyond its sight; windows are at most three days long.
    if (wanted.last && wanted.last.end > minutes[0]!.utc + 4 * 24 * HOUR) {
      const last = lastFinishedWindow(windows, timezone, new Date(now));
      same("start of the last finished", last?.start, wanted.last.start);
      same("end of the last finished", last?.end, wanted.last.end);
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 600 }));
});

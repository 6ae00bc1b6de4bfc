import { parseDuration, quoted, ValueError } from "@strongroom/protocol/sizes";
import { Cron } from "croner";

/** A time in which uploads may begin. */
export interface UploadWindow {
  /** Five-field cron expression of the start. */
  readonly from: string;
  /** Milliseconds. */
  readonly durationMs: number;
}

/** One occurrence of a window: uploads may begin at `start` and after it, before `end`. */
export interface WindowOccurrence {
  /** First instant, always on a full minute. */
  readonly start: Date;
  /** First instant after the window. */
  readonly end: Date;
}

/** Greatest value of minute, hour, day of month, month and weekday. */
const LAST_VALUES = [59, 23, 31, 12, 6] as const;

const CRON_EXPECTED =
  'expected a cron expression of five fields (minute, hour, day, month, weekday) such as "0 1 * * *"';

/**
 * From here the search for a first run starts; any fixed date will do, and a fixed one keeps {@link parseWindowStart}
 * pure.
 */
const EPOCH = new Date("2000-01-01T00:00:00Z");

/**
 * DST: a start that falls into the hour left out comes when the clock has jumped; one in the repeated hour comes once,
 * unless it is an interval.
 */
function schedule(from: string, timezone: string): Cron {
  return new Cron(from, { timezone, mode: "5-part", paused: true });
}

/**
 * Rewrites one field where the parser of existing installations (robfig/cron) and croner differ: `?` and a step of one
 * over everything mean `*` (which matters for the rule of day and weekday), and `5/15` means from 5 to the end in steps
 * of 15.
 */
function normalizeField(text: string, last: number): string {
  return text
    .split(",")
    .map((part) => {
      if (part === "?" || part === "*/1" || part === "?/1") return "*";
      return part.replace(/^\?\//, "*/").replace(/^(\d+)\/(\d+)$/, `$1-${last}/$2`);
    })
    .join(",");
}

const MONTH_NAMES = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const LONGEST_MONTHS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] as const;

/** The least and the greatest number of each part of a field; undefined where a part is written in another way. */
function rangesOf(field: string): (readonly [least: number, greatest: number])[] | undefined {
  const ranges = field.split(",").map((part) => {
    const found = /^(\d{1,2})W?(?:-(\d{1,2}))?(?:\/\d+)?$/.exec(part);
    return found === null ? undefined : ([Number(found[1]), Number(found[2] ?? found[1])] as const);
  });
  return ranges.every((range) => range !== undefined) ? ranges : undefined;
}

/**
 * Whether no month named has the day, as 31 February. croner finds that out by a search through all years, which takes
 * milliseconds; what is not judged here is left to it.
 */
function neverComes(day: string, month: string, weekday: string): boolean {
  if (weekday !== "*" && !weekday.startsWith("+")) return false;
  const numbers = month.replace(/[a-z]{3}/gi, (name) => String(MONTH_NAMES.indexOf(name.toLowerCase()) + 1));
  const [days, months] = [rangesOf(day), rangesOf(numbers)];
  if (days === undefined || months === undefined) return false;
  const first = Math.min(...days.map(([least]) => least));
  return months.every(([least, greatest]) => LONGEST_MONTHS.slice(least - 1, greatest).every((last) => last < first));
}

/**
 * Checks the start of a window and gives it in five fields. A missing weekday means any, as existing installations may
 * have it.
 * @throws {ValueError} when it is no cron expression, or names a day that never comes (30 February).
 */
export function parseWindowStart(from: string): string {
  const fields = from.trim().split(/\s+/);
  if (/^(CRON_)?TZ=/.test(fields[0] ?? "")) {
    throw new ValueError(`${CRON_EXPECTED}, got ${quoted(from)}; give the time zone of all windows in spec.timezone`);
  }
  if (from.length > 256 || fields.length < 4 || fields.length > 5) {
    throw new ValueError(`${CRON_EXPECTED}, got ${quoted(from)}`);
  }
  const normalized = LAST_VALUES.map((last, index) => normalizeField(fields[index] ?? "*", last)).join(" ");
  let first: Date | null;
  try {
    const cron = schedule(normalized, "UTC");
    const [, , day = "*", month = "*", weekday = "*"] = normalized.split(" ");
    first = neverComes(day, month, weekday) ? null : cron.nextRun(EPOCH);
  } catch (error) {
    const detail = error instanceof Error ? error.message.replace(/^CronPattern: /, "") : String(error);
    throw new ValueError(`${CRON_EXPECTED}, got ${quoted(from)}: ${detail}`, { cause: error });
  }
  if (!first) throw new ValueError(`expected a cron expression that fires some day, got ${quoted(from)}`);
  return normalized;
}

/**
 * Checks the length of a window.
 * @returns milliseconds, more than 0.
 * @throws {ValueError}
 */
export function parseWindowDuration(duration: string): number {
  const durationMs = parseDuration(duration);
  if (durationMs === 0) throw new ValueError(`expected a duration above zero, got ${quoted(duration)}`);
  return durationMs;
}

/**
 * Reads a window as it stands in a configuration.
 * @throws {ValueError} see {@link parseWindowStart} and {@link parseWindowDuration}.
 */
export function parseWindow(window: { readonly from: string; readonly duration: string }): UploadWindow {
  return { from: parseWindowStart(window.from), durationMs: parseWindowDuration(window.duration) };
}

/**
 * Whether this is the name of a time zone in the IANA database (`UTC`, `Europe/Warsaw`); plain offsets such as `+02:00`
 * are not.
 */
export function isTimezone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** The latest occurrence that started at `moment` or before. */
function latestOccurrence(window: UploadWindow, timezone: string, moment: Date): WindowOccurrence | undefined {
  // croner's previous runs lie strictly before the reference; starts are on full minutes, so a millisecond makes it
  // inclusive.
  const [start] = schedule(window.from, timezone).previousRuns(1, new Date(moment.getTime() + 1));
  return start && { start, end: new Date(start.getTime() + window.durationMs) };
}

/**
 * The occurrence that is open: `start <= now < end`. Of several (overlapping windows, or one longer than its interval)
 * the one that ends last.
 * @param timezone IANA name, in which the cron expressions are read.
 * @returns undefined when uploads may not begin now, also when there are no windows at all.
 */
export function openWindow(
  windows: readonly UploadWindow[],
  timezone: string,
  now: Date,
): WindowOccurrence | undefined {
  let found: WindowOccurrence | undefined;
  for (const window of windows) {
    // All occurrences of a window are equally long, so that the latest start also ends last.
    const occurrence = latestOccurrence(window, timezone, now);
    if (occurrence && now < occurrence.end && (!found || occurrence.end > found.end)) found = occurrence;
  }
  return found;
}

/** The earliest start after `now`, over all windows; undefined when there are none. */
export function nextWindowStart(windows: readonly UploadWindow[], timezone: string, now: Date): Date | undefined {
  let found: Date | undefined;
  for (const window of windows) {
    const start = schedule(window.from, timezone).nextRun(now);
    if (start && (!found || start < found)) found = start;
  }
  return found;
}

/** The earliest end of the windows that start after `after`; undefined when there are none. */
export function nextWindowEnd(windows: readonly UploadWindow[], timezone: string, after: Date): Date | undefined {
  const ends = windows.flatMap(({ from, durationMs }) => {
    const start = schedule(from, timezone).nextRun(after);
    return start === null ? [] : [start.getTime() + durationMs];
  });
  return ends.length === 0 ? undefined : new Date(Math.min(...ends));
}

/**
 * When windows start after `after` and not after `until`, in order; at most `most`.
 * @param starts as {@link parseWindowStart} gives them.
 */
export function startsBetween(
  starts: readonly string[],
  timezone: string,
  after: Date,
  until: Date,
  most: number,
): Date[] {
  const times = starts.flatMap((from) => {
    const cron = schedule(from, timezone);
    const found: Date[] = [];
    for (let at = cron.nextRun(after); at && at <= until && found.length < most; at = cron.nextRun(at)) found.push(at);
    return found;
  });
  return times.sort((a, b) => a.getTime() - b.getTime()).slice(0, most);
}

/**
 * The occurrence with the latest `end <= now`, over all windows. Of several that ended together the longest, since a
 * backup begun in any of them was in time.
 * @returns undefined when there are no windows or none has ever finished.
 */
export function lastFinishedWindow(
  windows: readonly UploadWindow[],
  timezone: string,
  now: Date,
): WindowOccurrence | undefined {
  let found: WindowOccurrence | undefined;
  for (const window of windows) {
    const occurrence = latestOccurrence(window, timezone, new Date(now.getTime() - window.durationMs));
    if (!occurrence) continue;
    const later = !found || occurrence.end > found.end;
    const longer = found && occurrence.end.getTime() === found.end.getTime() && occurrence.start < found.start;
    if (later || longer) found = occurrence;
  }
  return found;
}

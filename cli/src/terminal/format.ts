import { formatTimeIn } from "@strongroom/protocol/times";

/** A point in time as protobuf has it (`google.protobuf.Timestamp`). */
export interface Timestamp {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** Writes a duration for people: `0.4 s`, `21 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`. */
export function formatDuration(ms: number): string {
  if (ms < 9_950) return `${(Math.max(0, ms) / 1000).toFixed(1).replace(/\.0$/, "")} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return pair(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return pair(hours, "h", minutes % 60, "min");
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

/** Clocks of machines that are set differ by less than this, in seconds. */
const CLOCK_SLACK_S = 60;

/**
 * How long ago a time was, in one unit: `now`, `5 min`, `3 h`, `12 d`; `in the future` for one that a wrong clock gave,
 * here or there.
 */
export function formatAge(time: Timestamp | undefined, now: number): string {
  if (time === undefined) return "-";
  const seconds = Math.floor((now - toMs(time)) / 1000);
  if (seconds < -CLOCK_SLACK_S) return "in the future";
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** Milliseconds since 1970. */
export function toMs(time: Timestamp): number {
  return Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6);
}

/** RFC 3339 in UTC, for programs; undefined stays undefined. */
export function toIso(time: Timestamp | undefined): string | undefined {
  return time === undefined ? undefined : new Date(toMs(time)).toISOString();
}

/** For people: `2026-01-31 02:00 UTC`, or with the offset of a time zone. */
export function formatTime(time: Timestamp | Date | undefined, timezone = "UTC"): string {
  if (time === undefined) return "-";
  const date = time instanceof Date ? time : new Date(toMs(time));
  return Number.isNaN(date.getTime()) ? "-" : formatTimeIn(date, timezone || "UTC");
}

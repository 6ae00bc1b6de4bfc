import { quantity } from "@strongroom/protocol/quantity";
import { formatDuration, formatSize, formatSizePair } from "@strongroom/protocol/sizes";
import { formatTimeIn } from "@strongroom/protocol/times";
import { type ClockState, isBeyond } from "./clock.ts";
import type { CollectionSpec } from "./configuration.ts";
import type { PolicyChange } from "./policy-guard.ts";
import { newestFirst } from "./rotation.ts";
import { describeShrunk, isShrunk, type SizedVersion } from "./shrunk.ts";
import { lastFinishedWindow, nextWindowEnd, openWindow } from "./window.ts";

/** How a check ended; `warning` means that backups still work. */
export type HealthStatus = "ok" | "warning" | "failed";

/** One check with what was expected and found. */
export interface HealthCheck {
  readonly name:
    | "window"
    | "age"
    | "size"
    | "sum"
    | "integrity"
    | "shrunk"
    | "clock"
    | "frozen"
    | "store"
    | "policy"
    | "room";
  readonly status: HealthStatus;
  readonly message: string;
  /** Since when it is not ok; undefined for ok, and where nobody knows: a version never came, a clock is wrong. */
  readonly since: Date | undefined;
  /** What to do about it; empty for ok. */
  readonly advice: string;
}

/** A check that is ok. */
export function okCheck(name: HealthCheck["name"], message: string): HealthCheck {
  return { name, status: "ok", message, since: undefined, advice: "" };
}

/** The facts of a live version that health is computed from. */
export interface HealthVersion extends SizedVersion {
  readonly begunAt: Date;
  readonly committedAt: Date;
  /** When its damage was found; null for none, and where that is not known. */
  readonly damagedAt: Date | null;
  /** What its last verification found wrong; empty for nothing. */
  readonly damage: string;
}

/** The worst of several statuses; `ok` for none. */
export function worst(statuses: Iterable<HealthStatus>): HealthStatus {
  const all = new Set(statuses);
  return all.has("failed") ? "failed" : all.has("warning") ? "warning" : "ok";
}

/** The version with the highest number; undefined for none. No time decides, since a clock can have been wrong. */
export function newestOf<V extends HealthVersion>(versions: readonly V[]): V | undefined {
  return versions.reduce<V | undefined>((a, b) => (a !== undefined && a.number >= b.number ? a : b), undefined);
}

/** The earliest of some times; undefined for none. */
export function earliest(times: readonly (Date | null | undefined)[]): Date | undefined {
  const known = times.filter((time) => time != null).map((time) => time.getTime());
  return known.length === 0 ? undefined : new Date(Math.min(...known));
}

/** A message names at most so many versions. */
export const FEW = 5;

/** Versions of which something is wrong. */
export interface SomeVersions<V = HealthVersion> {
  readonly count: number;
  /** Those with the highest numbers, the highest first. */
  readonly few: readonly V[];
  /** Since when the first of them is so; undefined where nobody knows. */
  readonly since: Date | undefined;
}

/** What health is computed from, of the live versions of a collection. */
export interface HealthFacts {
  /** The one with the highest number. */
  readonly newest: HealthVersion | undefined;
  /** Their sizes together, in bytes. */
  readonly storedBytes: bigint;
  /** Those above maxOneVersionSize. */
  readonly above: SomeVersions;
  /** Those that failed their last verification. */
  readonly damaged: SomeVersions;
  /** Those that are dated beyond now. */
  readonly beyond: SomeVersions;
  /** When the one was published with which they came above maxCollectionSize; undefined while they are not. */
  readonly overfullSince: Date | undefined;
  /** When the first of the shrunk ones was published that came one after another up to the newest. */
  readonly shrunkSince: Date | undefined;
}

/** None. */
export const NO_VERSIONS: SomeVersions<never> = { count: 0, few: [], since: undefined };

/** The facts of a collection that was never uploaded to. */
export const NO_FACTS: HealthFacts = {
  newest: undefined,
  storedBytes: 0n,
  above: NO_VERSIONS,
  damaged: NO_VERSIONS,
  beyond: NO_VERSIONS,
  overfullSince: undefined,
  shrunkSince: undefined,
};

/** Some of the versions, with what they are some of. */
export function someOf<V extends { readonly number: bigint }>(
  versions: readonly V[],
  is: (version: V) => boolean,
  sinceOf: (version: V) => Date | null | undefined,
): SomeVersions<V> {
  const all = newestFirst(versions.filter(is));
  return { count: all.length, few: all.slice(0, FEW), since: earliest(all.map(sinceOf)) };
}

/** The facts of versions that were read; where there can be many, the database is asked for the same. */
export function healthFacts(
  spec: Pick<CollectionSpec, "maxOneVersionSize" | "maxCollectionSize" | "shrunkFactor">,
  versions: readonly HealthVersion[],
  now: Date,
): HealthFacts {
  let sum = 0n;
  let overfullSince: Date | undefined;
  for (const { size, committedAt } of newestFirst(versions).reverse()) {
    sum += size;
    if (sum > spec.maxCollectionSize) overfullSince ??= committedAt;
  }
  let shrunkSince: Date | undefined;
  for (const version of newestFirst(versions)) {
    if (!isShrunk(version, spec)) break;
    shrunkSince = version.committedAt;
  }
  return {
    newest: newestOf(versions),
    storedBytes: sum,
    above: someOf(
      versions,
      ({ size }) => size > spec.maxOneVersionSize,
      ({ committedAt }) => committedAt,
    ),
    damaged: someOf(
      versions,
      ({ damage }) => damage !== "",
      ({ damagedAt }) => damagedAt,
    ),
    beyond: someOf(
      versions,
      ({ begunAt }) => isBeyond(begunAt, now),
      () => undefined,
    ),
    overfullSince: sum > spec.maxCollectionSize ? overfullSince : undefined,
    shrunkSince,
  };
}

/** Runs every check that applies to the collection. */
export function checkHealth(spec: CollectionSpec, facts: HealthFacts, clock: ClockState, now: Date): HealthCheck[] {
  const { newest } = facts;
  const checks: HealthCheck[] = [];
  if (spec.windows.length > 0) checks.push(checkWindow(spec, newest, now));
  if (spec.maxAgeMs !== undefined) checks.push(checkAge({ ...spec, maxAgeMs: spec.maxAgeMs }, newest, now));
  checks.push(checkSize(spec, facts.above), checkSum(spec, facts), checkIntegrity(facts.damaged));
  checks.push(...checkShrunk(spec, facts));
  checks.push(checkClock(facts.beyond, clock, now, spec.timezone));
  return checks;
}

/** `a; b; and 3 more`: the few by their numbers, and how many there are beside them. */
export function listed<V>({ count, few }: SomeVersions<V>, separator: string, text: (version: V) => string): string {
  const more = count > few.length ? `${separator === "; " ? separator : " "}and ${count - few.length} more` : "";
  return [...few].reverse().map(text).join(separator) + more;
}

/**
 * The only check of a collection whose configuration object is gone: there is nothing left to compare with,
 * and no backup comes.
 * @param since when that was first seen, where it was.
 * @param isOutdated whether a newer configuration, which this server could not take up, may name it.
 */
export function frozenCheck(since: Date | null, isOutdated: boolean): HealthCheck {
  if (isOutdated) {
    const message = "this server does not know the collection, and could not take up the newest configuration";
    const advice =
      "Correct the configuration; `strongroom check-config` lists all problems. Another server may know it.";
    return { name: "frozen", status: "failed", message, since: undefined, advice };
  }
  const message =
    "expected the collection's configuration object; it is gone, so nothing is uploaded, rotated or deleted";
  const advice = "Put the configuration object back under the same name, or take the versions elsewhere.";
  return { name: "frozen", status: "failed", message, since: since ?? undefined, advice };
}

/** Changed rules that nobody has confirmed. */
export interface UnconfirmedRules extends PolicyChange {
  /** Whether rotation waits for that; else it is only the share of removals that was raised. */
  readonly waits: boolean;
  /** The share in force, 0 to 1. */
  readonly share: number;
}

/**
 * Whether rotation waits until somebody confirms changed rules.
 * @param next what would go by them; undefined where there is nothing to confirm.
 * @param since when it was first seen that it waits, where it was.
 */
export function policyCheck(collection: string, next: UnconfirmedRules | undefined, since: Date | null): HealthCheck {
  const name = "policy";
  const configured = "rotation goes by the rules that are configured";
  if (next === undefined) return okCheck(name, configured);
  const { removes, live, waits, share } = next;
  if (!waits)
    return okCheck(
      name,
      `${configured}; the raised confirmRemovalsAbove holds once a systemAdmin has confirmed it ` +
        `(\`strongroom confirm-policy ${collection} ${removes}\`), until then ${share * 100}%`,
    );
  const message =
    `the rules of rotation were changed so that ${removes} of ${quantity(live, "version")} would go, with the next backup or in ` +
    "time; until somebody confirms that, rotation removes nothing";
  const advice =
    `Look with \`strongroom simulate\` at what would go; if that is meant: \`strongroom confirm-policy ${collection} ` +
    `${removes}\` (systemAdmin), else undo the change.`;
  return { name, status: "warning", message, since: since ?? undefined, advice };
}

/** What to do where no backup came. */
const MAKE_BACKUP =
  "Make a backup now, and find out why none came: is its job running, what does it log, was an upload refused?";

function checkWindow(spec: CollectionSpec, newest: HealthVersion | undefined, now: Date): HealthCheck {
  const name = "window";
  const { windows, timezone } = spec;
  if (openWindow(windows, timezone, now) !== undefined) return okCheck(name, "an upload window is open now");
  const last = lastFinishedWindow(windows, timezone, now);
  if (last === undefined) return okCheck(name, "no upload window has ended yet");
  const at = (time: Date) => formatTimeIn(time, timezone);
  const expected = `the last upload window, ${at(last.start)} to ${at(last.end)}`;
  if (newest !== undefined && isBeyond(newest.begunAt, now)) return failedBeyond(name, expected, newest, timezone);
  // A version begun after the window (by a role that may) is fresher than one begun inside it.
  if (newest !== undefined && newest.begunAt >= last.start)
    return okCheck(name, `version ${newest.number} was begun in or after ${expected}`);
  const found = newest === undefined ? "there is no version" : `the newest version was begun ${at(newest.begunAt)}`;
  const message = `expected a version begun in ${expected}; ${found}`;
  const since = newest && nextWindowEnd(windows, timezone, newest.begunAt);
  const advice = `${MAKE_BACKUP} Until the next window that takes one of the roles uploadsAnytime, collectionManager and systemAdmin.`;
  return { name, status: "failed", message, since, advice };
}

function checkAge(
  { maxAgeMs, timezone }: { readonly maxAgeMs: number; readonly timezone: string },
  newest: HealthVersion | undefined,
  now: Date,
): HealthCheck {
  const name = "age";
  const expected = `a version not older than ${formatDuration(maxAgeMs)}`;
  const failed = (message: string, since: Date | undefined): HealthCheck => ({
    name,
    status: "failed",
    message,
    since,
    advice: MAKE_BACKUP,
  });
  if (newest === undefined) return failed(`expected ${expected}; there is no version`, undefined);
  if (isBeyond(newest.begunAt, now)) return failedBeyond(name, expected, newest, timezone);
  const ageMs = now.getTime() - newest.begunAt.getTime();
  const found = `version ${newest.number} was begun ${formatTimeIn(newest.begunAt, timezone)}`;
  if (ageMs <= maxAgeMs) return okCheck(name, found);
  return failed(`expected ${expected}; the newest, ${found}`, new Date(newest.begunAt.getTime() + maxAgeMs));
}

/** Nobody knows when it was really begun, so it proves nothing. */
function failedBeyond(
  name: "window" | "age",
  expected: string,
  { number, begunAt }: HealthVersion,
  timezone: string,
): HealthCheck {
  const found = `the newest, version ${number}, is dated ${formatTimeIn(begunAt, timezone)}, which is beyond now`;
  const message = `expected ${expected}; ${found}, so its age is not known`;
  return { name, status: "failed", message, since: undefined, advice: CORRECT_CLOCK };
}

const CORRECT_CLOCK =
  "The database's clock was ahead then, or is behind now: correct it. If it is right, make a new backup.";

function checkClock(beyond: SomeVersions, clock: ClockState, now: Date, timezone: string): HealthCheck {
  const name = "clock";
  const { status, since } = clock;
  const compare =
    "Compare the database's clock with the right time, and correct it; if it is right and nobody wants to wait: " +
    "`strongroom sweep --clock-is-right`.";
  if (beyond.count > 0) {
    const list = listed(beyond, ", ", (v) => `version ${v.number} (${formatTimeIn(v.begunAt, timezone)})`);
    const found = `expected no version to be dated beyond now, ${formatTimeIn(now, timezone)}; got ${list}`;
    const remove = "Remove these versions when you can do without them.";
    // What pauses meanwhile would be hidden behind the versions, which stay for long.
    return status === "right"
      ? { name, status: "failed", message: found, since: undefined, advice: `${CORRECT_CLOCK} ${remove}` }
      : { name, status: "failed", message: `${clock.message}; ${found}`, since, advice: `${compare} ${remove}` };
  }
  if (status === "right") return okCheck(name, clock.message);
  return {
    name,
    status: status === "behind" ? "failed" : "warning",
    message: clock.message,
    since,
    advice: compare,
  };
}

function checkSize(spec: CollectionSpec, above: SomeVersions): HealthCheck {
  const name = "size";
  if (above.count === 0) return okCheck(name, "no version is above the soft limit");
  const list = listed(above, ", ", (v) => `${v.number} (${formatSize(v.size)})`);
  return {
    name,
    status: "warning",
    message: `above maxOneVersionSize, ${formatSize(spec.maxOneVersionSize)}: version ${list}`,
    since: above.since,
    advice:
      "Raise maxOneVersionSize and maxCollectionSize before the extra space is used up, or make the dump smaller.",
  };
}

function checkSum(spec: CollectionSpec, { storedBytes: sum, overfullSince: since }: HealthFacts): HealthCheck {
  const name = "sum";
  const limit = spec.maxCollectionSize;
  if (sum <= limit) return okCheck(name, `${formatSize(sum)} of ${formatSize(limit)} used`);
  const [sumText, limitText] = formatSizePair(sum, limit);
  const message = `the versions have ${sumText} together, above maxCollectionSize, ${limitText}`;
  const advice = "Raise maxCollectionSize, or remove versions with `strongroom rm`: no backup has room meanwhile.";
  return { name, status: "failed", message, since, advice };
}

function checkIntegrity(damaged: SomeVersions): HealthCheck {
  const name = "integrity";
  if (damaged.count === 0) return okCheck(name, "no version failed its last verification");
  const list = listed(damaged, "; ", (v) => `version ${v.number}: ${v.damage}`);
  return {
    name,
    status: "failed",
    message: `${quantity(damaged.count, "version")} failed the last verification: ${list}`,
    since: damaged.since,
    advice:
      "Make a new backup, and look at the store. When that is mended: `strongroom verify`. " +
      "Versions that stay damaged: `strongroom rm`.",
  };
}

/** None where there is nothing to compare the newest version with. */
function checkShrunk(spec: CollectionSpec, { newest, shrunkSince: since }: HealthFacts): HealthCheck[] {
  const name = "shrunk";
  if (spec.shrunkFactor === undefined || newest === undefined || newest.usualSize === null) return [];
  if (!isShrunk(newest, spec)) {
    const found = `version ${newest.number} has ${formatSize(newest.size)}`;
    const than = newest.confirmedAt === null ? `, ${formatSize(newest.usualSize)} was usual before it` : ", confirmed";
    return [okCheck(name, `${found}${than}`)];
  }
  const guarded = spec.rotationGuard === "shrunk" ? " Until then rotation removes nothing." : "";
  const message = `version ${newest.number} has ${describeShrunk(newest)} (shrunkFactor ${spec.shrunkFactor})`;
  const advice = `Look at what made it; if it is right: \`strongroom confirm ${spec.name} ${newest.number}\`.${guarded}`;
  return [{ name, status: "warning", message, since, advice }];
}

import { formatDuration, formatSize } from "@strongroom/protocol/sizes";
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
  readonly name: "window" | "age" | "size" | "sum" | "integrity" | "shrunk" | "clock" | "frozen" | "store" | "policy";
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

/** Runs every check that applies to the collection over its live versions. */
export function checkHealth(
  spec: CollectionSpec,
  versions: readonly HealthVersion[],
  clock: ClockState,
  now: Date,
): HealthCheck[] {
  const newest = newestOf(versions);
  const checks: HealthCheck[] = [];
  if (spec.windows.length > 0) checks.push(checkWindow(spec, newest, now));
  if (spec.maxAgeMs !== undefined) checks.push(checkAge({ ...spec, maxAgeMs: spec.maxAgeMs }, newest, now));
  checks.push(checkSize(spec, versions), checkSum(spec, versions), checkIntegrity(versions));
  checks.push(...checkShrunk(spec, versions));
  checks.push(checkClock(versions, clock, now));
  return checks;
}

/** The live versions of a collection, summed up. */
export interface VersionSummary {
  readonly count: number;
  /** The highest number. */
  readonly newestNumber: bigint;
  /** When that one was begun. */
  readonly newestAt: Date;
  /** Its size, in bytes. */
  readonly newestSize: bigint;
  /** What its size is judged by, in bytes; null for nothing. */
  readonly newestUsualSize: bigint | null;
  /** When its size was confirmed; null for never. */
  readonly newestConfirmedAt: Date | null;
  /** The latest time that any was begun at. */
  readonly latestAt: Date;
  /** Bytes of the largest. */
  readonly largest: bigint;
  /** How many failed their last verification. */
  readonly damaged: number;
  /** How many have a manifest that is missing, or says something else. */
  readonly withoutManifest: number;
}

/** The status that {@link checkHealth} would give, from sums: for many collections at once. */
export function healthOfSummary(
  spec: CollectionSpec,
  summary: VersionSummary | undefined,
  storedBytes: bigint,
  clock: ClockState,
  now: Date,
): HealthStatus {
  const one = (size: bigint): HealthVersion[] =>
    summary === undefined
      ? []
      : [
          {
            number: summary.newestNumber,
            begunAt: summary.newestAt,
            size,
            usualSize: summary.newestUsualSize,
            confirmedAt: summary.newestConfirmedAt,
            damage: summary.damaged > 0 ? "damaged" : "",
            committedAt: summary.newestAt,
            damagedAt: null,
          },
        ];
  const [newest] = one(0n);
  const latest = newest === undefined || summary === undefined ? [] : [{ ...newest, begunAt: summary.latestAt }];
  const checks = [
    checkSize(spec, one(summary?.largest ?? 0n)),
    checkSum(spec, one(storedBytes)),
    checkIntegrity(one(0n)),
    checkClock(latest, clock, now),
  ];
  if (spec.windows.length > 0) checks.push(checkWindow(spec, newest, now));
  if (spec.maxAgeMs !== undefined) checks.push(checkAge({ ...spec, maxAgeMs: spec.maxAgeMs }, newest, now));
  checks.push(...checkShrunk(spec, one(summary?.newestSize ?? 0n)));
  return worst(checks.map((check) => check.status));
}

/**
 * The only check of a collection whose configuration object is gone: there is nothing left to compare with,
 * and no backup comes.
 * @param since when that was first seen, where it was.
 */
export function frozenCheck(since: Date | null): HealthCheck {
  const message =
    "expected the collection's configuration object; it is gone, so nothing is uploaded, rotated or deleted";
  const advice = "Put the configuration object back under the same name, or take the versions elsewhere.";
  return { name: "frozen", status: "failed", message, since: since ?? undefined, advice };
}

/**
 * Whether rotation waits until somebody confirms changed rules.
 * @param waits what the next backup would remove; undefined where it does not wait.
 * @param since when that was first seen, where it was.
 */
export function policyCheck(collection: string, waits: PolicyChange | undefined, since: Date | null): HealthCheck {
  const name = "policy";
  if (waits === undefined) return okCheck(name, "rotation goes by the rules that are configured");
  const { removes, live } = waits;
  const message =
    `the rules of rotation were changed so that the next backup would remove ${removes} of ${live} versions; ` +
    "until somebody confirms that, rotation removes nothing";
  const advice =
    `Look with \`strongroom simulate\` at what would go; if that is meant: \`strongroom confirm-policy ${collection} ` +
    `${removes}\` (systemAdmin), else undo the change.`;
  return { name, status: "warning", message, since: since ?? undefined, advice };
}

/** What to do where no backup came. */
const MAKE_BACKUP =
  "Make a backup now, and find out why none came: is its job running, what does it log, was an upload refused " +
  "(last_failed_upload)?";

function checkWindow(spec: CollectionSpec, newest: HealthVersion | undefined, now: Date): HealthCheck {
  const name = "window";
  const { windows, timezone } = spec;
  if (openWindow(windows, timezone, now) !== undefined) return okCheck(name, "an upload window is open now");
  const last = lastFinishedWindow(windows, timezone, now);
  if (last === undefined) return okCheck(name, "no upload window has ended yet");
  const at = (time: Date) => formatTimeIn(time, timezone);
  const expected = `the last upload window, ${at(last.start)} to ${at(last.end)}`;
  if (newest !== undefined && isBeyond(newest.begunAt, now)) return failedBeyond(name, expected, newest);
  // A version begun after the window (by a role that may) is fresher than one begun inside it.
  if (newest !== undefined && newest.begunAt >= last.start)
    return okCheck(name, `version ${newest.number} was begun in or after ${expected}`);
  const found = newest === undefined ? "there is no version" : `the newest version was begun ${at(newest.begunAt)}`;
  const message = `expected a version begun in ${expected}; ${found}`;
  const since = newest && nextWindowEnd(windows, timezone, newest.begunAt);
  const advice = `${MAKE_BACKUP} Until the next window only the role uploadsAnytime may.`;
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
  if (isBeyond(newest.begunAt, now)) return failedBeyond(name, expected, newest);
  const ageMs = now.getTime() - newest.begunAt.getTime();
  const found = `version ${newest.number} was begun ${formatTimeIn(newest.begunAt, timezone)}`;
  if (ageMs <= maxAgeMs) return okCheck(name, found);
  return failed(`expected ${expected}; the newest, ${found}`, new Date(newest.begunAt.getTime() + maxAgeMs));
}

/** Nobody knows when it was really begun, so it proves nothing. */
function failedBeyond(name: "window" | "age", expected: string, { number, begunAt }: HealthVersion): HealthCheck {
  const found = `the newest, version ${number}, is dated ${begunAt.toISOString()}, which is beyond now`;
  const message = `expected ${expected}; ${found}, so its age is not known`;
  return { name, status: "failed", message, since: undefined, advice: CORRECT_CLOCK };
}

const CORRECT_CLOCK =
  "The database's clock was ahead then, or is behind now: correct it. If it is right, make a new backup.";

function checkClock(versions: readonly HealthVersion[], clock: ClockState, now: Date): HealthCheck {
  const name = "clock";
  const beyond = versions.filter(({ begunAt }) => isBeyond(begunAt, now));
  if (beyond.length > 0) {
    const list = beyond.slice(0, 5).map((v) => `version ${v.number} (${v.begunAt.toISOString()})`);
    const more = beyond.length > list.length ? ` and ${beyond.length - list.length} more` : "";
    const message = `expected no version to be dated beyond now, ${now.toISOString()}; got ${list.join(", ")}${more}`;
    const advice = `${CORRECT_CLOCK} Remove these versions when you can do without them.`;
    return { name, status: "failed", message, since: undefined, advice };
  }
  const { status, message, since } = clock;
  if (status === "right") return okCheck(name, message);
  const advice =
    "Compare the database's clock with the right time, and correct it; if it is right and nobody wants to wait: " +
    "`strongroom sweep --clock-is-right`.";
  return { name, status: status === "behind" ? "failed" : "warning", message, since, advice };
}

function checkSize(spec: CollectionSpec, versions: readonly HealthVersion[]): HealthCheck {
  const name = "size";
  const above = versions.filter((v) => v.size > spec.maxOneVersionSize);
  if (above.length === 0) return okCheck(name, "no version is above the soft limit");
  const list = above.map((v) => `${v.number} (${formatSize(v.size)})`).join(", ");
  return {
    name,
    status: "warning",
    message: `above maxOneVersionSize, ${formatSize(spec.maxOneVersionSize)}: version ${list}`,
    since: earliest(above.map(({ committedAt }) => committedAt)),
    advice:
      "Raise maxOneVersionSize and maxCollectionSize before the extra space is used up, or make the dump smaller.",
  };
}

function checkSum(spec: CollectionSpec, versions: readonly HealthVersion[]): HealthCheck {
  const name = "sum";
  const limit = spec.maxCollectionSize;
  let sum = 0n;
  let since: Date | undefined;
  for (const { size, committedAt } of versions.toSorted((a, b) => (a.number < b.number ? -1 : 1))) {
    sum += size;
    if (sum > limit) since ??= committedAt;
  }
  if (sum <= limit) return okCheck(name, `${formatSize(sum)} of ${formatSize(limit)} used`);
  const message = `the versions have ${sum} bytes together, above maxCollectionSize, ${limit} bytes`;
  const advice = "Raise maxCollectionSize, or remove versions with `strongroom rm`: no backup has room meanwhile.";
  return { name, status: "failed", message, since, advice };
}

function checkIntegrity(versions: readonly HealthVersion[]): HealthCheck {
  const name = "integrity";
  const damaged = versions.filter((v) => v.damage !== "");
  if (damaged.length === 0) return okCheck(name, "no version failed its last verification");
  const list = damaged.slice(0, 5).map((v) => `version ${v.number}: ${v.damage}`);
  const more = damaged.length > list.length ? `; and ${damaged.length - list.length} more` : "";
  return {
    name,
    status: "failed",
    message: `${damaged.length} version(s) failed the last verification: ${list.join("; ")}${more}`,
    since: earliest(damaged.map(({ damagedAt }) => damagedAt)),
    advice:
      "Make a new backup, and look at the store. When that is mended: `strongroom verify`. " +
      "Versions that stay damaged: `strongroom rm`.",
  };
}

/** None where there is nothing to compare the newest version with. */
function checkShrunk(spec: CollectionSpec, versions: readonly HealthVersion[]): HealthCheck[] {
  const name = "shrunk";
  const newest = newestOf(versions);
  if (spec.shrunkFactor === undefined || newest === undefined || newest.usualSize === null) return [];
  if (!isShrunk(newest, spec)) {
    const found = `version ${newest.number} has ${formatSize(newest.size)}`;
    const than = newest.confirmedAt === null ? `, ${formatSize(newest.usualSize)} was usual before it` : ", confirmed";
    return [okCheck(name, `${found}${than}`)];
  }
  const guarded = spec.rotationGuard === "shrunk" ? " Until then rotation removes nothing." : "";
  const message = `version ${newest.number} has ${describeShrunk(newest)} (shrunkFactor ${spec.shrunkFactor})`;
  const advice =
    `Look at what made it; if it is right: \`strongroom confirm ${spec.name} ${newest.number}\`.` + guarded;
  let since = newest.committedAt;
  for (const version of newestFirst(versions)) {
    if (!isShrunk(version, spec)) break;
    since = version.committedAt;
  }
  return [{ name, status: "warning", message, since, advice }];
}

import { quantity } from "@strongroom/protocol/quantity";
import { formatDuration, formatSize } from "@strongroom/protocol/sizes";
import { formatTimeIn } from "@strongroom/protocol/times";
import { CLOCK_SLACK_MS, type ClockState, isBeyond } from "../../domain/clock.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import type { SomeVersions } from "../../domain/health.ts";
import type { Condition, NotificationEvent } from "../../domain/notifications.ts";
import { allowance, quotaLimits, type SizeSums } from "../../domain/quota.ts";
import { describeShrunk, isShrunk } from "../../domain/shrunk.ts";
import { isLost, LOST_AFTER_MS } from "../../domain/store-health.ts";
import { lastFinishedWindow, nextWindowStart, openWindow } from "../../domain/window.ts";
import type { CollectionRow, FailedUpload, UploadRow } from "../ports/database.ts";
import type { LiveVersion, NotableVersions } from "../ports/live-versions.ts";

/** What the conditions of a collection are found by. */
export interface CollectionFacts {
  readonly spec: CollectionSpec;
  /** Undefined while nothing was ever uploaded. */
  readonly row: CollectionRow | undefined;
  /** The newest live version, and those that stand out. */
  readonly live: NotableVersions;
  /** What the next backup leaves of the live versions, by `keptSums`. */
  readonly kept: SizeSums;
  /** Open and committing ones. */
  readonly uploads: readonly UploadRow[];
  readonly lastFailed: FailedUpload | undefined;
  readonly clock: ClockState;
  /** Since when the collection is known: none can be missing from before. */
  readonly firstSeenAt: Date;
  /** Whether somebody was told already that a backup is missing. */
  readonly isMissingTold: boolean;
  readonly now: Date;
}

/** What is found, and when to look again. */
export interface Findings {
  readonly conditions: readonly Condition[];
  /** Events of which nothing can be said now: neither that they begin nor that they end. */
  readonly undecided: readonly NotificationEvent[];
  /** Times at which something may begin or end without anybody doing anything. */
  readonly due: readonly Date[];
}

/** How long an upload that was begun in time keeps a backup from counting as missing, in milliseconds. */
const UNDER_WAY_MS = 24 * 3_600_000;

/** Everything that is not as it should be in a collection. */
export function collectionConditions(facts: CollectionFacts): Findings {
  const due: Date[] = [];
  const isClockRight = facts.clock.status === "right";
  // By a clock that leapt, every backup would be missing at once; what is told already stays.
  const missing = isClockRight ? missingCondition(facts, due) : undefined;
  if (!isClockRight) due.push(soonest(facts.clock.until ?? later(facts.now), later(facts.now)));
  const all = [
    missing,
    failedCondition(facts),
    shrunkCondition(facts),
    softLimitCondition(facts),
    quotaCondition(facts),
    damageCondition(facts, "damaged"),
    damageCondition(facts, "unreadable"),
    stuckCondition(facts, due),
    rollbackCondition(facts),
    clockCondition(facts, due),
  ];
  return { conditions: all.filter((each) => each !== undefined), undecided: isClockRight ? [] : ["missing"], due };
}

function missingCondition(facts: CollectionFacts, due: Date[]): Condition | undefined {
  const { spec, live, now, firstSeenAt, isMissingTold } = facts;
  const { newest } = live;
  const begunAt = newest?.begunAt ?? firstSeenAt;
  const isUnknown = isBeyond(begunAt, now);
  const at = (time: Date) => formatTimeIn(time, spec.timezone);
  const expected: { readonly text: string; readonly since: Date }[] = [];
  if (spec.maxAgeMs !== undefined) {
    const end = new Date(begunAt.getTime() + spec.maxAgeMs + 1);
    if (isUnknown || end <= now)
      expected.push({
        text: `a version not older than ${formatDuration(spec.maxAgeMs)}`,
        since: isUnknown ? now : end,
      });
    else due.push(end);
  }
  const last = lastFinishedWindow(spec.windows, spec.timezone, now);
  const open = openWindow(spec.windows, spec.timezone, now);
  const next = nextWindowStart(spec.windows, spec.timezone, now);
  if (open !== undefined) due.push(open.end);
  if (next !== undefined) due.push(next);
  // Of a collection without any version only windows count that began after it was there.
  const isMissed =
    last !== undefined && (newest === undefined ? last.start >= begunAt : begunAt < last.start || isUnknown);
  // A window that is open now may still bring one; who was told that one is missing is not told that all is well.
  if (isMissed && (open === undefined || isMissingTold)) {
    const window = `${at(last.start)} to ${at(last.end)}`;
    expected.push({ text: `a version begun in the last upload window, ${window}`, since: last.end });
  }
  if (expected.length === 0) return undefined;
  const underWay = facts.uploads.find(
    (upload) =>
      (upload.state === "committing" || (!upload.lapsed && upload.leaseExpiresAt > now)) &&
      (last === undefined || upload.begunAt >= last.start) &&
      now.getTime() - upload.begunAt.getTime() < UNDER_WAY_MS,
  );
  if (underWay !== undefined && !isMissingTold) {
    due.push(soonest(new Date(underWay.begunAt.getTime() + UNDER_WAY_MS), leaseEnd(underWay, now)));
    return undefined;
  }
  const found =
    newest === undefined
      ? "there is no version"
      : `the newest, version ${newest.number}, was begun ${at(newest.begunAt)}`;
  return {
    event: "missing",
    severity: "failed",
    since: expected.map(({ since }) => since).reduce(soonest),
    message: `expected ${expected.map(({ text }) => text).join(", and ")}; ${found}`,
    whatToDo: "look why the job that makes the backup did not run or failed, and make one now",
    facts: newest === undefined ? {} : { version: String(newest.number), begun_at: newest.begunAt.toISOString() },
  };
}

function leaseEnd(upload: UploadRow, now: Date): Date {
  // One that is being committed is looked at again when it has ended, and now and then.
  return upload.state === "committing" ? later(now) : upload.leaseExpiresAt;
}

const later = (now: Date) => new Date(now.getTime() + 15 * 60_000);

const soonest = (a: Date, b: Date) => (a < b ? a : b);

function failedCondition({ lastFailed }: CollectionFacts): Condition | undefined {
  if (lastFailed === undefined) return undefined;
  return failure(lastFailed.endedAt, lastFailed.reason, {
    upload_id: lastFailed.uploadId,
    begun_at: lastFailed.begunAt.toISOString(),
  });
}

/**
 * A backup that ended without a version.
 * @param facts which upload it was.
 */
export function failure(endedAt: Date, reason: string, facts: Readonly<Record<string, string>>): Condition {
  return {
    event: "failed",
    severity: "failed",
    since: endedAt,
    message: `the last backup ended without a version: ${reason}`,
    whatToDo: "look at what the job that makes the backup says, and make one again",
    facts: { ...facts, ended_at: endedAt.toISOString(), reason },
  };
}

/** The same, when several ended so since the last look: none of them is told by itself. */
export function severalFailures(last: Condition, count: number): Condition {
  if (count < 2) return last;
  const message = `${count} backups ended without a version since the last look; ${last.message}`;
  return { ...last, message, facts: { ...last.facts, uploads: String(count) } };
}

function shrunkCondition({ spec, live }: CollectionFacts): Condition | undefined {
  const { newest } = live;
  if (newest === undefined || !isShrunk(newest, spec)) return undefined;
  return {
    event: "shrunk",
    severity: "warning",
    since: newest.committedAt,
    message: `version ${newest.number} has ${describeShrunk(newest)}`,
    whatToDo: `look at what made it; if it is right: strongroom confirm ${spec.name} ${newest.number}`,
    facts: {
      version: String(newest.number),
      size_bytes: String(newest.size),
      usual_size_bytes: String(newest.usualSize),
    },
  };
}

function softLimitCondition({ spec, live }: CollectionFacts): Condition | undefined {
  const { above } = live;
  if (above.count === 0) return undefined;
  return {
    event: "over-soft-limit",
    severity: "warning",
    since: above.since,
    message:
      `above maxOneVersionSize, ${formatSize(spec.maxOneVersionSize)}: ` +
      firstOf(above, (version) => `version ${version.number} (${formatSize(version.size)})`),
    whatToDo: "raise maxOneVersionSize and maxCollectionSize before the extra space is used up",
    facts: {
      versions: numbers(above),
      soft_limit_bytes: String(spec.maxOneVersionSize),
      largest_bytes: String(live.largest),
    },
  };
}

/** A backup that is a tenth larger than the newest one would not fit. */
function quotaCondition({ spec, live, kept }: CollectionFacts): Condition | undefined {
  const { newest } = live;
  if (newest === undefined) return undefined;
  const left = allowance(quotaLimits(spec), { kept, reservedByOthers: [] });
  if (left >= newest.size + newest.size / 10n) return undefined;
  return {
    event: "quota-nearly-full",
    severity: "warning",
    since: undefined,
    message:
      `the next backup may have at most ${formatSize(left)}, and the newest one has ${formatSize(newest.size)}; ` +
      `maxCollectionSize is ${formatSize(spec.maxCollectionSize)}`,
    whatToDo: "raise maxCollectionSize, or keep fewer versions",
    facts: {
      left_bytes: String(left),
      newest_bytes: String(newest.size),
      limit_bytes: String(spec.maxCollectionSize),
    },
  };
}

function damageCondition({ live, now }: CollectionFacts, event: "damaged" | "unreadable"): Condition | undefined {
  const versions = live[event];
  if (versions.count === 0) return undefined;
  return {
    event,
    severity: "failed",
    since: versions.since ?? now,
    message:
      `${quantity(versions.count, "version")} failed the last verification: ` +
      firstOf(versions, (version) => `version ${version.number}: ${version.damage}`),
    whatToDo: "make a new backup, and look at the store",
    facts: { versions: numbers(versions) },
  };
}

function stuckCondition({ uploads, now }: CollectionFacts, due: Date[]): Condition | undefined {
  const committing = uploads.filter(({ state }) => state === "committing");
  // A commit takes minutes at most; the lease was renewed when it began, and whoever waits for the store says so.
  const isLate = (upload: UploadRow) =>
    upload.leaseExpiresAt <= now && (upload.completingUntil === null || upload.completingUntil <= now);
  const stuck = committing.filter((upload) => isLost(upload, now) || isLate(upload));
  for (const upload of committing) {
    if (upload.lostSince !== null) due.push(new Date(upload.lostSince.getTime() + LOST_AFTER_MS));
    due.push(upload.leaseExpiresAt);
    if (upload.completingUntil !== null) due.push(upload.completingUntil);
  }
  const [first] = stuck;
  if (first === undefined) return undefined;
  const isGone = isLost(first, now);
  return {
    event: "stuck-commit",
    severity: "failed",
    since: stuck.map((upload) => upload.lostSince ?? upload.leaseExpiresAt).reduce(soonest),
    message: isGone
      ? `the backup of upload ${first.id} cannot be completed: the store has neither its object nor its parts`
      : `the backup of upload ${first.id} is being committed for a long time: the store does not complete it`,
    whatToDo: isGone
      ? `make a new backup; free the space: strongroom sweep --give-up-commit ${first.id} --yes`
      : "look at the store and at the server's log; the sweeper tries again by itself",
    facts: { upload_id: first.id, version: String(first.versionNumber ?? ""), uploads: String(stuck.length) },
  };
}

function rollbackCondition({ row, spec }: CollectionFacts): Condition | undefined {
  if (row === undefined || row.rolledBackAt === null) return undefined;
  return {
    event: "rolled-back",
    severity: "failed",
    since: row.rolledBackAt,
    message:
      "the store shows that the database was rolled back to an older state; " +
      `${quantity(row.addedVersions, "version")} ${row.addedVersions === 1 ? "was" : "were"} added from the store, and nothing is deleted`,
    whatToDo: `look at the versions, then: strongroom sweep --confirm-rollback ${spec.name} --yes`,
    facts: { added_versions: String(row.addedVersions) },
  };
}

function clockCondition({ spec, live }: CollectionFacts, due: Date[]): Condition | undefined {
  const { beyond, beyondFrom } = live;
  if (beyondFrom === undefined) return undefined;
  due.push(new Date(beyondFrom.getTime() - CLOCK_SLACK_MS));
  return {
    event: "clock",
    severity: "failed",
    since: undefined,
    message: `expected no version to be dated beyond now: ${firstOf(beyond, (v) => `version ${v.number} (${formatTimeIn(v.begunAt, spec.timezone)})`)}`,
    whatToDo: "correct the database's clock; if it is right, make a new backup, and remove these when you can",
    facts: { versions: numbers(beyond) },
  };
}

const LISTED = 5;

function firstOf<V>({ few, count }: SomeVersions<V>, show: (version: V) => string): string {
  const more = count > LISTED ? `; and ${count - LISTED} more` : "";
  return `${few.slice(0, LISTED).map(show).join("; ")}${more}`;
}

function numbers({ few }: SomeVersions<LiveVersion>): string {
  return few.map(({ number }) => String(number)).join(",");
}

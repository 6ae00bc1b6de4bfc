import { formatDuration } from "@strongroom/protocol/sizes";

/**
 * Times of servers over one database may differ by this much, in milliseconds. A stored time that lies further beyond
 * now was written by a wrong clock.
 */
export const CLOCK_SLACK_MS = 5 * 60_000;

/** A difference of two clocks' progress that is a leap, in milliseconds. */
const LEAP_MS = 3_600_000;

/** A server that starts so long after the newest stored time may have met a leap as well, in milliseconds. */
const GAP_MS = 7 * 24 * 3_600_000;

/** How often servers look at the clock, in milliseconds. */
export const LOOK_MS = 60_000;

/** How long nothing is deleted after a leap, in milliseconds. */
const PAUSE_MS = 3_600_000;

/**
 * The same after a smaller leap forward, of more than {@link CLOCK_SLACK_MS}: it ends leases of living uploads, and
 * within a lease each of them gives a sign.
 */
const LEASE_PAUSE_MS = 15 * 60_000;

/** Whether a time that should be past lies beyond now, so that it says nothing. */
export function isBeyond(time: Date, now: Date): boolean {
  return time.getTime() > now.getTime() + CLOCK_SLACK_MS;
}

/** What an installation remembers of the database's clock. */
export interface ClockRecord {
  /** The newest time that was seen, as good as the newest that was stored; null before the first. */
  readonly newestAt: Date | null;
  /** Until when nothing is deleted because of its time; null while nothing speaks against the clock. */
  readonly pausedUntil: Date | null;
  /** What spoke against it. */
  readonly pauseReason: string;
}

/** The database's time and that of the process's monotonic clock, at one moment, in milliseconds. */
export interface ClockReading {
  readonly database: number;
  readonly process: number;
}

/**
 * Compares the database's clock with what is remembered of it, and with the process's own clock.
 * @param before the last reading of this process; undefined at its first.
 * @returns what is to be remembered from now on.
 */
export function watchClock(record: ClockRecord, now: ClockReading, before: ClockReading | undefined): ClockRecord {
  const { newestAt } = record;
  const next = {
    ...record,
    newestAt: newestAt !== null && newestAt.getTime() > now.database ? newestAt : new Date(now.database),
  };
  const pause = (pauseReason: string, ms = PAUSE_MS): ClockRecord => ({
    ...next,
    pausedUntil: new Date(now.database + ms),
    pauseReason,
  });
  const leap = before === undefined ? 0 : now.database - before.database - (now.process - before.process);
  if (Math.abs(leap) > LEAP_MS)
    return pause(`the database's clock leapt ${leap > 0 ? "forward" : "back"} by ${rounded(leap)}`);
  const gap = before === undefined && newestAt !== null ? now.database - newestAt.getTime() : 0;
  if (gap > GAP_MS)
    return pause(
      `nothing was stored for ${rounded(gap)} before a server started; if it was running in that time, the ` +
        "database's clock leapt forward",
    );
  const { pausedUntil, pauseReason } = record;
  const isPausedLonger = pausedUntil !== null && pausedUntil.getTime() > now.database + LEASE_PAUSE_MS;
  if (leap > CLOCK_SLACK_MS && !isPausedLonger)
    return pause(`the database's clock leapt forward by ${rounded(leap)}`, LEASE_PAUSE_MS);
  // An end further ahead than the pause is long was written by a wrong clock.
  if (pausedUntil !== null && pausedUntil.getTime() > now.database + PAUSE_MS + CLOCK_SLACK_MS)
    return pause(pauseReason);
  if (pausedUntil !== null && pausedUntil.getTime() <= now.database)
    return { ...next, pausedUntil: null, pauseReason: "" };
  return next;
}

/** What a clock's record means at this moment. */
export interface ClockState {
  /**
   * `behind`: before what was stored already, so that it is wrong or was; `paused`: it leapt a short time ago. Nothing
   * is purged, expires or is rotated out by its time meanwhile. Sessions, budgets and leases end in any case.
   */
  readonly status: "right" | "behind" | "paused";
  /** For people. */
  readonly message: string;
  /** When the doubt ends by itself, as far as that is known; undefined while there is none. */
  readonly until?: Date;
  /** Since when there is a doubt, as far as that is known. */
  readonly since?: Date;
}

/** Judges the database's clock. */
export function clockState({ newestAt, pausedUntil, pauseReason }: ClockRecord, now: Date): ClockState {
  const until = "nothing is purged, expires, or is rotated out by its time";
  const confirm = "if the clock is right now: `strongroom sweep --clock-is-right`";
  if (newestAt !== null && isBeyond(newestAt, now)) {
    const by = rounded(newestAt.getTime() - now.getTime());
    return {
      status: "behind",
      message:
        `expected the database's clock not to be before what was stored, ${newestAt.toISOString()}; it is ` +
        `${by} behind, so it is wrong, or was. Until it gets there ${until}; ${confirm}`,
      until: newestAt,
    };
  }
  if (pausedUntil !== null && pausedUntil > now) {
    const message = `${pauseReason}. Until ${pausedUntil.toISOString()} ${until}; ${confirm}`;
    return { status: "paused", message, until: pausedUntil };
  }
  // Servers look every minute: one of them is about to see a leap.
  if (newestAt !== null && isBeyond(now, newestAt)) {
    const message =
      `the database's clock is ${rounded(now.getTime() - newestAt.getTime())} after the newest time that was ` +
      "seen, and " +
      `no server has looked at it since. Until one has, which takes about a minute, ${until}; ${confirm}`;
    return { status: "paused", message, until: new Date(now.getTime() + LOOK_MS), since: newestAt };
  }
  return { status: "right", message: "the database's clock goes on as it should" };
}

function rounded(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1000);
  // Of a leap of days nobody wants to know the seconds.
  const unit = seconds >= 86_400 ? 3600 : seconds >= 3600 ? 60 : 1;
  return formatDuration(Math.round(seconds / unit) * unit * 1000);
}

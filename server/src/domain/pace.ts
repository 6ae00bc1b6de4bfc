/*
 * How often versions may come. Windows say when uploads may begin, not how many of them become versions: uploads that
 * were begun together, renewed and committed later could otherwise push everything out in a moment.
 */

import { quantity } from "@strongroom/protocol/quantity";
import { formatDuration } from "@strongroom/protocol/sizes";
import { formatTimeIn } from "@strongroom/protocol/times";
import type { CollectionSpec } from "./configuration.ts";
import { DomainError } from "./errors.ts";
import { nextWindowStart, openWindow, type WindowOccurrence } from "./window.ts";

/** The fields of a collection that bound its pace. */
export type PaceLimits = Pick<
  CollectionSpec,
  "name" | "minIntervalMs" | "maxVersionsPerWindow" | "windows" | "timezone"
>;

/**
 * Refuses a version that comes sooner than `minInterval` after the one before.
 * @param latest when versions were published, or are just being published. A time beyond now was read from a wrong
 *   clock and is unknown: it holds nothing up.
 * @throws DomainError VERSION_TOO_SOON with `next_version_at`.
 */
export function requireInterval(limits: PaceLimits, latest: readonly Date[], now: Date): void {
  const { name, minIntervalMs } = limits;
  if (minIntervalMs === undefined) return;
  const known = latest.filter((time) => time <= now);
  if (known.length === 0) return;
  const last = Math.max(...known.map((time) => time.getTime()));
  const next = new Date(last + minIntervalMs);
  if (next <= now) return;
  throw new DomainError(
    "VERSION_TOO_SOON",
    `collection "${name}" takes a version every ${formatDuration(minIntervalMs)} (minInterval), and the last is of ` +
      `${formatTimeIn(new Date(last), limits.timezone)}; try again at ${formatTimeIn(next, limits.timezone)}`,
    {
      metadata: { next_version_at: next.toISOString(), timezone: limits.timezone },
      retryAfterMs: next.getTime() - now.getTime(),
    },
  );
}

/**
 * The window whose versions are counted for an upload begun then; undefined where their number is not limited, as for
 * one that was begun outside windows.
 */
export function countedWindow(limits: PaceLimits, begunAt: Date): WindowOccurrence | undefined {
  if (limits.maxVersionsPerWindow === undefined) return undefined;
  return openWindow(limits.windows, limits.timezone, begunAt);
}

/**
 * Refuses one version more of a window that has `maxVersionsPerWindow`.
 * @param count versions of the window that are published, or are just being published.
 * @throws DomainError WINDOW_FULL with `next_window_at`: it is final for an upload that was begun in this window.
 */
export function requirePlaceInWindow(limits: PaceLimits, window: WindowOccurrence, count: number, now: Date): void {
  const most = limits.maxVersionsPerWindow;
  if (most === undefined || count < most) return;
  const next = nextWindowStart(limits.windows, limits.timezone, now);
  const when = next === undefined ? "and none is to come" : `the next one opens ${formatTimeIn(next, limits.timezone)}`;
  throw new DomainError(
    "WINDOW_FULL",
    `the window of "${limits.name}" from ${formatTimeIn(window.start, limits.timezone)} has ${quantity(count, "version")}, and ` +
      `maxVersionsPerWindow is ${most}; ${when}`,
    {
      metadata: {
        max_versions_per_window: String(most),
        ...(next === undefined ? {} : { next_window_at: next.toISOString(), timezone: limits.timezone }),
      },
    },
  );
}

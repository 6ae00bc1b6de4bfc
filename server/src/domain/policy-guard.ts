import type { CollectionSpec } from "./configuration.ts";
import { GFS_RULES } from "./gfs.ts";

/** The share of the live versions above which a change of rules waits, where the configuration names none. */
export const DEFAULT_REMOVAL_SHARE = 0.5;

/** So few removals, all that count together, never wait: a collection of two or three versions would ask at every change. */
export const LEAST_REMOVALS = 3;

/** What the next backup would remove under rules that are not those that were in force before. */
export interface PolicyChange {
  /** Versions. */
  readonly removes: number;
  /** Live versions, the next one not counted. */
  readonly live: number;
  /** Versions that went together with others for one within {@link CHANGES_TOGETHER_MS}; none when left out. */
  readonly earlier?: number;
}

/** Changes of rules within this time count as one, so that many small ones do not do what a large one may not. */
export const CHANGES_TOGETHER_MS = 7 * 24 * 3_600_000;

/** The fields of a collection that decide what rotation removes. */
export type RemovalRules = Pick<
  CollectionSpec,
  | "rotation"
  | "maxBackupsCount"
  | "timezone"
  | "maxCollectionSize"
  | "maxOneVersionSize"
  | "rotationGuard"
  | "shrunkFactor"
  | "minRetentionMs"
  | "removalShare"
>;

/** The rules of removal in one text, equal for equal rules: what the database keeps of those that were confirmed. */
export function removalRules(spec: RemovalRules): string {
  const { rotation } = spec;
  const keeps = {
    fifo: () => [spec.maxBackupsCount],
    "fifo-plus-older": () => {
      const older = rotation.strategy === "fifo-plus-older" ? rotation.older : undefined;
      // Older copies give way to the hard limit.
      const sizes = [spec.maxCollectionSize, spec.maxOneVersionSize].map(String);
      return [spec.maxBackupsCount, older?.maxOlderCopies, older?.maxAgeMs, ...sizes];
    },
    gfs: () => [...GFS_RULES.map((rule) => (rotation.strategy === "gfs" ? rotation.counts[rule] : 0)), spec.timezone],
  }[rotation.strategy]();
  return JSON.stringify({
    strategy: rotation.strategy,
    keeps,
    guard: spec.rotationGuard === undefined ? null : (spec.shrunkFactor ?? null),
    minRetentionMs: spec.minRetentionMs ?? 0,
    share: spec.removalShare,
  });
}

/**
 * Whether rotation waits until somebody confirms a change of rules: the next backup would remove more than a share of
 * the live versions, and no fewer than three; what changes before it removed counts with it. Of the shares before and
 * after the change the stricter counts, so that a change cannot let itself through.
 * @param confirmed the rules that were last in force or confirmed; null for none.
 */
export function mustWait(
  { removes, live, earlier = 0 }: PolicyChange,
  spec: RemovalRules,
  confirmed: string | null,
): boolean {
  const together = removes + earlier;
  if (removes === 0 || together < LEAST_REMOVALS || removalRules(spec) === confirmed) return false;
  return together > (live + earlier) * Math.min(spec.removalShare, shareOf(confirmed));
}

function shareOf(confirmed: string | null): number {
  const share = confirmed === null ? undefined : (JSON.parse(confirmed) as { readonly share?: unknown }).share;
  return typeof share === "number" ? share : 1;
}

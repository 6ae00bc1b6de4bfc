import type { CollectionSpec } from "./configuration.ts";
import { GFS_RULES, type GfsCounts } from "./gfs.ts";
import type { RotationPolicy } from "./rotation.ts";

/** The share of the live versions above which a change of rules waits, where the configuration names none. */
export const DEFAULT_REMOVAL_SHARE = 0.5;

/** So few removals, all that count together, never wait: a collection of two or three versions would ask at every change. */
export const LEAST_REMOVALS = 3;

/** What goes under rules that are not those that were in force before. See `policy-change.ts`. */
export interface PolicyChange {
  /** Versions that go with the next backup, or once they are not held, protected or young enough any more. */
  readonly removes: number;
  /** Live versions, the next one not counted. */
  readonly live: number;
  /** Versions that went together with others for one within {@link CHANGES_TOGETHER_MS}; none when left out. */
  readonly earlier?: number;
  /** Other live versions that go soon by the rules in force before: changes that came in steps. None when left out. */
  readonly pending?: number;
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
 * Whether rotation waits until somebody confirms a change of rules: more than a share of the live versions would go by
 * it, and no fewer than three; what goes by changes before it counts with it. Of the shares before and after the change
 * the stricter counts, so that a change cannot let itself through.
 * @param confirmed the rules that were last in force or confirmed; null for none.
 */
export function mustWait(
  { removes, live, earlier = 0, pending = 0 }: PolicyChange,
  spec: RemovalRules,
  confirmed: string | null,
): boolean {
  const together = removes + earlier + pending;
  if (removes === 0 || together < LEAST_REMOVALS || isConfirmed(spec, confirmed)) return false;
  return together > (live + earlier) * Math.min(spec.removalShare, shareOf(confirmed));
}

/** Whether these are the rules that were last in force or confirmed, whatever share of removals needs a confirmation. */
export function isConfirmed(spec: RemovalRules, confirmed: string | null): boolean {
  return removalRules({ ...spec, removalShare: shareOf(confirmed) }) === confirmed;
}

/**
 * What the database keeps when rules get in force without a confirmation. A larger share is not in force by that: two
 * changes, the share first, would do what one may not.
 */
export function rulesInForce(spec: RemovalRules, confirmed: string | null): string {
  return removalRules({ ...spec, removalShare: Math.min(spec.removalShare, shareOf(confirmed)) });
}

/** The share of the rules that were last in force or confirmed; 1 where there are none. */
export function shareOf(confirmed: string | null): number {
  const share = confirmed === null ? undefined : (JSON.parse(confirmed) as { readonly share?: unknown }).share;
  return typeof share === "number" ? share : 1;
}

/** The rules that a text of {@link removalRules} says; what it does not say is as in `spec`. Undefined for none. */
export function confirmedRules<R extends RemovalRules>(spec: R, confirmed: string | null): R | undefined {
  if (confirmed === null) return undefined;
  const { strategy, keeps, guard, minRetentionMs } = JSON.parse(confirmed) as {
    readonly strategy: RotationPolicy["strategy"];
    readonly keeps: readonly (number | string)[];
    readonly guard: number | null;
    readonly minRetentionMs: number;
  };
  const common = {
    ...spec,
    minRetentionMs,
    rotationGuard: guard === null ? undefined : ("shrunk" as const),
    shrunkFactor: guard ?? undefined,
  };
  if (strategy === "fifo") return { ...common, rotation: { strategy }, maxBackupsCount: Number(keeps[0]) };
  if (strategy === "gfs") {
    const counts = Object.fromEntries(GFS_RULES.map((rule, i) => [rule, Number(keeps[i])])) as unknown as GfsCounts;
    return { ...common, rotation: { strategy, counts }, timezone: String(keeps.at(-1)) };
  }
  const [maxBackupsCount, maxOlderCopies, maxAgeMs] = keeps.map(Number) as [number, number, number];
  const [maxCollectionSize, maxOneVersionSize] = keeps.slice(3).map(BigInt) as [bigint, bigint];
  const rotation = { strategy, older: { maxOlderCopies, maxAgeMs } };
  return { ...common, rotation, maxBackupsCount, maxCollectionSize, maxOneVersionSize };
}

import { type DatedVersion, type GfsCounts, type GfsReason, gfsCopies, keptByGfs } from "./gfs.ts";
import { keptOlderCopies, type OlderCopiesPolicy } from "./older-copies.ts";

/** The facts of a live version that rotation is computed from. */
export interface RotatableVersion {
  readonly number: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** The server's time of CreateUpload, as it was read; never what orders versions. */
  readonly begunAt: Date;
  readonly held: boolean;
  readonly protectedUntil: Date | null;
}

/** What stays and what goes when one more version is published. */
export interface RotationPlan<V extends RotatableVersion> {
  readonly keep: V[];
  /** Older copies of `fifo-plus-older`: they stay where there is room, the newest first. */
  readonly older: V[];
  readonly remove: V[];
}

/** Whether neither rotation nor a person may remove the version at this time. */
export function isRemovalBlocked(version: RotatableVersion, now: Date): boolean {
  return version.held || (version.protectedUntil !== null && version.protectedUntil > now);
}

/** The versions by their numbers, highest first. A clock can be wrong for a while, so no time orders versions. */
export function newestFirst<V extends { readonly number: bigint }>(versions: readonly V[]): V[] {
  return [...versions].sort((a, b) => (a.number < b.number ? 1 : a.number > b.number ? -1 : 0));
}

/** What a collection does with older versions when a new one is published. */
export type RotationPolicy =
  | { readonly strategy: "fifo" }
  | { readonly strategy: "fifo-plus-older"; readonly older: OlderCopiesPolicy }
  | { readonly strategy: "gfs"; readonly counts: GfsCounts };

/** Whether what a policy removes depends on times, and so on a clock; `fifo` goes by number. */
export function goesByTime({ strategy }: RotationPolicy): boolean {
  return strategy !== "fifo";
}

/** What rotation needs of a collection's configuration. */
export interface RotationRules {
  readonly rotation: RotationPolicy;
  /**
   * How many versions `fifo` and `fifo-plus-older` keep in any case, the new one included; `gfs` does not look at it.
   */
  readonly maxBackupsCount: number;
  /** IANA name of the zone whose hours, days, weeks, months and years `gfs` counts. */
  readonly timezone: string;
}

/** The version that is to be published, as far as rotation looks at it. */
export interface NextVersion {
  /** When its upload was created. */
  readonly begunAt: Date;
}

/** How many versions the policy keeps at most, held and protected ones aside. */
export function copiesOf({ rotation, maxBackupsCount }: Pick<RotationRules, "rotation" | "maxBackupsCount">): number {
  if (rotation.strategy === "gfs") return gfsCopies(rotation.counts);
  return maxBackupsCount + (rotation.strategy === "fifo-plus-older" ? rotation.older.maxOlderCopies : 0);
}

/**
 * The times that rotation by time goes by: when each version was begun. A time beyond now is unknown, since a clock was
 * wrong when it was read; such a version takes that of the next higher number with a known one, else now.
 * @param versions by number, highest first.
 */
export function knownTimes(
  versions: readonly { readonly number: bigint; readonly begunAt: Date }[],
  now: Date,
): DatedVersion[] {
  let known = now;
  return versions.map(({ number, begunAt }) => {
    if (begunAt <= now) known = begunAt;
    return { number, at: known };
  });
}

/** Why the policy keeps a version, and the how many-th it is of those kept for this reason, from 1. */
export interface KeepReason {
  /** `newest`: among the newest `maxBackupsCount`; `older`: an older copy; else the rule of `gfs`. */
  readonly rule: "newest" | "older" | GfsReason["rule"];
  readonly place: number;
}

/**
 * Plans rotation for one more version. Held and protected versions stay whatever the policy says, and take the places
 * they would have without, so that holding one never pushes out another. The new version itself always stays, also when
 * a version with a higher number was published before it.
 */
export function planRotation<V extends RotatableVersion>(
  live: readonly V[],
  rules: RotationRules,
  next: NextVersion,
  now: Date,
): RotationPlan<V> {
  const versions = newestFirst(live);
  const number = (versions[0]?.number ?? 0n) + 1n;
  const reasons = keepReasons([{ number, begunAt: next.begunAt }, ...versions], rules, now);
  const plan = { keep: [] as V[], older: [] as V[], remove: [] as V[] };
  for (const version of versions) {
    const rule = reasons.get(version.number)?.rule;
    const stays = (rule !== undefined && rule !== "older") || isRemovalBlocked(version, now);
    (stays ? plan.keep : rule === "older" ? plan.older : plan.remove).push(version);
  }
  return plan;
}

/**
 * What the policy keeps of some versions, by number, and why; holds and protection aside.
 * @param versions by number, highest first.
 */
export function keepReasons(
  versions: readonly Pick<RotatableVersion, "number" | "begunAt">[],
  { rotation, maxBackupsCount, timezone }: RotationRules,
  now: Date,
): ReadonlyMap<bigint, KeepReason> {
  if (rotation.strategy === "gfs") return keptByGfs(knownTimes(versions, now), rotation.counts, timezone);
  const reasons = new Map<bigint, KeepReason>();
  const keep = (rule: KeepReason["rule"], numbers: Iterable<{ readonly number: bigint }>) => {
    let place = 0;
    for (const { number } of numbers) reasons.set(number, { rule, place: ++place });
  };
  keep("newest", versions.slice(0, maxBackupsCount));
  if (rotation.strategy === "fifo") return reasons;
  const dated = knownTimes(versions, now);
  const rest = dated.slice(maxBackupsCount);
  const older = keptOlderCopies(rest, dated[maxBackupsCount - 1], rotation.older, now);
  keep(
    "older",
    rest.filter(({ number }) => older.has(number)),
  );
  return reasons;
}

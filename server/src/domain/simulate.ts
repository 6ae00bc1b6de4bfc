import {
  isRemovalBlocked,
  type KeepReason,
  keepReasons,
  newestFirst,
  planRotation,
  type RotatableVersion,
  type RotationRules,
} from "./rotation.ts";

/** A version of a simulation, and what becomes of it. */
export interface SimulatedVersion {
  readonly number: bigint;
  readonly begunAt: Date;
  /** Why it stays; `held` or `protected` for one that stays for that alone; undefined: it is removed. */
  readonly reason: KeepReason | "held" | "protected" | undefined;
}

/** What a policy does to versions that are there, when the next one is published now. */
export function simulateNext(live: readonly RotatableVersion[], rules: RotationRules, now: Date): SimulatedVersion[] {
  const versions = newestFirst(live);
  const number = (versions[0]?.number ?? 0n) + 1n;
  const reasons = keepReasons([{ number, begunAt: now }, ...versions], rules, now);
  return [
    { number, begunAt: now, reason: reasons.get(number) },
    ...versions.map((version) => ({
      number: version.number,
      begunAt: version.begunAt,
      reason: reasons.get(version.number) ?? blockOf(version, now),
    })),
  ];
}

function blockOf(version: RotatableVersion, now: Date): "held" | "protected" | undefined {
  if (!isRemovalBlocked(version, now)) return undefined;
  return version.held ? "held" : "protected";
}

/** How a series of backups ended up. */
export interface SimulatedSeries {
  /** What is left after the last backup, highest number first. */
  readonly left: readonly SimulatedVersion[];
  /** The most versions that were there at once. */
  readonly most: number;
}

/**
 * Publishes a version at each of some times, and rotates after each as the server does; there is always room.
 * @param times in order.
 * @param minRetentionMs as the collection's; 0 for none.
 */
export function simulateSeries(times: readonly Date[], rules: RotationRules, minRetentionMs: number): SimulatedSeries {
  let live: RotatableVersion[] = [];
  let most = 0;
  for (const [index, begunAt] of times.entries()) {
    const plan = planRotation(live, rules, { begunAt }, begunAt);
    const protectedUntil = minRetentionMs === 0 ? null : new Date(begunAt.getTime() + minRetentionMs);
    const version = { number: BigInt(index + 1), size: 0n, begunAt, held: false, protectedUntil };
    live = [version, ...newestFirst([...plan.keep, ...plan.older])];
    most = Math.max(most, live.length);
  }
  const end = times.at(-1) ?? new Date(0);
  const reasons = keepReasons(live, rules, end);
  const left = live.map(({ number, begunAt }) => ({
    number,
    begunAt,
    reason: reasons.get(number) ?? ("protected" as const),
  }));
  return { left, most };
}

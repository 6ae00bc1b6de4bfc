import { asideBecause, type GuardedRules, type GuardedVersion, unguardedRotation } from "./guarded-rotation.ts";
import { isRemovalBlocked, type KeepReason, keepReasons, newestFirst } from "./rotation.ts";
import { withProtection } from "./version.ts";

/** A version of a simulation, and what becomes of it. */
export interface SimulatedVersion {
  readonly number: bigint;
  readonly begunAt: Date;
  /**
   * Why it stays; `held` or `protected` for one that stays for that alone, `guard` while a shrunk version keeps rotation
   * from removing; undefined: it is removed.
   */
  readonly reason: KeepReason | "held" | "protected" | "guard" | undefined;
  /** Why it takes no place beside the others; undefined where it does. */
  readonly aside?: "damaged" | "shrunk" | undefined;
}

/** What a policy does to versions that are there. */
export interface SimulatedNext {
  /** With the next one, highest number first. */
  readonly versions: readonly SimulatedVersion[];
  /** The shrunk version that keeps rotation from removing; undefined for none. */
  readonly guard: bigint | undefined;
}

/** What a policy does to versions that are there, when the next one is published now: what the commit would do. */
export function simulateNext(live: readonly GuardedVersion[], rules: GuardedRules, now: Date): SimulatedNext {
  const versions = newestFirst(live.map((version) => withProtection(version, rules)));
  const next = { number: (versions[0]?.number ?? 0n) + 1n, begunAt: now };
  const { keep, older, guard } = unguardedRotation(live, rules, now, now, []);
  const stays = new Set([...keep, ...older].map(({ number }) => number));
  const aside = new Map(versions.map((version) => [version.number, asideBecause(version, rules, now)]));
  const others = versions.filter(({ number }) => aside.get(number) === undefined);
  const reasons = keepReasons([next, ...others], rules, now);
  const reasonOf = (version: GuardedVersion): SimulatedVersion["reason"] => {
    if (!stays.has(version.number)) return undefined;
    const beside = () => keepReasons(newestFirst([next, ...others, version]), rules, now).get(version.number);
    const reason = aside.get(version.number) === undefined ? reasons.get(version.number) : beside();
    if (reason !== undefined) return reason;
    if (!isRemovalBlocked(version, now)) return "guard";
    return version.held ? "held" : "protected";
  };
  return {
    versions: [
      { ...next, reason: reasons.get(next.number) },
      ...versions.map((version) => ({
        number: version.number,
        begunAt: version.begunAt,
        reason: reasonOf(version),
        aside: aside.get(version.number),
      })),
    ],
    guard: guard?.number,
  };
}

/** How a series of backups ended up. */
export interface SimulatedSeries {
  /** What is left after the last backup, highest number first. */
  readonly left: readonly SimulatedVersion[];
  /** The most versions that were there at once. */
  readonly most: number;
}

/**
 * Publishes a version at each of some times, and rotates after each as the server does; there is always room, and each
 * is of the usual size.
 * @param times in order.
 */
export function simulateSeries(times: readonly Date[], rules: GuardedRules): SimulatedSeries {
  let live: GuardedVersion[] = [];
  let most = 0;
  const protectedForMs = rules.minRetentionMs ?? null;
  for (const [index, begunAt] of times.entries()) {
    const plan = unguardedRotation(live, rules, begunAt, begunAt, []);
    const version: GuardedVersion = {
      number: BigInt(index + 1),
      size: 0n,
      begunAt,
      committedAt: begunAt,
      held: false,
      protectedUntil: protectedForMs === null ? null : new Date(begunAt.getTime() + protectedForMs),
      protectedForMs,
      damage: "",
      usualSize: null,
      confirmedAt: null,
    };
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

import type { CollectionSpec } from "./configuration.ts";
import { isRemovalBlocked, newestFirst, planRotation, type RotatableVersion, type RotationPlan } from "./rotation.ts";
import { guardingVersion, isShrunk, type SizedVersion } from "./shrunk.ts";
import { type Version, withProtection } from "./version.ts";

/** The facts of a live version that decide whether it stays. */
export type GuardedVersion = RotatableVersion &
  SizedVersion &
  Pick<Version, "committedAt" | "protectedForMs" | "damage">;

/** What decides it of a collection's configuration. */
export type GuardedRules = Pick<
  CollectionSpec,
  "rotation" | "maxBackupsCount" | "timezone" | "shrunkFactor" | "rotationGuard" | "minRetentionMs"
>;

/** A plan, whether or not somebody has to confirm a change of rules first. */
export interface UnconfirmedPlan<V extends GuardedVersion> extends RotationPlan<V> {
  /** The shrunk version that keeps rotation from removing; undefined for none. */
  readonly guard: SizedVersion | undefined;
}

/** Why a version takes no place among those that the policy counts; undefined for one that does. */
export function asideBecause(
  version: GuardedVersion,
  rules: GuardedRules,
  now: Date,
): "damaged" | "shrunk" | undefined {
  if (version.damage !== "" && !isRemovalBlocked(version, now)) return "damaged";
  return rules.rotationGuard !== undefined && isShrunk(version, rules) ? "shrunk" : undefined;
}

/**
 * What stays and what goes of these live versions when one more is published, with the protection in force. In a
 * collection that is guarded against shrunk versions nothing goes while the newest is one that nobody confirmed; and
 * such versions take no place, so that however many came, they push nothing out: each goes where the policy would not
 * keep it beside the others. Neither do damaged versions, in any collection: a whole one must not go for one of them.
 * @param begunAt when the upload of the new one was created.
 * @param coming versions that are being committed: a shrunk one is the newest in a moment.
 */
export function unguardedRotation<V extends GuardedVersion>(
  live: readonly V[],
  rules: GuardedRules,
  begunAt: Date,
  now: Date,
  coming: readonly SizedVersion[],
): UnconfirmedPlan<V> {
  const versions = live.map((version) => withProtection(version, rules));
  const guard = guardingVersion(rules, live, coming);
  if (guard !== undefined) return { keep: versions, older: [], remove: [], guard };
  const aside = versions.filter((version) => asideBecause(version, rules, now) !== undefined);
  if (aside.length === 0) return { ...planRotation(versions, rules, { begunAt }, now), guard };
  const others = versions.filter((version) => !aside.includes(version));
  const plan = planRotation(others, rules, { begunAt }, now);
  for (const version of aside) {
    const beside = planRotation([...others, version], rules, { begunAt }, now);
    const kind = (["keep", "older", "remove"] as const).find((kind) => beside[kind].includes(version))!;
    // A damaged version gives way to the hard limit: it must not take the room of the next backup.
    const givesWay = kind === "keep" && asideBecause(version, rules, now) === "damaged";
    plan[givesWay ? "older" : kind].push(version);
  }
  return { ...plan, older: newestFirst(plan.older), guard };
}

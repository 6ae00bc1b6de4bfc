/*
 * What a change of the rules of removal comes to, now and later. A hold, a protection or an age only puts a removal off:
 * judged as of the next backup alone, rules by which everything goes in an hour would get in force without a question.
 */
import { type GuardedRules, type GuardedVersion, unguardedRotation } from "./guarded-rotation.ts";
import { CHANGES_TOGETHER_MS, confirmedRules, type PolicyChange, type RemovalRules } from "./policy-guard.ts";
import { quotaLimits, sumVersions, victimsOf } from "./quota.ts";
import type { SizedVersion } from "./shrunk.ts";
import { withProtection } from "./version.ts";

/** The rules with the limits that older copies give way to. */
type Rules = RemovalRules & GuardedRules;

/** The backup that the change is judged for. */
export interface JudgedBackup {
  /** When its upload was created. */
  readonly begunAt: Date;
  readonly now: Date;
  /** Versions that are being committed. */
  readonly coming: readonly SizedVersion[];
}

/**
 * What goes of all live versions of a collection by rules that are not those that were in force before: with the next
 * backup, and what these rules would keep but for holds, protections and ages, while those before would have kept it
 * likewise. Of rules before that nobody knows it is taken that they kept everything, and ages are those of now.
 * @param confirmed the rules that were last in force or confirmed; null for none.
 * @param victims what the next backup removes.
 */
export function policyChange<V extends GuardedVersion>(
  live: readonly V[],
  spec: Rules,
  confirmed: string | null,
  victims: readonly V[],
  { begunAt, now, coming }: JudgedBackup,
): PolicyChange {
  const removes = new Set(victims.map(({ number }) => number));
  const before = confirmedRules(spec, confirmed);
  const free = live.map((version) => ({ ...version, held: false, protectedUntil: null, protectedForMs: null }));
  const goes = (rules: Rules, at: Date, begun: Date, size: bigint) => {
    const plan = unguardedRotation(free, { ...rules, minRetentionMs: undefined }, begun, at, coming);
    const kept = sumVersions(rules, plan.keep).bytes;
    return new Set(victimsOf(plan, kept, quotaLimits(rules), size, 0n).map(({ number }) => number));
  };
  const moments = [{ at: now, begun: begunAt }];
  if (before !== undefined && spec.rotation.strategy === "fifo-plus-older") {
    // What is kept for its age is too old then.
    const at = new Date(now.getTime() + spec.rotation.older.maxAgeMs + 1);
    moments.push({ at, begun: at });
  }
  for (const { at, begun } of moments) {
    // A backup as large as one may be: a hard limit that has become less makes older copies give way to it.
    const size = spec.maxOneVersionSize;
    const went = before === undefined ? new Set() : goes(before, at, begun, size);
    const losesProtection = (version: V) =>
      before !== undefined && protectedTo(version, before) > Math.max(protectedTo(version, spec), now.getTime());
    const going = goes(spec, at, begun, size);
    for (const version of live)
      if (going.has(version.number) && (!went.has(version.number) || losesProtection(version)))
        removes.add(version.number);
  }
  // What steps before this one have put off, and so does not count as removed yet.
  const soon = new Date(now.getTime() + CHANGES_TOGETHER_MS);
  const pending = before === undefined || removes.size === 0 ? [] : [...goes(before, soon, soon, 0n)];
  return {
    removes: removes.size,
    live: live.length,
    pending: pending.filter((number) => !removes.has(number)).length,
  };
}

function protectedTo(version: GuardedVersion, rules: Rules): number {
  return withProtection(version, rules).protectedUntil?.getTime() ?? 0;
}

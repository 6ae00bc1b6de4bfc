import { formatSize } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { unguardedRotation } from "../../domain/guarded-rotation.ts";
import { policyChange } from "../../domain/policy-change.ts";
import { mustWait } from "../../domain/policy-guard.ts";
import { allowance, quotaLimits, sumVersions, victimsOf } from "../../domain/quota.ts";
import type { CollectionRow } from "../ports/database.ts";
import type { LiveVersion } from "../ports/live-versions.ts";

/** What the next backup of a collection meets. */
export interface Prospect {
  /** For a person. */
  readonly warnings: readonly string[];
}

/** Numbers that a warning names. */
const MOST_NAMED = 20;

/** Looks at what rotation and quota say to these live versions when one more is published now. */
export function prospectOf(
  spec: CollectionSpec,
  live: readonly LiveVersion[],
  now: Date,
  row: Pick<CollectionRow, "confirmedPolicy"> | undefined,
): Prospect {
  const warnings: string[] = [];
  const plan = unguardedRotation(live, spec, now, now, []);
  const limits = quotaLimits(spec);
  const kept = sumVersions(spec, plan.keep);
  const victims = victimsOf(plan, kept.bytes, limits, 0n, 0n);
  const confirmed = row?.confirmedPolicy ?? null;
  const change = policyChange(live, spec, confirmed, victims, { begunAt: now, now, coming: [] });
  if (plan.guard === undefined && mustWait(change, spec, confirmed)) {
    warnings.push(
      `by its rules ${change.removes} of ${live.length} versions go, with the next backup or in time; nothing goes ` +
        "before somebody has confirmed that",
    );
  } else if (victims.length > 0) {
    const numbers = victims.map(({ number }) => number).sort((a, b) => (a < b ? -1 : 1));
    const named = `${numbers.slice(0, MOST_NAMED).join(", ")}${numbers.length > MOST_NAMED ? ", ..." : ""}`;
    warnings.push(`the next backup removes ${victims.length} of ${live.length} versions (${named})`);
  }
  const room = allowance(limits, { kept, reservedByOthers: [] });
  const newest = live.reduce<LiveVersion | undefined>(
    (a, b) => (a === undefined || b.number > a.number ? b : a),
    undefined,
  );
  if (newest !== undefined && room < newest.size)
    warnings.push(
      `there is room for ${formatSize(room)} in the next backup, and the newest has ${formatSize(newest.size)}`,
    );
  const above = live.filter(({ size }) => size > spec.maxOneVersionSize).length;
  if (above > 0) warnings.push(`${above} of its versions are above maxOneVersionSize; its health warns of that`);
  return { warnings };
}

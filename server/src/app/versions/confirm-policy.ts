import { hasSystemRole, type Principal } from "../../domain/access.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { LEAST_REMOVALS, mustWait, type PolicyChange, removalRules } from "../../domain/policy-guard.ts";
import { requireAction, requireWritable } from "../guards.ts";
import type { Transaction } from "../ports/database.ts";
import type { CollectionFacts } from "../ports/live-versions.ts";
import { changeOf, mostRemovals, type PlannedCollection, unguardedLivePlan } from "./live-plan.ts";
import type { VersionDeps } from "./versions.ts";

/** What goes under a collection's rules, with the next backup or in time, and whether that waits for a confirmation. */
export interface NextRemovals extends PolicyChange {
  readonly waits: boolean;
}

/**
 * What would go, with the next backup or in time, if that backup came now and this were the collection's configuration:
 * for health, for a confirmation, and for whoever is about to change the configuration.
 * @param row of the collection; undefined where it was never used.
 */
export async function nextRemovals(
  tx: Transaction,
  spec: CollectionSpec,
  row: PlannedCollection | undefined,
): Promise<NextRemovals> {
  if (row === undefined) return { removes: 0, live: 0, waits: false };
  const of = { begunAt: tx.now, coming: [] };
  const change = await changeOf(tx, row, spec, await unguardedLivePlan(tx, row, spec, of), of);
  return { ...change, waits: mustWait(change, spec, row.confirmedPolicy) };
}

/** {@link nextRemovals} of a collection by its name, with the versions that are there. */
export async function removalsWith(tx: Transaction, spec: CollectionSpec): Promise<NextRemovals> {
  return await nextRemovals(tx, spec, await tx.collections.findByName(spec.name));
}

/**
 * Whether {@link nextRemovals} has to be asked: not where the rules are those that were confirmed, and not where they
 * can not remove as many versions as need a confirmation, whatever is in them.
 */
export function mayWait(spec: CollectionSpec, facts: CollectionFacts): boolean {
  const most = mostRemovals(spec, facts.liveVersions, facts.damaged.count);
  return mustWait({ removes: most, live: 0, earlier: LEAST_REMOVALS }, spec, facts.confirmedPolicy);
}

/**
 * Lets rotation go by the rules that are configured now, though many versions go by them, and lets a raised share of
 * removals that need no confirmation hold. Nothing is removed before the next backup. Idempotent.
 * @param input.removes how many versions the caller expects to go.
 * @throws DomainError ACCESS_DENIED for all but systemAdmin; ROTATION_BLOCKED when it is another number.
 */
export async function confirmPolicy(
  deps: VersionDeps,
  principal: Principal,
  input: { readonly collection: string; readonly removes: number },
): Promise<PolicyChange> {
  await requireWritable(deps, principal, input.collection, "manage");
  return await deps.database.transaction(async (tx) => {
    const spec = requireAction(deps.config, principal, input.collection, "manage");
    if (!hasSystemRole(principal, "systemAdmin"))
      throw new DomainError(
        "ACCESS_DENIED",
        `the rules of collection "${spec.name}" are confirmed by systemAdmin, as they are changed`,
        { metadata: { action: "confirm-policy", collection: spec.name } },
      );
    const row = await tx.collections.lockByName(spec.name);
    const { removes, live } = await nextRemovals(tx, spec, row);
    // Repeated: what goes in time was counted before.
    if (removalRules(spec) === row.confirmedPolicy) return { removes, live };
    if (removes !== input.removes)
      throw new DomainError(
        "ROTATION_BLOCKED",
        `by the rules of "${spec.name}" ${removes} of ${live} versions go, with the next backup or in time, not ` +
          `${input.removes}; look at \`strongroom simulate\`, and confirm that number: \`strongroom confirm-policy ${spec.name} ${removes}\``,
        { metadata: { guard: "policy", removes: String(removes), live: String(live) } },
      );
    await tx.collections.confirmPolicy(row.id, removalRules(spec));
    await tx.audit({
      kind: "collection.policy-confirmed",
      actor: principal,
      collectionName: spec.name,
      details: { removes: String(removes), live: String(live), rules: removalRules(spec) },
    });
    return { removes, live };
  });
}

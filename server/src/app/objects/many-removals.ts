import type { Principal } from "../../domain/access.ts";
import type { CollectionSpec, Configuration } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { type PolicyChange, removalRules } from "../../domain/policy-guard.ts";
import type { ConfigProblem } from "../../objects/problem.ts";
import type { ChangePlan } from "../ports/config-objects.ts";
import type { Database, Transaction } from "../ports/database.ts";
import { nextRemovals, removalsWith } from "../versions/confirm-policy.ts";

/** A collection of which more versions go by changed rules, now or in time, than may go without a confirmation. */
export interface ManyRemovals extends PolicyChange {
  /** Under the changed rules. */
  readonly spec: CollectionSpec;
}

/** The collections whose rules of removal differ, and whose rotation would wait for a confirmation then. */
export async function manyRemovals(
  database: Pick<Database, "read">,
  before: Configuration,
  after: Configuration,
): Promise<readonly ManyRemovals[]> {
  const changed = [...after.collections.values()].filter((spec) => {
    const was = before.collections.get(spec.name);
    return was === undefined || removalRules(was) !== removalRules(spec);
  });
  if (changed.length === 0) return [];
  return await database.read(async (tx) => {
    const found: ManyRemovals[] = [];
    for (const spec of changed) {
      const { removes, live, waits } = await removalsWith(tx, spec);
      if (waits) found.push({ spec, removes, live });
    }
    return found;
  });
}

/** Refuses a change that makes many versions go, unless their number is named. @throws DomainError ROTATION_BLOCKED */
export function requireConfirmed(removals: readonly ManyRemovals[], confirmed: bigint): void {
  const [first] = removals;
  const { removes, live } = inAll(removals);
  if (first === undefined || BigInt(removes) === confirmed) return;
  const where =
    removals.length === 1
      ? `collection "${first.spec.name}"`
      : `${removals.length} collections, the first is "${first.spec.name}"`;
  throw new DomainError(
    "ROTATION_BLOCKED",
    `with this change ${removes} of ${live} versions go, with the next backups or in time (${where}), more than may ` +
      `go without a confirmation (confirmRemovalsAbove); nothing was written. If that is meant, set confirm_removals to ${removes} ` +
      `(\`--confirm-removals ${removes}\`)`,
    { metadata: { guard: "policy", removes: String(removes), live: String(live) } },
  );
}

/** What a caller is to know of a change that makes many versions go. */
export function removalWarnings(removals: readonly ManyRemovals[], { objects }: Pick<ChangePlan, "objects">) {
  const { removes: all } = inAll(removals);
  return removals.map(({ spec, removes, live }): ConfigProblem => {
    const own = objects.find(({ entry }) => entry.kind === "BackupCollection" && entry.name === spec.name);
    const { file, line } = (own ?? objects[0]!).entry;
    const reason =
      `this change of "${spec.name}" removes ${removes} of ${live} versions, with the next backup or in time, more ` +
      `than may go without a confirmation (confirmRemovalsAbove): apply it with confirm_removals ${all} (\`--confirm-removals ${all}\`), or, where it is ` +
      `put in force in another way, \`strongroom confirm-policy ${spec.name} ${removes}\``;
    return { file, line, path: "spec", reason, severity: "warning" };
  });
}

/**
 * Keeps that somebody confirmed these removals. Where another number is right by now, since a version was added or
 * removed meanwhile, rotation waits and health says so.
 */
export async function keepConfirmed(
  tx: Transaction,
  principal: Principal,
  removals: readonly ManyRemovals[],
): Promise<void> {
  for (const { spec, removes, live } of removals) {
    const row = await tx.collections.lockByName(spec.name);
    if ((await nextRemovals(tx, spec, row)).removes !== removes) continue;
    await tx.collections.confirmPolicy(row.id, removalRules(spec));
    await tx.audit({
      kind: "collection.policy-confirmed",
      actor: principal,
      collectionName: spec.name,
      details: { removes: String(removes), live: String(live), rules: removalRules(spec) },
    });
  }
}

function inAll(removals: readonly ManyRemovals[]): PolicyChange {
  return {
    removes: removals.reduce((sum, each) => sum + each.removes, 0),
    live: removals.reduce((sum, each) => sum + each.live, 0),
  };
}

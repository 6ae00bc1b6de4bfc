import { hasSystemRole, type Principal, roleBeyond } from "../../domain/access.ts";
import type { Configuration } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import type { ChangePlan, ObjectName } from "../ports/config-objects.ts";
import type { Database } from "../ports/database.ts";
import { type ManyRemovals, manyRemovals, requireConfirmed } from "./many-removals.ts";

/** What a caller confirms about a change. */
export interface ChangeConfirmations {
  /** That nobody with the role systemAdmin may be left. */
  readonly allowNoAdmin: boolean;
  /** How many versions in all may go under rules that the change brings; 0 for none. */
  readonly confirmRemovals: bigint;
}

/** A change that is to be let through or not. */
export interface GuardedChange {
  /** The configuration in force. */
  readonly before: Configuration;
  readonly plan: ChangePlan;
  readonly confirmations: ChangeConfirmations;
}

/**
 * Whether a caller may change objects of these kinds at all. @throws DomainError ACCESS_DENIED
 * @param isPassword the change is one of passwords alone, which are written into Secrets.
 */
export function requireMayChange(principal: Principal, objects: readonly ObjectName[], isPassword = false): void {
  if (hasSystemRole(principal, "systemAdmin")) return;
  const others = objects.find(({ kind }) => kind !== "BackupUser" && !(isPassword && kind === "Secret"));
  if (hasSystemRole(principal, "userManager") && others === undefined) return;
  throw new DomainError(
    "ACCESS_DENIED",
    "configuration objects are changed by systemAdmin, and users by userManager too, in a session without access " +
      "key and scope",
    { metadata: { action: "administer", ...(others === undefined ? {} : { kind: others.kind, name: others.name }) } },
  );
}

/**
 * What every change has to pass before it is written, and in a dry run too; here is the place for more of the kind.
 * @returns the collections of which many versions go because of it: confirmed, or for a dry run to say.
 * @throws DomainError
 */
export async function checkChange(
  { database }: { readonly database: Pick<Database, "read"> },
  principal: Principal,
  change: GuardedChange & { readonly dryRun: boolean },
): Promise<readonly ManyRemovals[]> {
  requireNoMoreThanOwn(principal, change);
  requireAdminLeft(change);
  const removals = await manyRemovals(database, change.before, change.plan.after);
  if (!change.dryRun) requireConfirmed(removals, change.confirmations.confirmRemovals);
  return removals;
}

/** Nobody but systemAdmin changes a user who has more than they, or gives a user a role that they lack. */
function requireNoMoreThanOwn(principal: Principal, { before, plan }: GuardedChange): void {
  if (hasSystemRole(principal, "systemAdmin")) return;
  for (const { entry } of plan.objects) {
    if (entry.kind !== "BackupUser") continue;
    for (const { users, collections } of [before, plan.after]) {
      const user = users.get(entry.name);
      const beyond = user && roleBeyond(principal.user, user, collections.values());
      if (beyond === undefined) continue;
      const where = beyond.collection === undefined ? "" : ` in the collection "${beyond.collection}"`;
      throw new DomainError(
        "ACCESS_DENIED",
        `the user "${entry.name}" has the role ${beyond.role}${where}, which you do not have; a systemAdmin can ` +
          "change this user",
        { metadata: { action: "administer", kind: entry.kind, name: entry.name, role: beyond.role } },
      );
    }
  }
}

function requireAdminLeft({ before, plan, confirmations }: GuardedChange): void {
  if (confirmations.allowNoAdmin || !hasAdmin(before) || hasAdmin(plan.after)) return;
  throw new DomainError(
    "NO_ADMIN_LEFT",
    "no active user with the role systemAdmin and a password would be left, so that nobody could administer this " +
      "server over the network any more; confirm it (allow_no_admin, --allow-no-admin) if that is meant",
  );
}

function hasAdmin({ users }: Configuration): boolean {
  return [...users.values()].some(
    ({ roles, deactivated, passwordHash }) =>
      roles.includes("systemAdmin") && !deactivated && passwordHash !== undefined,
  );
}

import { quoted } from "@strongroom/protocol/sizes";
import { ROLES, type Role } from "../domain/configuration.ts";
import { suggestion } from "./names.ts";
import type { ValueNode } from "./node.ts";

/** Roles that mean something only for the whole system (behaviour of each in the domain's access rules). */
const SYSTEM_ONLY: ReadonlySet<Role> = new Set(["systemAdmin", "userManager"]);

function isRole(name: string): name is Role {
  return (ROLES as readonly string[]).includes(name);
}

/**
 * Reads a list of roles; unknown ones are reported, repeated ones given once. `usersManager`, which the former resource
 * definition demanded, is `userManager`, which the former server looked for.
 * @param where `object`: a role that means something only for the whole system is left out with a warning.
 */
export function readRoles(list: ValueNode | undefined, where: "system" | "object"): Role[] {
  const roles = new Set<Role>();
  for (const item of list?.items() ?? []) {
    const text = item.text();
    const name = text === "usersManager" ? "userManager" : text;
    if (name === undefined) continue;
    if (!isRole(name)) {
      item.error(`expected one of the roles ${ROLES.join(", ")}, got ${quoted(text)}${suggestion(name, ROLES)}`);
    } else if (where === "object" && SYSTEM_ONLY.has(name)) {
      item.warn(`the role ${name} has no effect on one collection, ignored; give it in the user's own spec.roles`);
    } else {
      roles.add(name);
    }
  }
  return [...roles];
}

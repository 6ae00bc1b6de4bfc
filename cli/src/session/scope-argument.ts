import type { Role, ScopeElementInit } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { shown } from "@strongroom/command-line/shown";
import type { Sdk } from "../context.ts";
import { roleNames } from "../terminal/reports.ts";

/**
 * Reads `--scope`: `collection=role,role`, each with the roles that the session may use there.
 * @throws UsageError for another form, an unknown role, and a collection that is named twice
 */
export function scopeOf(given: readonly string[], sdk: Sdk): ScopeElementInit[] {
  const seen = new Set<string>();
  return given.map((text) => {
    const at = text.indexOf("=");
    const name = text.slice(0, at);
    const words = text
      .slice(at + 1)
      .split(",")
      .map((word) => word.trim());
    if (at < 1) throw new UsageError(`--scope: expected collection=role,role, got ${shown(text)}`);
    if (seen.has(name)) throw new UsageError(`--scope: ${shown(name)} is named twice; give its roles with commas`);
    seen.add(name);
    return { type: sdk.ObjectType.COLLECTION, name, roles: rolesOf("--scope", words, sdk) };
  });
}

/** Reads names of roles such as `backupUploader`. @throws UsageError that names the option for an unknown one */
export function rolesOf(flag: string, words: readonly string[], sdk: Sdk): Role[] {
  const roles = Object.values(sdk.Role).filter((role) => typeof role === "number" && role !== sdk.Role.UNSPECIFIED);
  const known = new Map(roles.map((role) => [roleNames([role as Role], sdk)[0]!, role as Role]));
  const unknown = words.find((word) => !known.has(word));
  if (unknown !== undefined)
    throw new UsageError(`${flag}: expected roles such as backupUploader, got ${shown(unknown)}`, {
      hint: `the roles are ${[...known.keys()].join(", ")}`,
    });
  return words.map((word) => known.get(word)!);
}

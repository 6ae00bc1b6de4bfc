import { isDeepStrictEqual } from "node:util";
import type { Configuration } from "./configuration.ts";

/** What differs between two states of the configuration, as `Kind/name`, by kind and name. Never a value. */
export interface ConfigurationChanges {
  readonly added: readonly string[];
  readonly changed: readonly string[];
  readonly removed: readonly string[];
}

/** Kinds of configuration objects, and the part of the configuration that holds them. */
export const CONFIGURATION_KINDS = [
  ["BackupUser", "users"],
  ["BackupCollection", "collections"],
  ["BackupOrganization", "organizations"],
  ["BackupNotifier", "notifiers"],
] as const;

/** Compares two states. A changed Secret shows in what refers to it. */
export function configurationChanges(before: Configuration, after: Configuration): ConfigurationChanges {
  const added: string[] = [];
  const changed: string[] = [];
  const removed: string[] = [];
  for (const [kind, part] of CONFIGURATION_KINDS) {
    const old: ReadonlyMap<string, unknown> = before[part] ?? new Map();
    const now: ReadonlyMap<string, unknown> = after[part] ?? new Map();
    for (const name of [...new Set([...old.keys(), ...now.keys()])].sort()) {
      const changedName = `${kind}/${name}`;
      if (!old.has(name)) added.push(changedName);
      else if (!now.has(name)) removed.push(changedName);
      else if (!isDeepStrictEqual(old.get(name), now.get(name))) changed.push(changedName);
    }
  }
  return { added, changed, removed };
}

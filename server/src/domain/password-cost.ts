import type { Configuration } from "./configuration.ts";

/** Parameters of an argon2id hash as its encoding (PHC) has them, for example `$argon2id$v=19$m=65536,t=1,p=4`. */
export type HashCost = string;

/** What the hashes of existing installations and of `strongroom hash-password` have: 64 MiB, one pass, four lanes. */
export const USUAL_COST: HashCost = "$argon2id$v=19$m=65536,t=1,p=4";

/** Parameters of a hash, in one order; undefined for a text that is no argon2id hash. */
export function costOf(hash: string): HashCost | undefined {
  const match = /^\$argon2id\$v=19\$([mtp]=\d{1,10}(?:,[mtp]=\d{1,10}){2})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$/.exec(hash);
  if (match === null) return undefined;
  const numbers = Object.fromEntries(match[1]!.split(",").map((part) => part.split("=") as [string, string]));
  const [memory, passes, lanes] = [Number(numbers.m), Number(numbers.t), Number(numbers.p)];
  // RFC 9106: at least 8 KiB for each lane. A parameter that is missing is no number, and compares as false.
  if (!(passes >= 1 && lanes >= 1 && memory >= 8 * lanes)) return undefined;
  return `$argon2id$v=19$m=${numbers.m},t=${numbers.t},p=${numbers.p}`;
}

const known = new WeakMap<Configuration, readonly HashCost[]>();

/**
 * Every set of parameters that a login may meet, in a fixed order. Each login computes one hash for each of them, so
 * that the time tells neither whether a name exists nor which hash it has.
 */
export function passwordCosts(configuration: Configuration): readonly HashCost[] {
  const before = known.get(configuration);
  if (before !== undefined) return before;
  const costs = new Set<HashCost>();
  for (const user of configuration.users.values()) {
    for (const { passwordHash } of [user, ...user.accessKeys]) {
      const cost = passwordHash === undefined ? undefined : costOf(passwordHash);
      if (cost !== undefined) costs.add(cost);
    }
  }
  const all = costs.size === 0 ? [USUAL_COST] : [...costs].sort();
  known.set(configuration, all);
  return all;
}

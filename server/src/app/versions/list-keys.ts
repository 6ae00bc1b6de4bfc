import type { Principal } from "../../domain/access.ts";
import { type KeyInventory, keyInventory } from "../../domain/key-inventory.ts";
import { requireReadable } from "../guards.ts";
import type { VersionDeps } from "./versions.ts";

/**
 * Which keys open the live versions of a collection, and which of these would be lost with some keys.
 * @param input.lost names of recipients, as `recipientName` gives them.
 */
export async function listKeys(
  deps: Pick<VersionDeps, "database" | "config">,
  principal: Principal,
  input: { readonly collection: string; readonly lost: readonly string[] },
): Promise<KeyInventory> {
  return await deps.database.transaction(async (tx) => {
    const { name } = await requireReadable(tx, deps.config, principal, input.collection);
    const collection = await tx.collections.findByName(name);
    return keyInventory(collection === undefined ? [] : await tx.versions.recipients(collection.id), input.lost);
  });
}

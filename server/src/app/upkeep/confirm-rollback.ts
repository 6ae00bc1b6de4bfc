import type { Database } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { UnsafeError } from "./inventory.ts";

/** Name for every collection; no collection has it. */
export const ALL_COLLECTIONS = "*";

/**
 * An operator knows that the database was rolled back, and has looked at the versions that were added from the store:
 * health stops saying so, and removed versions are deleted after their time again.
 * @param name of a collection, or {@link ALL_COLLECTIONS}.
 * @returns the collections that waited for it.
 * @throws UnsafeError when none did.
 */
export async function confirmRollback(
  { database, log }: { readonly database: Database; readonly log: Log },
  name: string,
): Promise<string[]> {
  const confirmed = await database.transaction(async (tx) => {
    const rows = await tx.collections.all();
    const names: string[] = [];
    for (const row of rows.filter((each) => name === ALL_COLLECTIONS || each.name === name)) {
      await tx.collections.lockById(row.id);
      if (!(await tx.collections.confirmRollback(row.id))) continue;
      names.push(row.name);
      const details = { since: row.rolledBackAt?.toISOString() ?? "", added: String(row.addedVersions) };
      await tx.audit({ kind: "collection.rollback-confirmed", actor: "operator", collectionName: row.name, details });
    }
    return names;
  });
  if (confirmed.length === 0)
    throw new UnsafeError(
      name === ALL_COLLECTIONS
        ? "no collection shows that the database was rolled back"
        : `collection ${name} does not show that the database was rolled back; \`strongroom health\` says which do`,
    );
  log.warn({ collections: confirmed }, "an operator confirmed that the database was rolled back");
  return confirmed;
}

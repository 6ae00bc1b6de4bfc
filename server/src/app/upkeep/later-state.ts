/*
 * Manifests that a later state of the database wrote: the database was rolled back since.
 */
import type { BlobReader } from "../ports/blob-store.ts";
import type { Database, Transaction, VersionRow } from "../ports/database.ts";
import { ManifestError } from "../versions/manifest.ts";
import { moveUsage } from "../versions/removal.ts";
import { storedManifest } from "./stored-versions.ts";

/**
 * Notes that a later state of the database wrote the manifest. What it knew as live, and the row does not, was brought
 * back after the state of the row, and must not be deleted. The collection must be locked.
 */
export async function noteLaterState(
  tx: Transaction,
  row: VersionRow,
  later: Pick<VersionRow, "state">,
): Promise<void> {
  // Whatever the time until which it could be brought back by hand.
  const isBack =
    later.state === "live" && row.state === "removed" && (await tx.versions.restore(row.id, new Date(0), row));
  if (isBack) await moveUsage(tx, row, { trashBytes: -row.size, storedBytes: row.size });
  await tx.collections.noteRollback(row.collectionId, tx.now, isBack ? 1 : 0);
  await tx.versions.manifestWritten(row.id, { revision: 0, before: row.manifestRevision });
}

/**
 * Asked of a removed version before its bytes are deleted, since the comparison of the whole store may not have been
 * possible yet: whether its manifest is of a later state than the row. That is noted then.
 * @throws BlobStoreError when the store does not say.
 */
export async function hasLaterState(
  { database, store }: { readonly database: Database; readonly store: BlobReader },
  version: VersionRow,
): Promise<boolean> {
  const found = await storedManifest(store, version.collectionName, version.key).catch((error: unknown) => {
    if (error instanceof ManifestError) return undefined;
    throw error;
  });
  if (found === undefined || found.version.revision <= version.revision) return false;
  await database.transaction(async (tx) => {
    await tx.collections.lockById(version.collectionId);
    const row = await tx.versions.findById(version.id);
    // Changed meanwhile: the next sweep looks at it again.
    if (row?.revision === version.revision) await noteLaterState(tx, row, found.version);
  });
  return true;
}

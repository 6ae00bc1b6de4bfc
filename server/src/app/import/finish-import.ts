import type { BlobAdopter } from "../ports/blob-store.ts";
import type { Database } from "../ports/database.ts";

/** Versions read from the database at once. */
const BATCH = 200;

/** What the end of a move did. */
export interface FinishReport {
  readonly versions: number;
  /** Bytes of them. */
  readonly bytes: bigint;
  /** Of these, how many had been removed, and are deleted after their time. */
  readonly removed: number;
}

/**
 * Ends the time in which one can go back to Backup Repository: imported versions are deleted as all others when they are
 * removed, and what only the old program needed to find them goes. Safe to repeat, and goes on after it was broken off.
 */
export async function finishImport(
  deps: { readonly database: Database; readonly store: BlobAdopter },
  onVersion: () => void = () => {},
): Promise<FinishReport> {
  const { database, store } = deps;
  const report = { versions: 0, bytes: 0n, removed: 0 };
  for (let after: string | undefined; ; ) {
    const page = { after, limit: BATCH };
    const rows = await database.read(async (tx) => await tx.versions.adopted(page));
    for (const row of rows) {
      if (row.adoptedKey !== null) await store.forgetForeign(row.adoptedKey);
      await database.transaction(async (tx) => await tx.versions.endReturn(row.id));
      report.versions++;
      report.bytes += row.size;
      if (row.state !== "live") report.removed++;
      onVersion();
    }
    if (rows.length < BATCH) break;
    after = rows.at(-1)!.id;
  }
  if (report.versions > 0)
    await database.transaction(async (tx) => {
      const details = { versions: String(report.versions), removed: String(report.removed) };
      await tx.audit({ kind: "import.finished", actor: "operator", collectionName: "", details });
    });
  return report;
}

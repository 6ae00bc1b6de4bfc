import { isAdministrative } from "../../domain/audit.ts";
import { entryHash } from "../../domain/audit-chain.ts";
import type { AuditLink } from "../ports/audit-log.ts";
import type { Database } from "../ports/database.ts";

/** Rows chained by one transaction. */
const BATCH = 500;

/**
 * Gives every committed row of the audit log its place in the chain, in the order of insertion. The row that says where
 * the chain ends is locked meanwhile, so that two servers never chain at the same time, and a death leaves a batch
 * chained or not.
 * @returns how many were chained, and whether one of them is administrative.
 */
export async function chainEvents(database: Database): Promise<{ chained: number; administrative: boolean }> {
  let chained = 0;
  let administrative = false;
  for (;;) {
    const rows = await database.transaction(async (tx) => {
      const state = await tx.auditLog.lockChain();
      let { place, hash } = state;
      const batch = await tx.auditLog.unchained(BATCH);
      const links: AuditLink[] = batch.map((row) => {
        const previousHash = hash;
        place += 1n;
        hash = entryHash(place, previousHash, row);
        return { id: row.id, place, previousHash, hash };
      });
      await tx.auditLog.link(links);
      if (links.length > 0) await tx.auditLog.setChain({ place, hash });
      return batch;
    });
    chained += rows.length;
    administrative ||= rows.some(({ kind }) => isAdministrative(kind));
    if (rows.length < BATCH) return { chained, administrative };
  }
}

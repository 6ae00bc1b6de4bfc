import type { AuditHead, ChainPoint } from "../../domain/audit-head.ts";
import { chainEvents } from "./chain.ts";
import { BEGINNING, beginning, type HeadDeps, hexOf, storedHeads, writeHead } from "./heads.ts";

/** What an operator asked for makes no sense. */
export class NoAuditLossError extends Error {
  override name = "NoAuditLossError";
}

/**
 * An operator accepts that rows which heads have signed are gone, after a copy of the database was put back or it was
 * rebuilt: the next head says so, signed, and the log goes on.
 * @throws NoAuditLossError when nothing is lost
 */
export async function acceptLoss(deps: HeadDeps): Promise<AuditHead> {
  const { database, store, signer } = deps;
  const heads: AuditHead[] = [];
  for await (const { head } of storedHeads(store, signer)) if (head !== undefined) heads.push(head);
  const newest = heads.at(-1);
  if (newest === undefined) throw new NoAuditLossError("the store has no head, so nothing that was signed is lost");
  const state = await database.read(async (tx) => await tx.auditLog.chain());
  const begun = await beginning(database, state);
  const isThere = async ({ place, hash }: ChainPoint): Promise<boolean> => {
    // The last row that was pruned is gone; what follows it knows its hash.
    if (place === begun.place) return hash === begun.hash;
    const row = await database.read(async (tx) => await tx.auditLog.at(place));
    return row?.hash != null && hexOf(row.hash) === hash;
  };
  let agreeing: AuditHead | undefined;
  for (const head of heads.toReversed()) {
    if (!(await isThere(head))) continue;
    agreeing = head;
    break;
  }
  if (agreeing?.sequence === newest.sequence)
    throw new NoAuditLossError(`the log agrees with its newest head, ${newest.sequence}; nothing is lost`);
  // A copy may have been pruned after the last head that agrees with it, up to where some head says that it was.
  const from = agreeing?.cut ?? BEGINNING;
  const wasPruned = heads.some(({ cut }) => begun.place > from.place && begun.place <= cut.place);
  const fromPlace = (agreeing?.place ?? 0n) + 1n;
  const throughSequence = newest.sequence;
  await database.transaction(
    async (tx) =>
      await tx.audit({
        kind: "audit.loss-accepted",
        actor: "operator",
        collectionName: "",
        details: {
          from_place: String(fromPlace),
          to_place: String(newest.place),
          through_head: String(throughSequence),
          signed_at: newest.at.toISOString(),
        },
      }),
  );
  await chainEvents(database);
  return (await writeHead(deps, { loss: { fromPlace, throughSequence }, cut: wasPruned ? begun : from }))!;
}

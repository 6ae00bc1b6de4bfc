import type { AuditHead } from "../../domain/audit-head.ts";
import { chainEvents } from "./chain.ts";
import { BEGINNING, type HeadDeps, hexOf, storedHeads, writeHead } from "./heads.ts";

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
  let agreeing: AuditHead | undefined;
  for (const head of heads.toReversed()) {
    const row = await database.read(async (tx) => await tx.auditLog.at(head.place));
    if (row?.hash == null || hexOf(row.hash) !== head.hash) continue;
    agreeing = head;
    break;
  }
  if (agreeing?.sequence === newest.sequence)
    throw new NoAuditLossError(`the log agrees with its newest head, ${newest.sequence}; nothing is lost`);
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
  return (await writeHead(deps, { loss: { fromPlace, throughSequence }, cut: agreeing?.cut ?? BEGINNING }))!;
}

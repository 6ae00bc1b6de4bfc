import { type AuditHead, type ChainPoint, isVoid } from "../../domain/audit-head.ts";
import { chainEvents } from "./chain.ts";
import { BEGINNING, beginning, type HeadDeps, hexOf, missingHead, ownHeads, writeHead } from "./heads.ts";

/** What an operator asked for makes no sense. */
export class NoAuditLossError extends Error {
  override name = "NoAuditLossError";
}

/**
 * An operator accepts that rows which heads have signed are gone, or that heads are, after a copy of the database or of
 * the storage was put back or the database was rebuilt: the next head says so, signed, and the log goes on.
 * @throws NoAuditLossError when nothing is lost
 */
export async function acceptLoss(deps: HeadDeps): Promise<AuditHead> {
  const { database, store, signer } = deps;
  const { id: installation } = await database.installation();
  // Before the heads: one that a server signs meanwhile is in the store before the database knows of it.
  const state = await database.read(async (tx) => await tx.auditLog.chain());
  const all = await ownHeads(store, signer, installation);
  const newest = all.at(-1);
  const isHeadMissing = missingHead(newest, state.headSequence) !== undefined;
  if (newest === undefined && !isHeadMissing)
    throw new NoAuditLossError("neither store nor database knows of a head, so nothing that was signed is lost");
  // What an earlier loss made void says nothing of the rows that are there now.
  const heads = all.filter((head) => !isVoid(head, newest?.lost ?? []));
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
  if (newest !== undefined && !isHeadMissing && agreeing?.sequence === newest.sequence)
    throw new NoAuditLossError(`the log agrees with its newest head, ${newest.sequence}; nothing is lost`);
  // A copy may have been pruned after the last head that agrees with it, up to where some head says that it was.
  const from = agreeing?.cut ?? BEGINNING;
  const wasPruned = heads.some(({ cut }) => begun.place > from.place && begun.place <= cut.place);
  const fromPlace = (agreeing?.place ?? 0n) + 1n;
  const throughSequence = later(newest?.sequence, state.headSequence);
  // Without a head nothing is left that says where the log began: it is signed as it is, like one that never had any.
  const cut = newest === undefined || wasPruned ? begun : from;
  await database.transaction(
    async (tx) =>
      await tx.audit({
        kind: "audit.loss-accepted",
        actor: "operator",
        collectionName: "",
        details: {
          from_place: String(fromPlace),
          to_place: String(later(newest?.place, state.headPlace)),
          through_head: String(throughSequence),
          signed_at: newest?.at.toISOString() ?? "",
          head_missing: String(isHeadMissing),
        },
      }),
  );
  await chainEvents(database);
  return (await writeHead(deps, { loss: { fromPlace, throughSequence }, cut }))!;
}

function later(a: bigint | undefined, b: bigint): bigint {
  return a !== undefined && a > b ? a : b;
}

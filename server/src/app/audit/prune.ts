import { type AuditHead, isVoid } from "../../domain/audit-head.ts";
import { auditHeadKey } from "../../domain/object-keys.ts";
import type { AuditSigner } from "../ports/audit-key.ts";
import type { BlobStore } from "../ports/blob-store.ts";
import type { Database } from "../ports/database.ts";
import { beginning, contradiction, hexOf, missingHead, ownHeads, writeHead } from "./heads.ts";

const DAY_MS = 24 * 3_600_000;

/** Every head is kept this long, in milliseconds; of older ones, the last of each day. */
export const HEADS_KEPT_MS = 2 * DAY_MS;

/** How long events are kept unless said otherwise, in milliseconds. */
export const DEFAULT_AUDIT_RETENTION_MS = 400 * DAY_MS;

/** Events that are kept at most, whatever their age. */
export const MOST_EVENTS = 10_000_000n;

/** Places pruned by one transaction, so that each ends long before a statement may not go on. */
export const PRUNED_AT_ONCE = 10_000;

/** What {@link pruneLog} needs. */
export interface PruneDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly signer: AuditSigner | undefined;
}

/**
 * Deletes events that are older than `retentionMs`. Up to where is taken from a signed head of that age, never from the
 * rows, whose times a thief could change; a new head says where the log begins now, before a row goes. The lowest
 * places go first, so what an interrupted pruning leaves is a log that begins later.
 * @returns how many rows were deleted.
 * @throws AuditContradictionError when the row up to which is pruned is not what was signed; none is deleted then.
 */
export async function pruneLog(deps: PruneDeps, retentionMs: number, most = MOST_EVENTS): Promise<number> {
  const { database, store, signer } = deps;
  const { now, state } = await database.read(async (tx) => ({ now: tx.now, state: await tx.auditLog.chain() }));
  const before = new Date(now.getTime() - retentionMs);
  if (signer === undefined) {
    const upTo = await database.read(async (tx) => await tx.auditLog.placeBefore(before));
    const surplus = state.place - most;
    return await prune(database, upTo > surplus ? upTo : surplus);
  }
  const { id: installation } = await database.installation();
  const heads = await ownHeads(store, signer, installation);
  const newest = heads.at(-1);
  // Also where nothing happened that would be signed.
  const missing = missingHead(newest, state.headSequence);
  if (missing !== undefined) throw contradiction(missing);
  if (newest === undefined) return 0;
  // Places of heads that an accepted loss made void mean other rows now.
  const old = heads
    .filter((head) => !isVoid(head, newest.lost) && (head.at < before || head.place <= state.place - most))
    .at(-1);
  const isNew = old !== undefined && old.sequence < newest.sequence && old.place > newest.cut.place;
  const cut = isNew ? { place: old.place, hash: old.hash } : newest.cut;
  const row = await database.read(async (tx) => await tx.auditLog.at(cut.place));
  const begun = await beginning(database, state);
  // Without a row there, an earlier pruning got to its end, or the rows are gone and nobody has accepted it yet. Those
  // that would go now may be gone: the head which said so was in a storage that was put back from an older copy.
  const isGone = !isNew || (begun.place === cut.place && begun.hash === cut.hash);
  const isSigned = row === undefined ? isGone : row.hash !== null && hexOf(row.hash) === cut.hash;
  if (!isSigned || cut.place > state.place) throw contradiction(`row ${cut.place} is not what was signed`);
  if (isNew && (await writeHead({ database, store, signer }, { cut })) === undefined) return 0;
  const rows = await prune(database, cut.place);
  for (const { sequence } of unneeded(heads, cut.place, now)) await store.delete(auditHeadKey(sequence));
  return rows;
}

async function prune(database: Database, upTo: bigint): Promise<number> {
  let pruned = 0;
  while (upTo > 0n) {
    const rows = await database.transaction(async (tx) => await tx.auditLog.prune(upTo, PRUNED_AT_ONCE));
    if (rows === undefined) break;
    pruned += rows;
  }
  return pruned;
}

/** Heads of pruned rows, and old ones beside the last of each day; never the newest. */
function unneeded(heads: readonly AuditHead[], cutPlace: bigint, now: Date): AuditHead[] {
  const day = ({ at }: AuditHead) => at.toISOString().slice(0, 10);
  return heads.filter((head, i) => {
    const next = heads[i + 1];
    if (next === undefined) return false;
    if (head.place < cutPlace) return true;
    return now.getTime() - head.at.getTime() > HEADS_KEPT_MS && day(next) === day(head);
  });
}

import type { AuditHead } from "../../domain/audit-head.ts";
import { auditHeadKey } from "../../domain/object-keys.ts";
import type { AuditSigner } from "../ports/audit-key.ts";
import type { BlobStore } from "../ports/blob-store.ts";
import type { Database } from "../ports/database.ts";
import { storedHeads, writeHead } from "./heads.ts";

const DAY_MS = 24 * 3_600_000;

/** Every head is kept this long, in milliseconds; of older ones, the last of each day. */
export const HEADS_KEPT_MS = 2 * DAY_MS;

/** How long events are kept unless said otherwise, in milliseconds. */
export const DEFAULT_AUDIT_RETENTION_MS = 400 * DAY_MS;

/** Events that are kept at most, whatever their age. */
export const MOST_EVENTS = 10_000_000n;

/** What {@link pruneLog} needs. */
export interface PruneDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly signer: AuditSigner | undefined;
}

/**
 * Deletes events that are older than `retentionMs`. Up to where is taken from a signed head of that age, never from the
 * rows, whose times a thief could change; a new head says where the log begins now, before a row goes.
 * @returns how many rows were deleted.
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
  const heads: AuditHead[] = [];
  for await (const { head } of storedHeads(store, signer)) if (head !== undefined) heads.push(head);
  const newest = heads.at(-1);
  if (newest === undefined) return 0;
  const old = heads.filter((head) => head.at < before || head.place <= state.place - most).at(-1);
  const isNew = old !== undefined && old.sequence < newest.sequence && old.place > newest.cut.place;
  const cut = isNew ? { place: old.place, hash: old.hash } : newest.cut;
  if (isNew && (await writeHead({ database, store, signer }, { cut })) === undefined) return 0;
  const rows = await prune(database, cut.place);
  for (const { sequence } of unneeded(heads, cut.place, now)) await store.delete(auditHeadKey(sequence));
  return rows;
}

async function prune(database: Database, upTo: bigint): Promise<number> {
  return upTo <= 0n ? 0 : await database.transaction(async (tx) => await tx.auditLog.prune(upTo));
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

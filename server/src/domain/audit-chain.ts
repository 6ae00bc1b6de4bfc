import { createHash } from "node:crypto";
import type { AuditRecord } from "./audit.ts";

/** An event with its time and, once it is chained, its place. */
export interface AuditEntry extends AuditRecord {
  /** UUID. */
  readonly id: string;
  readonly at: Date;
  /** Position of the row in the order of insertion. */
  readonly ordinal: bigint;
  /** From 1, without gaps; null while it is not chained. */
  readonly place: bigint | null;
  /** 32 bytes: the hash of the row before it. */
  readonly previousHash: Uint8Array | null;
  /** 32 bytes. */
  readonly hash: Uint8Array | null;
}

/** What comes before the first row of a chain: 32 zero bytes. */
export const FIRST_HASH: Uint8Array = new Uint8Array(32);

/** What the hash of a row covers. */
export type HashedEntry = Omit<AuditEntry, "ordinal" | "place" | "previousHash" | "hash">;

/**
 * The hash of a row: SHA-256 over a JSON array in the form of RFC 8785, which docs/audit.md describes for others who
 * verify.
 * @param previous hash of the row before it, 32 bytes.
 */
export function entryHash(place: bigint, previous: Uint8Array, entry: HashedEntry): Uint8Array {
  const details = Object.entries(entry.details).sort(([a], [b]) => (a < b ? -1 : 1));
  const content = [
    "strongroom-audit-row-1",
    String(place),
    Buffer.from(previous).toString("hex"),
    entry.id,
    entry.at.toISOString(),
    entry.kind,
    entry.actor,
    entry.accessKey,
    entry.sessionId,
    entry.address,
    entry.requestId,
    entry.collectionName,
    entry.object,
    entry.outcome,
    entry.reason,
    details,
  ];
  return new Uint8Array(createHash("sha256").update(JSON.stringify(content)).digest());
}

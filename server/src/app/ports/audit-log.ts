import type { AuditEntry } from "../../domain/audit-chain.ts";

/** Where the chain of audit events stands. */
export interface AuditChainRow {
  /** Place of the last chained row; 0 for none. */
  readonly place: bigint;
  /** Its hash. */
  readonly hash: Uint8Array;
  /** The highest sequence number that a head was given. */
  readonly reservedSequence: bigint;
  /** The newest head that is in the store; 0 for none. */
  readonly headSequence: bigint;
  /** The place that it signs. */
  readonly headPlace: bigint;
}

/** A row's place in the chain. */
export interface AuditLink {
  readonly id: string;
  readonly place: bigint;
  readonly previousHash: Uint8Array;
  readonly hash: Uint8Array;
}

/** Which events: those that fit everything given. */
export interface AuditFilter {
  /** From this time on. */
  readonly from?: Date | undefined;
  /** Before this time. */
  readonly before?: Date | undefined;
  /** `user:<name>`, `server` or `operator`. */
  readonly actor?: string | undefined;
  readonly collectionName?: string | undefined;
  readonly kind?: string | undefined;
}

/** Access to the audit log: what was written is never changed, the chain gives each row its place. */
export interface AuditRepository {
  /** Where the chain stands; made when it is missing. Only this transaction chains until it ends. */
  lockChain(): Promise<AuditChainRow>;
  /** Where the chain stands. */
  chain(): Promise<AuditChainRow>;
  /** Changes the state of the chain, which must be locked. */
  setChain(change: Partial<AuditChainRow>): Promise<void>;
  /** Rows without a place, in the order of insertion; at most `limit`. */
  unchained(limit: number): Promise<AuditEntry[]>;
  /** Gives rows their places. */
  link(links: readonly AuditLink[]): Promise<void>;
  /** Chained rows in order, after this place; at most `limit`. */
  chained(afterPlace: bigint | undefined, limit: number): Promise<AuditEntry[]>;
  /** The row at a place. */
  at(place: bigint): Promise<AuditEntry | undefined>;
  /** Rows that fit, the newest first, inserted before `beforeOrdinal`; at most `limit`. */
  list(of: AuditFilter, beforeOrdinal: bigint | undefined, limit: number): Promise<AuditEntry[]>;
  /** How many rows are not in the chain, or in it after this place, and the time of the oldest of them. */
  after(place: bigint): Promise<{ readonly rows: number; readonly oldestAt: Date | null }>;
  /**
   * Deletes the first chained rows: those of so many places from the lowest on, none after `upToPlace`.
   * @returns how many; undefined when there was no row up to that place.
   */
  prune(upToPlace: bigint, places: number): Promise<number | undefined>;
  /** The highest place of which it and all before it are older than this time; 0 for none. */
  placeBefore(time: Date): Promise<bigint>;
  /** Configuration objects as the log knows them. */
  configuration(): Promise<Map<string, Readonly<Record<string, string>>>>;
  /** Replaces what the log knows of an object; undefined for one that is gone. */
  setConfiguration(object: string, fields: Readonly<Record<string, string>> | undefined): Promise<void>;
}

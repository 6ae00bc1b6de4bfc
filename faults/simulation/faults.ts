import { BlobStoreError } from "@strongroom/server/app/ports/blob-store";
import { DomainError } from "@strongroom/server/domain/errors";
import type { Random } from "@strongroom/testkit/random";

/**
 * Every kind of fault. Over a whole run each must fire, or the suite fails: a fault that never strikes proves nothing.
 */
export const FAULT_KINDS = [
  "store.begin before",
  "store.begin answer lost",
  "store.begin twice",
  "store.writePart before",
  "store.writePart in the middle",
  "store.writePart answer lost",
  "store.writePart disk full",
  "store.complete before",
  "store.complete answer lost",
  "store.complete twice",
  "store.put before",
  "store.put answer lost",
  "store.put disk full",
  "store.abort before",
  "store.abort answer lost",
  "store.delete before",
  "store.delete answer lost",
  "store.stat before",
  "store.listPending before",
  "store.listPending in the middle",
  "store.read in the middle",
  "database before",
  "database rolled back",
  "database answer lost",
  "database runs it twice",
  "server died",
  "store opened again after a crash",
  "request took effect after its server died",
  "segment superseded on one server",
  "segment superseded across servers",
  "superseded attempt woke up late",
  "body broke off",
  "wrong bytes",
  "wrong size",
  "plaintext",
  "truncated message",
  "oversized chunk",
  "early commit",
  "wrong commit",
  "commit on two servers at once",
  "commit repeated",
  "request id repeated",
  "abort",
  "version deleted",
  "version held",
  "version released",
  "lease ran out",
  "upload expired",
  "lapsed upload gave way",
  "clock forward by a day or more",
  "clock backward",
  "limits lowered",
  "limits raised",
  "retention changed",
  "sweep while others work",
] as const;

/** One of {@link FAULT_KINDS}. */
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Decides by the seed which calls fail, and counts what struck. */
export class Faults {
  readonly counts = new Map<FaultKind, number>();
  readonly #random: Random;
  /** The probability of a fault at each place; 0 while the scenario settles and is checked. */
  rate: number;

  constructor(random: Random, rate: number) {
    this.#random = random;
    this.rate = rate;
  }

  /** Notes that something happened. */
  count(kind: FaultKind): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
  }

  /** Whether a fault of this kind strikes here. */
  strikes(kind: FaultKind, weight = 1): boolean {
    if (this.rate === 0 || !this.#random.chance(this.rate * weight)) return false;
    this.count(kind);
    return true;
  }

  /** Throws here if the seed says so. */
  store(kind: FaultKind, weight = 1): void {
    if (!this.strikes(kind, weight)) return;
    const full = kind.endsWith("disk full");
    const cause = full ? Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" }) : undefined;
    throw new BlobStoreError(`injected: ${kind}`, { cause });
  }

  /** Throws here if the seed says so. */
  database(kind: FaultKind, weight = 1): void {
    if (this.strikes(kind, weight)) throw new DomainError("DATABASE_UNAVAILABLE", `injected: ${kind}`);
  }
}

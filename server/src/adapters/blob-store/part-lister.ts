import type { PendingBlob } from "../../app/ports/blob-store.ts";

/** A part as a store lists it. */
export interface StoredPart {
  /** From 0. */
  readonly index: number;
  /** Bytes. */
  readonly size: bigint;
  /** 32 bytes; undefined where the store keeps no digests of parts. */
  readonly sha256: Uint8Array | undefined;
}

/**
 * What every store can besides the port, since it compares the parts before it completes an object. No use case asks;
 * the suite of all stores does.
 */
export interface PartLister {
  /** The parts that exist, by index. @throws BlobNotFoundError when there is no such unfinished object. */
  listParts(blob: PendingBlob): Promise<StoredPart[]>;
}

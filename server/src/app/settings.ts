import { MAX_CHUNK_BYTES } from "@strongroom/protocol/limits";

/** Times and sizes of the upload protocol. Milliseconds and bytes. */
export interface UploadSettings {
  /** Place and space of an upload are kept this long after the last sign of life. */
  readonly leaseMs: number;
  /** An upload can be resumed this long after the last sign of life. */
  readonly expiryMs: number;
  /** An upload must become a version within this time of its creation, unless its collection says another. */
  readonly maxUploadAgeMs: number;
  /** Uploads that one collection takes within 24 hours, whatever becomes of them. */
  readonly maxUploadsPerDay: number;
  /** Segments are at least this large; a multiple of 1 MiB. */
  readonly leastSegmentSize: bigint;
  /** The most bytes one chunk of WriteSegment may have, and the size of chunks of ReadVersion. */
  readonly maxChunkSize: number;
  /** WriteSegment fails when nothing was received for this long. */
  readonly segmentIdleMs: number;
  /** Bytes of a removed version are kept at least this long, so that running downloads end. */
  readonly purgeDelayMs: number;
  /** A request id is remembered this long. */
  readonly requestIdMs: number;
}

/** The protocol's defaults. */
export const DEFAULT_UPLOAD_SETTINGS: UploadSettings = {
  leaseMs: 15 * 60_000,
  expiryMs: 24 * 3_600_000,
  maxUploadAgeMs: 7 * 24 * 3_600_000,
  maxUploadsPerDay: 2000,
  leastSegmentSize: 16n * 1024n * 1024n,
  maxChunkSize: MAX_CHUNK_BYTES,
  segmentIdleMs: 60_000,
  purgeDelayMs: 24 * 3_600_000,
  requestIdMs: 7 * 24 * 3_600_000,
};

/** What server processes log; messages and fields never hold a secret. */
export interface Log {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

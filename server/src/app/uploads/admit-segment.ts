import { FramingStateError, initialFramingState, inspectFramingState } from "@strongroom/framing";
import type { Principal } from "../../domain/access.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { bytesEqual } from "../../domain/segments.ts";
import { requireUploadAccess, uploadNotOpen } from "../guards.ts";
import type { SegmentRow, Transaction, UploadRow } from "../ports/database.ts";
import { atLeastZero } from "./create-upload.ts";
import { lockOwnUpload, renewLease } from "./reservations.ts";
import { quotaExceeded, roomFor } from "./room.ts";
import type { UploadDeps } from "./upload-deps.ts";

/** The announced segment; shapes are checked by transport. */
export interface SegmentInput {
  readonly uploadId: string;
  readonly index: number;
  /** Bytes. */
  readonly size: bigint;
  /** 32 bytes. */
  readonly sha256: Uint8Array;
  /** Empty: the segment goes on from the stored one before. */
  readonly framingIn: Uint8Array;
}

/** A segment that may be written: its size is reserved, its attempt is the newest. */
export interface Admission {
  readonly upload: UploadRow;
  readonly spec: CollectionSpec;
  readonly segment: SegmentRow;
  /** Bytes that would be accepted on top of what is reserved. */
  readonly remaining: bigint;
}

/**
 * Checks an announced segment against its upload and reserves its size, unless it was announced before. The first step
 * of write-segment.
 */
export async function admitSegment(
  tx: Transaction,
  deps: UploadDeps,
  principal: Principal,
  input: SegmentInput,
): Promise<Admission> {
  const own = await lockOwnUpload(tx, principal, input.uploadId, (found) =>
    requireUploadAccess(deps.config, principal, found),
  );
  const { upload, collection, access: spec } = own;
  if (upload.state !== "open" || upload.storeToken === null) throw uploadNotOpen(upload);

  const { before, at: existing, last } = await tx.segments.around(upload.id, input.index);
  const framingIn = framingStart(input, before, existing);
  if (existing !== undefined) requireSame(existing, input, framingIn);
  else requirePlacement(upload, last, input);
  const segment: SegmentRow = existing ?? {
    uploadId: upload.id,
    index: input.index,
    size: input.size,
    sha256: input.sha256,
    state: "pending",
    attempt: 1,
    framingIn,
    framingOut: null,
    recipients: null,
  };
  const announced = existing === undefined ? segment : undefined;
  const renewed = await renewLease(tx, deps, spec, collection, upload, announced);
  const room = renewed.room ?? (await roomFor(tx, deps.config, spec, collection, upload.id));
  const admission = { upload: renewed.upload, spec, remaining: atLeastZero(room.total - renewed.upload.reservedBytes) };
  if (announced !== undefined || segment.state === "stored") return { ...admission, segment };
  return { ...admission, segment: { ...segment, attempt: await tx.segments.raiseAttempt(upload.id, input.index) } };
}

/** The framing state the segment starts in, checked against the segment before where that is stored. */
function framingStart(
  input: SegmentInput,
  before: SegmentRow | undefined,
  existing: SegmentRow | undefined,
): Uint8Array {
  const stated = input.framingIn.length === 0 ? undefined : input.framingIn;
  const metadata = { index: String(input.index) };
  if (stated !== undefined) {
    try {
      inspectFramingState(stated);
    } catch (error) {
      if (!(error instanceof FramingStateError)) throw error;
      throw new DomainError(
        "FRAMING_STATE_INVALID",
        `framing_in of segment ${input.index} cannot be read: ${error.message}`,
        {
          metadata,
          cause: error,
        },
      );
    }
  }
  const expected = input.index === 0 ? initialFramingState() : (before?.framingOut ?? undefined);
  if (stated === undefined) {
    if (existing !== undefined) return existing.framingIn;
    if (expected !== undefined) return expected;
    throw new DomainError(
      "PREVIOUS_SEGMENT_MISSING",
      `segment ${input.index} goes on from segment ${input.index - 1}, which is not acknowledged yet; wait for ` +
        "it, or send framing_in",
      { metadata },
    );
  }
  if (expected !== undefined && !bytesEqual(stated, expected)) {
    throw new DomainError(
      "FRAMING_STATE_INVALID",
      `framing_in of segment ${input.index} is not the state that the segment before ended in; send the ` +
        "segments of one stream in their order",
      { metadata },
    );
  }
  return stated;
}

function requireSame(existing: SegmentRow, input: SegmentInput, framingIn: Uint8Array): void {
  if (
    existing.size === input.size &&
    bytesEqual(existing.sha256, input.sha256) &&
    bytesEqual(existing.framingIn, framingIn)
  )
    return;
  throw new DomainError(
    "SEGMENT_CONFLICT",
    `segment ${input.index} was announced before with another size, digest or framing state; an upload is one ` +
      "stream, so create a new upload for another one",
    { metadata: { index: String(input.index) } },
  );
}

/** Sizes and order: only the last segment may be short, and nothing follows it. So no other than that one is short. */
function requirePlacement(upload: UploadRow, last: SegmentRow | undefined, input: SegmentInput): void {
  const refuse = (message: string) =>
    new DomainError("SEGMENT_SIZE_MISMATCH", message, {
      metadata: { declared_bytes: String(input.size), segment_size_bytes: String(upload.segmentSize) },
    });
  if (input.size > upload.segmentSize) {
    throw refuse(
      `segment ${input.index} declares ${input.size} bytes; segments of this upload have ${upload.segmentSize} ` +
        "bytes, only the last may be shorter",
    );
  }
  const lastIndex = last?.index ?? -1;
  const shortIndex = last !== undefined && last.size < upload.segmentSize ? last.index : undefined;
  if (shortIndex !== undefined && input.index > shortIndex) {
    throw refuse(
      `segment ${input.index} comes after segment ${shortIndex}, which is shorter than ${upload.segmentSize} ` +
        "bytes and therefore the last",
    );
  }
  if (input.size < upload.segmentSize && (lastIndex > input.index || shortIndex !== undefined)) {
    throw refuse(
      `segment ${input.index} has ${input.size} of ${upload.segmentSize} bytes, but it is not the last: ` +
        `segment ${lastIndex} was announced`,
    );
  }
  const end = BigInt(input.index) * upload.segmentSize + input.size;
  if (end > upload.maxSize) {
    throw quotaExceeded(
      { total: upload.maxSize, free: upload.maxSize, limit: "version", limitBytes: upload.maxSize, blocked: false },
      upload.reservedBytes,
      end - upload.reservedBytes,
    );
  }
}

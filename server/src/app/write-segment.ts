import {
  FramingError,
  FramingMachine,
  FramingStateError,
  initialFramingState,
  inspectFramingState,
} from "@strongroom/framing";
import type { Principal } from "../domain/access.ts";
import { DomainError } from "../domain/errors.ts";
import type { CollectionSpec } from "../domain/objects.ts";
import { bytesEqual } from "../domain/segments.ts";
import { atLeastZero, type UploadDeps } from "./create-upload.ts";
import { requireOwnUpload, requireUploadAccess, uploadNotOpen } from "./guards.ts";
import type { SegmentRow, Transaction, UploadRow } from "./repositories.ts";
import {
  changeReservation,
  endUpload,
  leaseFrom,
  lockCollection,
  quotaExceeded,
  renewLease,
  roomFor,
  uploadIn,
} from "./reservations.ts";
import type { SegmentAttempts } from "./segment-attempts.ts";
import { BodyBrokenError, checkedSegmentBody } from "./segment-body.ts";

/** What the use case needs. */
export interface WriteSegmentDeps extends UploadDeps {
  readonly attempts: SegmentAttempts;
}

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

/** An acknowledged segment. */
export interface AcceptedSegment {
  readonly index: number;
  readonly size: bigint;
  readonly sha256: Uint8Array;
  /** Bytes that would be accepted now on top of what is reserved. */
  readonly remaining: bigint;
  readonly leaseExpiresAt: Date;
}

interface Admission {
  readonly upload: UploadRow;
  readonly spec: CollectionSpec;
  readonly segment: SegmentRow;
  /** Bytes that would be accepted on top of what is reserved. */
  readonly remaining: bigint;
}

/**
 * Takes one segment in: reserves its size, then moves its bytes once through meter, framing check and digest into the store, then settles. Only the
 * newest attempt at an index can settle; an acknowledged index is answered without reading.
 * @param signal ends the attempt: the connection is gone or the server is stopping.
 */
export async function writeSegment(
  deps: WriteSegmentDeps,
  principal: Principal,
  input: SegmentInput,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<AcceptedSegment> {
  await deps.database.read(async (tx) => {
    requireUploadAccess(deps.config, principal, await requireOwnUpload(tx, principal, input.uploadId));
  });
  // The owner is part of the name: nobody else's request can end an attempt.
  const name = `${input.uploadId}/${input.index}/${principal.user.name}$${principal.accessKey}`;
  return await deps.attempts.run(name, signal, async (attemptSignal) => {
    const admitted = await deps.database.transaction(async (tx) => await admit(tx, deps, principal, input));
    if (admitted.segment.state === "stored") return acknowledged(admitted, admitted.upload);
    let framingOut: Uint8Array;
    try {
      framingOut = await store(deps, principal, admitted, body, attemptSignal);
    } catch (error) {
      throw await afterFailure(deps, admitted, error, attemptSignal);
    }
    return await settle(deps, principal, admitted, framingOut);
  });
}

/** Checks the segment against its upload and reserves its size. */
async function admit(tx: Transaction, deps: UploadDeps, principal: Principal, input: SegmentInput): Promise<Admission> {
  const found = await requireOwnUpload(tx, principal, input.uploadId);
  const spec = requireUploadAccess(deps.config, principal, found);
  const collection = await lockCollection(tx, { id: found.collectionId });
  const upload = await uploadIn(tx, collection, found.id);
  if (upload.state !== "open" || upload.storeToken === null) throw uploadNotOpen(upload);

  const [before, existing] = await beforeAndAt(tx, input);
  const framingIn = framingStart(input, before, existing);
  if (existing !== undefined) requireSame(existing, input, framingIn);
  else await requirePlacement(tx, upload, input);
  const more = existing === undefined ? input.size : 0n;
  const renewed = await renewLease(tx, deps, spec, collection, upload, more);
  const room = renewed.room ?? (await roomFor(tx, deps.config, spec, collection, upload.id));
  const admission = { upload: renewed.upload, spec, remaining: atLeastZero(room.total - renewed.upload.reservedBytes) };
  if (existing?.state === "stored") return { ...admission, segment: existing };
  if (existing !== undefined) {
    const attempt = await tx.segments.raiseAttempt(upload.id, input.index);
    return { ...admission, segment: { ...existing, attempt } };
  }
  const segment: SegmentRow = {
    uploadId: upload.id,
    index: input.index,
    size: input.size,
    sha256: input.sha256,
    state: "pending",
    attempt: 1,
    framingIn,
    framingOut: null,
  };
  await tx.segments.insert(segment);
  return { ...admission, segment };
}

/** The segment before this one and this one itself, where they are known. */
async function beforeAndAt(tx: Transaction, { uploadId, index }: SegmentInput): Promise<(SegmentRow | undefined)[]> {
  const rows = await tx.segments.list(uploadId, Math.max(0, index - 1), 2);
  return [index - 1, index].map((i) => rows.find((row) => row.index === i));
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
      `segment ${input.index} goes on from segment ${input.index - 1}, which is not acknowledged yet; wait for it, or send framing_in`,
      { metadata },
    );
  }
  if (expected !== undefined && !bytesEqual(stated, expected)) {
    throw new DomainError(
      "FRAMING_STATE_INVALID",
      `framing_in of segment ${input.index} is not the state that the segment before ended in; send the segments of one stream in their order`,
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
    `segment ${input.index} was announced before with another size, digest or framing state; an upload is one stream, so create a new upload for another one`,
    { metadata: { index: String(input.index) } },
  );
}

/** Sizes and order: only the last segment may be short, and nothing lies behind it. */
async function requirePlacement(tx: Transaction, upload: UploadRow, input: SegmentInput): Promise<void> {
  const refuse = (message: string) =>
    new DomainError("SEGMENT_SIZE_MISMATCH", message, {
      metadata: { declared_bytes: String(input.size), segment_size: String(upload.segmentSize) },
    });
  if (input.size > upload.segmentSize) {
    throw refuse(
      `segment ${input.index} declares ${input.size} bytes; segments of this upload have ${upload.segmentSize} bytes, only the last may be shorter`,
    );
  }
  const { lastIndex, shortIndex } = await tx.segments.summary(upload.id, upload.segmentSize);
  if (shortIndex !== undefined && input.index > shortIndex) {
    throw refuse(
      `segment ${input.index} comes after segment ${shortIndex}, which is shorter than ${upload.segmentSize} bytes and therefore the last`,
    );
  }
  if (input.size < upload.segmentSize && (lastIndex > input.index || shortIndex !== undefined)) {
    throw refuse(
      `segment ${input.index} has ${input.size} of ${upload.segmentSize} bytes, but it is not the last: segment ${lastIndex} was announced`,
    );
  }
  const end = BigInt(input.index) * upload.segmentSize + input.size;
  if (end > upload.maxSize) {
    throw quotaExceeded(
      { total: upload.maxSize, limit: "version", limitBytes: upload.maxSize, blocked: false },
      upload.reservedBytes,
      end - upload.reservedBytes,
    );
  }
}

/** Moves the bytes into the store. Returns the framing state they end in. */
async function store(
  deps: WriteSegmentDeps,
  principal: Principal,
  { upload, spec, segment }: Admission,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const policy =
    spec.recipientKeyIds === undefined
      ? { formats: spec.encryptionFormats }
      : { formats: spec.encryptionFormats, recipientKeyIds: spec.recipientKeyIds };
  const framing = new FramingMachine(policy, segment.framingIn);
  let bodyFailure: { readonly error: unknown } | undefined;
  const checked = checkedSegmentBody({
    body,
    segment,
    framing,
    hashes: !deps.store.capabilities.verifiesPartDigests,
    maxChunkSize: deps.settings.maxChunkSize,
    idleMs: deps.settings.segmentIdleMs,
    renewMs: deps.settings.leaseMs / 3,
    renew: async () => await renewUploadById(deps, principal, upload.id),
    signal,
    onFailure: (error) => {
      bodyFailure = { error };
    },
  });
  try {
    const blob = { key: upload.key, token: upload.storeToken! };
    await deps.store.writePart(blob, segment, { segmentSize: upload.segmentSize }, checked, signal);
  } catch (error) {
    throw bodyFailure === undefined ? error : bodyFailure.error;
  }
  return framing.encodeState();
}

/** Extends the lease of one's own upload, outside other work. */
export async function renewUploadById(deps: UploadDeps, principal: Principal, uploadId: string): Promise<UploadRow> {
  return await deps.database.transaction(async (tx) => {
    const found = await requireOwnUpload(tx, principal, uploadId);
    const spec = requireUploadAccess(deps.config, principal, found);
    const collection = await lockCollection(tx, { id: found.collectionId });
    const upload = await uploadIn(tx, collection, found.id);
    if (upload.state !== "open") throw uploadNotOpen(upload);
    return (await renewLease(tx, deps, spec, collection, upload)).upload;
  });
}

/** Gives back what a refused segment reserved, ends the upload where its ciphertext was refused, and returns what the caller is told. */
async function afterFailure(
  deps: UploadDeps,
  admitted: Admission,
  error: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  if (error instanceof FramingError) {
    await refuseUpload(deps, admitted.upload.id, `the ciphertext was refused: ${error.message}`);
    return new DomainError("CIPHERTEXT_REFUSED", error.message, {
      metadata: { violation: error.violation, offset: String(error.offset) },
      cause: error,
    });
  }
  if (signal.aborted) {
    // Superseded or stopping where the reason says so; else the client is gone, which may look like a body that ended early.
    if (signal.reason instanceof DomainError) return signal.reason;
    return new BodyBrokenError("the client ended the call in the middle of a segment", { cause: error });
  }
  if (error instanceof DomainError) {
    if (REFUSALS.has(error.reason)) await release(deps, admitted);
    return error;
  }
  if (error instanceof BodyBrokenError) return error;
  // The segment's row and reservation stay: the client keeps its copy and sends it again.
  return new DomainError("STORE_UNAVAILABLE", "the segment could not be stored; send it again in a moment", {
    cause: error,
    retryAfterMs: 1000,
  });
}

/** Refusals of the bytes themselves; other failures leave the reservation to the retry. */
const REFUSALS: ReadonlySet<string> = new Set([
  "SEGMENT_SIZE_MISMATCH",
  "SEGMENT_DIGEST_MISMATCH",
  "SEGMENT_FRAMES_INVALID",
]);

async function release(deps: UploadDeps, { upload, segment }: Admission): Promise<void> {
  // An earlier attempt may still be writing elsewhere. Its number must not be given out again, so the row stays, and its space until the upload ends.
  if (segment.attempt > 1) return;
  await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(upload.collectionId);
    const current = await tx.uploads.find(upload.id);
    if (current?.state !== "open") return;
    const dropped = await tx.segments.dropPending(upload.id, segment.index, segment.attempt);
    if (dropped && !current.lapsed) await changeReservation(tx, current, -segment.size);
  });
}

/** Ends an open upload whose ciphertext can never become a version. */
export async function refuseUpload(deps: UploadDeps, uploadId: string, reason: string): Promise<void> {
  await deps.database.transaction(async (tx) => {
    const found = await tx.uploads.find(uploadId);
    if (found === undefined) return;
    await tx.collections.lockById(found.collectionId);
    const current = (await tx.uploads.find(uploadId))!;
    if (current.state === "open") await endUpload(tx, current, "aborted", reason);
  });
}

/**
 * Acknowledges the stored bytes, if this is still the newest attempt. Locks the upload alone, since nothing is counted anew; only an upload whose lease ran
 * out meanwhile has to take its place and space again first.
 */
async function settle(
  deps: UploadDeps,
  principal: Principal,
  admitted: Admission,
  framingOut: Uint8Array,
): Promise<AcceptedSegment> {
  const { segment } = admitted;
  const outcome = await deps.database.transaction(async (tx) => {
    const lease = leaseFrom(tx.now, deps.settings);
    if (!(await tx.uploads.extendLease(segment.uploadId, lease))) return "not-held" as const;
    const next = (await tx.segments.list(segment.uploadId, segment.index + 1, 1))[0];
    if (next?.index === segment.index + 1 && !bytesEqual(next.framingIn, framingOut)) return "chain-broken" as const;
    if (!(await tx.segments.settle(segment.uploadId, segment.index, segment.attempt, framingOut, tx.now))) {
      throw new DomainError("SEGMENT_SUPERSEDED", `a newer attempt at segment ${segment.index} took over`, {
        metadata: { index: String(segment.index) },
      });
    }
    return acknowledged(admitted, lease);
  });
  if (outcome === "not-held") {
    // Ended, or lapsed: the first is refused there, the second takes place and space again.
    await renewUploadById(deps, principal, segment.uploadId);
    return await settle(deps, principal, admitted, framingOut);
  }
  if (outcome !== "chain-broken") return outcome;
  const message = `segment ${segment.index + 1} was announced with a framing state that segment ${segment.index} does not end in; segments of different streams were mixed`;
  await refuseUpload(deps, segment.uploadId, message);
  throw new DomainError("FRAMING_STATE_INVALID", message, { metadata: { index: String(segment.index + 1) } });
}

function acknowledged(
  { segment, remaining }: Admission,
  { leaseExpiresAt }: Pick<UploadRow, "leaseExpiresAt">,
): AcceptedSegment {
  return { index: segment.index, size: segment.size, sha256: segment.sha256, remaining, leaseExpiresAt };
}

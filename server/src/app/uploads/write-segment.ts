import { FramingError, FramingMachine, type Recipients } from "@strongroom/framing";
import type { Principal } from "../../domain/access.ts";
import type { OrganizationSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { requireOwnUpload, requireUploadAccess } from "../guards.ts";
import { BlobDigestError, BlobNotFoundError } from "../ports/blob-store.ts";
import { pinned } from "../ports/config-source.ts";
import type { UploadRow } from "../ports/database.ts";
import { type Admission, admitSegment, type SegmentInput } from "./admit-segment.ts";
import { inPace } from "./body-pace.ts";
import { withRoom } from "./clean-upload.ts";
import { endLostUpload } from "./lost-upload.ts";
import { refuseUpload, renewUpload } from "./manage-uploads.ts";
import { changeReservation, leaseFrom } from "./reservations.ts";
import { BodyBrokenError, checkedSegmentBody, digestMismatch } from "./segment-body.ts";
import { storeFailure } from "./store-failure.ts";
import { lastMoment, requireYoung } from "./upload-age.ts";
import type { UploadDeps } from "./upload-deps.ts";

/** An acknowledged segment. */
export interface AcceptedSegment {
  readonly index: number;
  readonly size: bigint;
  readonly sha256: Uint8Array;
  /** Bytes that would be accepted now on top of what is reserved. */
  readonly remaining: bigint;
  readonly leaseExpiresAt: Date;
}

/**
 * Takes one segment in: reserves its size, then moves its bytes once through meter, framing check and digest into the
 * store, then settles. Only the newest attempt at an index can settle; an acknowledged index is answered without
 * reading.
 * @param signal ends the attempt: the connection is gone or the server is stopping.
 */
export async function writeSegment(
  deps: UploadDeps,
  principal: Principal,
  input: SegmentInput,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<AcceptedSegment> {
  // The owner is part of the name: nobody else's request can end an attempt.
  const name = `${input.uploadId}/${input.index}/${principal.user.name}$${principal.accessKey}`;
  return await deps.attempts.run(name, signal, async (attemptSignal) => {
    // Before anything is reserved for it, and before its bytes are read.
    const limits = await shareLimits(deps, principal, input);
    const leave =
      limits === undefined ? undefined : await deps.shares?.enter(limits, attemptSignal, { upload: input.uploadId });
    let written: (() => void) | undefined;
    try {
      const admitted = await withRoom(deps, async (tx) => await admitSegment(tx, pinned(deps), principal, input));
      if (admitted.segment.state === "stored") return acknowledged(admitted, admitted.upload);
      let checked: Checked;
      try {
        // Only now: what is stored already is acknowledged, however full the disk is.
        written = await deps.disk?.take(input.size);
        checked = await store(deps, principal, admitted, inPlace(deps, admitted.upload, body), attemptSignal);
      } catch (error) {
        throw await afterFailure(deps, admitted, error, attemptSignal);
      }
      return await settle(deps, principal, admitted, checked);
    } finally {
      written?.();
      leave?.();
    }
  });
}

/** The limits of the upload's organization; where no organization is configured, nobody has to be asked for them. */
async function shareLimits(
  deps: UploadDeps,
  principal: Principal,
  { uploadId }: SegmentInput,
): Promise<OrganizationSpec | undefined> {
  const { organizations } = deps.config.current();
  if (deps.shares === undefined || organizations.size === 0) return undefined;
  const upload = await deps.database.read(async (tx) => await requireOwnUpload(tx, principal, uploadId));
  requireUploadAccess(deps.config, principal, upload);
  return organizations.get(upload.organization);
}

/** What the ciphertext check found in a segment. */
interface Checked {
  /** The framing state it ends in. */
  readonly framingOut: Uint8Array;
  /** What the stream is encrypted to, where its header is in this segment. */
  readonly recipients: Recipients | null;
}

/** Moves the bytes into the store. */
async function store(
  deps: UploadDeps,
  principal: Principal,
  { upload, spec, segment }: Admission,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<Checked> {
  const policy = {
    formats: spec.encryptionFormats,
    ...(spec.recipientKeyIds === undefined ? {} : { recipientKeyIds: spec.recipientKeyIds }),
    ...(spec.ageRecipients === undefined ? {} : { ageRecipients: spec.ageRecipients }),
  };
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
    renew: async () => await renewUpload(deps, principal, upload.id),
    pace: paceOf(deps, upload.organization, signal),
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
  return { framingOut: framing.encodeState(), recipients: framing.recipients ?? null };
}

/** The body of a segment that gives its place back when it comes too slowly for those that wait for one. */
function inPlace(
  { shares, config }: UploadDeps,
  { id, organization }: Pick<UploadRow, "id" | "organization">,
  body: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  const limits = config.current().organizations.get(organization);
  if (shares === undefined || limits?.maxParallelSegments === undefined) return body;
  const pressedMs = () => shares.pressedMs(organization, id);
  return {
    [Symbol.asyncIterator]: () => inPace({ pressedMs, now: () => shares.now() }, 0, body[Symbol.asyncIterator]()),
  };
}

/** Keeps to the rate of an organization that has one; undefined for every other. */
function paceOf(
  { shares, config }: UploadDeps,
  organization: string,
  signal: AbortSignal,
): ((bytes: number) => Promise<void>) | undefined {
  const limits = config.current().organizations.get(organization);
  if (shares === undefined || limits?.maxUploadRate === undefined) return undefined;
  return async (bytes) => await shares.pace(limits, bytes, signal);
}

/**
 * Gives back what a refused segment reserved, ends the upload where its ciphertext was refused, and returns the error
 * for the caller.
 */
async function afterFailure(
  deps: UploadDeps,
  admitted: Admission,
  error: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  if (error instanceof FramingError) {
    await refuseUpload(deps, admitted.upload.id, `the ciphertext was refused: ${error.message}`);
    return new DomainError("CIPHERTEXT_REFUSED", error.message, {
      metadata: { violation: error.violation, offset_bytes: String(error.offset) },
      cause: error,
    });
  }
  if (signal.aborted) {
    // Superseded or stopping where the reason says so; else the client is gone, which may look like a body that ended
    // early.
    if (signal.reason instanceof DomainError) return signal.reason;
    return new BodyBrokenError("the client ended the call in the middle of a segment", { cause: error });
  }
  if (error instanceof DomainError) {
    if (REFUSALS.has(error.reason)) await release(deps, admitted);
    return error;
  }
  if (error instanceof BodyBrokenError) return error;
  if (error instanceof BlobDigestError) {
    await release(deps, admitted);
    return digestMismatch(admitted.segment.index, error);
  }
  if (error instanceof BlobNotFoundError) {
    const lost = await endLostUpload(deps, admitted.upload);
    if (lost !== undefined) return lost;
  }
  // The segment's row and reservation stay: the client keeps its copy and sends it again.
  return storeFailure("the segment could not be stored; send it again in a moment", error, 1000);
}

/** Refusals of the bytes themselves; other failures leave the reservation to the retry. */
const REFUSALS: ReadonlySet<string> = new Set([
  "SEGMENT_SIZE_MISMATCH",
  "SEGMENT_DIGEST_MISMATCH",
  "SEGMENT_FRAMES_INVALID",
]);

async function release(deps: UploadDeps, { upload, segment }: Admission): Promise<void> {
  // An earlier attempt may still be writing elsewhere. Its number must not be given out again, so the row stays, and
  // its space until the upload ends. So it does where the store keeps refused bytes.
  if (segment.attempt > 1 || deps.store.capabilities.keepsRefusedBytes) return;
  await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(upload.collectionId);
    const current = await tx.uploads.find(upload.id);
    if (current?.state !== "open") return;
    const dropped = await tx.segments.dropPending(upload.id, segment.index, segment.attempt);
    if (dropped) await changeReservation(tx, current, -segment.size);
  });
}

/**
 * Acknowledges the stored bytes, if this is still the newest attempt. Locks the upload alone, since nothing is counted
 * again; only an upload whose lease ran out meanwhile has to take its place and space again first. Neighbours that are
 * announced and settled in the same moment may not see each other; then the commit refuses what does not fit together.
 */
async function settle(
  deps: UploadDeps,
  principal: Principal,
  admitted: Admission,
  checked: Checked,
): Promise<AcceptedSegment> {
  const { segment, upload, spec } = admitted;
  const { framingOut, recipients } = checked;
  const { outcome, lease } = await deps.database.transaction(async (tx) => {
    await requireYoung(tx, upload, spec, deps.settings);
    const lease = leaseFrom(tx.now, deps.settings, lastMoment(upload, spec, deps.settings));
    return { lease, outcome: await tx.segments.settle(segment, { framingOut, recipients, storedAt: tx.now }, lease) };
  });
  if (outcome === "settled") return acknowledged(admitted, lease);
  if (outcome === "superseded") {
    throw new DomainError("SEGMENT_SUPERSEDED", `a newer attempt at segment ${segment.index} took over`, {
      metadata: { index: String(segment.index) },
    });
  }
  if (outcome === "not-held") {
    // Ended, or lapsed: the first is refused there, the second takes place and space again.
    await renewUpload(deps, principal, segment.uploadId);
    return await settle(deps, principal, admitted, checked);
  }
  const message =
    `segment ${segment.index + 1} was announced with a framing state that segment ${segment.index} does not end ` +
    "in; segments of different streams were mixed";
  await refuseUpload(deps, segment.uploadId, message);
  throw new DomainError("FRAMING_STATE_INVALID", message, { metadata: { index: String(segment.index + 1) } });
}

function acknowledged(
  { segment, remaining }: Admission,
  { leaseExpiresAt }: Pick<UploadRow, "leaseExpiresAt">,
): AcceptedSegment {
  return { index: segment.index, size: segment.size, sha256: segment.sha256, remaining, leaseExpiresAt };
}

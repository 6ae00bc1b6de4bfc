import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { CiphertextFormat } from "@strongroom/framing";
import * as pb from "@strongroom/gen/strongroom/v1/resources_pb";
import { type Session, SessionSchema } from "@strongroom/gen/strongroom/v1/session_service_pb";
import type { CollectionDetails, CollectionView } from "../app/collections/collections.ts";
import type { SegmentRow, SessionRow, UploadRow, VersionRow } from "../app/ports/database.ts";
import { extraSpace } from "../domain/quota.ts";
import type { ContentEncoding } from "../domain/version.ts";

/*
 * Rows and views of the use cases as messages of the contract.
 */

/** A time as a message; undefined stays unset. */
export function time(date: Date | null | undefined): Timestamp | undefined {
  return date == null ? undefined : timestampFromDate(date);
}

const FORMATS: Readonly<Record<CiphertextFormat, pb.EncryptionFormat>> = {
  openpgp: pb.EncryptionFormat.OPENPGP,
  age: pb.EncryptionFormat.AGE,
};

const UPLOAD_STATES: Readonly<Record<UploadRow["state"], pb.UploadState>> = {
  open: pb.UploadState.OPEN,
  committing: pb.UploadState.COMMITTING,
  committed: pb.UploadState.COMMITTED,
  aborted: pb.UploadState.ABORTED,
  expired: pb.UploadState.EXPIRED,
};

const encodingMessage = (encoding: ContentEncoding) =>
  encoding === "zstd" ? pb.ContentEncoding.ZSTD : pb.ContentEncoding.NONE;

/** A version. */
export function versionMessage(row: VersionRow): pb.Version {
  return create(pb.VersionSchema, {
    versionId: row.id,
    collection: row.collectionName,
    number: row.number,
    filename: row.filename,
    size: row.size,
    segmentSize: row.segmentSize,
    segmentCount: row.segmentCount,
    compositeSha256: row.compositeSha256,
    contentEncoding: encodingMessage(row.contentEncoding),
    encryptionFormat: FORMATS[row.encryptionFormat],
    armored: row.armored,
    begunAt: time(row.begunAt),
    committedAt: time(row.committedAt),
    uploadedBy: row.userName,
    accessKey: row.accessKey,
    sessionId: row.sessionId,
    labels: row.labels,
    clientMetadata: row.clientMetadata,
    state: row.state === "live" ? pb.VersionState.LIVE : pb.VersionState.REMOVED,
    held: row.held,
    holdReason: row.holdReason,
    protectedUntil: time(row.protectedUntil),
    aboveSoftLimit: row.aboveSoftLimit,
    removedAt: time(row.removedAt),
    purgeAfter: time(row.purgeAfter),
    verifiedAt: time(row.verifiedAt),
    damage: row.damage,
    ...(row.damagedSegment === null ? {} : { damagedSegment: row.damagedSegment }),
  });
}

/** An upload. */
export function uploadMessage(row: UploadRow, remaining: bigint, maxChunkSize: number): pb.Upload {
  return create(pb.UploadSchema, {
    uploadId: row.id,
    collection: row.collectionName,
    state: UPLOAD_STATES[row.state],
    segmentSize: row.segmentSize,
    maxChunkSize: BigInt(maxChunkSize),
    maxSize: row.maxSize,
    remaining,
    received: row.reservedBytes,
    leaseExpiresAt: time(row.leaseExpiresAt),
    expiresAt: time(row.expiresAt),
    begunAt: time(row.begunAt),
    user: row.userName,
    accessKey: row.accessKey,
    clientMetadata: row.clientMetadata,
    lapsed: row.lapsed,
    abortReason: row.abortReason,
    versionNumber: row.versionNumber ?? 0n,
  });
}

/** A segment. */
export function segmentMessage(row: Pick<SegmentRow, "index" | "size" | "sha256">): pb.Segment {
  return create(pb.SegmentSchema, { index: row.index, size: row.size, sha256: row.sha256 });
}

/** A session without its token. */
export function sessionMessage(row: SessionRow): Session {
  return create(SessionSchema, {
    sessionId: row.id,
    user: row.userName,
    accessKey: row.accessKey,
    scope: row.scope.map((grant) => ({ type: grant.type, name: grant.name, roles: [...grant.roles] })),
    description: row.description,
    address: row.address,
    createdAt: time(row.createdAt),
    expiresAt: time(row.expiresAt),
  });
}

/** A collection; with usage where it was computed, without limits while it is frozen. */
export function collectionMessage(view: CollectionView & Partial<CollectionDetails>): pb.Collection {
  const { spec, usage } = view;
  if (spec === undefined)
    return create(pb.CollectionSchema, { name: view.name, collectionId: view.id, usage, frozen: true });
  return create(pb.CollectionSchema, {
    name: spec.name,
    collectionId: view.id,
    description: spec.description,
    organization: spec.organization,
    limits: {
      maxVersions: spec.maxBackupsCount,
      maxVersionSize: spec.maxOneVersionSize,
      maxCollectionSize: spec.maxCollectionSize,
      extraSpace: extraSpace(spec),
      maxParallelUploads: spec.maxParallelUploads,
    },
    usage,
    windows: spec.windows.map((w) => ({ from: w.from, durationSeconds: BigInt(Math.round(w.durationMs / 1000)) })),
    timezone: spec.timezone,
    acceptsUploadsNow: view.acceptsUploadsNow,
    nextWindowAt: time(view.nextWindowAt),
    encryptionFormats: spec.encryptionFormats.map((format) => FORMATS[format]),
    rotationStrategy: spec.strategy,
  });
}

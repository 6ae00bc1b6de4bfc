import { create, type DescMessage, type Message, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { durationFromMs, type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { CiphertextFormat } from "@strongroom/framing";
import * as pb from "@strongroom/gen/strongroom/v1/resources_pb";
import {
  type CollectionRightsSchema,
  ObjectType,
  CollectionAction as pbCollectionAction,
  type Session,
  SessionSchema,
} from "@strongroom/gen/strongroom/v1/session_service_pb";
import type { CollectionDetails, CollectionView } from "../app/collections/collections.ts";
import type { SegmentRow, SessionRow, VersionRow } from "../app/ports/database.ts";
import type { UploadView } from "../app/uploads/upload-deps.ts";
import type { CollectionAction, CollectionRights } from "../domain/access.ts";
import type { Role } from "../domain/configuration.ts";
import type { OlderCopiesPolicy } from "../domain/older-copies.ts";
import { extraSpace, quotaLimits } from "../domain/quota.ts";
import { copiesOf, type RotationPolicy } from "../domain/rotation.ts";
import type { ContentEncoding, DamageReason } from "../domain/version.ts";

/*
 * Rows and views of the use cases as messages of the contract.
 */

/** A time as a message; undefined stays unset. */
export function time(date: Date | null | undefined): Timestamp | undefined {
  return date == null ? undefined : timestampFromDate(date);
}

const durationMessage = (ms: number | undefined) => (ms === undefined ? undefined : durationFromMs(ms));

const FORMATS: Readonly<Record<CiphertextFormat, pb.EncryptionFormat>> = {
  openpgp: pb.EncryptionFormat.OPENPGP,
  age: pb.EncryptionFormat.AGE,
};

const UPLOAD_STATES: Readonly<Record<UploadView["upload"]["state"], pb.UploadState>> = {
  open: pb.UploadState.OPEN,
  committing: pb.UploadState.COMMITTING,
  committed: pb.UploadState.COMMITTED,
  aborted: pb.UploadState.ABORTED,
  expired: pb.UploadState.EXPIRED,
};

const ROLES: Readonly<Record<Role, pb.Role>> = {
  systemAdmin: pb.Role.SYSTEM_ADMIN,
  userManager: pb.Role.USER_MANAGER,
  collectionManager: pb.Role.COLLECTION_MANAGER,
  backupUploader: pb.Role.BACKUP_UPLOADER,
  backupDownloader: pb.Role.BACKUP_DOWNLOADER,
  uploadsAnytime: pb.Role.UPLOADS_ANYTIME,
};

const STRATEGIES: Readonly<Record<RotationPolicy["strategy"], pb.RotationStrategy>> = {
  fifo: pb.RotationStrategy.FIFO,
  "fifo-plus-older": pb.RotationStrategy.FIFO_PLUS_OLDER,
  gfs: pb.RotationStrategy.GFS,
};

const DAMAGE_REASONS: Readonly<Record<DamageReason, pb.DamageReason>> = {
  "": pb.DamageReason.UNSPECIFIED,
  "object-missing": pb.DamageReason.OBJECT_MISSING,
  "size-differs": pb.DamageReason.SIZE_DIFFERS,
  "bytes-differ": pb.DamageReason.BYTES_DIFFER,
  "record-inconsistent": pb.DamageReason.RECORD_INCONSISTENT,
  unreadable: pb.DamageReason.UNREADABLE,
};

const ACTIONS: Readonly<Record<CollectionAction, pbCollectionAction>> = {
  upload: pbCollectionAction.UPLOAD,
  "upload-anytime": pbCollectionAction.UPLOAD_ANYTIME,
  download: pbCollectionAction.DOWNLOAD,
  manage: pbCollectionAction.MANAGE,
};

/** What a session may do in a collection. */
export function rightsMessage({
  collection,
  actions,
}: CollectionRights): MessageInitShape<typeof CollectionRightsSchema> {
  return { collection, actions: actions.map((action) => ACTIONS[action]) };
}

/** Roles as messages. */
export function roleMessages(roles: readonly Role[]): pb.Role[] {
  return roles.map((role) => ROLES[role]);
}

/** A role of a request; undefined for a number that is none. */
export function roleOf(value: pb.Role): Role | undefined {
  return (Object.keys(ROLES) as Role[]).find((role) => ROLES[role] === value);
}

const encodingMessage = (encoding: ContentEncoding) =>
  encoding === "zstd" ? pb.ContentEncoding.ZSTD : pb.ContentEncoding.NONE;

/** Every field of a message: the compiler asks for one that is left out. */
type Whole<D extends DescMessage> = {
  readonly [F in Exclude<keyof MessageShape<D>, keyof Message> & keyof MessageInitShape<D>]: MessageInitShape<D>[F];
};

/**
 * A version.
 * @param timezone of its collection; empty while that is frozen.
 */
export function versionMessage(row: VersionRow, timezone: string): pb.Version {
  const message: Whole<typeof pb.VersionSchema> = {
    versionId: row.id,
    collection: row.collectionName,
    number: row.number,
    filename: row.filename,
    sizeBytes: row.size,
    segmentSizeBytes: row.segmentSize,
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
    damage: damageMessage(row),
    usualSizeBytes: row.usualSize ?? 0n,
    confirmedAt: time(row.confirmedAt),
    heldBy: row.heldBy.replace(/^user:/, ""),
    heldAt: time(row.heldAt),
    recipients: Object.entries(row.recipients ?? {}).map(([name, count]) =>
      create(pb.RecipientSchema, { name, count }),
    ),
    manifestPending: row.manifestRevision !== row.revision,
    unchecked: row.unchecked,
    timezone,
  };
  return create(pb.VersionSchema, message);
}

/** What is wrong with a version; undefined for nothing. */
function damageMessage({ damage, damageReason, damagedSegment, damagedAt }: VersionRow) {
  if (damage === "") return undefined;
  const segment = damagedSegment === null ? {} : { segment: damagedSegment };
  return { reason: DAMAGE_REASONS[damageReason], message: damage, foundAt: time(damagedAt), ...segment };
}

/**
 * An upload.
 * @param timezone of its collection; empty when that is not configured any more.
 */
export function uploadMessage(view: UploadView, maxChunkSize: number, timezone: string): pb.Upload {
  const { upload: row, remaining, storedBytes } = view;
  return create(pb.UploadSchema, {
    uploadId: row.id,
    collection: row.collectionName,
    state: UPLOAD_STATES[row.state],
    segmentSizeBytes: row.segmentSize,
    maxChunkSizeBytes: BigInt(maxChunkSize),
    maxSizeBytes: row.maxSize,
    remainingBytes: remaining,
    storedBytes,
    reservedBytes: row.reservedBytes,
    leaseExpiresAt: time(row.leaseExpiresAt),
    expiresAt: time(row.expiresAt),
    begunAt: time(row.begunAt),
    user: row.userName,
    accessKey: row.accessKey,
    clientMetadata: row.clientMetadata,
    lapsed: row.lapsed,
    abortReason: row.abortReason,
    versionNumber: row.versionNumber ?? 0n,
    timezone,
  });
}

/** A segment. */
export function segmentMessage(row: Pick<SegmentRow, "index" | "size" | "sha256">): pb.Segment {
  return create(pb.SegmentSchema, { index: row.index, sizeBytes: row.size, sha256: row.sha256 });
}

/** A session without its token. */
export function sessionMessage(row: SessionRow): Session {
  return create(SessionSchema, {
    sessionId: row.id,
    user: row.userName,
    accessKey: row.accessKey,
    scope: row.scope.map((grant) => ({
      type: ObjectType.COLLECTION,
      name: grant.name,
      roles: roleMessages(grant.roles),
    })),
    description: row.description,
    address: row.address,
    createdAt: time(row.createdAt),
    expiresAt: time(row.expiresAt),
  });
}

/** A collection; with usage where it was computed, without limits while it is frozen. */
export function collectionMessage(view: CollectionView & Partial<CollectionDetails>): pb.Collection {
  const { spec } = view;
  const usage = view.usage && { ...view.usage, nextUploadAllowanceBytes: view.usage.nextUploadAllowance };
  if (spec === undefined)
    return create(pb.CollectionSchema, { name: view.name, collectionId: view.id, usage, frozen: true });
  return create(pb.CollectionSchema, {
    name: spec.name,
    collectionId: view.id,
    description: spec.description,
    organization: spec.organization,
    limits: {
      maxVersions: copiesOf(spec),
      maxVersionSizeBytes: spec.maxOneVersionSize,
      maxCollectionSizeBytes: spec.maxCollectionSize,
      extraSpaceBytes: extraSpace(quotaLimits(spec)),
      maxParallelUploads: spec.maxParallelUploads,
      minVersionSizeBytes: spec.minVersionSize,
      minInterval: durationMessage(spec.minIntervalMs),
      maxVersionsPerWindow: spec.maxVersionsPerWindow ?? 0,
      maxUploadAge: durationMessage(spec.maxUploadAgeMs),
    },
    usage,
    windows: spec.windows.map((w) => ({ from: w.from, duration: durationFromMs(w.durationMs) })),
    timezone: spec.timezone,
    acceptsUploadsNow: view.acceptsUploadsNow,
    nextWindowAt: time(view.nextWindowAt),
    encryptionFormats: spec.encryptionFormats.map((format) => FORMATS[format]),
    rotationStrategy: STRATEGIES[spec.rotation.strategy],
    ...(spec.rotation.strategy === "gfs" ? { gfsCounts: spec.rotation.counts } : {}),
    ...(spec.rotation.strategy === "fifo-plus-older" ? { olderCopies: olderCopies(spec.rotation.older) } : {}),
    rotationGuard: spec.rotationGuard === "shrunk" ? pb.RotationGuard.SHRUNK : pb.RotationGuard.UNSPECIFIED,
    trashRetention: durationMessage(spec.trashRetentionMs),
  });
}

const olderCopies = ({ maxOlderCopies, maxAgeMs }: OlderCopiesPolicy) => ({
  maxCount: maxOlderCopies,
  maxAge: durationFromMs(maxAgeMs),
});

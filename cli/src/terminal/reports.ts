import type { Collection, CollectionRights, Role, Session, Version } from "@strongroom/client-sdk";
import type { Sdk } from "../context.ts";
import { toIso } from "./format.ts";

/** The word for a value of a generated enumeration: `openpgp`, `live`, `warning`. */
export function enumWord(names: object, value: number): string {
  const name = (names as Record<number, unknown>)[value];
  return typeof name === "string" ? name.toLowerCase().replaceAll("_", "-") : `unknown (${value})`;
}

/** A version as `--json` prints it. Sizes are bytes, times RFC 3339. */
export function versionReport(version: Version, sdk: Sdk) {
  return {
    collection: version.collection,
    version: version.number,
    versionId: version.versionId,
    filename: version.filename,
    size: version.sizeBytes,
    compositeSha256: Buffer.from(version.compositeSha256).toString("hex"),
    encryption: enumWord(sdk.EncryptionFormat, version.encryptionFormat),
    contentEncoding: enumWord(sdk.ContentEncoding, version.contentEncoding),
    armored: version.armored,
    begunAt: toIso(version.begunAt),
    committedAt: toIso(version.committedAt),
    uploadedBy: version.uploadedBy,
    accessKey: version.accessKey || undefined,
    held: version.held,
    holdReason: version.holdReason || undefined,
    heldBy: version.heldBy || undefined,
    heldAt: toIso(version.heldAt),
    protectedUntil: toIso(version.protectedUntil),
    aboveSoftLimit: version.aboveSoftLimit,
    removedAt: toIso(version.removedAt),
    purgeAfter: toIso(version.purgeAfter),
    manifestPending: version.manifestPending || undefined,
    recipients: version.recipients?.map(({ name, count }) => ({ name, count })),
    usualSize: version.usualSizeBytes === 0n ? undefined : version.usualSizeBytes,
    confirmedAt: toIso(version.confirmedAt),
    verifiedAt: toIso(version.verifiedAt),
    unchecked: version.unchecked || undefined,
    damage: version.damage?.message,
    damageReason: version.damage && enumWord(sdk.DamageReason, version.damage.reason),
    damagedSegment: version.damage?.segment,
    damagedSince: toIso(version.damage?.foundAt),
    warning: version.clientMetadata.warning,
    labels: version.labels,
    clientMetadata: version.clientMetadata,
  };
}

/** A collection as `--json` prints it. */
export function collectionReport(collection: Collection, sdk: Sdk) {
  const { limits, gfsCounts } = collection;
  return {
    name: collection.name,
    collectionId: collection.collectionId,
    description: collection.description || undefined,
    organization: collection.organization || undefined,
    limits: limits && {
      maxVersions: limits.maxVersions,
      maxVersionSize: limits.maxVersionSizeBytes,
      maxCollectionSize: limits.maxCollectionSizeBytes,
      extraSpace: limits.extraSpaceBytes,
      maxParallelUploads: limits.maxParallelUploads,
    },
    encryption: collection.encryptionFormats.map((format) => enumWord(sdk.EncryptionFormat, format)),
    rotation: collection.frozen ? undefined : enumWord(sdk.RotationStrategy, collection.rotationStrategy),
    gfsCounts: gfsCounts && {
      keepLast: gfsCounts.keepLast,
      keepHourly: gfsCounts.keepHourly,
      keepDaily: gfsCounts.keepDaily,
      keepWeekly: gfsCounts.keepWeekly,
      keepMonthly: gfsCounts.keepMonthly,
      keepYearly: gfsCounts.keepYearly,
    },
    olderCopies: collection.olderCopies && {
      maxCount: collection.olderCopies.maxCount,
      maxAgeSeconds: Number(collection.olderCopies.maxAge?.seconds ?? 0n),
    },
    acceptsUploadsNow: collection.acceptsUploadsNow,
    nextWindowAt: toIso(collection.nextWindowAt),
    frozen: collection.frozen,
  };
}

/** The names of roles as configuration files write them: `backupUploader`. */
export function roleNames(roles: readonly Role[], sdk: Sdk): string[] {
  return roles.map((role) => enumWord(sdk.Role, role).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase()));
}

/** What a session may do in the collections that its scope or its access key names. */
export function rightsReport(rights: readonly CollectionRights[], sdk: Sdk) {
  return rights.map(({ collection, actions }) => ({
    collection,
    actions: actions.map((action) => enumWord(sdk.CollectionAction, action)),
  }));
}

/** What a session is narrowed to. */
export function scopeReport(session: Session, sdk: Sdk) {
  return session.scope.map(({ type, name, roles }) => ({
    type: enumWord(sdk.ObjectType, type),
    name,
    roles: roleNames(roles, sdk),
  }));
}

/** A session as `--json` prints it; it has no token. */
export function sessionReport(session: Session, sdk: Sdk) {
  return {
    sessionId: session.sessionId,
    user: session.user,
    accessKey: session.accessKey || undefined,
    scope: scopeReport(session, sdk),
    description: session.description || undefined,
    address: session.address,
    createdAt: toIso(session.createdAt),
    expiresAt: toIso(session.expiresAt),
  };
}

/** `alice`, or `alice$cron` for an access key. */
export function principal(user: string, accessKey: string): string {
  return accessKey === "" ? user : `${user}$${accessKey}`;
}

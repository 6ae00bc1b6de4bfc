import { DomainError } from "../domain/errors.ts";
import type { CollectionSpec } from "../domain/objects.ts";
import { allowance } from "../domain/quota.ts";
import { isRemovalBlocked, planFifo } from "../domain/rotation.ts";
import { formatSize } from "../domain/sizes.ts";
import type { ConfigSource } from "./ports.ts";
import { moveUsage, rotatable } from "./removal.ts";
import type { CollectionRow, Transaction, UploadRow } from "./repositories.ts";
import type { UploadSettings } from "./settings.ts";

/*
 * Reserve -> settle or release. Everything here runs inside a transaction that has locked the collection's row, so what is computed is
 * what is written. The invariant: a collection's (and a tenant's) counters equal the sums over the rows.
 */

/** Room for one upload, in bytes. */
export interface Room {
  /** What the upload may have in total. */
  readonly total: bigint;
  /** Which limit is the tightest. */
  readonly limit: "collection" | "organization";
  /** Its configured size. */
  readonly limitBytes: bigint;
  /** Whether the room would be larger if no version were held or protected. */
  readonly blocked: boolean;
}

/** Computes how large an upload may become in total, given everything else in the collection. `exceptUploadId` is the upload itself. */
export async function roomFor(
  tx: Transaction,
  config: ConfigSource,
  spec: CollectionSpec,
  collection: CollectionRow,
  exceptUploadId: string | undefined,
): Promise<Room> {
  const live = await tx.versions.allLive(collection.id);
  const { keep } = planFifo(live.map(rotatable), spec.maxBackupsCount, tx.now);
  const others = (await tx.uploads.unsettled(collection.id)).filter((u) => u.id !== exceptUploadId);
  const reservedByOthers = others.map((u) => u.reservedBytes);
  const ofCollection = allowance(spec, { kept: keep.map((v) => v.size), reservedByOthers });
  const room: Room = {
    total: ofCollection,
    limit: "collection",
    limitBytes: spec.maxCollectionSize,
    blocked: keep.length >= spec.maxBackupsCount && keep.some((v) => isRemovalBlocked(v, tx.now)),
  };
  const organization = config.current().organizations.get(spec.organization);
  if (organization?.maxTotalSize === undefined) return room;
  const usage = await tx.organizations.lock(spec.organization);
  const own = exceptUploadId === undefined ? 0n : ((await tx.uploads.find(exceptUploadId))?.reservedBytes ?? 0n);
  const used = usage.storedBytes + usage.trashBytes + usage.reservedBytes - own;
  const left = organization.maxTotalSize > used ? organization.maxTotalSize - used : 0n;
  return left < ofCollection
    ? { total: left, limit: "organization", limitBytes: organization.maxTotalSize, blocked: false }
    : room;
}

/** The refusal of `requested` bytes on top of the `received` ones. */
export function quotaExceeded(room: Room, received: bigint, requested: bigint): DomainError {
  const remaining = room.total > received ? room.total - received : 0n;
  const metadata = {
    limit: room.limit,
    limit_bytes: String(room.limitBytes),
    received_bytes: String(received),
    requested_bytes: String(requested),
    remaining_bytes: String(remaining),
  };
  const facts = `limit of the ${room.limit} ${formatSize(room.limitBytes)}, received ${formatSize(received)}, asked for ${formatSize(requested)} more, left ${formatSize(remaining)}`;
  if (room.blocked) {
    return new DomainError(
      "ROTATION_BLOCKED",
      `held or protected versions leave no room, and rotation may not remove them (${facts}); release a version, wait until its protection ends, or raise the limits`,
      { metadata },
    );
  }
  return new DomainError(
    "QUOTA_EXCEEDED",
    `the bytes do not fit (${facts}); make the dump smaller, remove versions, or raise maxOneVersionSize and maxCollectionSize`,
    { metadata },
  );
}

/** Changes what an upload has reserved by `delta` bytes, in its row and in all counters. */
export async function changeReservation(tx: Transaction, upload: UploadRow, delta: bigint): Promise<void> {
  if (delta === 0n) return;
  await moveUsage(tx, upload, { reservedBytes: delta });
  await tx.uploads.update(upload.id, upload.state, { reservedBytes: upload.reservedBytes + delta });
}

/** Gives back place and space of uploads whose lease ran out; they can still be resumed until they expire. */
export async function releaseLapsed(tx: Transaction, collection: CollectionRow): Promise<void> {
  for (const upload of await tx.uploads.unsettled(collection.id)) {
    if (upload.state === "open" && !upload.lapsed && upload.leaseExpiresAt <= tx.now) await lapse(tx, upload);
  }
}

/** Gives back place and space of one open upload. */
export async function lapse(tx: Transaction, upload: UploadRow): Promise<void> {
  await changeReservation(tx, upload, -upload.reservedBytes);
  await tx.uploads.update(upload.id, "open", { lapsed: true });
}

/** Refuses when every place of the collection is taken by uploads other than this one. */
export async function requirePlace(
  tx: Transaction,
  spec: CollectionSpec,
  collection: CollectionRow,
  exceptUploadId: string | undefined,
): Promise<void> {
  const holders = (await tx.uploads.unsettled(collection.id)).filter((u) => !u.lapsed && u.id !== exceptUploadId);
  if (holders.length < spec.maxParallelUploads) return;
  const freeAt = Math.min(...holders.map((u) => u.leaseExpiresAt.getTime()));
  const retryAfterMs = Math.max(1000, freeAt - tx.now.getTime());
  throw new DomainError(
    "COLLECTION_BUSY",
    `collection "${spec.name}" takes ${spec.maxParallelUploads} upload(s) at a time and ${holders.length} are open; try again when they have ended (an upload nobody continues gives its place back in at most ${Math.ceil(retryAfterMs / 60_000)} min), or raise maxParallelUploads`,
    { metadata: { max_parallel_uploads: String(spec.maxParallelUploads) }, retryAfterMs },
  );
}

/**
 * Extends the lease of an open upload. One whose lease ran out takes its place and space again, if they are still free.
 * @returns the row as it is now.
 */
export async function renewLease(
  tx: Transaction,
  deps: { config: ConfigSource; settings: UploadSettings },
  spec: CollectionSpec,
  collection: CollectionRow,
  upload: UploadRow,
): Promise<UploadRow> {
  let current = upload;
  if (upload.lapsed) {
    await requirePlace(tx, spec, collection, upload.id);
    const { bytes } = await tx.segments.summary(upload.id, upload.segmentSize);
    const room = await roomFor(tx, deps.config, spec, collection, upload.id);
    if (bytes > room.total) throw quotaExceeded(room, 0n, bytes);
    await changeReservation(tx, upload, bytes);
    current = { ...upload, reservedBytes: bytes, lapsed: false };
  }
  const renewed = {
    lapsed: false,
    leaseExpiresAt: new Date(tx.now.getTime() + deps.settings.leaseMs),
    expiresAt: new Date(tx.now.getTime() + deps.settings.expiryMs),
  };
  await tx.uploads.update(upload.id, "open", renewed);
  return { ...current, ...renewed };
}

/** Ends an open upload without a version: its space and place are free, the sweeper frees the store. */
export async function endUpload(
  tx: Transaction,
  upload: UploadRow,
  state: "aborted" | "expired",
  reason: string,
): Promise<UploadRow> {
  await changeReservation(tx, upload, -upload.reservedBytes);
  const change = { state, abortReason: reason, endedAt: tx.now, reservedBytes: 0n, lapsed: true };
  await tx.uploads.update(upload.id, "open", change);
  await tx.audit({
    kind: `upload.${state}`,
    actor: `user:${upload.userName}`,
    collectionName: upload.collectionName,
    details: { upload_id: upload.id, reason },
  });
  return { ...upload, ...change };
}

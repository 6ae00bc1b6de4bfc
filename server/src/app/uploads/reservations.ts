import { formatSize } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { allowance } from "../../domain/quota.ts";
import { isRemovalBlocked } from "../../domain/rotation.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { CollectionRow, Transaction, UploadRow } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";
import { moveUsage, planRotation } from "../versions/removal.ts";

/*
 * Reserve -> settle or release. Everything here runs inside a transaction that has locked the collection's row, so what
 * is computed is what is written. The invariant: a collection's (and a tenant's) counters equal the sums over the rows.
 */

/** A collection whose row is locked until the transaction ends, with its open and committing uploads. */
export interface LockedCollection {
  readonly row: CollectionRow;
  readonly uploads: readonly UploadRow[];
}

/**
 * Locks a collection, and gives back place and space of uploads whose lease ran out; they can still be resumed until
 * they expire.
 */
export async function lockCollection(
  tx: Transaction,
  by: { id: string } | { name: string },
): Promise<LockedCollection> {
  const row = "id" in by ? await tx.collections.lockById(by.id) : await tx.collections.lockByName(by.name);
  const uploads: UploadRow[] = [];
  for (const upload of await tx.uploads.unsettled(row.id)) {
    const hasLapsed = upload.state === "open" && !upload.lapsed && upload.leaseExpiresAt <= tx.now;
    uploads.push(hasLapsed ? await lapse(tx, upload) : upload);
  }
  return { row, uploads };
}

/** An upload of a locked collection, as it is now. */
export async function uploadIn(tx: Transaction, collection: LockedCollection, id: string): Promise<UploadRow> {
  return collection.uploads.find((u) => u.id === id) ?? (await tx.uploads.find(id))!;
}

/** Room for one upload, in bytes. */
export interface Room {
  /** What the upload may have in total. */
  readonly total: bigint;
  /** Which limit is the tightest. */
  readonly limit: "version" | "collection" | "organization";
  /** Its configured size. */
  readonly limitBytes: bigint;
  /** Whether the room would be larger if no version were held or protected. */
  readonly blocked: boolean;
}

/**
 * Computes how large an upload may become in total, given everything else in the collection. `exceptUploadId` is the
 * upload itself.
 */
export async function roomFor(
  tx: Transaction,
  config: ConfigSource,
  spec: CollectionSpec,
  collection: LockedCollection,
  exceptUploadId: string | undefined,
): Promise<Room> {
  const live = await tx.versions.allLive(collection.row.id);
  const { keep } = planRotation(live, spec, tx.now);
  const reservedByOthers = collection.uploads.filter((u) => u.id !== exceptUploadId).map((u) => u.reservedBytes);
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
  const itself = collection.uploads.find((u) => u.id === exceptUploadId);
  // Its bytes are counted where it was created, which may have been another tenant.
  const own = itself?.organization === spec.organization ? itself.reservedBytes : 0n;
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
  const facts =
    `limit of the ${room.limit} ${formatSize(room.limitBytes)}, received ${formatSize(received)}, asked for ` +
    `${formatSize(requested)} more, left ${formatSize(remaining)}`;
  if (room.blocked) {
    return new DomainError(
      "ROTATION_BLOCKED",
      `held or protected versions leave no room, and rotation may not remove them (${facts}); release a ` +
        "version, wait until its protection ends, or raise the limits",
      { metadata },
    );
  }
  return new DomainError(
    "QUOTA_EXCEEDED",
    `the bytes do not fit (${facts}); make the dump smaller, remove versions, or raise maxOneVersionSize and ` +
      "maxCollectionSize",
    { metadata },
  );
}

/** Changes what an upload has reserved by `delta` bytes, in all counters and, with other changes, in its row. */
export async function changeReservation(
  tx: Transaction,
  upload: UploadRow,
  delta: bigint,
  change: Partial<UploadRow> = {},
): Promise<UploadRow> {
  if (delta !== 0n) await moveUsage(tx, upload, { reservedBytes: delta });
  const whole = { ...change, reservedBytes: upload.reservedBytes + delta };
  await tx.uploads.update(upload.id, upload.state, whole);
  return { ...upload, ...whole };
}

/** Gives back place and space of one open upload, unless its lease was extended meanwhile. */
export async function lapse(tx: Transaction, upload: UploadRow): Promise<UploadRow> {
  if (!(await tx.uploads.lapse(upload.id, tx.now))) return (await tx.uploads.find(upload.id))!;
  await moveUsage(tx, upload, { reservedBytes: -upload.reservedBytes });
  return { ...upload, lapsed: true, reservedBytes: 0n };
}

/**
 * Refuses when every place of the collection is taken by open uploads other than this one. One that is being committed
 * keeps its space but no place: nobody can end it, and a store that does not finish it must not stop the next backup.
 */
export function requirePlace(
  tx: Transaction,
  spec: CollectionSpec,
  collection: LockedCollection,
  exceptUploadId: string | undefined,
): void {
  const holders = collection.uploads.filter((u) => u.state === "open" && !u.lapsed && u.id !== exceptUploadId);
  if (holders.length < spec.maxParallelUploads) return;
  const freeAt = Math.min(...holders.map((u) => u.leaseExpiresAt.getTime()));
  const retryAfterMs = Math.max(1000, freeAt - tx.now.getTime());
  throw new DomainError(
    "COLLECTION_BUSY",
    `collection "${spec.name}" takes ${spec.maxParallelUploads} upload(s) at a time and ${holders.length} are ` +
      "open; try again when they have ended (an upload nobody continues gives its place back in at most " +
      `${Math.ceil(retryAfterMs / 60_000)} min), or raise maxParallelUploads`,
    { metadata: { max_parallel_uploads: String(spec.maxParallelUploads) }, retryAfterMs },
  );
}

/** When lease and upload end if there is a sign of life now. */
export function leaseFrom(now: Date, settings: UploadSettings): Pick<UploadRow, "leaseExpiresAt" | "expiresAt"> {
  return {
    leaseExpiresAt: new Date(now.getTime() + settings.leaseMs),
    expiresAt: new Date(now.getTime() + settings.expiryMs),
  };
}

/**
 * Extends the lease of an open upload, and reserves `more` bytes for it. One whose lease ran out takes its place and
 * space again, if they are still free.
 * @returns the row as it is now, and the room it has, where that was looked at.
 */
export async function renewLease(
  tx: Transaction,
  deps: { config: ConfigSource; settings: UploadSettings },
  spec: CollectionSpec,
  collection: LockedCollection,
  upload: UploadRow,
  more = 0n,
): Promise<{ upload: UploadRow; room: Room | undefined }> {
  let held = upload.reservedBytes;
  if (upload.lapsed) {
    requirePlace(tx, spec, collection, upload.id);
    held = (await tx.segments.summary(upload.id, upload.segmentSize)).bytes;
  }
  let room: Room | undefined;
  if (upload.lapsed || more > 0n) {
    room = await roomFor(tx, deps.config, spec, collection, upload.id);
    if (held + more > room.total) throw quotaExceeded(room, held, more);
  }
  const delta = held + more - upload.reservedBytes;
  const renewed = await changeReservation(tx, upload, delta, { lapsed: false, ...leaseFrom(tx.now, deps.settings) });
  return { upload: renewed, room };
}

/** Bytes of an upload's acknowledged segments; 0 once it has ended, though the store may still have them. */
export async function storedBytesOf(tx: Transaction, { id, state }: UploadRow): Promise<bigint> {
  if (state !== "open" && state !== "committing") return 0n;
  return (await tx.segments.storedBytes([id])).get(id) ?? 0n;
}

/** Ends an open upload without a version: its space and place are free, the sweeper frees the store. */
export async function endUpload(
  tx: Transaction,
  upload: UploadRow,
  state: "aborted" | "expired",
  reason: string,
  actor = `user:${upload.userName}`,
): Promise<UploadRow> {
  const ended = await changeReservation(tx, upload, -upload.reservedBytes, {
    state,
    abortReason: reason,
    endedAt: tx.now,
    lapsed: true,
  });
  await tx.audit({
    kind: `upload.${state}`,
    actor,
    collectionName: upload.collectionName,
    details: { upload_id: upload.id, reason },
  });
  return ended;
}

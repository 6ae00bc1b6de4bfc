import { quantity } from "@strongroom/protocol/quantity";
import type { Principal } from "../../domain/access.ts";
import type { AuditActor } from "../../domain/audit.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { uploadNotFound } from "../guards.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { CollectionRow, SegmentRow, Transaction, UploadRow, UsageCounts } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";
import { requireOpenOrganization } from "./admission.ts";
import { type LockedCollection, type Room, requireRoom, roomFor } from "./room.ts";
import { lastMoment, requireYoung } from "./upload-age.ts";

/*
 * Reserve -> settle or release. Everything here runs inside a transaction that has locked the collection's row, so what
 * is computed is what is written. The invariants: a collection's (and a tenant's) counters equal the sums over the
 * rows; an upload has reserved what its segments have, from their announcement until it is committed or the store has
 * deleted them.
 */

/**
 * Locks a collection, and gives back the places of uploads whose lease ran out; they can still be resumed until they
 * expire, or until another upload needs the space they take.
 */
export async function lockCollection(
  tx: Transaction,
  by: { id: string } | { name: string },
): Promise<LockedCollection> {
  return await withUploads(
    tx,
    "id" in by ? await tx.collections.lockById(by.id) : await tx.collections.lockByName(by.name),
  );
}

/**
 * Finds an upload of the caller, and locks its collection as {@link lockCollection} does.
 * @param requireAccess refuses a caller who may not go on with it; what it returns is handed back.
 */
export async function lockOwnUpload<T>(
  tx: Transaction,
  principal: Principal,
  uploadId: string,
  requireAccess: (upload: UploadRow) => T,
): Promise<{ readonly upload: UploadRow; readonly collection: LockedCollection; readonly access: T }> {
  const { user, accessKey } = principal;
  const found = await tx.uploads.findLocking(uploadId, { userName: user.name, accessKey });
  if (found === undefined) throw uploadNotFound(uploadId);
  const access = requireAccess(found.upload);
  const collection = await withUploads(tx, found.collection);
  // As it is now: it may have changed while this waited for the lock.
  const upload = collection.uploads.find(({ id }) => id === uploadId) ?? (await tx.uploads.find(uploadId))!;
  return { upload, collection, access };
}

async function withUploads(tx: Transaction, row: CollectionRow): Promise<LockedCollection> {
  const uploads: UploadRow[] = [];
  for (const upload of await tx.uploads.holding(row.id)) {
    const hasLapsed = upload.state === "open" && !upload.lapsed && upload.leaseExpiresAt <= tx.now;
    uploads.push(hasLapsed ? await lapse(tx, upload) : upload);
  }
  return { row, uploads };
}

/**
 * Changes what an upload has reserved by `delta` bytes, in all counters and, with other changes, in its row.
 * @param announced a segment whose bytes these are.
 */
export async function changeReservation(
  tx: Transaction,
  upload: UploadRow,
  delta: bigint,
  change: Partial<UploadRow> = {},
  announced?: SegmentRow,
): Promise<UploadRow> {
  await tx.uploads.reserve(upload, delta, change, announced);
  return { ...upload, ...change, reservedBytes: upload.reservedBytes + delta };
}

/** Gives back the place of one open upload, unless its lease was extended meanwhile. */
export async function lapse(tx: Transaction, upload: UploadRow): Promise<UploadRow> {
  if (!(await tx.uploads.lapse(upload.id, tx.now))) return (await tx.uploads.find(upload.id))!;
  return { ...upload, lapsed: true };
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
    `collection "${spec.name}" takes ${quantity(spec.maxParallelUploads, "upload")} at a time and ${holders.length} are ` +
      "open; try again when they have ended (an upload nobody continues gives its place back in at most " +
      `${Math.ceil(retryAfterMs / 60_000)} min), or raise maxParallelUploads`,
    { metadata: { max_parallel_uploads: String(spec.maxParallelUploads) }, retryAfterMs },
  );
}

/** When lease and upload end if there is a sign of life now; `last` is the last moment of the upload in any case. */
export function leaseFrom(
  now: Date,
  settings: UploadSettings,
  last: Date,
): Pick<UploadRow, "leaseExpiresAt" | "expiresAt"> {
  return {
    leaseExpiresAt: new Date(now.getTime() + settings.leaseMs),
    expiresAt: new Date(Math.min(now.getTime() + settings.expiryMs, last.getTime())),
  };
}

/**
 * Extends the lease of an open upload, and reserves the bytes of a segment that is announced. One whose lease ran out takes its place again,
 * if it is still free; its space it still has.
 * @returns the row as it is now, and the room it has, where that was looked at.
 */
export async function renewLease(
  tx: Transaction,
  deps: { config: ConfigSource; settings: UploadSettings },
  spec: CollectionSpec,
  collection: LockedCollection,
  upload: UploadRow,
  announced?: SegmentRow,
): Promise<{ upload: UploadRow; room: Room | undefined }> {
  await requireOpenOrganization(tx, spec);
  // Its version belongs to the organization that the collection had when the upload began.
  if (upload.organization !== spec.organization)
    await requireOpenOrganization(tx, { name: spec.name, organization: upload.organization });
  await requireYoung(tx, upload, spec, deps.settings);
  if (upload.lapsed) requirePlace(tx, spec, collection, upload.id);
  let room: Room | undefined;
  const more = announced?.size ?? 0n;
  if (more > 0n) {
    room = await roomFor(tx, deps.config, spec, collection, upload.id);
    requireRoom(tx, collection, upload.id, room, upload.reservedBytes, more);
  }
  const lease = leaseFrom(tx.now, deps.settings, lastMoment(upload, spec, deps.settings));
  const renewed = await changeReservation(tx, upload, more, { lapsed: false, ...lease }, announced);
  return { upload: renewed, room };
}

/** Bytes of an upload's acknowledged segments; 0 once it has ended, though the store may still have them. */
export async function storedBytesOf(tx: Transaction, { id, state }: UploadRow): Promise<bigint> {
  if (state !== "open" && state !== "committing") return 0n;
  return (await tx.segments.storedBytes([id])).get(id) ?? 0n;
}

/**
 * Ends an open upload without a version: its place is free. Its space is when the store has deleted its bytes
 * (`clean-upload.ts`). What the client said about it is dropped: only versions show it.
 */
export async function endUpload(
  tx: Transaction,
  upload: UploadRow,
  state: "aborted" | "expired",
  reason: string,
  actor: AuditActor = upload,
): Promise<UploadRow> {
  const change = {
    state,
    abortReason: reason,
    endedAt: tx.now,
    lapsed: true,
    labels: {},
    clientMetadata: {},
  } as const;
  const receivedBytes = await storedBytesOf(tx, upload);
  if (receivedBytes > 0n) await noteUsage(tx, upload, { receivedBytes, storedBytes: 0n, versions: 0n });
  await tx.uploads.update(upload.id, upload.state, change);
  await noteFailed(tx, upload, reason);
  await tx.audit({
    kind: `upload.${state}`,
    actor,
    collectionName: upload.collectionName,
    object: upload.id,
    reason,
    details: { upload_id: upload.id, reason },
  });
  return { ...upload, ...change };
}

/** Counts what an upload brought on the day of its end, in UTC. The collection must be locked. */
export async function noteUsage(
  tx: Transaction,
  { organization, collectionName }: Pick<UploadRow, "organization" | "collectionName">,
  counts: UsageCounts,
): Promise<void> {
  await tx.usage.add({ day: tx.now.toISOString().slice(0, 10), organization, collectionName }, counts);
}

/** Keeps in the collection how its last upload without a version ended, for as long as the collection is there. */
export async function noteFailed(tx: Transaction, upload: UploadRow, reason: string) {
  const { id, begunAt, collectionId, ordinal } = upload;
  await tx.collections.noteFailed(collectionId, { uploadId: id, begunAt, endedAt: tx.now, reason }, ordinal);
}

import { formatSize } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { allowance, countedSize, quotaLimits } from "../../domain/quota.ts";
import { copiesOf, isRemovalBlocked, keptBeside } from "../../domain/rotation.ts";
import { describeShrunk, type SizedVersion } from "../../domain/shrunk.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { CollectionRow, Transaction, UploadRow } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";
import { comingVersions, moveUsage, rotationOf } from "../versions/removal.ts";
import { lastMoment, requireYoung } from "./upload-age.ts";

/*
 * Reserve -> settle or release. Everything here runs inside a transaction that has locked the collection's row, so what
 * is computed is what is written. The invariants: a collection's (and a tenant's) counters equal the sums over the
 * rows; an upload has reserved what its segments have, from their announcement until it is committed or the store has
 * deleted them.
 */

/**
 * A collection whose row is locked until the transaction ends, with every upload that takes place or space in it: open
 * and committing ones, and those that ended while the store still has their bytes.
 */
export interface LockedCollection {
  readonly row: CollectionRow;
  readonly uploads: readonly UploadRow[];
}

/**
 * Locks a collection, and gives back the places of uploads whose lease ran out; they can still be resumed until they
 * expire, or until another upload needs the space they take.
 */
export async function lockCollection(
  tx: Transaction,
  by: { id: string } | { name: string },
): Promise<LockedCollection> {
  const row = "id" in by ? await tx.collections.lockById(by.id) : await tx.collections.lockByName(by.name);
  const uploads: UploadRow[] = [];
  for (const upload of await tx.uploads.holding(row.id)) {
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
  /** What the upload may have in total, once {@link givesWay | what gives way} has been deleted. */
  readonly total: bigint;
  /** What it may have before that. */
  readonly free: bigint;
  /** Which limit is the tightest. */
  readonly limit: "version" | "collection" | "organization";
  /** Its configured size. */
  readonly limitBytes: bigint;
  /** Whether the room would be larger if no version were held or protected. */
  readonly blocked: boolean;
  /** The shrunk version because of which rotation removes nothing; undefined where rotation is free. */
  readonly guard?: Guard | undefined;
}

/** What keeps rotation from removing. */
export interface Guard {
  readonly version: SizedVersion;
  /** Name of its collection. */
  readonly collection: string;
  /** Whether it is the upload itself that is to be this version. */
  readonly isOwn: boolean;
}

/**
 * Computes how large an upload may become in total, given everything else in the collection. `exceptUploadId` is the
 * upload itself.
 * @param becomes what it is to be, where its size is known.
 */
export async function roomFor(
  tx: Transaction,
  config: ConfigSource,
  spec: CollectionSpec,
  collection: LockedCollection,
  exceptUploadId: string | undefined,
  becomes?: SizedVersion,
): Promise<Room> {
  const live = await tx.versions.allLive(collection.row.id);
  const others = collection.uploads.filter((u) => u.id !== exceptUploadId);
  const staying = others.filter((u) => !givesWay(u));
  const itself = collection.uploads.find((u) => u.id === exceptUploadId);
  const coming = [...comingVersions(others), ...(becomes === undefined ? [] : [becomes])];
  const plan = rotationOf(live, spec, itself?.begunAt ?? tx.now, tx.now, coming);
  const keep = keptBeside(
    plan,
    spec,
    others.some((u) => u.state === "committing"),
  );
  const limits = quotaLimits(spec);
  const kept = keep.map((v) => countedSize(limits, v.size));
  const beside = (uploads: readonly UploadRow[]) =>
    allowance(limits, { kept, reservedByOthers: uploads.map((u) => u.reservedBytes) });
  const room: Room = {
    total: beside(staying),
    free: beside(others),
    limit: "collection",
    limitBytes: spec.maxCollectionSize,
    blocked: keep.length >= copiesOf(spec) && keep.some((v) => isRemovalBlocked(v, tx.now)),
    guard:
      plan.guard !== undefined && keep.length >= copiesOf(spec)
        ? { version: plan.guard, collection: spec.name, isOwn: plan.guard === becomes }
        : undefined,
  };
  const organization = config.current().organizations.get(spec.organization);
  if (organization?.maxTotalSize === undefined) return room;
  const usage = await tx.organizations.lock(spec.organization);
  // Bytes are counted where an upload was created, which may have been another tenant.
  const reservedBy = (uploads: readonly UploadRow[]) =>
    uploads.reduce((sum, u) => (u.organization === spec.organization ? sum + u.reservedBytes : sum), 0n);
  const own = reservedBy(collection.uploads.filter((u) => u.id === exceptUploadId));
  const used = usage.storedBytes + usage.trashBytes + usage.reservedBytes - own;
  const left = (beside: bigint) => (organization.maxTotalSize! > beside ? organization.maxTotalSize! - beside : 0n);
  const ofTenant = { total: left(used - reservedBy(others.filter(givesWay))), free: left(used) };
  const free = ofTenant.free < room.free ? ofTenant.free : room.free;
  return ofTenant.total < room.total
    ? { total: ofTenant.total, free, limit: "organization", limitBytes: organization.maxTotalSize, blocked: false }
    : { ...room, free };
}

/**
 * Whether the bytes of an upload are deleted as soon as another one of its collection needs their space: nobody
 * continues it, or it has ended.
 */
export function givesWay(upload: UploadRow): boolean {
  if (upload.reservedBytes === 0n) return false;
  return upload.state === "open" ? upload.lapsed : upload.state === "aborted" || upload.state === "expired";
}

/**
 * There is room, but for bytes of uploads that give way: they are to be deleted before the work is done again (see
 * {@link withRoom}).
 */
export class RoomTakenError extends Error {
  override name = "RoomTakenError";
  readonly collectionId: string;
  /** The upload that needs the room; undefined for one that is not created yet. */
  readonly forUploadId: string | undefined;

  constructor(collectionId: string, forUploadId: string | undefined) {
    super("bytes of uploads that nobody continues are in the way");
    this.collectionId = collectionId;
    this.forUploadId = forUploadId;
  }
}

/**
 * Requires room for `more` bytes beside the `held` ones of an upload (undefined: of a new one).
 * @throws DomainError QUOTA_EXCEEDED, ROTATION_BLOCKED; RoomTakenError.
 */
export function requireRoom(
  collection: LockedCollection,
  uploadId: string | undefined,
  room: Room,
  held: bigint,
  more: bigint,
): void {
  if (held + more > room.total) throw quotaExceeded(room, held, more);
  if (held + more > room.free) throw new RoomTakenError(collection.row.id, uploadId);
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
  if (room.guard !== undefined) return rotationGuarded(room.guard, facts, metadata);
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

/** The refusal while a shrunk version keeps rotation from making room, with the way out. */
function rotationGuarded(
  { version, collection, isOwn }: Guard,
  facts: string,
  metadata: Readonly<Record<string, string>>,
): DomainError {
  const message = isOwn
    ? `this version would have ${describeShrunk(version)}: rotationGuard keeps every older version beside it, and ` +
      `it does not fit (${facts}). Look at what makes the dump; if it is right, remove versions with ` +
      `\`strongroom rm ${collection} N\`, or raise maxCollectionSize`
    : `version ${version.number} has ${describeShrunk(version)}: rotationGuard removes nothing until somebody has ` +
      `looked at it, and no room is left (${facts}). If it is right: ` +
      `\`strongroom confirm ${collection} ${version.number}\`; else make a whole backup after raising ` +
      "maxCollectionSize, or remove versions";
  const guard = { guard: "shrunk", ...(isOwn ? {} : { number: String(version.number) }) };
  return new DomainError("ROTATION_BLOCKED", message, { metadata: { ...metadata, ...guard } });
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
    `collection "${spec.name}" takes ${spec.maxParallelUploads} upload(s) at a time and ${holders.length} are ` +
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
 * Extends the lease of an open upload, and reserves `more` bytes for it. One whose lease ran out takes its place again,
 * if it is still free; its space it still has.
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
  await requireYoung(tx, upload, spec, deps.settings);
  if (upload.lapsed) requirePlace(tx, spec, collection, upload.id);
  let room: Room | undefined;
  if (more > 0n) {
    room = await roomFor(tx, deps.config, spec, collection, upload.id);
    requireRoom(collection, upload.id, room, upload.reservedBytes, more);
  }
  const lease = leaseFrom(tx.now, deps.settings, lastMoment(upload, spec, deps.settings));
  const renewed = await changeReservation(tx, upload, more, { lapsed: false, ...lease });
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
  actor = `user:${upload.userName}`,
): Promise<UploadRow> {
  const change = {
    state,
    abortReason: reason,
    endedAt: tx.now,
    lapsed: true,
    labels: {},
    clientMetadata: {},
  } as const;
  await tx.uploads.update(upload.id, upload.state, change);
  await noteFailed(tx, upload, reason);
  await tx.audit({
    kind: `upload.${state}`,
    actor,
    collectionName: upload.collectionName,
    details: { upload_id: upload.id, reason },
  });
  return { ...upload, ...change };
}

/** Keeps in the collection how its last upload without a version ended, for as long as the collection is there. */
export async function noteFailed(tx: Transaction, { id, begunAt, collectionId }: UploadRow, reason: string) {
  await tx.collections.noteFailed(collectionId, { uploadId: id, begunAt, endedAt: tx.now, reason }, tx.now);
}

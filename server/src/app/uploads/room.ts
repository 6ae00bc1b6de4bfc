import { formatSize, formatSizePair } from "@strongroom/protocol/sizes";
import type { ClockState } from "../../domain/clock.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import type { PolicyChange } from "../../domain/policy-guard.ts";
import { allowance, quotaLimits, sumVersions } from "../../domain/quota.ts";
import { copiesOf, goesByTime } from "../../domain/rotation.ts";
import { describeShrunk, type SizedVersion } from "../../domain/shrunk.ts";
import { clockDoubt } from "../clock-doubt.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { CollectionRow, Transaction, UploadRow } from "../ports/database.ts";
import { keptSums, type LivePlan, livePlansBeside, staying } from "../versions/live-plan.ts";
import { comingVersions } from "../versions/removal.ts";

/*
 * How much an upload may have beside everything else. Everything here runs inside a transaction that has locked the
 * collection's row.
 */

/**
 * A collection whose row is locked until the transaction ends, with every upload that takes place or space in it: open
 * and committing ones, and those that ended while the store still has their bytes.
 */
export interface LockedCollection {
  readonly row: CollectionRow;
  readonly uploads: readonly UploadRow[];
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
  /** The change of rules that rotation waits with, and the name of its collection; undefined where it does not. */
  readonly waits?: (PolicyChange & { readonly collection: string }) | undefined;
  /**
   * Its own total, where it is less because what an upload being committed keeps is more than what this one would;
   * undefined elsewhere.
   */
  readonly beforeCommit?: { readonly total: bigint; readonly collection: string } | undefined;
  /** Whether bytes that give way take the place of older copies that would stay beside this version. */
  readonly takesFromOlder?: boolean;
  /** Why the room is less than it would be if the clock were right; undefined while it is. */
  readonly doubt?: RoomInDoubt | undefined;
}

/** What an upload could have in total while the clock is in doubt, where that holds room back. */
export interface RoomInDoubt {
  readonly clock: ClockState;
  /** Name of the collection. */
  readonly collection: string;
  /** If lapsed uploads gave way, in bytes. */
  readonly ifLapsedEnded: bigint;
  /** If rotation went by time as well, in bytes. */
  readonly ifRight: bigint;
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
  const others = collection.uploads.filter((u) => u.id !== exceptUploadId);
  const itself = collection.uploads.find((u) => u.id === exceptUploadId);
  const coming = [...comingVersions(others), ...(becomes === undefined ? [] : [becomes])];
  const [own, ...first] = await livePlansBeside(tx, collection.row, spec, itself?.begunAt ?? tx.now, coming, others);
  const copies = copiesOf(spec);
  const depends = goesByTime(spec.rotation) || others.some((u) => u.state === "open" && givesWay(u, undefined));
  const clock = depends ? await clockDoubt(tx) : undefined;
  const keptIn = (plan: LivePlan, doubt: ClockState | undefined) => keptSums(staying(plan, spec, doubt), spec);
  const blocked =
    [own, ...first].some((plan) => keptIn(plan, clock).count >= copies) &&
    (await tx.live.anyBlocked(collection.row.id, tx.now, spec.minRetentionMs));
  // Bytes are counted where the upload was created, which may have been another tenant.
  const tenantName = itself?.organization ?? spec.organization;
  const organization = config.current().organizations.get(tenantName);
  const tenant =
    organization?.maxTotalSize === undefined
      ? undefined
      : { limit: organization.maxTotalSize, usage: await tx.organizations.lock(tenantName) };
  const roomBeside = (plan: LivePlan, rotation: ClockState | undefined, lapsing: ClockState | undefined): Room => {
    const lasting = others.filter((u) => !givesWay(u, lapsing));
    const { guard, waits, older } = staying(plan, spec, rotation);
    const kept = keptIn(plan, rotation);
    const limits = quotaLimits(spec);
    const beside = (uploads: readonly UploadRow[]) =>
      allowance(limits, { kept, reservedByOthers: uploads.map((u) => u.reservedBytes) });
    const reserved = others.reduce((sum, u) => sum + u.reservedBytes, 0n);
    const all = kept.bytes + sumVersions(spec, older).bytes + reserved;
    const takesFromOlder =
      becomes !== undefined &&
      older.length > 0 &&
      lasting.length < others.length &&
      all + becomes.size > spec.maxCollectionSize;
    const room: Room = {
      takesFromOlder,
      total: beside(lasting),
      free: beside(others),
      limit: "collection",
      limitBytes: spec.maxCollectionSize,
      blocked: blocked && kept.count >= copies,
      guard:
        guard !== undefined && kept.count >= copies
          ? { version: guard, collection: spec.name, isOwn: guard === becomes }
          : undefined,
      waits: waits && { ...waits, collection: spec.name },
    };
    if (tenant === undefined) return room;
    const reservedBy = (uploads: readonly UploadRow[]) =>
      uploads.reduce((sum, u) => (u.organization === tenantName ? sum + u.reservedBytes : sum), 0n);
    const own = reservedBy(collection.uploads.filter((u) => u.id === exceptUploadId));
    const used = tenant.usage.storedBytes + tenant.usage.trashBytes + tenant.usage.reservedBytes - own;
    const left = (beside: bigint) => (tenant.limit > beside ? tenant.limit - beside : 0n);
    const gives = others.filter((u) => givesWay(u, lapsing));
    const ofTenant = { total: left(used - reservedBy(gives)), free: left(used) };
    const free = ofTenant.free < room.free ? ofTenant.free : room.free;
    return ofTenant.total < room.total
      ? { total: ofTenant.total, free, limit: "organization", limitBytes: tenant.limit, blocked: false, takesFromOlder }
      : { ...room, free };
  };
  const roomWith = (rotation: ClockState | undefined, lapsing: ClockState | undefined): Room => {
    const room = roomBeside(own, rotation, lapsing);
    const tightest = first
      .map((plan) => roomBeside(plan, rotation, lapsing))
      .reduce((a, b) => (b.total < a.total ? b : a), room);
    return tightest === room ? room : { ...tightest, beforeCommit: { total: room.total, collection: spec.name } };
  };
  const room = roomWith(clock, clock);
  if (clock === undefined) return room;
  const ifLapsedEnded = roomWith(clock, undefined).total;
  const ifRight = roomWith(undefined, undefined).total;
  return { ...room, doubt: { clock, collection: spec.name, ifLapsedEnded, ifRight } };
}

/**
 * Whether the bytes of an upload are deleted as soon as another one of its collection needs their space: nobody
 * continues it, or it has ended. While the clock is in doubt nobody knows whether somebody continues it, since a leap
 * ends the leases of living uploads too: only those that have ended give way then.
 * @param doubt what speaks against the clock; undefined while nothing does.
 */
export function givesWay(upload: UploadRow, doubt: ClockState | undefined): boolean {
  if (upload.reservedBytes === 0n) return false;
  if (upload.state === "open") return upload.lapsed && doubt === undefined;
  return upload.state === "aborted" || upload.state === "expired";
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
 * @throws DomainError QUOTA_EXCEEDED, ROTATION_BLOCKED; COLLECTION_BUSY while the clock is in doubt and lapsed uploads
 *   are in the way, or while a commit decides what stays; RoomTakenError.
 */
export function requireRoom(
  tx: Transaction,
  collection: LockedCollection,
  uploadId: string | undefined,
  room: Room,
  held: bigint,
  more: bigint,
): void {
  if (held + more > room.total) {
    if (room.doubt !== undefined && held + more <= room.doubt.ifLapsedEnded) throw lapsedInTheWay(room.doubt, tx.now);
    if (room.beforeCommit !== undefined && held + more <= room.beforeCommit.total)
      throw commitInTheWay(room.beforeCommit.collection);
    throw quotaExceeded(room, held, more);
  }
  if (held + more > room.free || room.takesFromOlder === true) throw new RoomTakenError(collection.row.id, uploadId);
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
  const [asked, left] = formatSizePair(requested, remaining);
  const facts =
    `limit of the ${room.limit} ${formatSize(room.limitBytes)}, received ${formatSize(received)}, asked for ` +
    `${asked} more, left ${left}`;
  if (room.guard !== undefined) return rotationGuarded(room.guard, facts, metadata);
  if (room.waits !== undefined) return rotationWaits(room.waits, facts, metadata);
  if (room.doubt !== undefined && received + requested <= room.doubt.ifRight)
    return rotationPaused(room.doubt.clock, facts, metadata);
  if (room.blocked) {
    return new DomainError(
      "ROTATION_BLOCKED",
      `held or protected versions leave no room, and rotation may not remove them (${facts}); wait ` +
        "until a protection ends (`strongroom ls` shows it), end a hold (`strongroom release`), or raise maxCollectionSize",
      { metadata },
    );
  }
  const way =
    room.limit === "organization"
      ? "raise its maxTotalSize, or remove versions of its collections: that helps when their bytes are deleted, " +
        "after " +
        "24 hours or trashRetention"
      : "make the dump smaller, remove versions, or raise maxOneVersionSize and maxCollectionSize";
  return new DomainError("QUOTA_EXCEEDED", `the bytes do not fit (${facts}); ${way}`, { metadata });
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

/** The refusal while rotation waits for a confirmation of changed rules, with the way out. */
function rotationWaits(
  { removes, live, collection }: PolicyChange & { readonly collection: string },
  facts: string,
  metadata: Readonly<Record<string, string>>,
): DomainError {
  return new DomainError(
    "ROTATION_BLOCKED",
    `the changed configuration of "${collection}" would remove ${removes} of ${live} versions, now or in time, so ` +
      `rotation removes nothing until a systemAdmin has confirmed that, and no room is left (${facts}): ` +
      `\`strongroom confirm-policy ${collection} ${removes}\`, or undo the change`,
    { metadata: { ...metadata, guard: "policy", removes: String(removes) } },
  );
}

/** The refusal while rotation by time is paused, with the way out. */
function rotationPaused(clock: ClockState, facts: string, metadata: Readonly<Record<string, string>>): DomainError {
  return new DomainError(
    "ROTATION_BLOCKED",
    `no room is left (${facts}), and rotation removes nothing by its time while the clock is in doubt: ` +
      `${clock.message}`,
    { metadata: { ...metadata, ...doubted(clock) } },
  );
}

/** The refusal while nobody knows whether uploads that take the room are continued. */
function lapsedInTheWay({ clock, collection }: RoomInDoubt, now: Date): DomainError {
  return new DomainError(
    "COLLECTION_BUSY",
    `uploads to "${collection}" whose leases ran out take the room, and do not give way while the clock is in doubt, ` +
      `since their clients may be there; continue or abort them (\`strongroom uploads ${collection}\`), or wait: ` +
      clock.message,
    {
      metadata: doubted(clock),
      retryAfterMs: Math.min(Math.max(1000, (clock.until ?? now).getTime() - now.getTime()), MOST_RETRY_MS),
    },
  );
}

/** The refusal while a commit may keep other versions than this upload would. */
function commitInTheWay(collection: string): DomainError {
  return new DomainError(
    "COLLECTION_BUSY",
    `an upload to "${collection}" is being committed, and what rotation keeps for it leaves no room; try again when ` +
      "it is done. Where that takes long, the health check `store` says why",
    { retryAfterMs: COMMIT_RETRY_MS },
  );
}

/** A commit is done within seconds, unless the store fails. */
const COMMIT_RETRY_MS = 5000;

/** Nobody is asked to wait longer than this for a clock that somebody may set right, in milliseconds. */
const MOST_RETRY_MS = 15 * 60_000;

function doubted({ status, until }: ClockState): Record<string, string> {
  return { guard: "clock", clock: status, ...(until === undefined ? {} : { clock_until: until.toISOString() }) };
}

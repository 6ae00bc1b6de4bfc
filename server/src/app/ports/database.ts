import type { AuditEvent } from "../../domain/audit.ts";
import type { ClockRecord } from "../../domain/clock.ts";
import type { ObjectGrant } from "../../domain/configuration.ts";
import type { RateLimit, Taken } from "../../domain/rate-limit.ts";
import type { ContentEncoding, Version } from "../../domain/version.ts";
import type { AuditRepository } from "./audit-log.ts";
import type { LiveVersion, LiveVersionRepository } from "./live-versions.ts";
import type { NotificationRepository } from "./notifications.ts";
import type { UpkeepRecords } from "./upkeep-records.ts";

/** The counters of a collection or an organization, in bytes; always equal to the sums over the rows. */
export interface UsageCounters {
  /** Live versions. */
  readonly storedBytes: bigint;
  /** Segments of uploads that are no version, until the store has deleted them. */
  readonly reservedBytes: bigint;
  /** Removed versions that are not purged. */
  readonly trashBytes: bigint;
}

/**
 * What is known of a collection's live versions without reading them; always equal to what the rows come to. The
 * database keeps it by triggers, so that a replica of an earlier release, which knows nothing of it, keeps it too.
 */
export interface LiveCounters {
  readonly liveVersions: number;
  /** Their sizes, each at least `LEAST_COUNTED_SIZE`, together, in bytes. */
  readonly countedBytes: bigint;
}

/** A change of {@link UsageCounters}, in bytes; absent means 0. */
export type UsageChange = Partial<UsageCounters>;

/** A collection that was uploaded to. The row outlives its configuration. */
export interface CollectionRow extends UsageCounters, LiveCounters {
  /** Permanent. */
  readonly id: string;
  readonly name: string;
  /** The highest version number given out. */
  readonly lastNumber: bigint;
  /** Since when the store shows that the database was rolled back; null when it does not, or somebody confirmed it. */
  readonly rolledBackAt: Date | null;
  /** Versions that were added from the store since then. */
  readonly addedVersions: number;
  /** The rules of removal that were last in force or confirmed; null for none yet. See `policy-guard.ts`. */
  readonly confirmedPolicy: string | null;
  /** Since when rotation waits for a confirmation of other rules; null while it does not. */
  readonly policyHeldSince: Date | null;
  /** Since when its configuration object is known to be gone; null while it is there, or nobody has looked. */
  readonly frozenSince: Date | null;
}

/** A collection that nothing is stored in yet. */
export const EMPTY_COLLECTION = {
  storedBytes: 0n,
  reservedBytes: 0n,
  trashBytes: 0n,
  rolledBackAt: null,
  addedVersions: 0,
  confirmedPolicy: null,
  policyHeldSince: null,
  frozenSince: null,
} as const satisfies Partial<CollectionRow>;

/** How the last upload without a version ended; kept after the upload's own row is gone. */
export interface FailedUpload {
  readonly uploadId: string;
  readonly begunAt: Date;
  readonly endedAt: Date;
  readonly reason: string;
}

/** States of an upload; see `proto/strongroom/v1/resources.proto`. */
export type UploadState = "open" | "committing" | "committed" | "aborted" | "expired";

/** A version being received. */
export interface UploadRow {
  readonly id: string;
  readonly collectionId: string;
  readonly collectionName: string;
  /** The tenant at the time of creation; its counters hold this upload's bytes. */
  readonly organization: string;
  /** Name of the storage the object is in. */
  readonly storage: string;
  /** Key of the object in the store; contains the id, never reused. */
  readonly key: string;
  /** The store's name for the unfinished object; null until the store was asked. */
  readonly storeToken: string | null;
  readonly state: UploadState;
  readonly userName: string;
  readonly accessKey: string;
  readonly sessionId: string;
  readonly requestId: string;
  /** SHA-256 in hexadecimal over what CreateUpload asked for; the same request id must have the same. */
  readonly requestDigest: string;
  /** As given by the client; empty for the template. */
  readonly filename: string;
  readonly contentEncoding: ContentEncoding;
  readonly labels: Record<string, string>;
  readonly clientMetadata: Record<string, string>;
  readonly segmentSize: bigint;
  /** The most bytes it could reach in an empty collection, at the time of creation. */
  readonly maxSize: bigint;
  /** Sum of its segments' sizes, until it is a version or the store has deleted them; then 0. */
  readonly reservedBytes: bigint;
  /** Whether the lease ran out, and the place was given back. */
  readonly lapsed: boolean;
  readonly leaseExpiresAt: Date;
  readonly expiresAt: Date;
  readonly begunAt: Date;
  readonly endedAt: Date | null;
  readonly abortReason: string;
  readonly versionNumber: bigint | null;
  /**
   * The usual size that the version is judged by, fixed with its number; null when there is nothing to compare with.
   */
  readonly usualSize: bigint | null;
  /** When the sweeper freed the store of it. */
  readonly cleanedAt: Date | null;
  /** A server waits for the store to complete it, and says so again before this time. */
  readonly completingUntil: Date | null;
  /** Since when the store has neither its object nor its parts, while it is committing. */
  readonly lostSince: Date | null;
  /** Orders the uploads of a collection by their creation, whatever a clock said then. */
  readonly ordinal: bigint;
}

/** An upload that is created; the database gives it its place in the order. */
export type NewUploadRow = Omit<UploadRow, "ordinal">;

/** A segment: pending while an attempt writes it, stored once acknowledged. */
export interface SegmentRow {
  readonly uploadId: string;
  readonly index: number;
  readonly size: bigint;
  readonly sha256: Uint8Array;
  readonly state: "pending" | "stored";
  /** Counts up; only the newest attempt can settle. */
  readonly attempt: number;
  readonly framingIn: Uint8Array;
  readonly framingOut: Uint8Array | null;
  /** What the stream is encrypted to, where its header is in this segment; null where it is not, or is not known. */
  readonly recipients: Readonly<Record<string, number>> | null;
}

/** What is known of a segment once it is stored. */
export type Settled = {
  readonly framingOut: Uint8Array;
  readonly recipients: SegmentRow["recipients"];
  readonly storedAt: Date;
};

/** The row of a version. */
export type VersionRow = Version;

/** How the verification of a version ended. */
export type Verification = Pick<VersionRow, "damage" | "damageReason" | "damagedSegment">;

/** Whether a version is held, and why, by whom and since when. */
export type Hold = Pick<VersionRow, "held" | "holdReason" | "heldBy" | "heldByAdmin" | "heldAt">;

/** An issued token. */
export interface SessionRow {
  /** SHA-256 of the token in hexadecimal. */
  readonly id: string;
  readonly userName: string;
  readonly accessKey: string;
  readonly scope: readonly ObjectGrant[];
  readonly description: string;
  readonly address: string;
  /** Digest of the hash of the password it was opened with; null for one from before there were any. */
  readonly fingerprint: string | null;
  /** Sessions that were refreshed from each other have the same: the id of the first. */
  readonly chainId: string;
  /** When the first session of the chain was issued. */
  readonly chainBeganAt: Date;
  /** When the chain ends, where its login asked for a life; null for the time that the server allows after a login. */
  readonly chainEndsAt: Date | null;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly revokedAt: Date | null;
}

/** Which sessions: all that fit everything given. */
export interface SessionFilter {
  readonly userName?: string | undefined;
  /** Empty for those of no access key. */
  readonly accessKey?: string | undefined;
  readonly chainId?: string | undefined;
  /** Null for those without one. */
  readonly fingerprint?: string | null | undefined;
  readonly createdBefore?: Date | undefined;
}

/** What valid sessions were opened with. */
export type SessionCredential = Pick<SessionRow, "userName" | "accessKey" | "fingerprint">;

/** A key that signs or signed tokens, as a private JSON Web Key. */
export interface SigningKeyRow {
  readonly id: string;
  readonly jwk: Record<string, unknown>;
  readonly createdAt: Date;
}

/** Access to collections and their counters. */
export interface CollectionRepository {
  /** Makes the row when there is none, and locks it until the transaction ends. Always the first lock taken. */
  lockByName(name: string): Promise<CollectionRow>;
  /** Locks the row until the transaction ends. */
  lockById(id: string): Promise<CollectionRow>;
  findByName(name: string): Promise<CollectionRow | undefined>;
  /** Every row, by name. */
  all(): Promise<CollectionRow[]>;
  /** By name, after `afterName`; at most `limit`. */
  list(afterName: string, limit: number): Promise<CollectionRow[]>;
  /** Makes the rows of these names where there are none. */
  ensure(names: readonly string[]): Promise<void>;
  /** Names of collections that have live versions and none of these names, by name. */
  storedExcept(names: readonly string[], prefix: string): Promise<string[]>;
  /** How many collections have live versions and none of these names. */
  countStoredExcept(names: readonly string[]): Promise<number>;
  /** Makes a row that was lost. */
  insert(row: Omit<CollectionRow, keyof LiveCounters>): Promise<void>;
  addUsage(id: string, change: UsageChange): Promise<void>;
  /**
   * Notes how an upload without a version ended, unless one that was created later is noted.
   * @param ordinal of the upload.
   */
  noteFailed(id: string, failed: FailedUpload, ordinal: bigint): Promise<void>;
  /** Notes that the upload of this ordinal has become a version. */
  notePublished(id: string, ordinal: bigint): Promise<void>;
  /**
   * The upload that was created last of those that ended without a version; undefined when one created after it has
   * become a version.
   */
  lastFailed(id: string): Promise<FailedUpload | undefined>;
  /** Notes since when its configuration object is gone; null for that it is there. */
  noteFrozen(id: string, since: Date | null): Promise<void>;
  /** These are the rules of removal in force from now on. */
  confirmPolicy(id: string, rules: string): Promise<void>;
  /** Notes since when rotation waits for a confirmation, unless that is noted; null for that it does not. */
  notePolicyHeld(id: string, since: Date | null): Promise<void>;
  /** Gives out the next version number. The collection must be locked. */
  nextNumber(id: string): Promise<bigint>;
  /** Gives out none up to this number any more. */
  skipNumbers(id: string, upTo: bigint): Promise<void>;
  /** Notes that the store showed that the database was rolled back, and that versions were added from it. */
  noteRollback(id: string, now: Date, addedVersions: number): Promise<void>;
  /** Somebody knows that the database was rolled back. Returns whether that was noted. */
  confirmRollback(id: string): Promise<boolean>;
}

/** What stays of an organization that was purged; counts as decimal texts, since JSON has no such numbers. */
export interface PurgeRecord {
  /** RFC 3339. */
  readonly at: string;
  readonly by: string;
  /** Live versions that there were. */
  readonly versions: string;
  readonly bytes: string;
  /** Names of the collections they were in. */
  readonly collections: readonly string[];
}

/** How an organization was made read-only; null and empty while it is not. */
export interface OrganizationClosing {
  readonly closedAt: Date | null;
  readonly closedBy: string;
  readonly closedReason: string;
}

/** A tenant: its counters, and how it was ended. */
export interface OrganizationRow extends UsageCounters, OrganizationClosing {
  readonly name: string;
  readonly purge: PurgeRecord | null;
}

/** A collection that has anything of an organization. */
export type OrganizationCollection = Pick<CollectionRow, "id" | "name">;

/** Which day of which collection. */
export interface UsageKey {
  /** In UTC, such as `2026-01-31`. */
  readonly day: string;
  /** Empty for none. */
  readonly organization: string;
  readonly collectionName: string;
}

/** What was uploaded to a collection on a day. */
export interface UsageCounts {
  /** Bytes of acknowledged segments of uploads that ended. */
  readonly receivedBytes: bigint;
  /** Bytes of versions that were published. */
  readonly storedBytes: bigint;
  readonly versions: bigint;
}

/** A day of a collection. */
export interface UsageDay extends UsageCounts {
  readonly key: UsageKey;
}

/** Which days: all that fit everything given. */
export interface UsageFilter {
  readonly organization?: string | undefined;
  readonly collectionName?: string | undefined;
  readonly fromDay?: string | undefined;
  readonly toDay?: string | undefined;
}

/** Access to what was uploaded each day. */
export interface UsageRepository {
  /** Adds to a day. The collection must be locked. */
  add(key: UsageKey, counts: UsageCounts): Promise<void>;
  /** Newest day first, then by organization and collection, after the given one; at most `limit`. */
  list(
    filter: UsageFilter,
    page: { readonly after: UsageKey | undefined; readonly limit: number },
  ): Promise<UsageDay[]>;
  /** Forgets the days before this one. */
  deleteBefore(day: string): Promise<void>;
}

/** Access to tenants and their counters. */
export interface OrganizationRepository {
  find(name: string): Promise<OrganizationRow | undefined>;
  /** By name, after the given one; at most `limit`. */
  list(page: Page): Promise<OrganizationRow[]>;
  /** Closes or opens it; makes the row when there is none. Locks nothing else. */
  close(name: string, closing: OrganizationClosing): Promise<void>;
  /** Notes what is purged of it. */
  notePurge(name: string, record: PurgeRecord): Promise<void>;
  /** Collections with versions that have bytes, or uploads that have ended not or not wholly, by name. */
  collectionsOf(name: string): Promise<OrganizationCollection[]>;
  /** Lets the bytes of its removed versions in a collection be deleted from then on. The collection must be locked. */
  hastenTrash(name: string, collectionId: string, purgeAfter: Date): Promise<void>;
  /** Makes the row when there is none, and locks it: alone, or after a collection, never before one. */
  lock(name: string): Promise<OrganizationRow>;
  addUsage(name: string, change: UsageChange): Promise<void>;
  /** What was closed or purged beyond `now`, was so now: one is compared with the other. Returns how many. */
  healTimes(now: Date): Promise<number>;
}

/**
 * A page of rows in the order of their ids: at most `limit` after the row `after`; from the first when that is
 * undefined.
 */
export interface Page {
  readonly after: string | undefined;
  readonly limit: number;
}

/** A row that may be deleted if the store has nothing under its key. */
export interface Forgettable {
  readonly id: string;
  readonly key: string;
}

/** How long the ends last that rows of uploads hold, in milliseconds. */
export interface UploadDurations {
  readonly leaseMs: number;
  readonly expiryMs: number;
  /** What a server claims at a time that waits for the store to complete an object. */
  readonly completingMs: number;
}

/** Access to uploads. */
export interface UploadRepository {
  /** Returns it as it is in the database. The collection must be locked. */
  insert(row: NewUploadRow): Promise<UploadRow>;
  find(id: string): Promise<UploadRow | undefined>;
  /**
   * Finds an upload of this user and access key, and locks its collection until the transaction ends. Of the upload
   * only what never changes is sure: it is read in the same step, and may be older than the lock.
   */
  findLocking(
    id: string,
    owner: Pick<UploadRow, "userName" | "accessKey">,
  ): Promise<{ readonly upload: UploadRow; readonly collection: CollectionRow } | undefined>;
  /**
   * The newest upload of this request id that has not ended, or not before `since`. One that ended before the store
   * took it does not count.
   */
  findByRequest(
    key: { collectionId: string; userName: string; accessKey: string; requestId: string },
    since: Date,
  ): Promise<UploadRow | undefined>;
  /** Open and committing uploads of a collection. */
  unsettled(collectionId: string): Promise<UploadRow[]>;
  /** Open and committing uploads of a collection, and those that still have bytes reserved. */
  holding(collectionId: string): Promise<UploadRow[]>;
  /** Changes columns if the state is still `from`. Returns whether it was. */
  update(id: string, from: UploadState, change: Partial<UploadRow>): Promise<boolean>;
  /**
   * Changes what an upload has reserved by `delta` bytes, in its row and in the counters of its collection and its
   * organization; and with it other columns, and the segment that is announced. One step; the collection must be locked.
   */
  reserve(
    upload: Pick<UploadRow, "id" | "state" | "collectionId" | "organization" | "reservedBytes">,
    delta: bigint,
    change: Partial<UploadRow>,
    announced?: SegmentRow,
  ): Promise<void>;
  /** Notes the store's name for an open upload that has none, and returns the row; undefined for any other. */
  noteToken(id: string, storeToken: string): Promise<UploadRow | undefined>;
  /** Marks an open upload as lapsed if its lease is over by now. Returns whether it was. */
  lapse(id: string, now: Date): Promise<boolean>;
  /** Open uploads whose expiry passed, and open ones not lapsed whose lease ran out. */
  overdue(now: Date, page: Page): Promise<UploadRow[]>;
  /**
   * Brings leases and expiries of uploads under way that are further ahead of `now` than they last to what they last, in
   * milliseconds, and what ended or was lost beyond `now` to now. Returns how many.
   */
  healTimes(now: Date, lasts: UploadDurations): Promise<number>;
  /** Ended without a version and not yet freed from the store. */
  uncleaned(page: Page): Promise<UploadRow[]>;
  /** Committing uploads. */
  committing(page: Page): Promise<UploadRow[]>;
  /** Uploads that ended before this time, committed ones too, of which the store was freed. */
  forgettable(before: Date, page: Page): Promise<Forgettable[]>;
  /** Deletes these rows. */
  forget(ids: readonly string[]): Promise<void>;
  /**
   * How many uploads of a collection were begun: after `since` those that the store took, after `failedSince` those that
   * ended because it did not.
   */
  countBegun(
    collectionId: string,
    since: Date,
    failedSince: Date,
  ): Promise<{ readonly inStore: number; readonly failed: number }>;
  /** The uploads of these keys. */
  byKeys(keys: readonly string[]): Promise<UploadRow[]>;
}

/** Access to segments. */
export interface SegmentRepository {
  /** Raises the attempt of a pending segment and returns it. */
  raiseAttempt(uploadId: string, index: number): Promise<number>;
  /**
   * `pending -> stored` if this attempt is the newest, and extends the lease of its upload, which is locked for that.
   * One step; done twice it is done once.
   * @returns `not-held` when the upload is not open, or its lease ran out; `chain-broken` when the next segment was
   *   announced with another framing state than this one ends in; `superseded` when there is a newer attempt.
   */
  settle(
    segment: Pick<SegmentRow, "uploadId" | "index" | "attempt">,
    found: Settled,
    lease: Pick<UploadRow, "leaseExpiresAt" | "expiresAt">,
  ): Promise<"settled" | "not-held" | "chain-broken" | "superseded">;
  /** Drops a pending segment if this attempt is the newest. Returns whether it was. */
  dropPending(uploadId: string, index: number, attempt: number): Promise<boolean>;
  /** Segments in order from `fromIndex`; at most `limit`. */
  list(uploadId: string, fromIndex: number, limit: number): Promise<SegmentRow[]>;
  /** The segment at an index, the one before it, and the one with the highest index, where they are known. */
  around(uploadId: string, index: number): Promise<Readonly<Record<"before" | "at" | "last", SegmentRow | undefined>>>;
  deleteAll(uploadId: string): Promise<void>;
  /** Sum of the sizes of stored segments, by the upload's id; none for uploads without. */
  storedBytes(uploadIds: readonly string[]): Promise<Map<string, bigint>>;
}

/** Access to versions. What changes a field that the manifest says raises `revision` in the same step. */
export interface VersionRepository {
  insert(row: VersionRow, segmentDigests: Uint8Array): Promise<void>;
  /** Whatever its state. */
  findById(id: string): Promise<VersionRow | undefined>;
  /** Whatever its state. */
  findByNumber(collectionId: string, number: bigint): Promise<VersionRow | undefined>;
  /** Live versions, highest number first, below `beforeNumber`; at most `limit`. */
  listLive(collectionId: string, beforeNumber: bigint | undefined, limit: number): Promise<VersionRow[]>;
  /**
   * How many versions of the collection were begun from `from` on and before `before`; those that rotation has removed
   * since count, those that a person removed do not.
   */
  countBegun(collectionId: string, from: Date, before: Date): Promise<number>;
  /**
   * Removed versions that can be brought back at `now`, highest number first, below `beforeNumber`; at most `limit`.
   */
  listRemoved(collectionId: string, now: Date, beforeNumber: bigint | undefined, limit: number): Promise<VersionRow[]>;
  /**
   * Every live version of the collection. For what looks at each of them; {@link LiveVersionRepository} answers the
   * questions of every upload.
   */
  allLive(collectionId: string): Promise<LiveVersion[]>;
  /** What each live version of the collection is encrypted to, highest number first. */
  recipients(collectionId: string): Promise<Pick<VersionRow, "number" | "recipients">[]>;
  /** SHA-256 digests of segments, 32 bytes each, `count` of them from `first`. */
  segmentDigests(id: string, first: number, count: number): Promise<Uint8Array>;
  /** `live -> removed`. Returns whether it was live. */
  remove(id: string, removal: { removedAt: Date; removedBy: string; purgeAfter: Date }): Promise<boolean>;
  /**
   * `removed -> live`, where its object is still whole: before its time, and nobody has begun to purge it. Returns
   * whether it was so.
   */
  restore(id: string, now: Date, protection: Pick<VersionRow, "protectedUntil" | "protectedForMs">): Promise<boolean>;
  /** Gives a version another protection. */
  protect(id: string, protection: Pick<VersionRow, "protectedUntil" | "protectedForMs">): Promise<void>;
  /** Holds it, or releases it. */
  hold(id: string, hold: Hold): Promise<void>;
  /** Notes that somebody confirmed its size. */
  confirm(id: string, confirmedAt: Date): Promise<void>;
  /** Versions removed for this version or by this person. */
  removedBy(removedBy: string): Promise<VersionRow[]>;
  /**
   * Removed versions past their time that are not kept for a return, except in collections of `never`, and in those of `unconfigured` except what a
   * purge of its closed organization removed.
   */
  purgeable(
    now: Date,
    collectionIds: { readonly never: readonly string[]; readonly unconfigured: readonly string[] },
    page: Page,
  ): Promise<VersionRow[]>;
  /** The versions of these keys, their own or those of adopted objects, whatever their state. */
  byKeys(keys: readonly string[]): Promise<VersionRow[]>;
  /** Versions that are kept for a return to the program that stored them, whatever their state. */
  adopted(page: Page): Promise<VersionRow[]>;
  /** The adopted object of the version has been replaced by another one's; there is nothing left of it to keep. */
  loseAdopted(id: string): Promise<void>;
  /** From now on the object of the version is deleted as any other. */
  endReturn(id: string): Promise<void>;
  /** Versions with an object whose manifest says another revision than theirs. */
  staleManifests(page: Page): Promise<VersionRow[]>;
  /**
   * Notes that a manifest was written. Where another one was noted since the row was read, either may be the one in the
   * store; then it counts as the lower of both revisions, so that it is written again.
   * @param manifest.revision what was written; 0 for one that is no revision's.
   * @param manifest.before `manifestRevision` of the row it was written from.
   */
  manifestWritten(id: string, manifest: { readonly revision: number; readonly before: number }): Promise<void>;
  /** Some live versions other than this one that no verification found damaged, at most `limit`, at random. */
  undamagedSample(exceptId: string, limit: number): Promise<VersionRow[]>;
  /** Bytes of all live versions. */
  liveBytes(): Promise<bigint>;
  /**
   * Claims the live version that was verified (or, when never, published) longest ago, before `before`, or before
   * `damagedBefore` if it is damaged; or one of which that is dated beyond `now`. Nobody else claims it until `until`.
   * A claim that is further ahead was written by a wrong clock, and is none.
   */
  claimForVerification(
    now: Date,
    limits: { readonly before: Date; readonly damagedBefore: Date; readonly until: Date },
  ): Promise<VersionRow | undefined>;
  /** Keeps a claim until then. */
  extendVerification(id: string, until: Date): Promise<void>;
  /** Notes how a verification ended, and since when there is damage, and ends the claim. */
  recordVerification(id: string, now: Date, result: Verification): Promise<void>;
  /** Ends a claim without a result. */
  dropVerification(id: string): Promise<void>;
  /**
   * Notes that the object of a removed version past its time is about to be deleted, so that it cannot be brought back
   * from now on. Returns whether it still was one; where its collection is not configured, only for what a purge of its
   * closed organization removed.
   */
  beginPurge(id: string, now: Date, isConfigured: boolean): Promise<boolean>;
  /**
   * Counts protections, and the times until removed ones may be purged, from `now` where they were counted from a time
   * beyond it, with the duration they were given; what was purged beyond `now` was purged now. Returns how many.
   */
  healTimes(now: Date): Promise<number>;
  /** `removed -> purged`; what only matters beside an object is dropped. Returns whether it was. */
  markPurged(id: string, now: Date): Promise<boolean>;
  /** Versions purged before this time. */
  forgettable(before: Date, page: Page): Promise<Forgettable[]>;
  /** Deletes these rows. */
  forget(ids: readonly string[]): Promise<void>;
}

/** Names something in the store: a finished object, or, with a token, an unfinished one. */
export interface StoredName {
  readonly key: string;
  /** Empty for a finished object. */
  readonly token: string;
}

/** Access to the record of objects that no row knows. */
export interface UnknownObjectRepository {
  /** Notes that these were seen now, and says since when each is seen without a break, in the same order. */
  seen(names: readonly StoredName[], now: Date): Promise<Date[]>;
  /** Whether it was seen before, and at every look since. */
  isKnown(name: StoredName): Promise<boolean>;
  /** Forgets those that were not seen then, or later within what clocks may differ by. */
  forget(before: Date): Promise<void>;
}

/** Access to sessions and the keys that sign them. */
export interface SessionRepository {
  insert(row: SessionRow): Promise<void>;
  find(id: string): Promise<SessionRow | undefined>;
  /** As {@link SessionRepository.find}, and nobody else changes it until the transaction ends. */
  lock(id: string): Promise<SessionRow | undefined>;
  /** Sessions that are neither expired nor revoked, newest first, after the given one; at most `limit`. */
  listValid(
    of: SessionFilter,
    now: Date,
    after: { createdAt: Date; id: string } | undefined,
    limit: number,
  ): Promise<SessionRow[]>;
  /** What the valid sessions were opened with, each once. */
  validCredentials(now: Date): Promise<SessionCredential[]>;
  /**
   * Ends all valid sessions that fit, and those that are being refreshed from one of them. The filter names a user or a
   * chain.
   * @returns how many.
   */
  revoke(of: SessionFilter, now: Date): Promise<number>;
  /**
   * Keeps the sessions of a user and access key to `most` valid ones and as many ended ones. The oldest valid ones
   * beyond are ended, or `instead` of them the given one; the oldest ended ones are deleted.
   */
  bound(
    of: { readonly userName: string; readonly accessKey: string },
    now: Date,
    most: number,
    instead: string | undefined,
  ): Promise<void>;
  /**
   * Counts the life of sessions from `now` that were counted from a time beyond it, with the duration they were given.
   * Returns how many.
   * @param id of one session; all when left out.
   */
  healTimes(now: Date, id?: string): Promise<number>;
  /** Deletes sessions that ended before this time; imported ones that were revoked only when they expired before it. */
  deleteEnded(before: Date): Promise<number>;
  /** Whether a session is valid that was issued between these times, the second not among them. */
  hasValidBetween(from: Date, to: Date, now: Date): Promise<boolean>;
  /** Every key, newest first. */
  signingKeys(): Promise<SigningKeyRow[]>;
  /** Lets only this transaction make and delete keys until it ends. */
  lockSigningKeys(): Promise<void>;
  insertSigningKey(row: SigningKeyRow): Promise<void>;
  deleteSigningKey(id: string): Promise<void>;
  /** Dates keys that are dated beyond `now` to now. Returns how many. */
  healSigningKeys(now: Date): Promise<number>;
}

/** Access to the budgets of failed logins. */
export interface BudgetRepository {
  /**
   * Takes one token in one step, or returns the wait time. A budget that is further from being whole than its period is
   * long was written by a wrong clock, and counts as whole.
   */
  take(holder: string, limit: RateLimit, now: Date): Promise<Taken>;
  /** Gives one token back. */
  giveBack(holder: string, limit: RateLimit): Promise<void>;
  /** Forgets the budgets that are whole again, or that a wrong clock wrote. Returns how many. */
  deleteFull(now: Date): Promise<number>;
}

/** Access to what is remembered of the clock. */
export interface ClockRepository {
  read(): Promise<ClockRecord>;
  /** Reads, and lets only this transaction write until it ends. */
  lock(): Promise<ClockRecord>;
  write(record: ClockRecord): Promise<void>;
}

/** Everything inside one transaction. */
export interface Transaction {
  /** The database's time at the beginning of the transaction, to a few milliseconds. */
  readonly now: Date;
  readonly collections: CollectionRepository;
  readonly organizations: OrganizationRepository;
  readonly usage: UsageRepository;
  readonly uploads: UploadRepository;
  readonly segments: SegmentRepository;
  readonly versions: VersionRepository;
  readonly live: LiveVersionRepository;
  readonly records: UpkeepRecords;
  readonly sessions: SessionRepository;
  readonly budgets: BudgetRepository;
  readonly unknownObjects: UnknownObjectRepository;
  readonly clock: ClockRepository;
  readonly notifications: NotificationRepository;
  readonly auditLog: AuditRepository;
  /** Writes events into the audit log, within this transaction. */
  audit(...events: AuditEvent[]): Promise<void>;
}

/** Which installation a database belongs to, and whether it can be used. */
export interface InstallationRow {
  readonly id: string;
  readonly fresh: boolean;
  readonly recovering: boolean;
  readonly importing: boolean;
}

/** The database. Failures of the connection are `DATABASE_UNAVAILABLE` errors. */
export interface Database {
  /**
   * Runs `work` in one transaction, READ COMMITTED; row locks make it safe. It may run more than once (deadlock,
   * serialization failure, a connection lost before the commit), so it must have no effect outside the database. A
   * connection lost during the commit leaves the outcome open: that is an error which says so, and what called must be
   * safe to repeat.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  /** Runs single queries outside a transaction; `work` changes nothing. */
  read<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  /**
   * The id of this installation; made at the first call. `fresh` while no collection was ever uploaded to, `recovering`
   * from the beginning to the end of a rebuild, `importing` from the beginning to the end of the first import.
   */
  installation(): Promise<InstallationRow>;
  /**
   * Begins the first import: nobody serves until {@link finishImport}. Returns false, having changed nothing, when the
   * database is in use; the same call again goes on with an import that was interrupted.
   */
  startImport(): Promise<boolean>;
  /** The first import is complete. */
  finishImport(): Promise<void>;
  /**
   * Takes over the id of an installation whose database was lost. Returns false, having changed nothing, when this
   * database is in use; the same call again goes on with a rebuild that was interrupted.
   */
  startRecovery(id: string): Promise<boolean>;
  /** The rebuild is complete. */
  finishRecovery(): Promise<void>;
  /**
   * Runs `work` while nobody else runs any under this name, in this server or another. Returns undefined, without
   * running it, where somebody does. The lock is given back when the work ends, and when this process or its connection
   * dies; work that goes on after that must be safe without it.
   * @throws DomainError SERVER_OUTDATED, without running it, where a newer version has migrated the database
   */
  exclusively<T>(name: string, work: () => Promise<T>): Promise<{ readonly result: T } | undefined>;
  /** Throws when the database does not answer. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

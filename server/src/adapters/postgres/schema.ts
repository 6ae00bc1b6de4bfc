/**
 * The database schema, the same for PostgreSQL and PGlite. Migrations in `migrations/` are made from it by
 * `npm run migrations` and only go forward. What the columns mean is said where the rows are used, in
 * `app/ports/database.ts`.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  check,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  unique,
  uuid,
} from "drizzle-orm/pg-core";
import type { Notification, NotificationEvent } from "../../domain/notifications.ts";
import { DAMAGE_REASONS } from "../../domain/version.ts";
import { bytea, byteCount, instant } from "./columns.ts";

/** One row: which installation this database and its bucket belong to. */
export const installation = pgTable("installation", {
  id: uuid().primaryKey(),
  createdAt: instant("created_at").notNull(),
  /** Since when it is being rebuilt from a store; null when it is not. */
  recoveringSince: instant("recovering_since"),
  /** Since when versions of another program are taken over for the first time; null when they are not. */
  importingSince: instant("importing_since"),
  clockNewestAt: instant("clock_newest_at"),
  clockPausedUntil: instant("clock_paused_until"),
  clockPauseReason: text("clock_pause_reason").notNull().default(""),
});

/** Every collection ever uploaded to, with its counters; the row is the lock of everything that changes them. */
export const collections = pgTable(
  "collections",
  {
    id: uuid().primaryKey(),
    name: text().notNull().unique(),
    lastNumber: byteCount("last_number").notNull(),
    storedBytes: byteCount("stored_bytes").notNull(),
    reservedBytes: byteCount("reserved_bytes").notNull(),
    trashBytes: byteCount("trash_bytes").notNull(),
    /** Kept by triggers on `versions`, in a migration. */
    liveVersions: integer("live_versions").notNull().default(0),
    countedBytes: byteCount("counted_bytes").notNull().default(sql`0`),
    createdAt: instant("created_at").notNull(),
    rolledBackAt: instant("rolled_back_at"),
    addedVersions: integer("added_versions").notNull().default(0),
    /** The last upload without a version; null for none. */
    failedUploadId: uuid("failed_upload_id"),
    failedBegunAt: instant("failed_begun_at"),
    failedEndedAt: instant("failed_ended_at"),
    failedReason: text("failed_reason"),
    failedOrdinal: byteCount("failed_ordinal").notNull().default(sql`0`),
    publishedOrdinal: byteCount("published_ordinal").notNull().default(sql`0`),
    confirmedPolicy: text("confirmed_policy"),
    policyHeldSince: instant("policy_held_since"),
    frozenSince: instant("frozen_since"),
  },
  (t) => [
    check("collections_counters", sql`${t.storedBytes} >= 0 and ${t.reservedBytes} >= 0 and ${t.trashBytes} >= 0`),
    check("collections_live", sql`${t.liveVersions} >= 0 and ${t.countedBytes} >= 0`),
  ],
);

/** Physical bytes of a tenant over all its collections. Locked after the collection, never before. */
export const organizations = pgTable(
  "organizations",
  {
    name: text().primaryKey(),
    storedBytes: byteCount("stored_bytes").notNull(),
    reservedBytes: byteCount("reserved_bytes").notNull(),
    trashBytes: byteCount("trash_bytes").notNull(),
    closedAt: instant("closed_at"),
    closedBy: text("closed_by").notNull().default(""),
    closedReason: text("closed_reason").notNull().default(""),
    purge: jsonb().$type<{ at: string; by: string; versions: string; bytes: string; collections: string[] }>(),
  },
  (t) => [
    check("organizations_counters", sql`${t.storedBytes} >= 0 and ${t.reservedBytes} >= 0 and ${t.trashBytes} >= 0`),
  ],
);

/** What was uploaded to each collection on each day, in UTC. */
export const usageDays = pgTable(
  "usage_days",
  {
    day: text().notNull(),
    organization: text().notNull(),
    collectionName: text("collection_name").notNull(),
    receivedBytes: byteCount("received_bytes").notNull(),
    storedBytes: byteCount("stored_bytes").notNull(),
    versions: byteCount("versions").notNull(),
  },
  (t) => [primaryKey({ columns: [t.day, t.organization, t.collectionName] })],
);

/** Versions being received, and how they ended. */
export const uploads = pgTable(
  "uploads",
  {
    id: uuid().primaryKey(),
    collectionId: uuid("collection_id")
      .notNull()
      .references(() => collections.id),
    collectionName: text("collection_name").notNull(),
    organization: text().notNull(),
    storage: text().notNull(),
    key: text().notNull().unique(),
    storeToken: text("store_token"),
    state: text({ enum: ["open", "committing", "committed", "aborted", "expired"] }).notNull(),
    userName: text("user_name").notNull(),
    accessKey: text("access_key").notNull(),
    sessionId: text("session_id").notNull(),
    requestId: text("request_id").notNull(),
    requestDigest: text("request_digest").notNull(),
    filename: text().notNull(),
    contentEncoding: text("content_encoding", { enum: ["none", "zstd"] }).notNull(),
    labels: jsonb().$type<Record<string, string>>().notNull(),
    clientMetadata: jsonb("client_metadata").$type<Record<string, string>>().notNull(),
    segmentSize: byteCount("segment_size").notNull(),
    maxSize: byteCount("max_size").notNull(),
    reservedBytes: byteCount("reserved_bytes").notNull(),
    lapsed: boolean().notNull(),
    leaseExpiresAt: instant("lease_expires_at").notNull(),
    expiresAt: instant("expires_at").notNull(),
    begunAt: instant("begun_at").notNull(),
    endedAt: instant("ended_at"),
    abortReason: text("abort_reason").notNull(),
    versionNumber: byteCount("version_number"),
    usualSize: byteCount("usual_size"),
    cleanedAt: instant("cleaned_at"),
    completingUntil: instant("completing_until"),
    lostSince: instant("lost_since"),
    ordinal: bigint({ mode: "bigint" }).notNull().generatedByDefaultAsIdentity(),
  },
  (t) => [
    index("uploads_collection").on(t.collectionId, t.begunAt),
    index("uploads_holding")
      .on(t.collectionId)
      .where(sql`${t.state} in ('open', 'committing') or ${t.reservedBytes} > 0`),
    index("uploads_ended").on(t.endedAt).where(sql`${t.cleanedAt} is not null`),
    index("uploads_unclean").on(t.state).where(sql`${t.cleanedAt} is null and ${t.state} in ('aborted', 'expired')`),
    index("uploads_request").on(t.collectionId, t.userName, t.requestId).where(sql`${t.requestId} <> ''`),
    check("uploads_reserved", sql`${t.reservedBytes} >= 0`),
  ],
);

/** Segments of uploads; deleted when the upload has ended. */
export const segments = pgTable(
  "segments",
  {
    uploadId: uuid("upload_id")
      .notNull()
      .references(() => uploads.id, { onDelete: "cascade" }),
    index: integer().notNull(),
    size: byteCount("size").notNull(),
    sha256: bytea().notNull(),
    state: text({ enum: ["pending", "stored"] }).notNull(),
    attempt: integer().notNull(),
    framingIn: bytea("framing_in").notNull(),
    framingOut: bytea("framing_out"),
    storedAt: instant("stored_at"),
    recipients: jsonb().$type<Readonly<Record<string, number>>>(),
  },
  (t) => [primaryKey({ columns: [t.uploadId, t.index] }), check("segments_size", sql`${t.size} > 0`)],
);

/** Stored backups; the row outlives its object, as a record. */
export const versions = pgTable(
  "versions",
  {
    id: uuid().primaryKey(),
    collectionId: uuid("collection_id")
      .notNull()
      .references(() => collections.id),
    collectionName: text("collection_name").notNull(),
    organization: text().notNull(),
    storage: text().notNull(),
    key: text().notNull().unique(),
    adoptedKey: text("adopted_key").unique(),
    keptForReturn: boolean("kept_for_return").notNull().default(false),
    unchecked: text().notNull().default(""),
    number: byteCount("number").notNull(),
    filename: text().notNull(),
    size: byteCount("size").notNull(),
    segmentSize: byteCount("segment_size").notNull(),
    segmentCount: integer("segment_count").notNull(),
    compositeSha256: bytea("composite_sha256").notNull(),
    segmentDigests: bytea("segment_digests").notNull(),
    contentEncoding: text("content_encoding", { enum: ["none", "zstd"] }).notNull(),
    encryptionFormat: text("encryption_format", { enum: ["openpgp", "age"] }).notNull(),
    armored: boolean().notNull(),
    begunAt: instant("begun_at").notNull(),
    committedAt: instant("committed_at").notNull(),
    userName: text("user_name").notNull(),
    accessKey: text("access_key").notNull(),
    sessionId: text("session_id").notNull(),
    labels: jsonb().$type<Record<string, string>>().notNull(),
    clientMetadata: jsonb("client_metadata").$type<Record<string, string>>().notNull(),
    aboveSoftLimit: boolean("above_soft_limit").notNull(),
    usualSize: byteCount("usual_size"),
    confirmedAt: instant("confirmed_at"),
    state: text({ enum: ["live", "removed", "purged"] }).notNull(),
    held: boolean().notNull(),
    holdReason: text("hold_reason").notNull(),
    heldBy: text("held_by").notNull().default(""),
    heldByAdmin: boolean("held_by_admin").notNull().default(false),
    heldAt: instant("held_at"),
    protectedUntil: instant("protected_until"),
    protectedForMs: bigint("protected_for_ms", { mode: "number" }),
    removedAt: instant("removed_at"),
    removedBy: text("removed_by").notNull(),
    purgeAfter: instant("purge_after"),
    purgedAt: instant("purged_at"),
    revision: integer().notNull().default(1),
    manifestRevision: integer("manifest_revision").notNull().default(1),
    /** Raised by every write of the manifest; a trigger knows by it what a replica of release 0.1 wrote, in its format. */
    manifestWrites: integer("manifest_writes").notNull().default(0),
    verifiedAt: instant("verified_at"),
    verifyingUntil: instant("verifying_until"),
    damage: text().notNull().default(""),
    damagedSegment: integer("damaged_segment"),
    damagedAt: instant("damaged_at"),
    recipients: jsonb().$type<Readonly<Record<string, number>>>(),
    damageReason: text("damage_reason", {
      enum: DAMAGE_REASONS,
    })
      .notNull()
      .default(""),
  },
  (t) => [
    unique("versions_number").on(t.collectionId, t.number),
    index("versions_begun").on(t.collectionId, t.begunAt),
    index("versions_live").on(t.collectionId, t.number).where(sql`${t.state} = 'live'`),
    index("versions_size").on(t.collectionId, t.size).where(sql`${t.state} = 'live'`),
    index("versions_without_manifest")
      .on(t.collectionId, t.number)
      .where(sql`${t.state} = 'live' and ${t.manifestRevision} = 0`),
    index("versions_damaged").on(t.collectionId, t.number).where(sql`${t.state} = 'live' and ${t.damage} <> ''`),
    index("versions_shrinking")
      .on(t.collectionId, sql`(${t.size}::float8 / ${t.usualSize})`)
      .where(sql`${t.state} = 'live' and ${t.confirmedAt} is null and ${t.usualSize} > 0`),
    index("versions_trash").on(t.purgeAfter).where(sql`${t.state} = 'removed'`),
    index("versions_verification")
      .on(sql`coalesce(${t.verifiedAt}, ${t.committedAt})`, t.id)
      .where(sql`${t.state} = 'live'`),
    index("versions_stale_manifests")
      .on(t.id)
      .where(sql`${t.state} <> 'purged' and ${t.manifestRevision} <> ${t.revision}`),
    index("versions_purged").on(t.purgedAt).where(sql`${t.state} = 'purged'`),
    index("versions_removed_by").on(t.removedBy).where(sql`${t.removedBy} <> ''`),
  ],
);

/** What the store holds and no row knows, with the time since when it is known to be so. */
export const unknownObjects = pgTable(
  "unknown_objects",
  {
    key: text().notNull(),
    token: text().notNull(),
    firstSeenAt: instant("first_seen_at").notNull(),
    lastSeenAt: instant("last_seen_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.key, t.token] })],
);

/** Issued tokens, as hashes. */
export const sessions = pgTable(
  "sessions",
  {
    id: text().primaryKey(),
    userName: text("user_name").notNull(),
    accessKey: text("access_key").notNull(),
    scope: jsonb().$type<{ type: string; name: string; roles: string[] }[]>().notNull(),
    description: text().notNull(),
    address: text().notNull(),
    /** Null in rows from before there were any. */
    fingerprint: text(),
    chainId: text("chain_id").notNull(),
    chainBeganAt: instant("chain_began_at").notNull(),
    chainEndsAt: instant("chain_ends_at"),
    createdAt: instant("created_at").notNull(),
    expiresAt: instant("expires_at").notNull(),
    revokedAt: instant("revoked_at"),
  },
  (t) => [index("sessions_user").on(t.userName, t.createdAt), index("sessions_chain").on(t.chainId)],
);

/** Budgets of failed logins, of every address that does not have it whole. */
export const loginBudgets = pgTable(
  "login_budgets",
  {
    holder: text().primaryKey(),
    /** Milliseconds since 1970; no instant, since tokens need not be whole milliseconds. */
    fullAtMs: doublePrecision("full_at_ms").notNull(),
  },
  (t) => [index("login_budgets_full").on(t.fullAtMs)],
);

/** Keys that sign tokens; the newest signs, all verify. */
export const signingKeys = pgTable("signing_keys", {
  id: text().primaryKey(),
  jwk: jsonb().$type<Record<string, unknown>>().notNull(),
  createdAt: instant("created_at").notNull(),
});

/** What happened, and by whom. Rows are only added; the chain gives each its place once, and the oldest are pruned. */
export const auditEvents = pgTable(
  "audit_events",
  {
    id: uuid().primaryKey(),
    at: instant("at").notNull(),
    kind: text().notNull(),
    actor: text().notNull(),
    collectionName: text("collection_name").notNull(),
    details: jsonb().$type<Record<string, string>>().notNull(),
    accessKey: text("access_key").notNull().default(""),
    sessionId: text("session_id").notNull().default(""),
    address: text().notNull().default(""),
    requestId: text("request_id").notNull().default(""),
    object: text().notNull().default(""),
    outcome: text({ enum: ["done", "refused", "failed"] })
      .notNull()
      .default("done"),
    reason: text().notNull().default(""),
    /** Orders rows by their insertion; what is committed late has a low one. */
    ordinal: bigint({ mode: "bigint" }).notNull().generatedByDefaultAsIdentity(),
    /** Its place in the chain, from 1; null until it has one. */
    place: bigint({ mode: "bigint" }),
    previousHash: bytea("previous_hash"),
    hash: bytea(),
  },
  (t) => [
    index("audit_events_at").on(t.at),
    unique("audit_events_ordinal").on(t.ordinal),
    unique("audit_events_place").on(t.place),
    index("audit_events_unchained").on(t.ordinal).where(sql`${t.place} is null`),
    index("audit_events_collection").on(t.collectionName, t.ordinal),
    index("audit_events_actor").on(t.actor, t.ordinal),
  ],
);

/** One row: where the chain of audit events ends, its last signed head, and what was pruned. */
export const auditChain = pgTable("audit_chain", {
  id: integer().primaryKey(),
  place: bigint({ mode: "bigint" }).notNull(),
  hash: bytea().notNull(),
  /** The highest sequence number that a head was given, whether or not it got into the store. */
  reservedSequence: bigint("reserved_sequence", { mode: "bigint" }).notNull(),
  /** The newest head that is in the store; 0 for none. */
  headSequence: bigint("head_sequence", { mode: "bigint" }).notNull(),
  headPlace: bigint("head_place", { mode: "bigint" }).notNull(),
});

/** Configuration objects as the audit log knows them, without secrets, so that a change is told once by one server. */
export const auditConfiguration = pgTable("audit_configuration", {
  object: text().primaryKey(),
  fields: jsonb().$type<Record<string, string>>().notNull(),
});

/** Servers over this database, each renewed by its own process now and then. */
export const replicas = pgTable(
  "replicas",
  {
    id: uuid().primaryKey(),
    /** Name of its machine. */
    host: text().notNull(),
    version: text().notNull(),
    startedAt: instant("started_at").notNull(),
    seenAt: instant("seen_at").notNull(),
  },
  (t) => [index("replicas_seen").on(t.seenAt)],
);

/** The last sweep and the last verification that was asked for: one row each. */
export const upkeepRuns = pgTable("upkeep_runs", {
  kind: text({ enum: ["sweep", "verification"] }).primaryKey(),
  startedAt: instant("started_at").notNull(),
  /** Null while it is under way, or its server died. */
  finishedAt: instant("finished_at"),
  /** When its server said last that it goes on. */
  seenAt: instant("seen_at").notNull(),
  /** Who asked for it; `server` for what comes by itself. */
  actor: text().notNull(),
  counts: jsonb().$type<Record<string, number>>().notNull(),
  /** Why it failed as a whole; empty for nothing. */
  error: text().notNull().default(""),
});

/** When the conditions of each collection, organization and of the installation are looked at next. */
export const notificationReviews = pgTable(
  "notification_reviews",
  {
    subject: text().primaryKey(),
    reviewAt: instant("review_at").notNull(),
    digest: text().notNull().default(""),
    firstSeenAt: instant("first_seen_at").notNull(),
    goneSince: instant("gone_since"),
  },
  (t) => [index("notification_reviews_due").on(t.reviewAt)],
);

/** What happened and was not reviewed, and what servers say goes on. */
export const notificationSignals = pgTable(
  "notification_signals",
  {
    subject: text().notNull(),
    event: text().$type<NotificationEvent>().notNull(),
    since: instant("since").notNull(),
    until: instant("until"),
    message: text().notNull(),
    /** How often it happened since the last review. */
    count: integer().notNull().default(1),
    /** Of the last time: what `docs/notifications.md` names for the event. */
    facts: jsonb().$type<Readonly<Record<string, string>>>().notNull().default({}),
    /** Which server says so of itself; empty for what is no server's. */
    server: text().notNull().default(""),
  },
  (t) => [primaryKey({ columns: [t.subject, t.event, t.server] })],
);

/** Which notifier was told of what that goes on. */
export const notificationTold = pgTable(
  "notification_told",
  {
    notifier: text().notNull(),
    subject: text().notNull(),
    event: text().notNull(),
    since: instant("since").notNull(),
    toldAt: instant("told_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.notifier, t.subject, t.event] }), index("notification_told_subject").on(t.subject)],
);

/** Notifications on their way; deleted when they arrived. */
export const notificationOutbox = pgTable(
  "notification_outbox",
  {
    id: bigint({ mode: "bigint" }).primaryKey().generatedByDefaultAsIdentity(),
    deliveryId: uuid("delivery_id").notNull(),
    notifier: text().notNull(),
    subject: text().notNull(),
    event: text().notNull(),
    body: jsonb().$type<Notification>().notNull(),
    createdAt: instant("created_at").notNull(),
    attempts: integer().notNull().default(0),
    nextAttemptAt: instant("next_attempt_at").notNull(),
    holder: text().notNull().default(""),
    leasedUntil: instant("leased_until"),
  },
  (t) => [index("notification_outbox_order").on(t.notifier, t.subject, t.id)],
);

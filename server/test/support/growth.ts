/** Rows in numbers, made by SQL. */
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../../src/adapters/postgres/database.ts";

/** A version to be inserted; they get their numbers in order. */
export interface SomeVersion {
  readonly size: bigint;
  readonly ageHours: number;
  readonly held: boolean;
  /** Hours until its protection ends; null for none. */
  readonly protectedHours: number | null;
  readonly damage: string;
  readonly damageReason: string;
  readonly manifestRevision: number;
  readonly usualSize: bigint | null;
  readonly isConfirmed: boolean;
  readonly state: "live" | "removed" | "purged";
}

/** Puts versions into a collection, whose row is made where there is none, and sets what it counts. */
export async function insertVersions(
  database: SqlDatabase,
  name: string,
  versions: readonly SomeVersion[],
  now: Date,
): Promise<void> {
  await database.transaction(async (tx) => await tx.collections.lockByName(name));
  const rows = versions.map((version, index) => ({
    ...version,
    number: index + 1,
    size: String(version.size),
    usualSize: version.usualSize === null ? null : String(version.usualSize),
  }));
  const at = sql`${now.toISOString()}::timestamptz`;
  await database.query(sql`insert into versions (id, collection_id, collection_name, organization, storage, key, number,
      filename, size, segment_size, segment_count, composite_sha256, segment_digests, content_encoding, encryption_format,
      armored, begun_at, committed_at, user_name, access_key, session_id, labels, client_metadata, above_soft_limit, state,
      held, hold_reason, protected_until, protected_for_ms, removed_by, purge_after, damage, usual_size, confirmed_at,
      damage_reason, damaged_at, revision, manifest_revision)
    select gen_random_uuid(), c.id, c.name, '', 'default', gen_random_uuid()::text, v.number, 'a', v.size, 1048576, 1, '\\x00', '\\x00', 'none', 'openpgp',
      false, ${at} - v."ageHours" * interval '1 hour', ${at} - v."ageHours" * interval '1 hour', 'ann', '', '', '{}', '{}', false, v.state,
      v.held, '', ${at} + v."protectedHours" * interval '1 hour', 0, '', null, v.damage, v."usualSize",
      case when v."isConfirmed" then ${at} end,
      case when v.damage = '' then '' else v."damageReason" end, case when v.damage <> '' then ${at} - v."ageHours" * interval '30 minutes' end, 2, v."manifestRevision"
    from collections c, jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb) as v(number bigint, size bigint, "ageHours" int, held boolean,
      "protectedHours" int, damage text, "damageReason" text, "manifestRevision" int, "usualSize" bigint, "isConfirmed" boolean, state text)
    where c.name = ${name}`);
  await countUsage(database);
}

/** Makes the counters of bytes equal to the rows. */
export async function countUsage(database: SqlDatabase): Promise<void> {
  await database.query(sql`update collections c set
    stored_bytes = coalesce((select sum(size) from versions v where v.collection_id = c.id and v.state = 'live'), 0),
    trash_bytes = coalesce((select sum(size) from versions v where v.collection_id = c.id and v.state = 'removed'), 0)`);
}

/**
 * A collection `many` of so many live versions, and so many `others`, `c-00001` and on, with one each; of every version
 * the upload that it was with its segment, and an audit event. Statistics are up to date.
 */
export async function insertMany(database: SqlDatabase, rows: number, others: number): Promise<void> {
  const digits = "00000";
  await database.query(sql`insert into collections (id, name, last_number, stored_bytes, reserved_bytes, trash_bytes, created_at)
    select gen_random_uuid(), case when n = 0 then 'many' else 'c-' || to_char(n, ${`FM${digits}`}) end,
      case when n = 0 then ${rows}::int else 1 end, 0, 0, 0, '2025-01-01'
    from generate_series(0, ${others}::int) n`);
  await database.query(sql`insert into versions (id, collection_id, collection_name, organization, storage, key, number,
      filename, size, segment_size, segment_count, composite_sha256, segment_digests, content_encoding, encryption_format,
      armored, begun_at, committed_at, user_name, access_key, session_id, labels, client_metadata, above_soft_limit, state,
      held, hold_reason, removed_by, usual_size)
    select gen_random_uuid(), c.id, c.name, '', 'default', gen_random_uuid()::text, n, 'a', 1024, 1048576, 1, '\\x00', '\\x00', 'none', 'openpgp',
      false, '2025-12-31'::timestamptz - (c.last_number - n) * interval '10 minutes', '2025-12-31', 'ann', '', '', '{}', '{}', false, 'live', false, '', '', 1024
    from collections c, generate_series(1, c.last_number::int) n`);
  await database.query(sql`insert into uploads (id, collection_id, collection_name, organization, storage, key, store_token, state, user_name, access_key,
      session_id, request_id, request_digest, filename, content_encoding, labels, client_metadata, segment_size, max_size, reserved_bytes, lapsed,
      lease_expires_at, expires_at, begun_at, ended_at, abort_reason, version_number, cleaned_at)
    select id, collection_id, collection_name, organization, storage, key, 't', 'committed', user_name, '', '', '', '', '', 'none', '{}', '{}', 1048576,
      1048576, 0, true, begun_at, begun_at, begun_at, begun_at, '', number, begun_at from versions`);
  await database.query(sql`insert into segments (upload_id, index, size, sha256, state, attempt, framing_in)
    select id, 0, 1024, '\\x00', 'stored', 1, '\\x00' from versions`);
  await database.query(sql`insert into audit_events (id, at, kind, actor, collection_name, details)
    select gen_random_uuid(), begun_at, 'version.committed', 'user:ann', collection_name, '{}' from versions`);
  await countUsage(database);
  await database.query(sql`vacuum analyze`);
}

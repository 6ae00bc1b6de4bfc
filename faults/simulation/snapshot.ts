import { type SQL, sql } from "drizzle-orm";

/** A collection's or tenant's counters as stored, in bytes. */
export interface Counters {
  readonly name: string;
  readonly stored: number;
  readonly reserved: number;
  readonly trash: number;
}

/** An upload's row, as far as the oracle judges it. Times are milliseconds. */
export interface UploadFacts {
  readonly id: string;
  readonly collection: string;
  readonly organization: string;
  readonly state: "open" | "committing" | "committed" | "aborted" | "expired";
  readonly lapsed: boolean;
  readonly reserved: number;
  readonly begun: number;
  readonly lease: number;
  readonly expires: number;
  readonly number: number | null;
  readonly reason: string;
  /** Announced segments: how many, how many of them stored, their sizes together, the highest index. */
  readonly segments: number;
  readonly stored: number;
  readonly bytes: number;
  readonly last: number;
  readonly attempts: readonly {
    readonly index: number;
    readonly attempt: number;
    readonly state: "pending" | "stored";
  }[];
}

/** A version's row, as far as the oracle judges it. Times are milliseconds. */
export interface VersionFacts {
  readonly id: string;
  readonly collection: string;
  readonly organization: string;
  readonly key: string;
  readonly number: number;
  readonly state: "live" | "removed" | "purged";
  readonly size: number;
  readonly begun: number;
  readonly committed: number;
  readonly held: boolean;
  readonly protectedUntil: number | null;
  /** Milliseconds. */
  readonly protectedFor: number | null;
  readonly removed: number | null;
  readonly removedBy: string;
  readonly purgeAfter: number | null;
  readonly revision: number;
  readonly manifestRevision: number;
}

/** The rows of one scenario between two transactions. */
export interface Snapshot {
  readonly collections: readonly Counters[];
  readonly organizations: readonly Counters[];
  readonly uploads: readonly UploadFacts[];
  readonly versions: readonly VersionFacts[];
}

/** A snapshot of nothing. */
export const EMPTY: Snapshot = { collections: [], organizations: [], uploads: [], versions: [] };

/** Reads a scenario's rows in one query, past every use case and repository. */
export async function takeSnapshot(
  query: (query: SQL) => Promise<Record<string, unknown>[]>,
  collections: readonly string[],
  organization: string,
): Promise<Snapshot> {
  const names = sql.join(
    collections.map((name) => sql`${name}`),
    sql`, `,
  );
  const ms = (column: string) => sql.raw(`(extract(epoch from ${column}) * 1000)::float8`);
  const rows = await query(sql`select json_build_object(
    'collections', (select coalesce(json_agg(json_build_object('name', name, 'stored', stored_bytes,
      'reserved', reserved_bytes, 'trash', trash_bytes)), '[]') from collections where name in (${names})),
    'organizations', (select coalesce(json_agg(json_build_object('name', name, 'stored', stored_bytes,
      'reserved', reserved_bytes, 'trash', trash_bytes)), '[]') from organizations where name = ${organization}),
    'uploads', (select coalesce(json_agg(json_build_object('id', u.id, 'collection', collection_name,
      'organization', organization, 'state', u.state, 'lapsed', lapsed, 'reserved', reserved_bytes,
      'begun', ${ms("begun_at")}, 'lease', ${ms("lease_expires_at")}, 'expires', ${ms("expires_at")},
      'number', version_number, 'reason', abort_reason, 'segments', s.count, 'stored', s.stored, 'bytes', s.bytes,
      'last', s.last, 'attempts', s.attempts)), '[]')
      from uploads u, lateral (select count(*), count(*) filter (where state = 'stored') as stored,
      coalesce(sum(size), 0) as bytes, coalesce(max(index), -1) as last,
      coalesce(json_agg(json_build_object('index', index, 'attempt', attempt, 'state', state)), '[]') as attempts
      from segments where upload_id = u.id) s where collection_name in (${names})),
    'versions', (select coalesce(json_agg(json_build_object('id', id, 'collection', collection_name,
      'organization', organization, 'key', key, 'number', number, 'state', state, 'size', size,
      'begun', ${ms("begun_at")}, 'committed', ${ms("committed_at")}, 'held', held,
      'protectedUntil', ${ms("protected_until")}, 'protectedFor', protected_for_ms, 'removed', ${ms("removed_at")}, 'removedBy', removed_by,
      'purgeAfter', ${ms("purge_after")}, 'revision', revision, 'manifestRevision', manifest_revision)), '[]')
      from versions where collection_name in (${names}))) as facts`);
  const facts = rows[0]!.facts;
  return (typeof facts === "string" ? JSON.parse(facts) : facts) as Snapshot;
}

import {
  and,
  asc,
  count,
  desc,
  eq,
  getTableColumns,
  gt,
  gte,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
  max,
  ne,
  or,
  type SQL,
  sql,
} from "drizzle-orm";
import type { AnyPgColumn, PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";
import type {
  CollectionRepository,
  CollectionRow,
  FailedUpload,
  OrganizationRepository,
  Page,
  SegmentRepository,
  UploadRepository,
  UsageChange,
} from "../../app/ports/database.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import { markCollection, markOrganization, markUpload, signalFailure } from "./review-marks.ts";
import * as schema from "./schema.ts";

/** A drizzle database or transaction of either driver. */
export type Executor = PgDatabase<PgQueryResultHKT, typeof schema>;

const usageChange = (
  columns: Record<"storedBytes" | "reservedBytes" | "trashBytes", AnyPgColumn>,
  change: UsageChange,
) => ({
  storedBytes: sql`${columns.storedBytes} + ${change.storedBytes ?? 0n}`,
  reservedBytes: sql`${columns.reservedBytes} + ${change.reservedBytes ?? 0n}`,
  trashBytes: sql`${columns.trashBytes} + ${change.trashBytes ?? 0n}`,
});

/** Collections over SQL. */
export function collectionRepository(db: Executor, now: Date, newId: () => string): CollectionRepository {
  const { collections } = schema;
  // One parameter, however many there are.
  const storedExcept = (names: readonly string[]) =>
    and(
      gt(collections.storedBytes, 0n),
      sql`${collections.name} not in (select jsonb_array_elements_text(${JSON.stringify(names)}::text::jsonb))`,
    );
  const lockWhere = async (where: ReturnType<typeof eq>): Promise<CollectionRow | undefined> =>
    (await db.select().from(collections).where(where).for("update"))[0];
  return {
    async lockByName(name) {
      const existing = await lockWhere(eq(collections.name, name));
      if (existing !== undefined) return existing;
      await db
        .insert(collections)
        .values({
          id: newId(),
          name,
          lastNumber: 0n,
          storedBytes: 0n,
          reservedBytes: 0n,
          trashBytes: 0n,
          createdAt: now,
        })
        .onConflictDoNothing();
      return (await lockWhere(eq(collections.name, name)))!;
    },
    async lockById(id) {
      const row = await lockWhere(eq(collections.id, id));
      if (row === undefined) throw new Error(`no collection row ${id}`);
      return row;
    },
    findByName: async (name) => (await db.select().from(collections).where(eq(collections.name, name)))[0],
    all: async () => await db.select().from(collections).orderBy(asc(collections.name)),
    list: async (afterName, limit) =>
      await db
        .select()
        .from(collections)
        .where(gt(collections.name, afterName))
        .orderBy(asc(collections.name))
        .limit(limit),
    async ensure(names) {
      const empty = { lastNumber: 0n, storedBytes: 0n, reservedBytes: 0n, trashBytes: 0n, createdAt: now };
      // In one order, so that two callers do not wait for each other; a thousand rows have few enough parameters.
      const sorted = [...names].sort();
      for (let at = 0; at < sorted.length; at += 1000) {
        const rows = sorted.slice(at, at + 1000).map((name) => ({ id: newId(), name, ...empty }));
        await db.insert(collections).values(rows).onConflictDoNothing();
      }
    },
    async storedExcept(names, prefix) {
      const rows = await db
        .select({ name: collections.name })
        .from(collections)
        .where(and(storedExcept(names), sql`starts_with(${collections.name}, ${prefix})`))
        .orderBy(sql`${collections.name} collate "C"`);
      return rows.map(({ name }) => name);
    },
    countStoredExcept: async (names) =>
      (await db.select({ count: count() }).from(collections).where(storedExcept(names)))[0]!.count,
    async insert(row) {
      await db.insert(collections).values({ ...row, createdAt: now });
    },
    async addUsage(id, change) {
      await db.update(collections).set(usageChange(collections, change)).where(eq(collections.id, id));
      // Reservations come with every segment, and change nothing that anybody is told of.
      if (change.storedBytes !== undefined) await markCollection(db, id, now);
    },
    async noteFailed(id, { uploadId, begunAt, endedAt, reason }, ordinal) {
      await db
        .update(collections)
        .set({
          failedUploadId: uploadId,
          failedBegunAt: begunAt,
          failedEndedAt: endedAt,
          failedReason: reason,
          failedOrdinal: ordinal,
        })
        .where(and(eq(collections.id, id), lte(collections.failedOrdinal, ordinal)));
      await signalFailure(db, id, { uploadId, begunAt, reason }, now);
    },
    async notePublished(id, ordinal) {
      await db
        .update(collections)
        .set({ publishedOrdinal: ordinal })
        .where(and(eq(collections.id, id), lt(collections.publishedOrdinal, ordinal)));
    },
    async lastFailed(id) {
      const [row] = await db
        .select({
          uploadId: collections.failedUploadId,
          begunAt: collections.failedBegunAt,
          endedAt: collections.failedEndedAt,
          reason: collections.failedReason,
        })
        .from(collections)
        .where(
          and(
            eq(collections.id, id),
            isNotNull(collections.failedUploadId),
            gt(collections.failedOrdinal, collections.publishedOrdinal),
          ),
        );
      return row as FailedUpload | undefined;
    },
    async noteFrozen(id, frozenSince) {
      await db.update(collections).set({ frozenSince }).where(eq(collections.id, id));
    },
    async confirmPolicy(id, confirmedPolicy) {
      await db.update(collections).set({ confirmedPolicy, policyHeldSince: null }).where(eq(collections.id, id));
      await markCollection(db, id, now);
    },
    async notePolicyHeld(id, since) {
      const unset = since === null ? undefined : isNull(collections.policyHeldSince);
      await db
        .update(collections)
        .set({ policyHeldSince: since })
        .where(and(eq(collections.id, id), unset));
    },
    async nextNumber(id) {
      const rows = await db
        .update(collections)
        .set({ lastNumber: sql`${collections.lastNumber} + 1` })
        .where(eq(collections.id, id))
        .returning({ number: collections.lastNumber });
      return rows[0]!.number;
    },
    async skipNumbers(id, upTo) {
      await db
        .update(collections)
        .set({ lastNumber: sql`greatest(${collections.lastNumber}, ${upTo}::bigint)` })
        .where(eq(collections.id, id));
    },
    async noteRollback(id, at, addedVersions) {
      await db
        .update(collections)
        .set({
          rolledBackAt: sql`coalesce(${collections.rolledBackAt}, ${at.toISOString()}::timestamptz)`,
          addedVersions: sql`${collections.addedVersions} + ${addedVersions}::int`,
        })
        .where(eq(collections.id, id));
      await markCollection(db, id, now);
    },
    async confirmRollback(id) {
      const rows = await db
        .update(collections)
        .set({ rolledBackAt: null, addedVersions: 0 })
        .where(and(eq(collections.id, id), isNotNull(collections.rolledBackAt)))
        .returning({ id: collections.id });
      await markCollection(db, id, now);
      return rows.length > 0;
    },
  };
}

/** Tenants and their counters over SQL. */
export function organizationRepository(db: Executor, now: Date): OrganizationRepository {
  const { organizations, collections, uploads, versions } = schema;
  const make = async (name: string) =>
    await db
      .insert(organizations)
      .values({ name, storedBytes: 0n, reservedBytes: 0n, trashBytes: 0n })
      .onConflictDoNothing();
  const locked = async (name: string) =>
    (await db.select().from(organizations).where(eq(organizations.name, name)).for("update"))[0];
  return {
    find: async (name) => (await db.select().from(organizations).where(eq(organizations.name, name)))[0],
    list: async ({ after, limit }) =>
      await db
        .select()
        .from(organizations)
        // By code, as the configured names that are merged in, whatever the database's collation.
        .where(after === undefined ? undefined : sql`${organizations.name} collate "C" > ${after}`)
        .orderBy(sql`${organizations.name} collate "C"`)
        .limit(limit),
    async close(name, closing) {
      await make(name);
      await db.update(organizations).set(closing).where(eq(organizations.name, name));
    },
    async notePurge(name, record) {
      const purge = { ...record, collections: [...record.collections] };
      await db.update(organizations).set({ purge }).where(eq(organizations.name, name));
    },
    collectionsOf: async (name) =>
      await db
        .select({ id: collections.id, name: collections.name })
        .from(collections)
        .where(
          or(
            inArray(
              collections.id,
              db
                .select({ id: versions.collectionId })
                .from(versions)
                .where(and(eq(versions.organization, name), ne(versions.state, "purged"))),
            ),
            inArray(
              collections.id,
              db
                .select({ id: uploads.collectionId })
                .from(uploads)
                .where(and(eq(uploads.organization, name), isNull(uploads.cleanedAt))),
            ),
          ),
        )
        .orderBy(collections.name),
    async hastenTrash(name, collectionId, purgeAfter) {
      await db
        .update(versions)
        .set({ purgeAfter, revision: sql`${versions.revision} + 1` })
        .where(
          and(
            eq(versions.collectionId, collectionId),
            eq(versions.organization, name),
            eq(versions.state, "removed"),
            gt(versions.purgeAfter, purgeAfter),
          ),
        );
    },
    async lock(name) {
      const existing = await locked(name);
      if (existing !== undefined) return existing;
      await make(name);
      return (await locked(name))!;
    },
    async addUsage(name, change) {
      await db.update(organizations).set(usageChange(organizations, change)).where(eq(organizations.name, name));
      if (change.storedBytes !== undefined || change.trashBytes !== undefined) await markOrganization(db, name, now);
    },
    async healTimes(now) {
      const closed = await db
        .update(organizations)
        .set({ closedAt: now })
        .where(gt(organizations.closedAt, beyond(now)))
        .returning({ name: organizations.name });
      const purgedAt = sql`(${organizations.purge} ->> 'at')::timestamptz`;
      const purged = await db
        .update(organizations)
        .set({ purge: sql`jsonb_set(${organizations.purge}, '{at}', to_jsonb(${now.toISOString()}::text))` })
        .where(gt(purgedAt, sql.param(beyond(now), organizations.closedAt)))
        .returning({ name: organizations.name });
      return closed.length + purged.length;
    },
  };
}

/** The latest time that is not beyond this one. */
const beyond = (time: Date) => new Date(time.getTime() + CLOCK_SLACK_MS);

/** Uploads over SQL. */
export function uploadRepository(db: Executor, now: Date): UploadRepository {
  const { uploads, collections, organizations, segments } = schema;
  const page = async (where: SQL | undefined, { after, limit }: Page) =>
    await db
      .select()
      .from(uploads)
      .where(and(where, after === undefined ? undefined : gt(uploads.id, after)))
      .orderBy(asc(uploads.id))
      .limit(limit);
  return {
    insert: async (row) => (await db.insert(uploads).values(row).returning())[0]!,
    find: async (id) => (await db.select().from(uploads).where(eq(uploads.id, id)))[0],
    findLocking: async (id, { userName, accessKey }) =>
      (
        await db
          .select({ upload: getTableColumns(uploads), collection: getTableColumns(collections) })
          .from(uploads)
          .innerJoin(collections, eq(collections.id, uploads.collectionId))
          .where(and(eq(uploads.id, id), eq(uploads.userName, userName), eq(uploads.accessKey, accessKey)))
          .for("update", { of: collections })
      )[0],
    findByRequest: async (key, since) =>
      (
        await db
          .select()
          .from(uploads)
          .where(
            and(
              eq(uploads.collectionId, key.collectionId),
              eq(uploads.userName, key.userName),
              eq(uploads.accessKey, key.accessKey),
              eq(uploads.requestId, key.requestId),
              ne(uploads.requestId, ""),
              or(isNull(uploads.endedAt), gte(uploads.endedAt, since)),
              or(eq(uploads.state, "open"), isNotNull(uploads.storeToken)),
            ),
          )
          .orderBy(desc(uploads.ordinal))
          .limit(1)
      )[0],
    unsettled: async (collectionId) =>
      await db
        .select()
        .from(uploads)
        .where(and(eq(uploads.collectionId, collectionId), inArray(uploads.state, ["open", "committing"]))),
    holding: async (collectionId) =>
      await db
        .select()
        .from(uploads)
        // As the index `uploads_holding` says it.
        .where(
          and(
            eq(uploads.collectionId, collectionId),
            sql`(${uploads.state} in ('open', 'committing') or ${uploads.reservedBytes} > 0)`,
          ),
        ),
    async update(id, from, change) {
      const rows = await db
        .update(uploads)
        .set(change)
        .where(and(eq(uploads.id, id), eq(uploads.state, from)))
        .returning({ id: uploads.id });
      if (change.lostSince !== undefined || change.state === "committing") await markUpload(db, id, now);
      return rows.length > 0;
    },
    async reserve(upload, delta, change, announced) {
      const { id, state, collectionId, organization } = upload;
      const moved = [];
      if (delta !== 0n) {
        const of = db
          .update(collections)
          .set({ reservedBytes: sql`${collections.reservedBytes} + ${delta}` })
          .where(eq(collections.id, collectionId))
          .returning({ id: collections.id });
        moved.push(db.$with("of_collection").as(of));
      }
      if (delta !== 0n && organization !== "") {
        const of = db
          .insert(organizations)
          .values({ name: organization, storedBytes: 0n, reservedBytes: delta > 0n ? delta : 0n, trashBytes: 0n })
          .onConflictDoUpdate({
            target: organizations.name,
            set: { reservedBytes: sql`${organizations.reservedBytes} + ${delta}` },
          })
          .returning({ name: organizations.name });
        moved.push(db.$with("of_organization").as(of));
      }
      const updated = db
        .with(...(announced === undefined ? moved : []))
        .update(uploads)
        .set({ ...change, reservedBytes: upload.reservedBytes + delta })
        .where(and(eq(uploads.id, id), eq(uploads.state, state)))
        .returning({ id: uploads.id });
      if (announced === undefined) await updated;
      else
        await db
          .with(...moved, db.$with("of_upload").as(updated))
          .insert(segments)
          .values(announced);
      if (change.lostSince !== undefined || change.state === "committing") await markUpload(db, id, now);
    },
    noteToken: async (id, storeToken) =>
      (
        await db
          .update(uploads)
          .set({ storeToken })
          .where(and(eq(uploads.id, id), eq(uploads.state, "open"), isNull(uploads.storeToken)))
          .returning()
      )[0],
    async lapse(id, now) {
      const rows = await db
        .update(uploads)
        .set({ lapsed: true })
        .where(
          and(
            eq(uploads.id, id),
            eq(uploads.state, "open"),
            eq(uploads.lapsed, false),
            lte(uploads.leaseExpiresAt, now),
          ),
        )
        .returning({ id: uploads.id });
      return rows.length > 0;
    },
    overdue: async (now, of) =>
      await page(
        and(
          eq(uploads.state, "open"),
          or(lte(uploads.expiresAt, now), and(eq(uploads.lapsed, false), lte(uploads.leaseExpiresAt, now))),
        ),
        of,
      ),
    async healTimes(now, { leaseMs, expiryMs, completingMs }) {
      const leaseExpiresAt = new Date(now.getTime() + leaseMs);
      const expiresAt = new Date(now.getTime() + expiryMs);
      const ends = await db
        .update(uploads)
        .set({
          leaseExpiresAt: sql`least(${uploads.leaseExpiresAt}, ${sql.param(leaseExpiresAt, uploads.leaseExpiresAt)})`,
          expiresAt: sql`least(${uploads.expiresAt}, ${sql.param(expiresAt, uploads.expiresAt)})`,
        })
        .where(
          and(
            inArray(uploads.state, ["open", "committing"]),
            or(gt(uploads.leaseExpiresAt, beyond(leaseExpiresAt)), gt(uploads.expiresAt, beyond(expiresAt))),
          ),
        )
        .returning({ id: uploads.id });
      const ended = await db
        .update(uploads)
        .set({ endedAt: now })
        .where(gt(uploads.endedAt, beyond(now)))
        .returning({ id: uploads.id });
      const lost = await db
        .update(uploads)
        .set({ lostSince: now })
        .where(and(eq(uploads.state, "committing"), gt(uploads.lostSince, beyond(now))))
        .returning({ id: uploads.id });
      const completingUntil = new Date(now.getTime() + completingMs);
      const completing = await db
        .update(uploads)
        .set({ completingUntil })
        .where(and(eq(uploads.state, "committing"), gt(uploads.completingUntil, beyond(completingUntil))))
        .returning({ id: uploads.id });
      return ends.length + ended.length + lost.length + completing.length;
    },
    uncleaned: async (of) =>
      await page(and(isNull(uploads.cleanedAt), inArray(uploads.state, ["aborted", "expired"])), of),
    committing: async (of) => await page(eq(uploads.state, "committing"), of),
    forgettable: async (before, { after, limit }) =>
      await db
        .select({ id: uploads.id, key: uploads.key })
        .from(uploads)
        .where(
          and(
            isNotNull(uploads.cleanedAt),
            lte(uploads.endedAt, before),
            after === undefined ? undefined : gt(uploads.id, after),
          ),
        )
        .orderBy(asc(uploads.id))
        .limit(limit),
    async forget(ids) {
      if (ids.length > 0) await db.delete(uploads).where(inArray(uploads.id, [...ids]));
    },
    async countBegun(collectionId, since, failedSince) {
      const countOf = (where: SQL | undefined) => sql<number>`count(*) filter (where ${where})::int`;
      // Those of versions that were recovered or imported have no token either.
      const failed = and(isNull(uploads.storeToken), isNotNull(uploads.endedAt), ne(uploads.state, "committed"));
      const rows = await db
        .select({
          inStore: countOf(and(gt(uploads.begunAt, since), isNotNull(uploads.storeToken))),
          failed: countOf(and(gt(uploads.begunAt, failedSince), failed)),
        })
        .from(uploads)
        .where(
          and(eq(uploads.collectionId, collectionId), gt(uploads.begunAt, since < failedSince ? since : failedSince)),
        );
      return rows[0]!;
    },
    byKeys: async (keys) =>
      keys.length === 0
        ? []
        : await db
            .select()
            .from(uploads)
            .where(inArray(uploads.key, [...keys])),
  };
}

/** Segments over SQL. */
export function segmentRepository(db: Executor): SegmentRepository {
  const { segments, uploads } = schema;
  const one = (uploadId: string, index: number) => and(eq(segments.uploadId, uploadId), eq(segments.index, index));
  const pendingAttempt = (uploadId: string, index: number, attempt: number) =>
    and(one(uploadId, index), eq(segments.state, "pending"), eq(segments.attempt, attempt));
  return {
    async raiseAttempt(uploadId, index) {
      const rows = await db
        .update(segments)
        .set({ attempt: sql`${segments.attempt} + 1` })
        .where(and(one(uploadId, index), eq(segments.state, "pending")))
        .returning({ attempt: segments.attempt });
      return rows[0]!.attempt;
    },
    async settle({ uploadId, index, attempt }, found, lease) {
      const open = and(eq(uploads.id, uploadId), eq(uploads.state, "open"), eq(uploads.lapsed, false));
      const held = db.$with("held").as(db.update(uploads).set(lease).where(open).returning({ id: uploads.id }));
      const next = db.$with("next").as(
        db
          .select({ index: segments.index })
          .from(segments)
          .where(and(one(uploadId, index + 1), ne(segments.framingIn, found.framingOut))),
      );
      const settled = db.$with("settled").as(
        db
          .update(segments)
          .set({ state: "stored", ...found })
          .where(
            and(
              one(uploadId, index),
              // The attempt of a stored segment is the one that stored it.
              eq(segments.attempt, attempt),
              sql`exists (select from held) and not exists (select from next)`,
            ),
          )
          .returning({ index: segments.index }),
      );
      const rows = await db
        .with(held, next, settled)
        .select({
          isHeld: sql<boolean>`exists (select from held)`,
          isBroken: sql<boolean>`exists (select from next)`,
          isSettled: sql<boolean>`exists (select from settled)`,
        })
        .from(sql`(select 1) as always`);
      const { isHeld, isBroken, isSettled } = rows[0]!;
      return !isHeld ? "not-held" : isBroken ? "chain-broken" : isSettled ? "settled" : "superseded";
    },
    async dropPending(uploadId, index, attempt) {
      const rows = await db
        .delete(segments)
        .where(pendingAttempt(uploadId, index, attempt))
        .returning({ index: segments.index });
      return rows.length > 0;
    },
    list: async (uploadId, fromIndex, limit) =>
      await db
        .select()
        .from(segments)
        .where(and(eq(segments.uploadId, uploadId), gte(segments.index, fromIndex)))
        .orderBy(asc(segments.index))
        .limit(limit),
    async around(uploadId, index) {
      const last = db
        .select({ index: max(segments.index) })
        .from(segments)
        .where(eq(segments.uploadId, uploadId));
      const rows = await db
        .select()
        .from(segments)
        .where(and(eq(segments.uploadId, uploadId), sql`${segments.index} in (${index - 1}, ${index}, (${last}))`))
        .orderBy(asc(segments.index));
      const at = (i: number) => rows.find((row) => row.index === i);
      return { before: at(index - 1), at: at(index), last: rows.at(-1) };
    },
    async deleteAll(uploadId) {
      await db.delete(segments).where(eq(segments.uploadId, uploadId));
    },
    async storedBytes(uploadIds) {
      if (uploadIds.length === 0) return new Map();
      const rows = await db
        .select({ id: segments.uploadId, bytes: sql<string>`sum(${segments.size})::text` })
        .from(segments)
        .where(and(inArray(segments.uploadId, [...uploadIds]), eq(segments.state, "stored")))
        .groupBy(segments.uploadId);
      return new Map(rows.map((row) => [row.id, BigInt(row.bytes)]));
    },
  };
}

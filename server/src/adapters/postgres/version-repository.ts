import { SHA256_BYTES } from "@strongroom/protocol/digests";
import {
  and,
  asc,
  count,
  desc,
  eq,
  exists,
  getTableColumns,
  gt,
  gte,
  inArray,
  isNull,
  lt,
  lte,
  ne,
  or,
  type SQL,
  sql,
} from "drizzle-orm";
import type { Page, VersionRepository } from "../../app/ports/database.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import type { StatedField, Version } from "../../domain/version.ts";
import { liveColumns } from "./live-versions.ts";
import type { Executor } from "./repositories.ts";
import { markVersion } from "./review-marks.ts";
import * as schema from "./schema.ts";

/** Versions over SQL. */
export function versionRepository(db: Executor, now: Date): VersionRepository {
  const { organizations, versions } = schema;
  // Digests can be some hundred KiB a row; they are read by part, never with the row.
  const {
    segmentDigests: _digests,
    purgedAt: _purgedAt,
    verifyingUntil: _verifyingUntil,
    manifestWrites: _manifestWrites,
    ...columns
  } = getTableColumns(versions);
  const live = (collectionId: string) => and(eq(versions.collectionId, collectionId), eq(versions.state, "live"));
  const page = async (where: SQL | undefined, { after, limit }: Page) =>
    await db
      .select(columns)
      .from(versions)
      .where(and(where, after === undefined ? undefined : gt(versions.id, after)))
      .orderBy(asc(versions.id))
      .limit(limit);
  // `purged_at` is set before the first byte of the object goes.
  const restorable = (now: Date) =>
    and(eq(versions.state, "removed"), gt(versions.purgeAfter, now), isNull(versions.purgedAt));
  // One parameter, however many there are.
  const notIn = (ids: readonly string[]) =>
    sql`${versions.collectionId} not in
      (select jsonb_array_elements_text(${JSON.stringify(ids)}::text::jsonb)::uuid)`;
  // What an organization got after its purge, or after it was opened again, is not meant by that purge.
  const purgedAt = sql`(${organizations.purge} ->> 'at')::timestamptz`;
  const ofPurged = () =>
    exists(
      db
        .select({ name: organizations.name })
        .from(organizations)
        .where(
          and(
            eq(organizations.name, versions.organization),
            sql`${organizations.closedAt} <= ${purgedAt}`,
            sql`${versions.committedAt} <= ${purgedAt}`,
          ),
        ),
    );
  const lastVerified = sql`coalesce(${versions.verifiedAt}, ${versions.committedAt})`;
  const asInstant = (date: Date) => sql`${date.toISOString()}::timestamptz`;
  /**
   * Changes what manifests say, and raises the revision of the rows where that is really another value. Returns whether
   * there was one.
   */
  const change = async (where: SQL | undefined, to: Partial<Pick<Version, Exclude<StatedField, "revision">>>) => {
    const differs = Object.entries(to).map(([field, value]) => {
      const column = versions[field as StatedField];
      return sql`${column} is distinct from ${sql.param(value, column)}`;
    });
    const rows = await db
      .update(versions)
      .set({ ...to, revision: sql`${versions.revision} + 1` })
      .where(and(where, or(...differs)))
      .returning({ id: versions.id });
    return rows.length > 0;
  };
  return {
    async insert(row, segmentDigests) {
      await db.insert(versions).values({ ...row, segmentDigests });
    },
    findById: async (id) => (await db.select(columns).from(versions).where(eq(versions.id, id)))[0],
    findByNumber: async (collectionId, number) =>
      (
        await db
          .select(columns)
          .from(versions)
          .where(and(eq(versions.collectionId, collectionId), eq(versions.number, number)))
      )[0],
    listLive: async (collectionId, beforeNumber, limit) =>
      await db
        .select(columns)
        .from(versions)
        .where(and(live(collectionId), beforeNumber === undefined ? undefined : lt(versions.number, beforeNumber)))
        .orderBy(desc(versions.number))
        .limit(limit),
    async countBegun(collectionId, from, before) {
      const rows = await db
        .select({ count: count() })
        .from(versions)
        .where(
          and(
            eq(versions.collectionId, collectionId),
            gte(versions.begunAt, from),
            lt(versions.begunAt, before),
            sql`${versions.removedBy} not like 'user:%'`,
          ),
        );
      return rows[0]!.count;
    },
    listRemoved: async (collectionId, now, beforeNumber, limit) =>
      await db
        .select(columns)
        .from(versions)
        .where(
          and(
            eq(versions.collectionId, collectionId),
            restorable(now),
            beforeNumber === undefined ? undefined : lt(versions.number, beforeNumber),
          ),
        )
        .orderBy(desc(versions.number))
        .limit(limit),
    allLive: async (collectionId) => await db.select(liveColumns(versions)).from(versions).where(live(collectionId)),
    recipients: async (collectionId) =>
      await db
        .select({ number: versions.number, recipients: versions.recipients })
        .from(versions)
        .where(live(collectionId))
        .orderBy(desc(versions.number)),
    async segmentDigests(id, first, count) {
      const rows = await db
        .select({
          digests: sql<Uint8Array>`substring(${versions.segmentDigests}
              from ${first * SHA256_BYTES + 1}::int for ${count * SHA256_BYTES}::int)`.mapWith(versions.segmentDigests),
        })
        .from(versions)
        .where(eq(versions.id, id));
      return rows[0]?.digests ?? new Uint8Array();
    },
    remove: async (id, removal) =>
      await change(and(eq(versions.id, id), eq(versions.state, "live")), { state: "removed", ...removal }),
    restore: async (id, now, { protectedUntil, protectedForMs }) =>
      await change(and(eq(versions.id, id), restorable(now)), {
        state: "live",
        removedAt: null,
        removedBy: "",
        purgeAfter: null,
        protectedUntil,
        protectedForMs,
      }),
    async protect(id, { protectedUntil, protectedForMs }) {
      await change(eq(versions.id, id), { protectedUntil, protectedForMs });
    },
    async hold(id, hold) {
      await change(eq(versions.id, id), hold);
    },
    async confirm(id, confirmedAt) {
      await markVersion(db, id, now);
      await change(eq(versions.id, id), { confirmedAt });
    },
    removedBy: async (removedBy) =>
      await db.select(columns).from(versions).where(eq(versions.removedBy, removedBy)).orderBy(asc(versions.number)),
    purgeable: async (now, { never, unconfigured }, of) =>
      await page(
        and(
          eq(versions.state, "removed"),
          eq(versions.keptForReturn, false),
          lte(versions.purgeAfter, now),
          notIn(never),
          or(notIn(unconfigured), ofPurged()),
        ),
        of,
      ),
    byKeys: async (keys) =>
      keys.length === 0
        ? []
        : await db
            .select(columns)
            .from(versions)
            .where(or(inArray(versions.key, [...keys]), inArray(versions.adoptedKey, [...keys]))),
    adopted: async (of) => await page(eq(versions.keptForReturn, true), of),
    async loseAdopted(id) {
      await change(eq(versions.id, id), { adoptedKey: null, keptForReturn: false });
    },
    async endReturn(id) {
      await change(eq(versions.id, id), { keptForReturn: false });
    },
    staleManifests: async (of) =>
      // Where purging has begun, a manifest written now would be left over.
      await page(
        and(
          ne(versions.state, "purged"),
          isNull(versions.purgedAt),
          sql`${versions.manifestRevision} <> ${versions.revision}`,
        ),
        of,
      ),
    async manifestWritten(id, { revision, before }) {
      const known = sql`case when ${versions.manifestRevision} = ${before}::int then ${revision}::int
        else least(${versions.manifestRevision}, ${revision}::int) end`;
      const manifestWrites = sql`${versions.manifestWrites} + 1`;
      await db.update(versions).set({ manifestRevision: known, manifestWrites }).where(eq(versions.id, id));
    },
    undamagedSample: async (exceptId, limit) =>
      await db
        .select(columns)
        .from(versions)
        .where(and(eq(versions.state, "live"), eq(versions.damage, ""), ne(versions.id, exceptId)))
        .orderBy(sql`random()`)
        .limit(limit),
    async liveBytes() {
      const { collections } = schema;
      const bytes = sql<string>`coalesce(sum(${collections.storedBytes}), 0)::text`;
      return BigInt((await db.select({ bytes }).from(collections))[0]!.bytes);
    },
    async claimForVerification(now, { before, damagedBefore, until }) {
      const beyond = new Date(now.getTime() + CLOCK_SLACK_MS);
      const claimedBeyond = new Date(until.getTime() + CLOCK_SLACK_MS);
      const due = (
        await db
          .select(columns)
          .from(versions)
          .where(
            and(
              eq(versions.state, "live"),
              or(
                isNull(versions.verifyingUntil),
                lte(versions.verifyingUntil, now),
                gt(versions.verifyingUntil, claimedBeyond),
              ),
              sql`(${lastVerified} > ${asInstant(beyond)} or ${lastVerified} <=
                case when ${versions.damage} = '' then ${asInstant(before)} else ${asInstant(damagedBefore)} end)`,
            ),
          )
          .orderBy(asc(lastVerified), asc(versions.id))
          .limit(1)
          .for("update", { skipLocked: true })
      )[0];
      if (due !== undefined) {
        await db.update(versions).set({ verifyingUntil: until }).where(eq(versions.id, due.id));
      }
      return due;
    },
    async extendVerification(id, until) {
      await db.update(versions).set({ verifyingUntil: until }).where(eq(versions.id, id));
    },
    async recordVerification(id, at, result) {
      await markVersion(db, id, now, result.damage);
      const [before] = await db
        .select({ damage: versions.damage, damagedAt: versions.damagedAt })
        .from(versions)
        .where(eq(versions.id, id));
      const damagedAt = result.damage === "" ? null : before?.damage === "" ? at : (before?.damagedAt ?? null);
      await change(eq(versions.id, id), { ...result, damagedAt });
      await db.update(versions).set({ verifiedAt: at, verifyingUntil: null }).where(eq(versions.id, id));
    },
    async dropVerification(id) {
      await db.update(versions).set({ verifyingUntil: null }).where(eq(versions.id, id));
    },
    async beginPurge(id, now, isConfigured) {
      const rows = await db
        .update(versions)
        .set({ purgedAt: sql`coalesce(${versions.purgedAt}, ${asInstant(now)})` })
        .where(
          and(
            eq(versions.id, id),
            eq(versions.state, "removed"),
            eq(versions.keptForReturn, false),
            lte(versions.purgeAfter, now),
            isConfigured ? undefined : ofPurged(),
          ),
        )
        .returning({ id: versions.id });
      return rows.length > 0;
    },
    async healTimes(now) {
      const beyond = asInstant(new Date(now.getTime() + CLOCK_SLACK_MS));
      const forMs = sql`coalesce(${versions.protectedForMs}, 0)`;
      const since = sql`coalesce(${versions.protectedUntil} - ${forMs} * interval '1 millisecond',
        ${versions.committedAt})`;
      const protection = await db
        .update(versions)
        .set({
          protectedUntil: sql`${asInstant(now)} + ${forMs} * interval '1 millisecond'`,
          protectedForMs: forMs,
          revision: sql`${versions.revision} + 1`,
        })
        .where(and(inArray(versions.state, ["live", "removed"]), isNull(versions.purgedAt), sql`${since} > ${beyond}`))
        .returning({ id: versions.id });
      const removal = await db
        .update(versions)
        .set({
          removedAt: now,
          purgeAfter: sql`${asInstant(now)} + (${versions.purgeAfter} - ${versions.removedAt})`,
          revision: sql`${versions.revision} + 1`,
        })
        .where(and(eq(versions.state, "removed"), isNull(versions.purgedAt), sql`${versions.removedAt} > ${beyond}`))
        .returning({ id: versions.id });
      // No manifest says it.
      const purging = await db
        .update(versions)
        .set({ purgedAt: now })
        .where(sql`${versions.purgedAt} > ${beyond}`)
        .returning({ id: versions.id });
      return protection.length + removal.length + purging.length;
    },
    async markPurged(id, now) {
      // No revision: there is no manifest any more that could say it. What is stored from now on under the key of the
      // adopted object belongs to somebody else.
      const rows = await db
        .update(versions)
        .set({
          ...{ state: "purged", purgedAt: now, adoptedKey: null },
          ...{ labels: {}, clientMetadata: {}, segmentDigests: Buffer.alloc(0) },
        })
        .where(and(eq(versions.id, id), eq(versions.state, "removed")))
        .returning({ id: versions.id });
      return rows.length > 0;
    },
    forgettable: async (before, { after, limit }) =>
      await db
        .select({ id: versions.id, key: versions.key })
        .from(versions)
        .where(
          and(
            eq(versions.state, "purged"),
            lte(versions.purgedAt, before),
            after === undefined ? undefined : gt(versions.id, after),
          ),
        )
        .orderBy(asc(versions.id))
        .limit(limit),
    async forget(ids) {
      if (ids.length > 0) await db.delete(versions).where(inArray(versions.id, [...ids]));
    },
  };
}

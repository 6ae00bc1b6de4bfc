import { and, asc, count, desc, eq, getTableColumns, lt, lte, max, sql } from "drizzle-orm";
import type { VersionRepository } from "../../app/repositories.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** Bytes of a SHA-256 digest. */
const DIGEST = 32;

/** Versions over SQL. */
export function versionRepository(db: Executor): VersionRepository {
  const { versions } = schema;
  // Digests can be some hundred KiB a row; they are read by part, never with the row.
  const { segmentDigests: _digests, purgedAt: _purgedAt, ...columns } = getTableColumns(versions);
  const live = (collectionId: string) => and(eq(versions.collectionId, collectionId), eq(versions.state, "live"));
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
    async summaries() {
      const rows = await db
        .select({
          id: versions.collectionId,
          count: count(),
          newestAt: max(versions.begunAt),
          largest: max(versions.size),
        })
        .from(versions)
        .where(eq(versions.state, "live"))
        .groupBy(versions.collectionId);
      return new Map(
        rows.map(({ id, newestAt, largest, ...row }) => [id, { ...row, newestAt: newestAt!, largest: largest! }]),
      );
    },
    allLive: async (collectionId) => await db.select(columns).from(versions).where(live(collectionId)),
    async segmentDigests(id, first, count) {
      const rows = await db
        .select({
          digests:
            sql<Uint8Array>`substring(${versions.segmentDigests} from ${first * DIGEST + 1}::int for ${count * DIGEST}::int)`.mapWith(
              versions.segmentDigests,
            ),
        })
        .from(versions)
        .where(eq(versions.id, id));
      return rows[0]?.digests ?? new Uint8Array();
    },
    async remove(id, removal) {
      const rows = await db
        .update(versions)
        .set({ state: "removed", ...removal })
        .where(and(eq(versions.id, id), eq(versions.state, "live")))
        .returning({ id: versions.id });
      return rows.length > 0;
    },
    removedBy: async (removedBy) =>
      await db.select(columns).from(versions).where(eq(versions.removedBy, removedBy)).orderBy(asc(versions.number)),
    purgeable: async (now, exceptCollectionIds, limit) =>
      await db
        .select(columns)
        .from(versions)
        .where(
          and(
            eq(versions.state, "removed"),
            lte(versions.purgeAfter, now),
            // One parameter, however many there are.
            exceptCollectionIds.length === 0
              ? undefined
              : sql`${versions.collectionId} not in (select jsonb_array_elements_text(${JSON.stringify(exceptCollectionIds)}::text::jsonb)::uuid)`,
          ),
        )
        .orderBy(asc(versions.purgeAfter))
        .limit(limit),
    async markPurged(id, now) {
      const rows = await db
        .update(versions)
        .set({ state: "purged", purgedAt: now })
        .where(and(eq(versions.id, id), eq(versions.state, "removed")))
        .returning({ id: versions.id });
      return rows.length > 0;
    },
  };
}

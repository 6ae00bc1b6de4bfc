import { and, asc, desc, eq, gte, lt, lte, sql } from "drizzle-orm";
import type { UsageRepository } from "../../app/ports/database.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** What was uploaded each day, over SQL. */
export function usageRepository(db: Executor): UsageRepository {
  const { usageDays } = schema;
  return {
    async add({ day, organization, collectionName }, { receivedBytes, storedBytes, versions }) {
      await db
        .insert(usageDays)
        .values({ day, organization, collectionName, receivedBytes, storedBytes, versions })
        .onConflictDoUpdate({
          target: [usageDays.day, usageDays.organization, usageDays.collectionName],
          set: {
            receivedBytes: sql`${usageDays.receivedBytes} + ${receivedBytes}`,
            storedBytes: sql`${usageDays.storedBytes} + ${storedBytes}`,
            versions: sql`${usageDays.versions} + ${versions}`,
          },
        });
    },
    async list({ organization, collectionName, fromDay, toDay }, { after, limit }) {
      const rows = await db
        .select()
        .from(usageDays)
        .where(
          and(
            organization === undefined ? undefined : eq(usageDays.organization, organization),
            collectionName === undefined ? undefined : eq(usageDays.collectionName, collectionName),
            fromDay === undefined ? undefined : gte(usageDays.day, fromDay),
            toDay === undefined ? undefined : lte(usageDays.day, toDay),
            after &&
              sql`(${usageDays.day} < ${after.day} or (${usageDays.day} = ${after.day} and
                (${usageDays.organization}, ${usageDays.collectionName}) > (${after.organization}, ${after.collectionName})))`,
          ),
        )
        .orderBy(desc(usageDays.day), asc(usageDays.organization), asc(usageDays.collectionName))
        .limit(limit);
      return rows.map(({ day, organization, collectionName, ...counts }) => ({
        key: { day, organization, collectionName },
        ...counts,
      }));
    },
    async deleteBefore(day) {
      await db.delete(usageDays).where(lt(usageDays.day, day));
    },
  };
}

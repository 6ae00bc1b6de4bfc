import { lt, sql } from "drizzle-orm";
import type { UnknownObjectRepository } from "../../app/ports/database.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** The record of unknown objects over SQL. */
export function unknownObjectRepository(db: Executor): UnknownObjectRepository {
  const { unknownObjects } = schema;
  return {
    async seen(names, now) {
      if (names.length === 0) return [];
      const rows = await db
        .insert(unknownObjects)
        .values(names.map(({ key, token }) => ({ key, token, firstSeenAt: now, lastSeenAt: now })))
        .onConflictDoUpdate({
          target: [unknownObjects.key, unknownObjects.token],
          set: { lastSeenAt: sql`excluded.last_seen_at` },
        })
        .returning();
      const since = new Map(rows.map((row) => [`${row.token} ${row.key}`, row.firstSeenAt]));
      return names.map(({ key, token }) => since.get(`${token} ${key}`)!);
    },
    async forget(before) {
      await db.delete(unknownObjects).where(lt(unknownObjects.lastSeenAt, before));
    },
  };
}

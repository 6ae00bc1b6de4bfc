import { and, eq, gt, lt, or, sql } from "drizzle-orm";
import type { UnknownObjectRepository } from "../../app/ports/database.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
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
          // A wrong clock can have dated the first sight ahead.
          set: {
            firstSeenAt: sql`least(${unknownObjects.firstSeenAt}, excluded.first_seen_at)`,
            lastSeenAt: sql`excluded.last_seen_at`,
          },
        })
        .returning();
      const since = new Map(rows.map((row) => [`${row.token} ${row.key}`, row.firstSeenAt]));
      return names.map(({ key, token }) => since.get(`${token} ${key}`)!);
    },
    async isKnown({ key, token }) {
      const is = and(eq(unknownObjects.key, key), eq(unknownObjects.token, token));
      return (await db.select({ key: unknownObjects.key }).from(unknownObjects).where(is)).length > 0;
    },
    async forget(before) {
      const beyond = new Date(before.getTime() + CLOCK_SLACK_MS);
      await db
        .delete(unknownObjects)
        .where(or(lt(unknownObjects.lastSeenAt, before), gt(unknownObjects.lastSeenAt, beyond)));
    },
  };
}

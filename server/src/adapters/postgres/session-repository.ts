import { and, desc, eq, gt, isNull, lt, or, sql } from "drizzle-orm";
import type { SessionRepository } from "../../app/ports/database.ts";
import type { Role } from "../../domain/configuration.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** Sessions and signing keys over SQL. */
export function sessionRepository(db: Executor): SessionRepository {
  const { sessions, signingKeys } = schema;
  type Row = typeof sessions.$inferSelect;
  const toSession = (row: Row) => ({
    ...row,
    scope: row.scope.map((grant) => ({ ...grant, roles: grant.roles as Role[] })),
  });
  return {
    async insert(row) {
      await db
        .insert(sessions)
        .values({ ...row, scope: row.scope.map((grant) => ({ ...grant, roles: [...grant.roles] })) });
    },
    find: async (id) => (await db.select().from(sessions).where(eq(sessions.id, id))).map(toSession)[0],
    listValid: async (userName, now, after, limit) =>
      (
        await db
          .select()
          .from(sessions)
          .where(
            and(
              eq(sessions.userName, userName),
              isNull(sessions.revokedAt),
              gt(sessions.expiresAt, now),
              after === undefined
                ? undefined
                : or(
                    lt(sessions.createdAt, after.createdAt),
                    and(eq(sessions.createdAt, after.createdAt), lt(sessions.id, after.id)),
                  ),
            ),
          )
          .orderBy(desc(sessions.createdAt), desc(sessions.id))
          .limit(limit)
      ).map(toSession),
    async revoke(id, now) {
      await db
        .update(sessions)
        .set({ revokedAt: now })
        .where(and(eq(sessions.id, id), isNull(sessions.revokedAt)));
    },
    async deleteEnded(before) {
      const rows = await db
        .delete(sessions)
        .where(or(lt(sessions.expiresAt, before), lt(sessions.revokedAt, before)))
        .returning({ id: sessions.id });
      return rows.length;
    },
    signingKeys: async () => await db.select().from(signingKeys).orderBy(desc(signingKeys.createdAt)),
    async lockSigningKeys() {
      await db.execute(sql`lock table ${signingKeys} in share row exclusive mode`);
    },
    async insertSigningKey(row) {
      await db.insert(signingKeys).values(row);
    },
    async deleteSigningKey(id) {
      await db.delete(signingKeys).where(eq(signingKeys.id, id));
    },
  };
}

import { and, desc, eq, gt, gte, inArray, isNotNull, isNull, lt, lte, or, type SQL, sql } from "drizzle-orm";
import type { SessionFilter, SessionRepository } from "../../app/ports/database.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
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
  const valid = ({ userName, accessKey, chainId, fingerprint, createdBefore }: SessionFilter, now: Date) =>
    and(
      isNull(sessions.revokedAt),
      gt(sessions.expiresAt, now),
      userName === undefined ? undefined : eq(sessions.userName, userName),
      accessKey === undefined ? undefined : eq(sessions.accessKey, accessKey),
      chainId === undefined ? undefined : eq(sessions.chainId, chainId),
      fingerprint === undefined
        ? undefined
        : fingerprint === null
          ? isNull(sessions.fingerprint)
          : eq(sessions.fingerprint, fingerprint),
      createdBefore === undefined ? undefined : lt(sessions.createdAt, createdBefore),
    );
  return {
    async insert(row) {
      await db
        .insert(sessions)
        .values({ ...row, scope: row.scope.map((grant) => ({ ...grant, roles: [...grant.roles] })) });
    },
    find: async (id) => (await db.select().from(sessions).where(eq(sessions.id, id))).map(toSession)[0],
    lock: async (id) => (await db.select().from(sessions).where(eq(sessions.id, id)).for("update")).map(toSession)[0],
    listValid: async (of, now, after, limit) =>
      (
        await db
          .select()
          .from(sessions)
          .where(
            and(
              valid(of, now),
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
    validCredentials: async (now) =>
      await db
        .selectDistinct({
          userName: sessions.userName,
          accessKey: sessions.accessKey,
          fingerprint: sessions.fingerprint,
        })
        .from(sessions)
        .where(valid({}, now)),
    async revoke(of, now) {
      if (of.userName === undefined && of.chainId === undefined) throw new Error("whose sessions are to be revoked?");
      let count = 0;
      // A refresh that holds its row was waited for; what it made is seen by the next round only.
      for (let ended = 1; ended > 0; count += ended) {
        const rows = await db
          .update(sessions)
          .set({ revokedAt: now })
          .where(valid(of, now))
          .returning({ id: sessions.id });
        ended = rows.length;
      }
      return count;
    },
    async bound(of, now, most, instead) {
      const oldestBeyond = (which: SQL | undefined) =>
        db
          .select({ id: sessions.id })
          .from(sessions)
          .where(which)
          .orderBy(desc(sessions.createdAt), desc(sessions.id))
          .offset(most);
      const beyond = oldestBeyond(valid(of, now));
      const ended =
        instead === undefined
          ? inArray(sessions.id, beyond)
          : and(eq(sessions.id, instead), sql`exists (${beyond})`, isNull(sessions.revokedAt));
      await db.update(sessions).set({ revokedAt: now }).where(ended);
      const isEnded = or(isNotNull(sessions.revokedAt), lte(sessions.expiresAt, now));
      const owned = and(eq(sessions.userName, of.userName), eq(sessions.accessKey, of.accessKey), isEnded);
      await db.delete(sessions).where(inArray(sessions.id, oldestBeyond(owned)));
    },
    async healTimes(now, id) {
      const beyond = new Date(now.getTime() + CLOCK_SLACK_MS);
      const at = sql`${now.toISOString()}::timestamptz`;
      const only = id === undefined ? undefined : eq(sessions.id, id);
      const lives = await db
        .update(sessions)
        .set({
          createdAt: now,
          expiresAt: sql`${at} + (${sessions.expiresAt} - ${sessions.createdAt})`,
          chainBeganAt: sql`least(${sessions.chainBeganAt}, ${at})`,
          chainEndsAt: sql`${at} + (${sessions.chainEndsAt} - ${sessions.createdAt})`,
        })
        .where(and(gt(sessions.createdAt, beyond), only))
        .returning({ id: sessions.id });
      const ends = await db
        .update(sessions)
        .set({ revokedAt: now })
        .where(and(gt(sessions.revokedAt, beyond), only))
        .returning({ id: sessions.id });
      return lives.length + ends.length;
    },
    async deleteEnded(before) {
      // The next import would make an imported one, which has no fingerprint, valid again until it expires.
      const revoked = and(isNotNull(sessions.fingerprint), lt(sessions.revokedAt, before));
      const rows = await db
        .delete(sessions)
        .where(or(lt(sessions.expiresAt, before), revoked))
        .returning({ id: sessions.id });
      return rows.length;
    },
    async hasValidBetween(from, to, now) {
      const created = and(gte(sessions.createdAt, from), lt(sessions.createdAt, to));
      const found = await db
        .select({ id: sessions.id })
        .from(sessions)
        .where(and(valid({}, now), created))
        .limit(1);
      return found.length > 0;
    },
    signingKeys: async () =>
      await db.select().from(signingKeys).orderBy(desc(signingKeys.createdAt), desc(signingKeys.id)),
    async lockSigningKeys() {
      await db.execute(sql`lock table ${signingKeys} in share row exclusive mode`);
    },
    async insertSigningKey(row) {
      await db.insert(signingKeys).values(row);
    },
    async healSigningKeys(now) {
      const rows = await db
        .update(signingKeys)
        .set({ createdAt: now })
        .where(gt(signingKeys.createdAt, new Date(now.getTime() + CLOCK_SLACK_MS)))
        .returning({ id: signingKeys.id });
      return rows.length;
    },
    async deleteSigningKey(id) {
      await db.delete(signingKeys).where(eq(signingKeys.id, id));
    },
  };
}

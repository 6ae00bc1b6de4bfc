import { and, asc, count, desc, eq, gt, isNotNull, lt, ne, or, sql } from "drizzle-orm";
import type { UpkeepRecords } from "../../app/ports/upkeep-records.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import { isOutdated } from "./migrations.ts";
import type { Executor } from "./repositories.ts";
import { rowsOf } from "./rows.ts";
import * as schema from "./schema.ts";

/** What servers say of themselves, over SQL. */
export function upkeepRecords(db: Executor): UpkeepRecords {
  const { replicas, upkeepRuns, versions } = schema;
  return {
    async renewReplica(replica) {
      await db
        .insert(replicas)
        .values(replica)
        .onConflictDoUpdate({ target: replicas.id, set: { seenAt: replica.seenAt } });
    },
    async forgetReplica(id) {
      await db.delete(replicas).where(eq(replicas.id, id));
    },
    forgetReplicas: async (before, until) =>
      (
        await db
          .delete(replicas)
          .where(or(lt(replicas.seenAt, before), gt(replicas.seenAt, until)))
          .returning({ id: replicas.id })
      ).length,
    replicas: async (limit) => await db.select().from(replicas).orderBy(desc(replicas.seenAt)).limit(limit),
    async beginRun(kind, actor, now, silentSince) {
      const begun = { startedAt: now, finishedAt: null, seenAt: now, actor, counts: {}, error: "" };
      const rows = await db
        .insert(upkeepRuns)
        .values({ kind, ...begun })
        .onConflictDoUpdate({
          target: upkeepRuns.kind,
          set: begun,
          setWhere: or(isNotNull(upkeepRuns.finishedAt), lt(upkeepRuns.seenAt, silentSince)),
        })
        .returning({ kind: upkeepRuns.kind });
      return rows.length > 0;
    },
    async noteRun(kind, run) {
      await db.update(upkeepRuns).set(run).where(eq(upkeepRuns.kind, kind));
    },
    runs: async () => await db.select().from(upkeepRuns),
    async healTimes(now) {
      const rows = await db
        .update(upkeepRuns)
        .set({ seenAt: now })
        .where(gt(upkeepRuns.seenAt, new Date(now.getTime() + CLOCK_SLACK_MS)))
        .returning({ kind: upkeepRuns.kind });
      return rows.length;
    },
    async facts() {
      const [row] = rowsOf(
        await db.execute(sql`select current_setting('server_version') as version,
          (select count(*)::int from drizzle.__drizzle_migrations) as migrations`),
      );
      const isLive = eq(versions.state, "live");
      const last = sql`coalesce(${versions.verifiedAt}, ${versions.committedAt})`;
      const [oldest] = await db
        .select({ at: last.mapWith(versions.committedAt) })
        .from(versions)
        .where(isLive)
        .orderBy(asc(last), asc(versions.id))
        .limit(1);
      const [damaged] = await db
        .select({ count: count() })
        .from(versions)
        .where(and(isLive, ne(versions.damage, "")));
      return {
        version: String(row!.version),
        migrations: Number(row!.migrations),
        isNewer: await isOutdated(db),
        oldestVerification: (oldest?.at as Date | undefined) ?? null,
        damaged: damaged!.count,
      };
    },
  };
}

import { and, asc, count, eq, gt, isNull, lt, lte, min, ne, notInArray, or, type SQL, sql } from "drizzle-orm";
import type { NotificationRepository } from "../../app/ports/notifications.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import type { Executor } from "./repositories.ts";
import { markSubjects } from "./review-marks.ts";
import * as schema from "./schema.ts";

/** An attempt is never put off for longer than this; a later time was written by a wrong clock. */
const FURTHEST_ATTEMPT_MS = 3_600_000;

/** What is to be told, over SQL. */
export function notificationRepository(db: Executor, now: Date): NotificationRepository {
  const {
    notificationReviews: reviews,
    notificationSignals: signals,
    notificationTold: told,
    notificationOutbox: outbox,
  } = schema;
  const after = (ms: number) => new Date(now.getTime() + ms);
  const isTold = ({ notifier, subject, event }: { notifier: string; subject: string; event: string }) =>
    and(eq(told.notifier, notifier), eq(told.subject, subject), eq(told.event, event));
  // Times further ahead than they can be do not hold: the clock was ahead when they were written.
  const isDue = (): SQL =>
    and(
      or(lte(outbox.nextAttemptAt, now), gt(outbox.nextAttemptAt, after(FURTHEST_ATTEMPT_MS + CLOCK_SLACK_MS))),
      or(isNull(outbox.leasedUntil), lte(outbox.leasedUntil, now), gt(outbox.leasedUntil, after(FURTHEST_ATTEMPT_MS))),
    )!;
  return {
    async mark(subjects) {
      if (subjects.length > 0)
        await markSubjects(db, sql`select jsonb_array_elements_text(${JSON.stringify(subjects)}::text::jsonb)`, now);
    },
    async subjects() {
      const rows = await db.select({ subject: reviews.subject, digest: reviews.digest }).from(reviews);
      return new Map(rows.map((row) => [row.subject, row.digest]));
    },
    lockDue: async (furthestMs, of) =>
      (
        await db
          .select()
          .from(reviews)
          .where(
            and(
              or(lte(reviews.reviewAt, now), gt(reviews.reviewAt, after(furthestMs + CLOCK_SLACK_MS))),
              of === undefined
                ? undefined
                : sql`exists (
                    select from jsonb_each_text(${JSON.stringify(Object.fromEntries(of.digests))}::text::jsonb) as own
                    where own.key = ${reviews.subject}
                      and (own.value = ${reviews.digest} or ${reviews.reviewAt} <= ${after(-of.leftMs).toISOString()}))`,
            ),
          )
          .orderBy(asc(reviews.reviewAt))
          .limit(1)
          .for("update", { skipLocked: true })
      )[0],
    async schedule(subject, next) {
      // A subject that was first seen beyond now was seen now: whoever reviews it mends that.
      const firstSeenAt = sql`case when ${reviews.firstSeenAt} > ${sql.param(after(CLOCK_SLACK_MS), reviews.firstSeenAt)}
        then ${sql.param(now, reviews.firstSeenAt)} else ${reviews.firstSeenAt} end`;
      await db
        .update(reviews)
        .set({ ...next, firstSeenAt })
        .where(eq(reviews.subject, subject));
    },
    async forget(subject) {
      await db.delete(signals).where(eq(signals.subject, subject));
      await db.delete(reviews).where(eq(reviews.subject, subject));
    },
    async signal(row) {
      // First, since a review has locked its row when it drops the signals that it told.
      await markSubjects(db, sql`select ${row.subject}::text`, now);
      await db
        .insert(signals)
        .values(row)
        .onConflictDoUpdate({
          target: [signals.subject, signals.event, signals.server],
          set: { until: sql`excluded.until`, message: sql`excluded.message` },
        });
    },
    signals: async (subject) => await db.select().from(signals).where(eq(signals.subject, subject)),
    async dropSignals(subject) {
      const isOver = or(isNull(signals.until), lte(signals.until, now));
      await db.delete(signals).where(and(eq(signals.subject, subject), isOver));
    },
    told: async (subject) => await db.select().from(told).where(eq(told.subject, subject)),
    async openCounts() {
      const rows = await db
        .select({ notifier: told.notifier, open: count() })
        .from(told)
        .where(ne(told.event, "heartbeat"))
        .groupBy(told.notifier);
      return new Map(rows.map((row) => [row.notifier, row.open]));
    },
    async tell(row) {
      await db
        .insert(told)
        .values(row)
        .onConflictDoUpdate({
          target: [told.notifier, told.subject, told.event],
          set: { since: row.since, toldAt: row.toldAt },
        });
    },
    async untell(row) {
      await db.delete(told).where(isTold(row));
    },
    async enqueue(row, most) {
      const waiting = await db.select({ count: count() }).from(outbox).where(eq(outbox.notifier, row.notifier));
      if (waiting[0]!.count >= most) return false;
      await db.insert(outbox).values({ ...row, createdAt: now, nextAttemptAt: now });
      return true;
    },
    async isQueued({ notifier, subject, event }) {
      const is = and(eq(outbox.notifier, notifier), eq(outbox.subject, subject), eq(outbox.event, event));
      return (await db.select({ id: outbox.id }).from(outbox).where(is).limit(1)).length > 0;
    },
    async dueNotifiers() {
      const rows = await db.selectDistinct({ notifier: outbox.notifier }).from(outbox).where(isDue());
      return rows.map(({ notifier }) => notifier);
    },
    async claim(notifier, holder, leaseMs) {
      const earlier = sql`select 1 from ${outbox} earlier where earlier.notifier = ${outbox.notifier}
        and earlier.subject = ${outbox.subject} and earlier.id < ${outbox.id}`;
      const [next] = await db
        .select({ id: outbox.id })
        .from(outbox)
        .where(and(eq(outbox.notifier, notifier), isDue(), sql`not exists (${earlier})`))
        .orderBy(asc(outbox.id))
        .limit(1)
        .for("update", { skipLocked: true });
      if (next === undefined) return undefined;
      const [row] = await db
        .update(outbox)
        .set({
          ...{ holder, leasedUntil: after(leaseMs), attempts: sql`${outbox.attempts} + 1` },
          // One that was made beyond now was made now, so that it gets old.
          createdAt: sql`case when ${outbox.createdAt} > ${sql.param(after(CLOCK_SLACK_MS), outbox.createdAt)}
            then ${sql.param(now, outbox.createdAt)} else ${outbox.createdAt} end`,
        })
        .where(eq(outbox.id, next.id))
        .returning();
      return row;
    },
    async renew(id, holder, leaseMs) {
      await db
        .update(outbox)
        .set({ leasedUntil: after(leaseMs) })
        .where(and(eq(outbox.id, id), eq(outbox.holder, holder)));
    },
    async delivered(id, holder) {
      const is = and(eq(outbox.id, id), eq(outbox.holder, holder));
      return (await db.delete(outbox).where(is).returning({ id: outbox.id })).length > 0;
    },
    async failed(id, holder, pauseMs) {
      await db
        .update(outbox)
        .set({ holder: "", leasedUntil: null, nextAttemptAt: after(pauseMs) })
        .where(and(eq(outbox.id, id), eq(outbox.holder, holder)));
    },
    async drop(id) {
      await db.delete(outbox).where(eq(outbox.id, id));
    },
    async queues() {
      const rows = await db
        .select({ notifier: outbox.notifier, queued: count(), oldestAt: min(outbox.createdAt) })
        .from(outbox)
        .groupBy(outbox.notifier);
      return rows.map((row) => ({ ...row, oldestAt: row.oldestAt! }));
    },
    async forgetNotifiers(names, before) {
      const gone = (column: typeof outbox.notifier | typeof told.notifier) =>
        names.length === 0 ? undefined : notInArray(column, [...names]);
      // Nothing mends the times of what nobody looks at any more.
      const isOld = (column: typeof told.toldAt | typeof outbox.createdAt) =>
        or(lt(column, before), gt(column, after(CLOCK_SLACK_MS)));
      await db.delete(told).where(and(gone(told.notifier), isOld(told.toldAt)));
      const rows = await db
        .delete(outbox)
        .where(and(gone(outbox.notifier), isOld(outbox.createdAt)))
        .returning({ id: outbox.id });
      return rows.length;
    },
  };
}

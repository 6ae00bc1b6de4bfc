import { type SQL, sql } from "drizzle-orm";
import type { FailedUpload } from "../../app/ports/database.ts";
import { organizationSubject } from "../../domain/notifications.ts";
import * as schema from "./schema.ts";

/*
 * What changes the health of a collection marks its review, in the transaction that changes it: then whoever is to be
 * told is told, also when every server dies in the next moment. The row of the review is locked after the collection's
 * and before any signal's, as reviews do it; of several, the collection's before the organization's.
 */

const { collections, notificationReviews: reviews, notificationSignals: signals, uploads, versions } = schema;

const at = (time: Date): SQL => sql`${time.toISOString()}::timestamptz`;

/** A database or transaction, as far as marks need it. */
interface Executor {
  execute(query: SQL): PromiseLike<unknown>;
}

/** Makes the reviews of these subjects due; `subjects` is a query with one column. */
export async function markSubjects(db: Executor, subjects: SQL, now: Date): Promise<void> {
  await db.execute(sql`
    insert into ${reviews} (subject, review_at, first_seen_at)
    select subject, ${at(now)}, ${at(now)} from (${subjects}) as marked (subject) order by subject
    on conflict (subject) do update set review_at = least(${reviews}.review_at, excluded.review_at)`);
}

/** Marks a collection by its id. */
export async function markCollection(db: Executor, id: string, now: Date): Promise<void> {
  await markSubjects(db, sql`select ${collections.name} from ${collections} where ${collections.id} = ${id}`, now);
}

/** Marks an organization. */
export async function markOrganization(db: Executor, name: string, now: Date): Promise<void> {
  await markSubjects(db, sql`select ${organizationSubject(name)}::text`, now);
}

/** Marks the collection of an upload. */
export async function markUpload(db: Executor, id: string, now: Date): Promise<void> {
  await markSubjects(db, sql`select ${uploads.collectionName} from ${uploads} where ${uploads.id} = ${id}`, now);
}

/** Marks the collection of a version; with `damage` only where that is another one than before. */
export async function markVersion(db: Executor, id: string, now: Date, damage?: string): Promise<void> {
  const differs = damage === undefined ? sql`true` : sql`${versions.damage} <> ${damage}`;
  await markSubjects(
    db,
    sql`select ${versions.collectionName} from ${versions} where ${versions.id} = ${id} and ${differs}`,
    now,
  );
}

/**
 * Keeps that an upload of the collection failed until that was told, also where the next one is published first; of
 * several, how many they are and the last.
 */
export async function signalFailure(
  db: Executor,
  collectionId: string,
  { uploadId, begunAt, reason }: Pick<FailedUpload, "uploadId" | "begunAt" | "reason">,
  now: Date,
): Promise<void> {
  // First, since a review has locked its row when it drops the signals that it told.
  await markCollection(db, collectionId, now);
  await db.execute(sql`
    insert into ${signals} (subject, event, since, message, facts)
    select ${collections.name}, 'failed', ${at(now)}, ${reason}::text,
      jsonb_build_object('upload_id', ${uploadId}::text, 'begun_at', ${begunAt.toISOString()}::text)
    from ${collections} where ${collections.id} = ${collectionId}
    on conflict (subject, event, server) do update set since = excluded.since, message = excluded.message,
      facts = excluded.facts, count = ${signals}.count + 1`);
}

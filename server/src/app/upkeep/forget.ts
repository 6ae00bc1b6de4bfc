import type { Database } from "../ports/database.ts";
import type { Inventory } from "./inventory.ts";
import { objectKeyOf } from "./inventory.ts";

const DAY_MS = 24 * 3_600_000;

/** How long records are kept whose bytes are gone, and how many. The table of bounds (docs/limits.md) says them too. */
export const KEPT = {
  /** Ended sessions, after they ended, in milliseconds. */
  endedSessionsMs: 30 * DAY_MS,
  /** Uploads, after they ended; a request id is remembered as long. */
  endedUploadsMs: 7 * DAY_MS,
  /** Versions, after their bytes were deleted. */
  purgedVersionsMs: 30 * DAY_MS,
  /** What was uploaded on each day. */
  usageMs: 400 * DAY_MS,
} as const;

/** Rows deleted by one statement. */
const BATCH = 500;

/**
 * Forgets what lapses by its time alone: budgets that are whole again, ended sessions, and days of usage.
 * @param timesHold false while the clock is in doubt: a session that it calls ended may be valid again.
 */
export async function forgetByTime(database: Database, timesHold: boolean): Promise<void> {
  if (timesHold)
    await database.transaction(async (tx) => {
      await tx.sessions.deleteEnded(new Date(tx.now.getTime() - KEPT.endedSessionsMs));
      await tx.usage.deleteBefore(new Date(tx.now.getTime() - KEPT.usageMs).toISOString().slice(0, 10));
    });
  await database.transaction(async (tx) => {
    await tx.budgets.deleteFull(tx.now);
  });
}

/**
 * Forgets records of uploads and versions whose bytes are gone. The row of an upload or version
 * of which the store still has anything stays, so that it is known for what it is.
 * @param found a look at the whole store.
 * @returns how many uploads and versions were forgotten.
 */
export async function forgetRecords(database: Database, found: Inventory): Promise<number> {
  const inStore = new Set([
    ...found.unknown.map(({ key }) => objectKeyOf(key)),
    ...found.leftovers.map(objectKeyOf),
    ...found.unfinished.map(({ key }) => key),
  ]);
  let forgotten = 0;
  for (const [kind, keptMs] of [
    ["uploads", KEPT.endedUploadsMs],
    ["versions", KEPT.purgedVersionsMs],
  ] as const) {
    for (let after: string | undefined; ; ) {
      const rows = await database.transaction(async (tx) => {
        const page = await tx[kind].forgettable(new Date(tx.now.getTime() - keptMs), { after, limit: BATCH });
        const ids = page.filter(({ key }) => !inStore.has(key)).map(({ id }) => id);
        await tx[kind].forget(ids);
        return { page, count: ids.length };
      });
      forgotten += rows.count;
      if (rows.page.length < BATCH) break;
      after = rows.page.at(-1)!.id;
    }
  }
  return forgotten;
}

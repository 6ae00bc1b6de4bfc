import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "../ports/database.ts";

/** Name of the lock that whoever writes the configuration holds. */
const LOCK = "configuration";
/** When a change is to be tried again that met another, in milliseconds. */
export const RETRY_MS = 1000;
/** How long a change waits for others, in milliseconds: some changes take a second each. */
const WAIT_MS = 10_000;
/** Between two tries for the lock that another server holds, at most, in milliseconds. */
const PAUSE_MS = 100;

/** The end of what this process has in the queue; a server has one database. */
const queues = new WeakMap<Database, Promise<void>>();

/**
 * Does work while nobody else changes the configuration. Calls of one server take turns in their order, so that none is
 * always overtaken; between servers the lock of the database decides.
 * @returns undefined when others would not let it have its turn for some seconds.
 */
export async function inTurn<T>(
  database: Database,
  work: () => Promise<T>,
  waitMs: number = WAIT_MS,
): Promise<{ readonly result: T } | undefined> {
  const until = performance.now() + waitMs;
  const before = queues.get(database) ?? Promise.resolve();
  const mine = Promise.withResolvers<void>();
  queues.set(
    database,
    before.then(async () => await mine.promise),
  );
  try {
    if (!(await settledWithin(before, waitMs))) return undefined;
    for (;;) {
      const done = await database.exclusively(LOCK, work);
      if (done !== undefined || performance.now() >= until) return done;
      await sleep(Math.random() * PAUSE_MS);
    }
  } finally {
    mine.resolve();
  }
}

async function settledWithin(promise: Promise<void>, ms: number): Promise<boolean> {
  const waiting = new AbortController();
  const late = sleep(ms, false, { signal: waiting.signal });
  const settled = promise.then(() => true);
  try {
    return await Promise.race([settled, late]);
  } finally {
    waiting.abort();
    late.catch(() => {});
  }
}

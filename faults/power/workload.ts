import fs from "node:fs";
import { join } from "node:path";
import { openPglite } from "@strongroom/server/adapters/pglite/pglite";
import type { SqlDatabase } from "@strongroom/server/adapters/postgres/database";
import { type DiskEvent, DiskRecorder } from "@strongroom/testkit/disk-recorder";
import type { Random } from "@strongroom/testkit/random";
import { sql } from "drizzle-orm";

/** Collections that the workload writes to. */
export const COLLECTIONS = ["alpha", "beta", "gamma"] as const;

/** What was acknowledged, as it stands in the marks of a recording. */
export type Acknowledgement =
  /** The collection gave out this number, and wrote the event of it in the same transaction. */
  | { readonly kind: "numbered"; readonly collection: string; readonly number: number }
  /** Events of the collection below this number were deleted. */
  | { readonly kind: "deleted"; readonly collection: string; readonly below: number };

/** A recording: `start` is where the work begins, after what the disk held already. */
export interface Recording {
  readonly events: readonly DiskEvent[];
  readonly start: number;
}

/**
 * Makes a database that recordings begin with. It counts as synced: judging the making is for recordings without one.
 */
export async function makeTemplate(directory: string): Promise<void> {
  await (await openPglite({ directory })).close();
}

/**
 * Records some dozens of transactions on a database, and whatever PostgreSQL does for its own upkeep. Without a
 * template the database is new.
 */
export async function recordWork(random: Random, directory: string, template: string | undefined): Promise<Recording> {
  fs.mkdirSync(directory);
  if (template !== undefined) fs.cpSync(join(template, "data"), join(directory, "data"), { recursive: true });
  const recorder = new DiskRecorder(directory);
  const start = recorder.events.length;
  let database: SqlDatabase;
  let open = true;
  try {
    database = await openPglite({ directory });
    const acknowledge = (acknowledgement: Acknowledgement) => recorder.mark(JSON.stringify(acknowledgement));
    const steps = random.int(10, 60);
    // Enough in one of three to go over to another file of the log, which has 16 MiB.
    const heavy = random.chance(0.3);
    for (let step = 0; step < steps; step++) await work(random, database, heavy, acknowledge);
    if (random.chance(0.5)) {
      await database.close();
      open = false;
    }
  } finally {
    recorder.stop();
  }
  if (open) await database.close();
  fs.rmSync(directory, { recursive: true });
  return { events: recorder.events, start };
}

async function work(
  random: Random,
  database: SqlDatabase,
  heavy: boolean,
  acknowledge: (acknowledgement: Acknowledgement) => void,
): Promise<void> {
  const collection = random.pick(COLLECTIONS);
  const kind = random.weighted([
    [20, "number"],
    [2, "delete"],
    [2, "checkpoint"],
    [1, "vacuum"],
  ] as const);
  if (kind === "checkpoint") await database.query(sql`checkpoint`);
  else if (kind === "vacuum") await database.query(sql`vacuum audit_events`);
  else if (kind === "delete") {
    const below = await highest(database, collection);
    await database.query(
      sql`delete from audit_events where collection_name = ${collection} and (details->>'number')::int < ${below}`,
    );
    acknowledge({ kind: "deleted", collection, below });
  } else {
    const size = heavy ? random.int(200_000, 2_000_000) : random.int(1, 30_000);
    const number = await database.transaction(async (tx) => await giveNumber(tx, collection, filler(random, size)));
    acknowledge({ kind: "numbered", collection, number });
  }
}

async function giveNumber(
  tx: Parameters<Parameters<SqlDatabase["transaction"]>[0]>[0],
  collection: string,
  text: string,
): Promise<number> {
  const { id } = await tx.collections.lockByName(collection);
  const number = Number(await tx.collections.nextNumber(id));
  await tx.collections.addUsage(id, { storedBytes: 1n });
  const details = { number: `${number}` };
  await tx.audit({ kind: "version.committed", actor: "server", collectionName: collection, details });
  // The only text without a bound.
  await tx.auditLog.setConfiguration(`${collection}/${number % 16}`, { text });
  return number;
}

async function highest(database: SqlDatabase, collection: string): Promise<number> {
  return Number((await database.read(async (tx) => await tx.collections.findByName(collection)))?.lastNumber ?? 0n);
}

/** Text that PostgreSQL cannot compress. */
function filler(random: Random, size: number): string {
  const parts: string[] = [];
  for (let length = 0; length < size; length += 11) parts.push(random.next().toString(36).slice(2, 13));
  return parts.join("");
}

/** Says what of the acknowledged is missing in a database; undefined for nothing. The database must work on. */
export async function missing(database: SqlDatabase, marks: readonly Acknowledgement[]): Promise<string | undefined> {
  for (const collection of COLLECTIONS) {
    const own = marks.filter((mark) => mark.collection === collection);
    const number = Math.max(0, ...own.map((mark) => (mark.kind === "numbered" ? mark.number : 0)));
    const below = Math.max(0, ...own.map((mark) => (mark.kind === "deleted" ? mark.below : 0)));
    const row = await database.read(async (tx) => await tx.collections.findByName(collection));
    const last = Number(row?.lastNumber ?? 0n);
    if (last < number) return `${collection}: number ${number} was acknowledged, the last one is ${last}`;
    if (Number(row?.storedBytes ?? 0n) !== last) return `${collection}: ${row?.storedBytes} bytes of ${last} numbers`;
    const numbers = await database.query(
      sql`select (details->>'number')::int as number from audit_events
          where collection_name = ${collection} order by 1`,
    );
    const found = numbers.map((event) => Number(event.number));
    const first = found[0] ?? last;
    // What was deleted without an answer may be there or not, but all of it.
    if (first < below) return `${collection}: number ${first} was deleted, and is there again`;
    for (let expected = first; expected <= last; expected++)
      if (expected > 0 && found[expected - first] !== expected) return `${collection}: number ${expected} has no event`;
    if (found.length > 0 && found.at(-1) !== last)
      return `${collection}: there is an event of ${found.at(-1)}, which was not given out`;
  }
  for (const collection of COLLECTIONS)
    await database.transaction(async (tx) => await giveNumber(tx, collection, "after the power cut"));
  await database.query(sql`checkpoint`);
  return undefined;
}

import fs from "node:fs";
import { join } from "node:path";
import { openPglite } from "@strongroom/server/adapters/pglite/pglite";
import type { SqlDatabase } from "@strongroom/server/adapters/postgres/database";
import { type DiskEvent, DiskRecorder } from "@strongroom/testkit/disk-recorder";
import { Random } from "@strongroom/testkit/random";
import { Disk, LUCK, type Luck } from "./disk.ts";
import { type Acknowledgement, missing, type Recording } from "./workload.ts";

/** How one power cut went. */
export interface Outcome {
  /** Why the database does not start, or what of the acknowledged is missing; undefined for neither. */
  readonly failure: string | undefined;
  /** Changes that were not synced at the cut, and how many of them the disk lost. */
  readonly unsynced: number;
  readonly lost: number;
  /** Commits that were acknowledged before the cut. */
  readonly acknowledged: number;
  /** Whether the power went again during the recovery. */
  readonly twice: boolean;
  readonly luck: Luck;
}

/**
 * Cuts the power at a place of a recording that the seed chooses, lets the database start on what the disk may hold
 * then, and compares.
 */
export async function playCut(seed: string, { events, start }: Recording, folder: string): Promise<Outcome> {
  const random = new Random(seed);
  const luck = random.weighted(LUCK.map((kind) => [kind === "some" ? 4 : 1, kind] as const));
  const disk = new Disk();
  const cut = placeOfCut(random, events, start);
  const flush = random.chance(0.3) ? random.int(start, cut) : -1;
  for (const [index, event] of events.slice(0, cut).entries()) {
    disk.apply(event);
    if (index === flush) disk.flush();
  }
  const acknowledged = events
    .slice(start, cut)
    .flatMap((event) => (event.kind === "mark" ? [JSON.parse(event.text) as Acknowledgement] : []));
  let directory = join(folder, "disk");
  const counts = disk.cut(random, luck, directory);
  const twice = random.chance(0.25);
  let failure: string | undefined;
  try {
    if (twice) directory = await cutRecovery(random, luck, directory, join(folder, "second-disk"));
    const database = await openPglite({ directory });
    failure = await missing(database, acknowledged);
    await database.close();
  } catch (error) {
    failure = error instanceof Error ? reasonOf(error) : String(error);
  }
  return { failure, ...counts, acknowledged: acknowledged.length, twice, luck };
}

/** Half of the cuts fall between an acknowledgement and whatever is next, where most is at stake. */
function placeOfCut(random: Random, events: readonly DiskEvent[], start: number): number {
  const marks = events.flatMap((event, index) => (event.kind === "mark" ? [index + 1] : []));
  return marks.length > 0 && random.chance(0.5) ? random.pick(marks) : random.int(start, events.length);
}

/** Starts the database, and cuts the power again somewhere in what it did for that. */
async function cutRecovery(random: Random, luck: Luck, directory: string, target: string): Promise<string> {
  const recorder = new DiskRecorder(directory);
  const start = recorder.events.length;
  let database: SqlDatabase;
  try {
    database = await openPglite({ directory });
  } finally {
    recorder.stop();
  }
  await database.close();
  const disk = new Disk();
  for (const event of recorder.events.slice(0, random.int(start, recorder.events.length))) disk.apply(event);
  disk.cut(random, luck, target);
  fs.rmSync(directory, { recursive: true });
  return target;
}

function reasonOf(error: Error): string {
  const reasons: string[] = [];
  for (let e: unknown = error; e instanceof Error; e = e.cause) reasons.push(e.message);
  return reasons.join(": ");
}

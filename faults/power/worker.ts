/**
 * Cuts the power in a process of its own: `node worker.ts <seed> <first recording> <step> <from> <end>`; writes one
 * line of JSON for each cut.
 */
import fs from "node:fs";
import { join } from "node:path";
import { Random } from "@strongroom/testkit/random";
import { temporaryRoot } from "../place.ts";
import { type Outcome, playCut } from "./scenario.ts";
import { makeTemplate, recordWork } from "./workload.ts";

/** Cuts of one recording. */
export const CUTS = 20;

/** Every so many recordings, the making of a new database is recorded too. */
const NEW_DATABASE_EVERY = 5;

/** What a worker says of a cut. */
export interface Line extends Outcome {
  readonly number: number;
  /** What the disk held, of one that failed and was played alone. */
  readonly kept: string | undefined;
}

if (import.meta.main) {
  const [seed = "1", first, step, from, end] = process.argv.slice(2);
  await cutAll(seed, Number(first), Number(step), Number(from), Number(end));
}

async function cutAll(seed: string, first: number, step: number, from: number, end: number): Promise<void> {
  const folder = fs.mkdtempSync(join(temporaryRoot(), "strongroom-power-"));
  const template = join(folder, "template");
  for (let number = first; number * CUTS < end; number += step) {
    const made = number % NEW_DATABASE_EVERY === NEW_DATABASE_EVERY - 1;
    if (!made && !fs.existsSync(template)) await makeTemplate(template);
    const recording = await recordWork(
      new Random(`${seed}-recording-${number}`),
      join(folder, "recorded"),
      made ? undefined : template,
    );
    for (let cut = Math.max(from, number * CUTS); cut < Math.min(end, (number + 1) * CUTS); cut++) {
      const place = join(folder, `cut-${cut}`);
      fs.mkdirSync(place);
      const outcome = await playCut(`${seed}-${cut}`, recording, place);
      const kept = outcome.failure !== undefined && end - from === 1 ? place : undefined;
      if (kept === undefined) fs.rmSync(place, { recursive: true });
      process.stdout.write(`${JSON.stringify({ number: cut, kept, ...outcome } satisfies Line)}\n`);
    }
  }
  if (fs.readdirSync(folder).some((name) => name.startsWith("cut-")))
    fs.rmSync(template, { recursive: true, force: true });
  else fs.rmSync(folder, { recursive: true });
  // A database that failed was not closed.
  process.exit(0);
}

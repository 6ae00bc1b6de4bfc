/**
 * Plays scenarios in a process of its own: `node worker.ts <seed> <first> <step> <end>`; writes one line of JSON for
 * each.
 */
import { createHash } from "node:crypto";
import { Harness } from "../../server/test/support/harness.ts";
import { playScenario } from "./scenario.ts";

/** What a worker reports of a scenario. */
export interface Line {
  readonly number: number;
  readonly store: string;
  readonly versions: number;
  readonly failure: string | undefined;
  readonly faults: Record<string, number>;
  /** Digest of everything that happened, in order. */
  readonly trace: string;
  /** What happened, of one that failed. */
  readonly steps: readonly string[];
}

const [seed = "1", first, step, end] = process.argv.slice(2);
const START = new Date("2026-01-01T00:00:00Z");
let harness = await Harness.open();
for (let number = Number(first); number < Number(end); number += Number(step)) {
  // What another one left would be dated ahead for the clock of this one, and so be healed by its sweeps.
  harness = await harness.reset();
  harness.clock.now = START;
  const { faults, trace, ...result } = await playScenario(harness, `${seed}-${number}`);
  const line: Line = {
    number,
    store: result.store,
    versions: result.versions,
    failure: result.failure,
    faults: Object.fromEntries(faults.counts),
    trace: createHash("sha256").update(trace.join("\n")).digest("hex"),
    steps: result.failure === undefined ? [] : trace,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  // What it left unfinished would be met by the next one.
  if (result.failure !== undefined) harness = await Harness.open();
}
// Operations that died with their server never end; nothing waits for them.
process.exit(0);

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import type { ExecutionContext } from "ava";
import fc from "fast-check";
import { FramingMachine, inspectFramingState } from "../src/index.ts";
import { ANY, cuts, run } from "./support.ts";

/**
 * Whether a program is installed. Where it is not, the test says so loudly and passes, but fails under CI=true, so that nobody
 * believes that real messages were tried.
 */
export function installed(t: ExecutionContext, program: string): boolean {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      // Not in this folder.
    }
  }
  t.log(
    `!!! SKIPPED: ${program} is not installed, so no message made by it was tried. Install it, for example with apt-get install ${program}`,
  );
  if (process.env.CI === "true") t.fail(`${program} must be installed where CI=true`);
  else t.pass();
  return false;
}

/** What a real message must show: it is accepted whatever the cuts, its beginnings are not, and its state says what it is. */
export function checkReal(t: ExecutionContext, stream: Uint8Array, format: "openpgp" | "age", armored: boolean): void {
  const whole = run(stream);
  if (!whole.accepted) {
    t.fail(`${whole.message}: ${Buffer.from(stream.subarray(0, 400)).toString("hex")}`);
    return;
  }
  const { complete, ...seen } = inspectFramingState(new Uint8Array(Buffer.from(whole.state, "hex")));
  t.true(complete);
  t.deepEqual(seen, { format, armored, offset: BigInt(stream.length) });
  fc.assert(
    fc.property(cuts, ({ chunks, segment }) => {
      t.deepEqual(run(stream, chunks, segment), whole);
    }),
    { numRuns: 15 },
  );
  // An age payload of several chunks, and armor without its last line end, have complete beginnings.
  const machine = new FramingMachine(ANY);
  const end = Math.min(stream.length - 20, 2_000);
  for (let at = 0; at < end; at += 1) {
    if (machine.complete && format === "openpgp") t.fail(`complete after ${at} bytes`);
    machine.push(stream.subarray(at, at + 1));
  }
}

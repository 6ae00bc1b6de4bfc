import type { ExecutionContext } from "ava";
import fc from "fast-check";
import { FramingMachine, inspectFramingState } from "../src/index.ts";
import { ANY, cuts, run } from "./support.ts";

/**
 * What a real message must show: it is accepted whatever the cuts, its beginnings are not, and its state says what it
 * is.
 */
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

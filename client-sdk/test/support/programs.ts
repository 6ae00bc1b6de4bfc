import type { ExecutionContext } from "ava";
import { findProgram } from "../../src/encryption/programs.ts";

/** Whether the programs are installed; without them the test passes with a loud note, but fails where CI must have them. */
export function installed(t: ExecutionContext, ...names: string[]): boolean {
  const missing = names.filter((name) => findProgram(name) === undefined);
  if (missing.length === 0) return true;
  const message = `SKIPPED: ${missing.join(" and ")} not installed`;
  if (process.env.CI === "true") t.fail(message);
  else {
    t.log(message);
    t.pass();
  }
  return false;
}

import { spawnSync } from "node:child_process";
import type { ExecutionContext } from "ava";

/** Whether gpg is installed. Where it is missing the test says so loudly, and fails in CI: a check nobody runs is none. */
export function hasGpg(t: ExecutionContext): boolean {
  if (spawnSync("gpg", ["--version"]).status === 0) return true;
  t.log("SKIPPED: gpg is not installed");
  console.error(`SKIPPED: ${t.title}: gpg is not installed`);
  if (process.env.CI === "true") t.fail("gpg is not installed, and in CI it must be");
  else t.pass();
  return false;
}

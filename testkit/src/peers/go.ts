/** Programs in Go of this repository's own tests, built where Go is installed. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { requirePeer } from "./programs.ts";

const run = promisify(execFile);

/** The longest build: an empty module cache, on a slow machine. */
const BUILD_MS = 150_000;

/**
 * Builds the main package of a Go module. Modules come from the caches of the `go` command, or else from its proxy.
 * @param into - folder for the program.
 * @returns the program's file.
 */
export async function buildGoProgram(module: string, into: string): Promise<string> {
  const program = join(into, "program");
  await run(requirePeer("go"), ["build", "-mod=readonly", "-o", program, "."], { cwd: module, timeout: BUILD_MS });
  return program;
}

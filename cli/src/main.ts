#!/usr/bin/env node
/** The program `strongroom`. */
import { processContext } from "./context.ts";
import { run } from "./program.ts";

/** A reader of standard output that went away (`strongroom ls | head -1`) is no failure; one that matters is told by the write that met it. */
function ignoreBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPIPE") throw error;
}

const context = processContext();
process.stdout.on("error", ignoreBrokenPipe);
process.stderr.on("error", ignoreBrokenPipe);
const exitCode = await run(process.argv.slice(2), context);
// Open standard input or a stuck connection would keep the process; what was written must be out before it ends.
for (const stream of [process.stdout, process.stderr])
  await new Promise<void>((resolve) => stream.write("", () => resolve()));
process.exit(exitCode);

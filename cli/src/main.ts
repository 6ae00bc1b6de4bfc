#!/usr/bin/env node
import { EXIT } from "@strongroom/command-line/exit-codes";
/** The program `strongroom`. */
import { processContext } from "./context.ts";
import { run } from "./program.ts";

/** Why the output could not be written, where no write of a command reported it. */
let broken: NodeJS.ErrnoException | undefined;
const notice = (error: NodeJS.ErrnoException): void => {
  // A reader that went away (`strongroom ls | head -1`) is no failure.
  if (error.code !== "EPIPE") broken ??= error;
};

const context = processContext();
context.stdout.on("error", notice);
process.stderr.on("error", notice);
let exitCode = await run(process.argv.slice(2), context);
// Open standard input or a stuck connection would keep the process; what was written must be out before it ends.
for (const stream of [context.stdout, context.stderr])
  await new Promise<void>((resolve) => stream.write("", () => resolve()));
if (broken !== undefined && exitCode === EXIT.ok) {
  process.stderr.write(`strongroom: the output could not be written: ${broken.message}\n`);
  exitCode = EXIT.unexpected;
}
process.exit(exitCode);

import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { printable } from "@strongroom/command-line/printable";
import { processContext } from "./context.ts";
import { run, tellUncaught } from "./program.ts";

/** Runs the command line of this process and ends it with the exit code. Writes every error; never throws. */
export async function runProcess(): Promise<void> {
  /** Why the output could not be written, where no write of a command reported it. */
  let broken: NodeJS.ErrnoException | undefined;
  const notice = (error: NodeJS.ErrnoException): void => {
    // A reader that went away (`strongroom ls | head -1`) is no failure.
    if (error.code !== "EPIPE") broken ??= error;
  };

  let isAchieved = false;
  const context = {
    ...processContext(),
    achieved: () => {
      isAchieved = true;
    },
  };
  context.stdout.on("error", notice);
  process.stderr.on("error", notice);

  /** Ends the process with one line about an error that nobody caught, in the place of a stack trace. */
  let isEnding = false;
  const lastNet = (error: unknown): void => {
    if (isEnding) return;
    isEnding = true;
    void tellUncaught(error, process.argv.slice(2), context).then(
      // What is stored is stored: a job that looks at the code must not do it again.
      (code) => process.exit(isAchieved ? EXIT.ok : code),
      () => {
        // What the error is told with may be what does not load.
        process.stderr.write(`strongroom: ${printable(error instanceof Error ? error.message : String(error))}\n`);
        process.exit(isAchieved ? EXIT.ok : EXIT.unexpected);
      },
    );
  };
  process.on("uncaughtException", lastNet);
  process.on("unhandledRejection", lastNet);

  let exitCode: ExitCode = await run(process.argv.slice(2), context);
  // Open standard input or a stuck connection would keep the process; what was written must be out before it ends.
  for (const stream of [context.stdout, context.stderr])
    await new Promise<void>((resolve) => stream.write("", () => resolve()));
  if (broken !== undefined && exitCode === EXIT.ok) {
    const but = isAchieved ? "done, but " : "";
    process.stderr.write(`strongroom: ${but}the output could not be written: ${broken.message}\n`);
    if (!isAchieved) exitCode = EXIT.unexpected;
  }
  if (!isEnding) process.exit(exitCode);
}

import { EXIT, type ExitCode } from "./exit-codes.ts";

/**
 * A failure with its exit code and, where there is something to do, a hint. Message and hint are for a person and hold
 * no secret.
 */
export class CommandError extends Error {
  override name = "CommandError";
  readonly exitCode: ExitCode;
  readonly hint: string | undefined;

  constructor(message: string, exitCode: ExitCode, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = exitCode;
    this.hint = options.hint;
  }
}

/** Wrong arguments, options or input files: nothing was done. */
export class UsageError extends CommandError {
  override name = "UsageError";

  constructor(message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, EXIT.usage, options);
  }
}

/** A signal asked the program to stop. */
export class InterruptedError extends CommandError {
  override name = "InterruptedError";
}

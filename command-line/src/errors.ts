import { EXIT, type ExitCode } from "./exit-codes.ts";

/** The reason that a class of errors stands for, written as the server writes its own: `USAGE` for `UsageError`. */
export function reasonOfName(name: string): string {
  return name
    .replace(/Error$/, "")
    .replace(/(?<=[a-z])[A-Z]/g, "_$&")
    .toUpperCase();
}

/**
 * A failure with its exit code and, where there is something to do, a hint. Message and hint are for a person and hold
 * no secret.
 */
export class CommandError extends Error {
  override name = "CommandError";
  readonly exitCode: ExitCode;
  readonly hint: string | undefined;
  readonly #reason: string | undefined;

  /** @param options `reason` is for an error that has a stable one of its own, such as one of a server. */
  constructor(
    message: string,
    exitCode: ExitCode,
    options: { hint?: string; cause?: unknown; reason?: string | undefined } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = exitCode;
    this.hint = options.hint;
    this.#reason = options.reason;
  }

  /** Stable name for programs: `USAGE`, `TIMEOUT`, `STORE_UNAVAILABLE`. */
  get reason(): string {
    return this.#reason ?? reasonOfName(this.name);
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

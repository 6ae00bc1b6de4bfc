import type { ExitCode } from "@strongroom/command-line/exit-codes";
import type { Context } from "./context.ts";
import type { OptionSpec, OptionValues, SecretSpec } from "./option-spec.ts";
import type { Output } from "./terminal/output.ts";

/** What a command is run with. */
export interface Invocation {
  /** Its arguments, as declared; missing ones are undefined. */
  readonly args: ReadonlyArray<string | undefined>;
  readonly values: OptionValues;
  readonly output: Output;
  readonly context: Context;
}

/** A command of the program: all that its help says, and what it does. */
export interface CommandSpec {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  /** More of what it does, where the summary is not enough. */
  readonly details?: string;
  /** `<required>` or `[optional]`, with an explanation. */
  readonly args?: ReadonlyArray<readonly [name: string, description: string]>;
  readonly options: ReadonlyArray<OptionSpec<unknown>>;
  /** Secrets it takes from the environment. */
  readonly secrets?: readonly SecretSpec[];
  /** Command lines, with what they do. */
  readonly examples: ReadonlyArray<readonly [line: string, meaning: string]>;
  /** It reads its own arguments and prints its own help. */
  readonly passThrough?: boolean;
  readonly run: (invocation: Invocation) => Promise<ExitCode>;
}

import type { Command, Given } from "@strongroom/command-line/command";
import type { Context } from "./context.ts";
import type { Asking } from "./session/password.ts";
import type { Output } from "./terminal/output.ts";

/** What commands of this program are run with, beside arguments and options. */
export interface Surroundings {
  readonly output: Output;
  readonly context: Context;
  /**
   * The password of a user, from options, environment or terminal; for commands that declare the options and the secret
   * for it.
   */
  readonly askPassword: (asking: Asking) => Promise<string>;
}

/** What a command is run with. */
export type Invocation = Given & Surroundings;

/** A command of the program. */
export type CommandSpec = Command<Surroundings>;

import type { ExitCode } from "./exit-codes.ts";
import type { Option, Secret } from "./option.ts";
import type { OptionValues } from "./values.ts";

/** What every command is run with; programs add what their commands need. */
export interface Given {
  /** Its arguments, as declared; missing ones are undefined. */
  readonly args: ReadonlyArray<string | undefined>;
  readonly values: OptionValues;
}

/** A command: all that its help says, and what it does. */
export interface Command<Extra = unknown> {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  /** More of what it does, where the summary is not enough. */
  readonly details?: string;
  /** `<required>` or `[optional]`, with an explanation. */
  readonly args?: ReadonlyArray<readonly [name: string, help: string]>;
  readonly options: ReadonlyArray<Option<unknown>>;
  /** Secrets it takes from the environment. */
  readonly secrets?: readonly Secret[];
  /** Command lines, with what they do. */
  readonly examples: ReadonlyArray<readonly [line: string, meaning: string]>;
  readonly run: (given: Given & Extra) => Promise<ExitCode>;
}

/** A program: its commands and what stands before them. */
export interface Program<Extra = unknown> {
  readonly name: string;
  readonly about: string;
  readonly version: string;
  /** Options that may also stand before the command, for the commands that take them. */
  readonly options: ReadonlyArray<Option<unknown>>;
  readonly examples: Command["examples"];
  readonly commands: ReadonlyArray<Command<Extra>>;
  /** Why a command may not be there, for whoever asks for an unknown one. */
  readonly missing?: string | undefined;
}

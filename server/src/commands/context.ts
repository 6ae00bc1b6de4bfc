import type { Writable } from "node:stream";
import type { Command } from "@strongroom/command-line/command";

import type { Interruptions } from "@strongroom/command-line/interruptible";
import type { Environment } from "@strongroom/command-line/values";

/** Where a command writes. */
export interface CommandIo {
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** What commands of the server are run with, beside arguments and options. */
export interface OperatorSurroundings {
  readonly context: CommandIo & Interruptions & { readonly env: Environment };
  /** The password of a user, from options, environment or terminal. */
  readonly askPassword: (asking: { question: string; twice?: boolean; fromPipe?: boolean }) => Promise<string>;
}

/** A command of the server. */
export type OperatorCommand = Command<OperatorSurroundings>;

/** What a command of the server is run with. */
export type OperatorInvocation = Parameters<OperatorCommand["run"]>[0];

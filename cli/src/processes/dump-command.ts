import { CommandFailedError } from "../errors.ts";
import { describeExit, ProcessGroup, succeeded } from "./process-group.ts";
import { untilAborted } from "./until-aborted.ts";

/** The command, and what is asked of its dump. */
export interface DumpCommandOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly killGraceMs: number;
  readonly onStderr: (bytes: Uint8Array) => void;
  /** A dump with fewer bytes waits for the command's exit status before its end is reported. */
  readonly minSize: bigint;
  /** Exit codes with which it made a dump; all but 0 are a warning. */
  readonly okExit: readonly number[];
}

/**
 * The command that makes a dump. It is started when its first bytes are asked for, and its exit status decides whether
 * there is a version.
 */
export class DumpCommand {
  readonly #command: string;
  readonly #options: DumpCommandOptions;
  #group: ProcessGroup | undefined;

  constructor(command: string, options: DumpCommandOptions) {
    this.#command = command;
    this.#options = options;
  }

  /**
   * The dump.
   * @throws {CommandFailedError} when the command ends with a failure before it wrote as much as a dump must have:
   *   "exited with 1" says more than "the dump is empty".
   */
  async *output(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { env, onStderr, minSize } = this.#options;
    signal.throwIfAborted();
    this.#group = new ProcessGroup(this.#command, { env, stdin: "ignore", onStderr });
    let size = 0n;
    try {
      for await (const chunk of this.#group.stdout) {
        const bytes = chunk as Uint8Array;
        size += BigInt(bytes.length);
        yield bytes;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
    // A command that is being ended also closes its output; that is not the end of the dump.
    signal.throwIfAborted();
    if (size < minSize) await this.succeeded(signal);
  }

  /**
   * Waits for the command to end, and returns a warning when it exited with another code than 0 that is allowed.
   * @throws {CommandFailedError} for any other end.
   */
  async succeeded(signal: AbortSignal): Promise<string | undefined> {
    if (this.#group === undefined) throw new CommandFailedError("the dump command was not started");
    const status = await untilAborted(this.#group.exited, signal);
    if (!succeeded(status)) {
      if (status.error === undefined && status.code !== null && this.#options.okExit.includes(status.code))
        return `the dump command ${describeExit(status)}`;
      throw new CommandFailedError(`the dump command ${describeExit(status)}`, {
        hint: "nothing was stored",
        cause: status.error,
      });
    }
    return undefined;
  }

  /** Ends the command if it is still running. */
  async end(): Promise<void> {
    await this.#group?.end(this.#options.killGraceMs);
  }
}

import { formatSize } from "@strongroom/protocol/sizes";
import type { Context } from "../context.ts";
import { type Destination, writeAll } from "../destination.ts";
import { CommandFailedError } from "../errors.ts";
import { describeExit, ProcessGroup, succeeded } from "./process-group.ts";
import { untilAborted } from "./until-aborted.ts";

/** The command, and how long it may take to end. */
export interface CommandDestinationOptions {
  readonly context: Pick<Context, "childEnv" | "killGraceMs">;
  readonly onStdout: (bytes: Uint8Array) => Promise<void> | void;
  readonly onStderr: (bytes: Uint8Array) => void;
  /** Aborts the transfer; given the reason. */
  readonly abort: (reason: Error) => void;
  readonly signal: AbortSignal;
}

/**
 * A command that reads the version on its standard input. It is started with the first byte, so a wrong key or a
 * missing version does not start it. Its input ends only in `finish`; when anything fails it is ended by a signal
 * instead, and never sees an end of input that would look like success.
 */
export class CommandDestination implements Destination {
  readonly name = "the command";
  readonly #command: string;
  readonly #options: CommandDestinationOptions;
  #group: ProcessGroup | undefined;
  #discarded = false;
  /** Bytes that were put into the pipe to it; what of them it read is unknown. */
  #given = 0n;

  constructor(command: string, options: CommandDestinationOptions) {
    this.#command = command;
    this.#options = options;
  }

  async open(): Promise<void> {}

  async write(bytes: Uint8Array): Promise<void> {
    const group = this.#start();
    if (group.status === undefined) {
      try {
        await writeAll(group.stdin, bytes, this.#options.signal);
        this.#given += BigInt(bytes.length);
        return;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "EPIPE" && code !== "ERR_STREAM_DESTROYED" && code !== "ECONNRESET") throw error;
      }
    }
    // It reads no more. Why it failed says more than that it did; with exit code 0 it has dealt with a part only, and
    // took that for the whole.
    await this.#succeeded(group);
    throw stoppedReading(`it was given ${formatSize(this.#given)}, and more was to come`);
  }

  async finish(): Promise<void> {
    const group = this.#start();
    group.endInput();
    await this.#succeeded(group);
    // What fits into the pipe (64 KiB on Linux) was written whether it was read or not.
    if (group.leftInput()) throw stoppedReading(`it was given ${formatSize(this.#given)}, and did not read all of it`);
  }

  async discard(): Promise<void> {
    this.#discarded = true;
    await this.#group?.end(this.#options.context.killGraceMs);
  }

  #start(): ProcessGroup {
    if (this.#group !== undefined) return this.#group;
    const { context, onStdout, onStderr, abort } = this.#options;
    const group = new ProcessGroup(this.#command, { env: context.childEnv, stdin: "pipe", onStdout, onStderr });
    this.#group = group;
    // A transfer that waits for the network would not notice before its next write.
    void group.exited.then((status) => {
      // One that is being ended here fails because of it, and is not the reason.
      if (!succeeded(status) && !this.#discarded) abort(failure(status));
    });
    return group;
  }

  async #succeeded(group: ProcessGroup): Promise<void> {
    const status = await untilAborted(group.exited, this.#options.signal);
    if (!succeeded(status)) throw failure(status);
  }
}

function stoppedReading(how: string): CommandFailedError {
  return new CommandFailedError(`the command exited with 0, but stopped reading: ${how}`, {
    hint: "when it knows the end by itself, let it read the rest: -c 'COMMAND; cat > /dev/null'",
  });
}

function failure(status: Parameters<typeof describeExit>[0]): CommandFailedError {
  return new CommandFailedError(`the command ${describeExit(status)}`, { cause: status.error });
}

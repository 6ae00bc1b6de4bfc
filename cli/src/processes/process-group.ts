import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { makePipes, openAgain, type Pipe, readStream, takeUnread, writeStream } from "./pipes.ts";

/** How a process ended. */
export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** It could not even be started. */
  readonly error?: Error;
}

/** How often a group that was asked to end is looked at, in milliseconds. */
const POLL_MS = 25;
/** After a command ended, this long, in milliseconds, is waited for the rest of what it said. */
const OUTPUT_DRAIN_MS = 1_000;

const live = new Set<ProcessGroup>();
let guarded = false;

/**
 * Groups must not outlive the program: SIGKILL for what is left, before the pipes close and look like a proper end of
 * input.
 */
function guardExit(): void {
  if (guarded) return;
  guarded = true;
  process.once("exit", () => {
    for (const group of live) group.signal("SIGKILL");
  });
}

/** What a group is given. */
export interface GroupOptions {
  readonly env: NodeJS.ProcessEnv;
  /** `ignore`: it has no input; `pipe`: see {@link ProcessGroup.stdin}. */
  readonly stdin: "ignore" | "pipe";
  /** Takes standard error. */
  readonly onStderr: (bytes: Uint8Array) => void;
  /** Takes standard output, and is waited for; without it, read {@link ProcessGroup.stdout}. */
  readonly onStdout?: (bytes: Uint8Array) => Promise<void> | void;
}

/**
 * A shell command in a process group of its own, so that a pipeline is ended as a whole. It is run by
 * `bash -e -o pipefail -c`, so a failure anywhere in a pipeline is a failure of the command. The group has no terminal:
 * it cannot ask for a password there.
 */
export class ProcessGroup {
  /** How it ended, when standard error (and standard output, with `onStdout`) have ended too. Never rejects. */
  readonly exited: Promise<ExitStatus>;
  readonly #child: ChildProcess;
  readonly #stdin: Writable | undefined;
  readonly #stdinFd: number | undefined;
  #unread: number | undefined;
  readonly #stdout: Readable;
  readonly #stderr: Readable;
  #status: ExitStatus | undefined;

  constructor(command: string, options: GroupOptions) {
    guardExit();
    const { child, stdin, stdinFd, stdout, stderr } = start(command, options);
    this.#child = child;
    this.#stdin = stdin;
    this.#stdinFd = stdinFd;
    this.#stdout = stdout;
    this.#stderr = stderr;
    live.add(this);
    const outputs = [forward(stderr, options.onStderr)];
    if (options.onStdout !== undefined) outputs.push(forward(stdout, options.onStdout));
    // A broken pipe also arrives at the callback of the write that met it.
    stdin?.on("error", () => {});
    this.exited = this.#watch(outputs);
  }

  /** Present with `stdin: "pipe"`. */
  get stdin(): Writable {
    return this.#stdin!;
  }

  /** Ends its input. All that was written must be in the pipe by now. */
  endInput(): void {
    if (this.#stdinFd !== undefined) this.#unread = openAgain(this.#stdinFd);
    this.stdin.end();
  }

  /**
   * Whether it left some of its input in the pipe; ask once, after it has exited. False where that cannot be known.
   */
  leftInput(): boolean {
    const unread = this.#unread;
    this.#unread = undefined;
    return unread !== undefined && takeUnread(unread);
  }

  /** The command's output. */
  get stdout(): Readable {
    return this.#stdout;
  }

  /** How it ended, if it has. */
  get status(): ExitStatus | undefined {
    return this.#status;
  }

  /** Sends a signal to every process of the group. Returns whether there was one. */
  signal(signal: NodeJS.Signals | 0): boolean {
    const { pid } = this.#child;
    if (pid === undefined) return false;
    if (process.platform === "win32") return this.#child.kill(signal);
    try {
      return process.kill(-pid, signal);
    } catch (error) {
      // EPERM: processes of another user (sudo) are there and cannot be signalled.
      return (error as NodeJS.ErrnoException).code === "EPERM";
    }
  }

  /**
   * Ends the group: SIGTERM, and SIGKILL for what is still there after `graceMs`. Its input stays open until it is
   * gone, for an end of input could look like success. Waits for at most twice `graceMs`: a process in an
   * uninterruptible wait does not even end by SIGKILL.
   */
  async end(graceMs: number): Promise<void> {
    if (this.signal("SIGTERM") && !(await this.#gone(graceMs)) && this.signal("SIGKILL")) await this.#gone(graceMs);
    await Promise.race([this.exited, sleep(graceMs, undefined, { ref: false })]);
    live.delete(this);
    this.leftInput(); // closes the pipe
    this.#stdin?.destroy();
    this.#stdout.destroy();
    this.#stderr.destroy();
  }

  async #gone(withinMs: number): Promise<boolean> {
    const deadline = performance.now() + withinMs;
    while (this.signal(0)) {
      if (performance.now() > deadline) return false;
      await sleep(POLL_MS);
    }
    return true;
  }

  async #watch(outputs: readonly Promise<void>[]): Promise<ExitStatus> {
    const status = await new Promise<ExitStatus>((resolve) => {
      this.#child.once("error", (error) => resolve({ code: null, signal: null, error }));
      this.#child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    this.#status = status;
    if (status.code === 0 || status.error !== undefined) live.delete(this);
    // A process left in the background may hold them open forever.
    await Promise.race([Promise.all(outputs), sleep(OUTPUT_DRAIN_MS, undefined, { ref: false })]);
    return status;
  }
}

/**
 * Hands a stream on, piece by piece, to its end. A taker that fails (its own reader went away) does not hold the
 * command up.
 */
async function forward(stream: Readable, take: (bytes: Uint8Array) => Promise<void> | void): Promise<void> {
  try {
    for await (const chunk of stream) await Promise.resolve(take(chunk as Uint8Array)).catch(() => {});
  } catch {
    // The stream was destroyed in end().
  }
}

interface Started {
  readonly child: ChildProcess;
  readonly stdin: Writable | undefined;
  /** Its descriptor, where it is a pipe of {@link makePipes}. */
  readonly stdinFd: number | undefined;
  readonly stdout: Readable;
  readonly stderr: Readable;
}

function start(command: string, { env, stdin }: GroupOptions): Started {
  const spawnWith = (stdio: StdioOptions) =>
    spawn("bash", ["-e", "-o", "pipefail", "-c", command], { env, stdio, detached: process.platform !== "win32" });
  const pipes = makePipes(stdin === "pipe" ? 3 : 2);
  if (pipes === undefined) {
    const child = spawnWith([stdin, "pipe", "pipe"]);
    const { stdout, stderr } = child;
    return { child, stdin: child.stdin ?? undefined, stdinFd: undefined, stdout: stdout!, stderr: stderr! };
  }
  const [output, errors, input] = pipes as [Pipe, Pipe, Pipe | undefined];
  try {
    const child = spawnWith([input?.readEnd ?? "ignore", output.writeEnd, errors.writeEnd]);
    return {
      child,
      stdin: input === undefined ? undefined : writeStream(input.writeEnd),
      stdinFd: input?.writeEnd,
      stdout: readStream(output.readEnd),
      stderr: readStream(errors.readEnd),
    };
  } finally {
    // The child has them now; held here too, no end and no broken pipe would ever be seen.
    for (const fd of [input?.readEnd, output.writeEnd, errors.writeEnd]) if (fd !== undefined) closeSync(fd);
  }
}

/** `exited with 3`, `was ended by SIGKILL`, `could not be started: bash is not installed`. */
export function describeExit({ code, signal, error }: ExitStatus): string {
  if (error !== undefined) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return `could not be started: ${missing ? bashMissing() : error.message}`;
  }
  return signal === null ? `exited with ${code}` : `was ended by ${signal}`;
}

function bashMissing(): string {
  return process.env.PATH ? "bash is in no folder of PATH" : "PATH is empty, so bash is not found";
}

/** Whether a process did what it should. */
export function succeeded({ code, error }: ExitStatus): boolean {
  return error === undefined && code === 0;
}

/** Finding the user's programs, and running one as a filter between two streams. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { feed } from "../streams.ts";
import type { Failure } from "./options.ts";

/** How much of a program's standard error is kept for messages: its end, in characters. */
const STDERR_LIMIT = 4096;

/** How long the rest of standard error and of the status is waited for once the program has ended, in milliseconds. */
const STDERR_WAIT_MS = 1000;

/**
 * Finds a program on the PATH.
 * @returns its full path, or undefined when it is not installed
 */
export function findProgram(name: string): string | undefined {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    if (!isAbsolute(directory)) continue;
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // Not here; the next directory may have it.
    }
  }
  return undefined;
}

/** What a caller is to do for `gpg` to do the work, as the end of a sentence. */
export function adviseGpg(): string {
  return findProgram("gpg") === undefined
    ? "install gpg"
    : "gpg is installed and may have it, so let it do this (--program gpg)";
}

/** A program to run as a filter. */
export interface FilterOptions {
  /** Full path of the program. */
  program: string;
  /** Its arguments; never a secret, since every user of the machine can read them. */
  args: readonly string[];
  /** Added to the environment; never a secret. */
  env?: Readonly<Record<string, string>>;
  /** One line that is given on file descriptor 3: a passphrase. */
  secret?: string | undefined;
  /** Takes what the program writes to file descriptor 4, line by line. */
  onStatus?: (line: string) => void;
  /**
   * Looks at the program's success before it counts; throws where it is none. Called after the last byte of output and
   * the last line of status.
   */
  check?: () => void;
  /** Put before the message when the program fails; may be empty. */
  explain?: () => string;
  /**
   * Whether success needs the whole input to be taken: true for encryption, where less would be a cut dump, and for
   * age, which reads to the end.
   */
  wholeInput: boolean;
  /** Makes the error when the program fails. */
  failure: Failure;
}

/**
 * Runs a program between two streams, with the pace of the slower end.
 *
 * When the source fails, the program is killed and the source's error thrown: what it wrote so far must not look like a
 * whole message. It is also killed when the signal is aborted, and when the reader stops. It has ended when the
 * iteration has.
 */
export async function* runFilter(
  options: FilterOptions,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  signal.throwIfAborted();
  const child = spawn(options.program, options.args, {
    stdio: [
      "pipe",
      "pipe",
      "pipe",
      options.secret === undefined ? "ignore" : "pipe",
      options.onStatus === undefined ? "ignore" : "pipe",
    ],
    env: { ...process.env, ...options.env },
    // The types of spawn() do not know that further pipes leave the first three as they are.
  }) as ChildProcessWithoutNullStreams;
  const exit = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(`could not be started: ${error.message}`));
    child.once("exit", (code, name) =>
      resolve(code === 0 ? "" : name ? `was ended by ${name}` : `ended with exit status ${code}`),
    );
  });
  const kill = (): void => void child.kill("SIGKILL");
  const stderr = collect(child.stderr);
  const status = child.stdio[4] as NodeJS.ReadableStream | null;
  const statusRead = options.onStatus === undefined || status === null ? undefined : byLine(status, options.onStatus);
  let whole = false;
  let sourceFailure: { error: unknown } | undefined;
  try {
    signal.addEventListener("abort", kill, { once: true });
    if (options.secret !== undefined) {
      const pipe = child.stdio[3] as Writable;
      pipe.on("error", () => undefined);
      pipe.end(`${options.secret}\n`);
    }
    const feeding = feed(source, child.stdin).then(
      (complete) => {
        whole = complete;
      },
      (error: unknown) => {
        sourceFailure = { error };
        kill();
      },
    );
    yield* child.stdout as AsyncIterable<Uint8Array>;
    const problem = await exit;
    signal.throwIfAborted();
    if (sourceFailure !== undefined) throw (sourceFailure as { error: unknown }).error;
    await statusRead?.();
    if (problem !== "") {
      const reason = options.explain?.() ?? "";
      throw options.failure(`${reason}${options.program} ${problem}. ${said(await stderr())}`);
    }
    if (!options.wholeInput) {
      options.check?.();
      return;
    }
    await feeding;
    if (sourceFailure !== undefined) throw (sourceFailure as { error: unknown }).error;
    if (!whole) throw options.failure(`${options.program} ended before it had read all of its input.`);
    options.check?.();
  } catch (error) {
    // Whatever broke the pipes, the source's own error explains it.
    throw sourceFailure === undefined ? error : (sourceFailure as { error: unknown }).error;
  } finally {
    signal.removeEventListener("abort", kill);
    kill();
    child.stdin.destroy();
    child.stdout.destroy();
    child.stderr.destroy();
    (status as Readable | null)?.destroy();
    await exit;
  }
}

/** Runs a program to its end with a small input. Its output is dropped. */
export async function runProgram(
  options: Omit<FilterOptions, "wholeInput">,
  input: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  async function* source(): AsyncGenerator<Uint8Array> {
    if (input.length > 0) yield input;
  }
  for await (const _ of runFilter({ ...options, wholeInput: false }, source(), signal));
}

/** Keeps the end of a stream's text; the function waits a little for the rest of it. */
function collect(stream: NodeJS.ReadableStream): () => Promise<string> {
  let text = "";
  const rest = read(stream, (chunk) => {
    text = (text + chunk).slice(-STDERR_LIMIT);
  });
  return async () => {
    await rest();
    return text;
  };
}

/** Gives the lines of a stream; the function waits a little for the rest of it. A line that never ends is cut. */
function byLine(stream: NodeJS.ReadableStream, take: (line: string) => void): () => Promise<void> {
  let pending = "";
  const rest = read(stream, (chunk) => {
    const lines = (pending + chunk).split("\n");
    pending = lines.pop()!.slice(-STDERR_LIMIT);
    for (const line of lines) take(line);
  });
  return async () => {
    await rest();
    if (pending !== "") take(pending);
    pending = "";
  };
}

/**
 * Reads a stream of text. What the program started may hold it open, so the function waits for its end, but not
 * forever.
 */
function read(stream: NodeJS.ReadableStream, take: (chunk: string) => void): () => Promise<void> {
  const ended = new Promise<void>((resolve) => {
    stream.on("data", (chunk: Buffer) => take(chunk.toString("utf8")));
    stream.once("close", resolve);
    stream.once("error", resolve);
  });
  return async () => {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, STDERR_WAIT_MS);
    });
    await Promise.race([ended, limit]);
    clearTimeout(timer);
  };
}

function said(stderr: string): string {
  const text = stderr.trim().replaceAll(/\s*\n\s*/g, "; ");
  return text === "" ? "It gave no reason." : `It said: ${text}`;
}

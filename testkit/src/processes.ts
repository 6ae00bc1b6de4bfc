/** Real server and CLI processes, for the demo, the end-to-end tests and the benchmark. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The `strongroom` program of this checkout. */
export const STRONGROOM = `${ROOT}bin/strongroom`;

/** How a command ended. */
export interface Outcome {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Input and surroundings of a command. */
export interface RunOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/**
 * The environment of this process without options of Strongroom or Backup Maker, so that a developer's own do not leak
 * in.
 */
export function cleanEnvironment(): Record<string, string> {
  const entries = Object.entries(process.env).filter(([name]) => !/^(STRONGROOM|BM)_/.test(name));
  return Object.fromEntries(entries) as Record<string, string>;
}

const living = new Map<ChildProcess, NodeJS.Signals>();

/**
 * Sends a child this signal when this process ends before it does, so that a test or a demo that is ended leaves
 * nothing behind.
 */
export function endWithUs(child: ChildProcess, signal: NodeJS.Signals): void {
  if (living.size === 0) {
    process.on("exit", endAll);
    process.on("SIGTERM", endBySigterm);
  }
  living.set(child, signal);
  child.once("exit", () => {
    living.delete(child);
    if (living.size > 0) return;
    process.off("exit", endAll);
    process.off("SIGTERM", endBySigterm);
  });
}

function endAll(): void {
  for (const [child, signal] of living) child.kill(signal);
}

function endBySigterm(): void {
  process.exit(143);
}

/** Runs a program to its end. */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const child = spawn(program, args, { cwd: options.cwd, env: { ...cleanEnvironment(), ...options.env } });
  endWithUs(child, "SIGTERM");
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  // A program that ends without reading its input breaks the pipe; its exit code says why.
  child.stdin.on("error", () => {});
  child.stdin.end(options.input);
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() };
}

/** A running `strongroom serve`. */
export interface ServerProcess {
  readonly child: ChildProcess;
  readonly url: string;
  /** What it has logged so far. */
  log(): string;
  /** Sends a signal and waits for the end. Returns the exit code; null when the signal ended it. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/**
 * Starts a server on a free port and waits until it listens. Throws with its messages when it ends before.
 * @param openFiles how many files the process may have open, as `ulimit -n` sets it; the shell's own limit when left
 *   out.
 * @param strongroom the program, when it is not that of this checkout.
 */
export async function startServerProcess(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  openFiles?: number,
  strongroom = STRONGROOM,
): Promise<ServerProcess> {
  const serve = [strongroom, "serve", "--listen", "127.0.0.1:0", ...args];
  const [program = "", ...rest] =
    openFiles === undefined ? serve : ["sh", "-c", `ulimit -n ${openFiles}; exec "$@"`, "sh", ...serve];
  const child = spawn(program, rest, {
    env: { ...cleanEnvironment(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  endWithUs(child, "SIGKILL");
  let log = "";
  const ended = once(child, "close");
  const listening = new Promise<string>((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk;
      const url = /listens on (https?:\S+)/.exec(out)?.[1];
      if (url !== undefined) resolve(url);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      log += chunk;
    });
    child.once("close", () => reject(new Error(`the server ended before it listened:\n${log}`)));
  });
  const url = await listening;
  return {
    child,
    url,
    log: () => log,
    async end(signal) {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      child.kill(signal);
      const [code] = (await ended) as [number | null];
      return code;
    },
  };
}

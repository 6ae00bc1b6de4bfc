import { spawnSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isMainThread } from "node:worker_threads";

/** The two ends of a pipe, as file descriptors. */
export interface Pipe {
  readonly readEnd: number;
  readonly writeEnd: number;
}

/**
 * Makes real pipes. What Node gives a child process are socket pairs, and those cannot be opened by name:
 * `echo ... > /dev/stderr`, `pg_dump -f /dev/stdout` and `tar -xf /dev/stdin` fail on them. Node has no call for a
 * pipe, so named ones are made, opened and unlinked.
 * @returns undefined where that is not possible: Windows, no `mkfifo`, no writable folder for temporary files, or a
 *   worker thread, in which Node keeps a list of open descriptors, and would close those that a socket has taken over
 *   and closed when they belong to somebody else.
 */
export function makePipes(count: number): Pipe[] | undefined {
  if (!isMainThread) return undefined;
  let folder: string | undefined;
  const opened: Pipe[] = [];
  try {
    folder = temporaryFolder();
    const paths = Array.from({ length: count }, (_, index) => join(folder!, String(index)));
    if (spawnSync("mkfifo", ["-m", "600", ...paths], { stdio: "ignore" }).status !== 0) return undefined;
    for (const path of paths) opened.push(openBothEnds(path));
    return opened;
  } catch {
    for (const pipe of opened) closePipe(pipe);
    return undefined;
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

/** Where TMPDIR names no folder, the usual one does for the moment in which pipes have names. */
function temporaryFolder(): string {
  try {
    return mkdtempSync(join(tmpdir(), "strongroom-"));
  } catch {
    return mkdtempSync("/tmp/strongroom-");
  }
}

function openBothEnds(path: string): Pipe {
  // Opening one end waits for the other, except for both at once; and each end needs a description of its own, for the
  // flags in it are shared with the child.
  const both = openSync(path, constants.O_RDWR);
  try {
    const readEnd = openSync(path, constants.O_RDONLY);
    return { readEnd, writeEnd: openSync(path, constants.O_WRONLY) };
  } finally {
    closeSync(both);
  }
}

/** Closes both ends. */
export function closePipe({ readEnd, writeEnd }: Pipe): void {
  closeSync(readEnd);
  closeSync(writeEnd);
}

/**
 * Opens the read end of a pipe of {@link makePipes} again, so that what its reader leaves in it can be seen afterwards.
 * Must be asked for after the last write: with it, a writer no longer learns that the reader is gone.
 * @returns undefined where the system does not let a pipe be opened by its descriptor, as only Linux does.
 */
export function openAgain(writeEnd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${writeEnd}`, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
}

/** Whether bytes are left in a pipe that nobody writes to any more; closes it. */
export function takeUnread(readEnd: number): boolean {
  try {
    return readSync(readEnd, Buffer.alloc(1)) > 0;
  } catch {
    return false;
  } finally {
    closeSync(readEnd);
  }
}

/** A stream that reads one end. */
export function readStream(readEnd: number): Socket {
  return new Socket({ fd: readEnd, readable: true, writable: false });
}

/** A stream that writes the other. */
export function writeStream(writeEnd: number): Socket {
  return new Socket({ fd: writeEnd, readable: false, writable: true });
}

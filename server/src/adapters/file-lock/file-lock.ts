import { realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** Another server, or another part of this one, holds the lock. */
export class FileLockedError extends Error {
  override name = "FileLockedError";
  /** The directory that is in use. */
  readonly directory: string;

  constructor(directory: string, holder: string, options?: ErrorOptions) {
    super(
      `The directory ${directory} is in use by ${holder}; it can serve only one at a time. Stop the other ` +
        "server, or give this one a " +
        "directory of its own.",
      options,
    );
    this.directory = directory;
  }
}

/** A lock that is held; see {@link acquireFileLock}. */
export interface FileLock {
  /** The lock file's real path. */
  readonly path: string;
  /**
   * Lets the lock go; a second call does nothing. The file stays, since deleting it would race with the next holder.
   */
  release(): Promise<void>;
}

/**
 * The locks this process holds, by real path. It refuses a second acquire with a better message than SQLite's, and it
 * keeps the connections reachable: a garbage-collected connection would let its lock go without a word.
 */
const held = new Map<string, DatabaseSync>();

/** SQLite's primary result codes (https://www.sqlite.org/rescode.html) for a lock that someone else has. */
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;

/**
 * Takes an exclusive lock on a directory by way of a lock file in it. The kernel drops it when the process ends in any
 * way, `kill -9` included, so a lock is never stale and nobody has to delete anything.
 *
 * Node has no binding to `fcntl` or `flock`; SQLite does, so the lock is an exclusive transaction on an empty database
 * that never writes a page: the file stays empty and no journal appears. The lock is a POSIX record lock, which the
 * kernel also drops when this process closes *any* descriptor of the file. So nothing in the process may open the lock
 * file, not even to copy or read it.
 *
 * @param path the lock file, in the directory it guards, which must exist; it is created if it is missing.
 * @throws FileLockedError when another process, or this one, holds it.
 */
export async function acquireFileLock(path: string): Promise<FileLock> {
  const real = await realPathOf(path);
  const directory = dirname(real);
  // From here to the end nothing awaits, so two acquires in one process cannot pass this check together.
  if (held.has(real)) throw new FileLockedError(directory, "another part of this same process");
  const connection = lockExclusively(real, directory);
  held.set(real, connection);
  return {
    path: real,
    async release() {
      if (held.get(real) !== connection) return;
      held.delete(real);
      connection.close();
    },
  };
}

/** Two paths to one lock file must count as one, whether or not the file exists yet. */
async function realPathOf(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await realpath(absolute);
  } catch {
    try {
      return join(await realpath(dirname(absolute)), basename(absolute));
    } catch (cause) {
      throw new Error(
        `Cannot lock ${dirname(absolute)}: the directory does not exist or cannot be entered. Create it first.`,
        {
          cause,
        },
      );
    }
  }
}

function lockExclusively(path: string, directory: string): DatabaseSync {
  let connection: DatabaseSync | undefined;
  try {
    connection = new DatabaseSync(path, { timeout: 0 });
    // The journal mode is only a second fence: a transaction that writes nothing makes no journal.
    connection.exec("PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
    return connection;
  } catch (cause) {
    connection?.close();
    const code = primaryResultCode(cause);
    if (code === SQLITE_BUSY || code === SQLITE_LOCKED) {
      throw new FileLockedError(directory, `another server (its lock is on ${path})`, { cause });
    }
    throw new Error(
      `Cannot take the lock ${path}: ${cause instanceof Error ? cause.message : String(cause)}. Expected an ` +
        "empty file, or none, in a directory " +
        "that this user may write to, on a file system with POSIX locks.",
      { cause },
    );
  }
}

function primaryResultCode(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown } | undefined)?.errcode;
  // The upper bytes of an extended code only refine the lowest one.
  return typeof code === "number" ? code & 0xff : undefined;
}

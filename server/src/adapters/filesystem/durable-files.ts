import { access, type FileHandle, mkdir, open, rename, rmdir } from "node:fs/promises";
import { dirname } from "node:path";
import { isMissing, systemErrorCode } from "./disk-error.ts";

/** Dumps are ciphertext, but their names and sizes are nobody else's business either. */
export const DIRECTORY_MODE = 0o700;
/** See {@link DIRECTORY_MODE}. */
export const FILE_MODE = 0o600;

/**
 * A publication loses its directory to a deletion at most as often as there are deletions under way; more than this
 * means something else.
 */
const MOST_TRIES = 100;

/**
 * Writes all bytes at a position, in as many calls as the system wants; a single call may write fewer than it was
 * given.
 */
export async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, position + written);
    written += bytesWritten;
  }
}

/**
 * Creates a file, which must not exist, with these bytes and makes them durable. The name is durable only after
 * {@link syncDirectory}.
 */
export async function createDurably(path: string, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, "wx", FILE_MODE);
  await writeFully(file, bytes, 0);
  await file.sync();
}

/** Makes the names in a directory durable: POSIX promises that for a file's content only. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, "r");
  await directory.sync();
}

/**
 * {@link syncDirectory} for a directory and those above it, up to and with `base`. All of them, since after a crash
 * it is unknown whether a directory that exists is itself durable in the one above. Directories pruned meanwhile are
 * passed over: the one above holds the news.
 */
export async function syncUpTo(base: string, directory: string): Promise<void> {
  for (let current = directory; ; current = dirname(current)) {
    try {
      await syncDirectory(current);
    } catch (error) {
      if (current === base || !isMissing(error)) throw error;
    }
    if (current === base) return;
  }
}

/**
 * Moves a durable file to its final path below `base`, replacing one that is there, and makes the move durable there.
 * Makes the directories in between, again if a concurrent {@link pruneUpTo} takes them away before the file is in.
 */
export async function moveDurably(base: string, source: string, target: string): Promise<void> {
  const directory = dirname(target);
  for (let tries = 1; ; tries++) {
    try {
      await mkdir(directory, { recursive: true, mode: DIRECTORY_MODE });
      await rename(source, target);
      break;
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT" || tries === MOST_TRIES) throw error;
      // Throws when it is the source that is missing.
      await access(source);
    }
  }
  await syncUpTo(base, directory);
}

/**
 * Removes a directory below `base` and those above it as far as they are empty; `base` stays. Not durable: an empty
 * directory does no harm.
 */
export async function pruneUpTo(base: string, directory: string): Promise<void> {
  for (let current = directory; current !== base; current = dirname(current)) {
    try {
      await rmdir(current);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === "ENOTEMPTY" || code === "EEXIST") return;
      if (!isMissing(error)) throw error;
    }
  }
}

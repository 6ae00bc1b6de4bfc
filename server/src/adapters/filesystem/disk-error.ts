import { access } from "node:fs/promises";
import { BlobStoreError, BlobStoreFullError } from "../../app/ports/blob-store.ts";

/** What a person can do about the errors a file system gives, by error code (`man 3 errno`). */
const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: "the file system is full. Free space on it or enlarge it",
  EDQUOT: "the quota of this user on the file system is used up. Free space or raise the quota",
  EFBIG:
    "the file would be larger than the file system or the process limit (ulimit -f) allows. Use another file " +
    "system or raise the limit",
  EACCES: "permission is denied. Give the directory and everything in it to the user that the server runs as",
  EPERM:
    "the file system does not permit it. Give the directory and everything in it to the user that the server runs as",
  EROFS: "the file system is mounted read-only. Look in the kernel log for the reason, then mount it writable",
  EIO: "the disk reports an error. Look in the kernel log, and check the disk before trusting it with more",
  EMFILE: "this process has too many open files. Raise its limit (ulimit -n)",
  ENFILE: "the system has too many open files. Raise its limit (fs.file-max)",
  EXDEV: "parts of the store lie on different file systems. Put the whole directory on one",
  ENAMETOOLONG: "the file system does not take names this long. Use shorter names, or another file system",
  ENOTDIR: "a file stands where a directory is needed: one key must not be the beginning of another up to a slash",
  EISDIR: "a directory stands where a file is needed: one key must not be the beginning of another up to a slash",
  EEXIST: "something stands in its place: one key must not be the beginning of another up to a slash",
  ENOTEMPTY: "a directory stands where a file is needed: one key must not be the beginning of another up to a slash",
  ENOENT: "a file or directory of the store is missing. Do not change the store's directory while the server runs",
};

/** Codes that say that there is no room. */
const FULL: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

/** The system's error code, like `ENOENT`; undefined for errors that do not come from the system. */
export function systemErrorCode(error: unknown): string | undefined {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  return typeof code === "string" && typeof syscall === "string" ? code : undefined;
}

/**
 * Whether the error says that there is no such file; a path that leads through a file instead of a directory counts
 * too.
 */
export function isMissing(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

/**
 * Runs a step on the disk and turns errors of the system into a {@link BlobStoreError} that says what to do; other
 * errors pass unchanged.
 *
 * @param doing completes the sentence "Cannot ...".
 */
export async function onDisk<T>(doing: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw explained(doing, error);
  }
}

/** {@link onDisk} for the steps of an iteration. */
export async function* eachOnDisk<T>(doing: string, items: AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
  try {
    yield* items;
  } catch (error) {
    throw explained(doing, error);
  }
}

function explained(doing: string, error: unknown): unknown {
  const code = systemErrorCode(error);
  if (code === undefined) return error;
  const advice = ADVICE[code] ?? `the system says ${(error as Error).message}`;
  const message = `Cannot ${doing}: ${advice}; then the call can be repeated (${code}).`;
  return FULL.has(code)
    ? new BlobStoreFullError(message, { cause: error })
    : new BlobStoreError(message, { cause: error });
}

/** Runs a step on the disk; when it fails because there is no such file, gives undefined. */
export async function unlessMissing<T>(step: () => Promise<T>): Promise<T | undefined> {
  try {
    return await step();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Whether there is something at a path. */
export async function exists(path: string): Promise<boolean> {
  return (
    (await unlessMissing(async () => {
      await access(path);
      return true;
    })) ?? false
  );
}

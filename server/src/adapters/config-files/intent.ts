import { createHash, randomBytes } from "node:crypto";
import { open, readdir, readFile, realpath, rename, rm, unlink } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";

/** Begins with a dot, as temporary files do, so that no reader takes it for a part of the configuration. */
const INTENT = /^\.strongroom-[0-9a-f]{16}\.intent$/;
/** The name of a file that is moved into place when it is ready. */
export const TEMPORARY = /^\.strongroom-[0-9a-f]{16}\.tmp$/;

/** One file of a change. */
export interface IntendedFile {
  /** Below the directory. */
  readonly file: string;
  /** The name of the temporary file beside it; null for one that is to be removed. */
  readonly temporary: string | null;
  /** {@link digestOf} what it holds before. */
  readonly before: string | null;
}

/** SHA-256 of what a file holds, in hexadecimal; null for no file. */
export function digestOf(content: string | Uint8Array | undefined): string | null {
  return content === undefined ? null : createHash("sha256").update(content).digest("hex");
}

/**
 * Writes down that several files are about to be changed, all of them or none, before the first is moved: whoever opens
 * the directory after a death in between makes the rest so ({@link finishIntents}).
 * @returns takes it away again, when every file is in place.
 */
export async function writeIntent(root: string, files: readonly IntendedFile[]): Promise<() => Promise<void>> {
  const path = join(root, `.strongroom-${randomBytes(8).toString("hex")}.intent`);
  await using file = await open(path, "wx", 0o600);
  await file.writeFile(JSON.stringify(files));
  await file.sync();
  await syncFolder(root);
  return async () => await rm(path, { force: true });
}

/**
 * Finishes changes of several files that a death or a failure left half done. Safe while another server does the same,
 * or is still making the change. A file that somebody has changed meanwhile is left as it is.
 * @returns how many changes were finished.
 */
export async function finishIntents(dir: string): Promise<number> {
  const root = await realpath(dir);
  const names = (await readdir(root)).filter((name) => INTENT.test(name)).sort();
  for (const name of names) {
    const text = await ifThere(readFile(join(root, name), "utf8"));
    if (text === undefined) continue;
    for (const intended of readIntent(text)) await finish(root, intended);
    await rm(join(root, name), { force: true });
  }
  return names.length;
}

/** What an intent says; nothing for one whose writing was cut off: then no file was moved yet. */
function readIntent(text: string): readonly IntendedFile[] {
  let files: readonly IntendedFile[];
  try {
    files = JSON.parse(text) as readonly IntendedFile[];
  } catch {
    return [];
  }
  const isBelow = (file: string) => normalize(file) === file && !file.startsWith("..") && !file.startsWith("/");
  return files.filter(({ file, temporary }) => isBelow(file) && (temporary === null || TEMPORARY.test(temporary)));
}

async function finish(root: string, { file, temporary, before }: IntendedFile): Promise<void> {
  const path = join(root, file);
  const ready = temporary === null ? undefined : join(dirname(path), temporary);
  const isUntouched = digestOf(await ifThere(readFile(path))) === before;
  // Moved already, by whom it was written or by another that finishes it: then there is nothing to move.
  if (isUntouched) await ifThere(ready === undefined ? unlink(path) : rename(ready, path));
  else if (ready !== undefined) await rm(ready, { force: true });
  await ifThere(syncFolder(dirname(path)));
}

/** Makes changes of a folder's names durable. */
export async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

async function ifThere<T>(what: Promise<T>): Promise<T | undefined> {
  return await what.catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}

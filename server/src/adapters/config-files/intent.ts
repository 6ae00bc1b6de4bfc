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
  // Whole when it gets its name: another server takes one that is cut off for one of which nothing was moved.
  const unfinished = path.replace(/intent$/, "tmp");
  await using file = await open(unfinished, "wx", 0o600);
  await file.writeFile(JSON.stringify(files));
  await file.sync();
  await rename(unfinished, path);
  await syncFolder(root);
  return async () => await removeIntent(root, path);
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
    await removeIntent(root, join(root, name));
  }
  return names.length;
}

/** Durable, so that no power cut brings back what says that a file is to be removed. */
async function removeIntent(root: string, path: string): Promise<void> {
  await rm(path, { force: true });
  await syncFolder(root);
}

/** What an intent says; nothing for a file that no server wrote. */
function readIntent(text: string): readonly IntendedFile[] {
  let files: unknown;
  try {
    files = JSON.parse(text);
  } catch {
    return [];
  }
  return Array.isArray(files) ? files.filter(isIntended) : [];
}

function isIntended(value: unknown): value is IntendedFile {
  const { file, temporary, before } = (value ?? {}) as Partial<Record<keyof IntendedFile, unknown>>;
  if (typeof file !== "string" || normalize(file) !== file || file.startsWith("..") || file.startsWith("/"))
    return false;
  if (before !== null && typeof before !== "string") return false;
  return temporary === null || (typeof temporary === "string" && TEMPORARY.test(temporary));
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

/** Undefined where the file is missing. */
export async function ifThere<T>(what: Promise<T>): Promise<T | undefined> {
  return await what.catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}

import { randomBytes } from "node:crypto";
import { link, open, readdir, readFile, realpath, rename, rm, stat, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { makeFolder } from "@strongroom/protocol/make-folder";
import { SourceChangedError } from "../../app/ports/config-objects.ts";
import type { PlannedFile } from "../../objects/plan-change.ts";
import { digestOf, finishIntents, type IntendedFile, ifThere, syncFolder, TEMPORARY, writeIntent } from "./intent.ts";

/** Hashes of passwords are for the server alone. */
const SECRET_MODE = 0o600;
const FILE_MODE = 0o644;
const FOLDER_MODE = 0o700;
/** A temporary file that is older was left by a server that ended. Milliseconds. */
const LEFT_BEHIND_MS = 3_600_000;

/** A file whose new content is ready beside it. */
interface Ready {
  readonly planned: PlannedFile;
  readonly path: string;
  /** Undefined for one that is to be removed. */
  readonly temporary: string | undefined;
}

/**
 * Writes files of a configuration directory: each one to a temporary file beside it, synced, and moved into place,
 * and the folder synced. Whatever happens, every file is the old or the new one. All of them are written before the
 * first is moved, and where they are several, what is about to be done is written down: what a death or a failure
 * leaves half done is finished by the next change, or when the directory is opened.
 * @param dir the configuration directory.
 * @param onMoved called after each file was moved; for tests.
 * @throws {SourceChangedError} when a file is not what it was planned with; then nothing was changed
 */
export async function writeFiles(
  dir: string,
  files: readonly PlannedFile[],
  onMoved: () => void = () => {},
): Promise<void> {
  const root = await realpath(dir);
  await finishIntents(root);
  const ready: Ready[] = [];
  let moved = 0;
  let isOver: (() => Promise<void>) | undefined;
  try {
    for (const planned of files) ready.push(await prepared(root, planned));
    const intended: IntendedFile[] = [];
    for (const each of ready) intended.push(intendedOf(each, await requireUnchanged(each)));
    if (intended.length > 1) isOver = await writeIntent(root, intended);
    for (const each of ready) {
      await putInPlace(each).catch(async (error: unknown) => {
        // Another server has opened the directory, and moved it.
        if (!(await isInPlace(each))) throw error;
      });
      await syncFolder(dirname(each.path));
      moved++;
      onMoved();
    }
    await isOver?.();
  } catch (error) {
    // Once one was moved, the others follow: what is ready for them stays.
    if (moved === 0 || isOver === undefined) {
      await isOver?.();
      for (const { temporary } of ready) if (temporary !== undefined) await rm(temporary, { force: true });
    }
    throw error;
  }
}

async function isInPlace({ planned, path }: Ready): Promise<boolean> {
  return digestOf(await ifThere(readFile(path))) === digestOf(planned.text);
}

function intendedOf({ planned: { file }, temporary }: Ready, now: Buffer | undefined): IntendedFile {
  return { file, temporary: temporary === undefined ? null : basename(temporary), before: digestOf(now) };
}

async function prepared(root: string, planned: PlannedFile): Promise<Ready> {
  const path = join(root, planned.file);
  if (planned.text === undefined) return { planned, path, temporary: undefined };
  const folder = dirname(path);
  const made = await makeFolder(folder, FOLDER_MODE);
  // Folders that are new are durable only when those above them are synced.
  for (let above = folder; made !== undefined && above.length >= made.length; above = dirname(above))
    await syncFolder(dirname(above));
  await removeLeftBehind(folder);
  const now = await stat(path).catch(() => undefined);
  const temporary = join(folder, `.strongroom-${randomBytes(8).toString("hex")}.tmp`);
  const mode = planned.isSecret && now === undefined ? SECRET_MODE : (now?.mode ?? FILE_MODE) & 0o777;
  await using file = await open(temporary, "wx", SECRET_MODE);
  try {
    await file.writeFile(planned.text);
    await file.chmod(mode);
    // Somebody else's file stays theirs, where this server may do that at all.
    if (now !== undefined) await file.chown(now.uid, now.gid).catch(() => {});
    await file.sync();
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  return { planned, path, temporary };
}

/** @returns what the file holds now; undefined for none. */
async function requireUnchanged({ planned, path }: Ready): Promise<Buffer | undefined> {
  const now = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  const before = planned.before === undefined ? undefined : Buffer.from(planned.before);
  const isSame = now === undefined || before === undefined ? now === before : now.equals(before);
  // A file may begin with a mark of its byte order, which reading takes away.
  const isMarked = now !== undefined && before?.equals(now.subarray(3)) === true && now[0] === 0xef;
  if (!isSame && !isMarked) throw new SourceChangedError(planned.file);
  return now;
}

async function putInPlace({ planned, path, temporary }: Ready): Promise<void> {
  if (temporary === undefined) await unlink(path);
  else if (planned.before === undefined) await moveToNew(temporary, path, planned.file);
  else await rename(temporary, path);
}

/** Moves a file to where there must be none; one that appeared meanwhile is not replaced. */
async function moveToNew(temporary: string, path: string, file: string): Promise<void> {
  try {
    await link(temporary, path);
    await unlink(temporary);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") throw new SourceChangedError(file);
    // Some file systems know no second name of a file.
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "EOPNOTSUPP" && code !== "ENOSYS") throw error;
    await rename(temporary, path);
  }
}

async function removeLeftBehind(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!TEMPORARY.test(basename(name))) continue;
    const path = join(folder, name);
    const info = await stat(path).catch(() => undefined);
    if (info !== undefined && Date.now() - info.mtimeMs > LEFT_BEHIND_MS) await rm(path, { force: true });
  }
}

import { mkdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/**
 * Makes a folder and those above it where they are missing. Node's own recursive `mkdir` tries for ever where the system
 * says that a folder is missing which is there, as below `/proc`.
 * @param mode of the folders that are made; less what the process's mask takes away.
 * @returns the first that was made; undefined where all were there.
 * @throws the error of the system: `ENOENT` where nothing can be made, `ENOTDIR` or `EEXIST` where a file is in the way.
 */
export async function makeFolder(path: string, mode = 0o777): Promise<string | undefined> {
  const folder = resolve(path);
  try {
    await mkdir(folder, { mode });
    return folder;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const found = await stat(folder).catch(() => undefined);
    if (found?.isDirectory() === true) return undefined;
    if (code !== "ENOENT" || dirname(folder) === folder) throw error;
    if ((await stat(dirname(folder)).catch(() => undefined))?.isDirectory() === true) throw error;
  }
  const first = await makeFolder(dirname(folder), mode);
  await mkdir(folder, { mode }).catch((error: NodeJS.ErrnoException) => {
    // Somebody else was faster.
    if (error.code !== "EEXIST") throw error;
  });
  return first ?? folder;
}

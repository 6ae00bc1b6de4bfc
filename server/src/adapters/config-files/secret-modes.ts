import { realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ConfigProblem } from "../../objects/problem.ts";

/**
 * Warns of files with Secrets that every user of the machine can read: by their own mode, and no folder above keeps
 * them out. A mount of a container is such a place too, so this is for whoever asks, not for every reading.
 * @param dir the configuration directory.
 * @param files with Secrets, relative to it.
 */
export async function readableSecrets(dir: string, files: readonly string[]): Promise<ConfigProblem[]> {
  const found: ConfigProblem[] = [];
  for (const file of new Set(files)) {
    const path = await realpath(join(dir, file)).catch(() => undefined);
    if (path === undefined || !(await isOpenToAll(path))) continue;
    const mode = ((await stat(path)).mode & 0o777).toString(8).padStart(4, "0");
    const reason = `expected a file with a Secret to be closed to other users, got mode ${mode}; chmod o= it`;
    found.push({ file, line: 1, path: "", reason, severity: "warning" });
  }
  return found;
}

async function isOpenToAll(path: string): Promise<boolean> {
  if (((await stat(path)).mode & 0o004) === 0) return false;
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    if (((await stat(folder)).mode & 0o001) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}

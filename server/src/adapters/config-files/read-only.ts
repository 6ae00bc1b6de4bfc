import { access, constants, lstat, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { PlannedFile } from "../../objects/plan-change.ts";

/**
 * Why a directory is not to be written, at least not these files; undefined where it may be. A mounted ConfigMap is
 * links into `..data`, a checkout has `.git` at its top: what is written there is lost or in the way with the
 * next update.
 * @param dir the configuration directory.
 */
export async function whyReadOnly(
  dir: string,
  files: readonly Pick<PlannedFile, "file">[],
): Promise<string | undefined> {
  const root = await realpath(dir);
  for (let folder = root; ; folder = dirname(folder)) {
    if (await exists(join(folder, ".git"))) return `it is ${folder === root ? "" : "in "}a Git checkout`;
    if (folder === dirname(folder)) break;
  }
  for (const { file } of files) {
    let path = root;
    for (const name of file.split("/")) {
      if (await exists(join(path, "..data"))) return "it is a mounted ConfigMap or Secret";
      path = join(path, name);
      const info = await lstat(path).catch(() => undefined);
      if (info?.isSymbolicLink() === true) return `${file} is reached by a symbolic link`;
      if (info === undefined) break;
    }
    const folder = await nearestFolder(join(root, dirname(file)));
    const error = await access(folder, constants.W_OK).then(
      () => undefined,
      (reason: NodeJS.ErrnoException) => reason.code,
    );
    if (error === "EROFS") return "it is on a read-only file system";
    if (error !== undefined) return `the server's user may not write to its folder (${error})`;
  }
  return undefined;
}

async function nearestFolder(path: string): Promise<string> {
  return (await exists(path)) || path === dirname(path) ? path : await nearestFolder(dirname(path));
}

async function exists(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    () => false,
  );
}

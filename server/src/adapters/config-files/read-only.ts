import { execFile } from "node:child_process";
import { access, constants, lstat, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { PlannedFile } from "../../objects/plan-change.ts";

/** Git answers at once; on a network file system that hangs, the folder counts as not ignored. */
const GIT_TIMEOUT_MS = 10_000;
/** More than this in bytes is a list of tracked files, which is all that is asked. */
const MAX_GIT_OUTPUT = 64 * 1024;

/**
 * Why a directory is not to be written, at least not these files; undefined where it may be. A mounted ConfigMap is
 * links into `..data`, a checkout has `.git` at its top: what is written there is lost or in the way with the
 * next update. A folder that the checkout ignores has nothing to commit, and is written to.
 * @param dir the configuration directory.
 */
export async function whyReadOnly(
  dir: string,
  files: readonly Pick<PlannedFile, "file">[],
): Promise<string | undefined> {
  const root = await realpath(dir);
  for (let folder = root; ; folder = dirname(folder)) {
    if (await exists(join(folder, ".git"))) {
      if (await isIgnored(root, folder)) break;
      return `it is ${folder === root ? "" : "in "}a Git checkout`;
    }
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

/**
 * Whether the checkout ignores this folder, and tracks nothing in it all the same. Without git, and where git refuses
 * the checkout as another user's, it counts as not ignored.
 */
async function isIgnored(folder: string, top: string): Promise<boolean> {
  const [ignored, tracked] = await Promise.all([
    git(["check-ignore", "--quiet", "."], folder, top),
    git(["ls-files", "-z", "."], folder, top),
  ]);
  return ignored !== undefined && tracked === "";
}

/** @returns what git printed; undefined where it did not end with 0. */
async function git(args: readonly string[], folder: string, top: string): Promise<string | undefined> {
  // What is set for another repository is not about this one, and no checkout above the nearest is asked.
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith("GIT_"));
  const env = { ...Object.fromEntries(others), GIT_CEILING_DIRECTORIES: dirname(top), GIT_OPTIONAL_LOCKS: "0" };
  return await new Promise((resolve) => {
    // A checkout may name a program here, which is not to be started by this server.
    const all = ["-c", "core.fsmonitor=false", ...args];
    execFile("git", all, { cwd: folder, env, timeout: GIT_TIMEOUT_MS, maxBuffer: MAX_GIT_OUTPUT }, (error, stdout) =>
      resolve(error === null ? stdout : undefined),
    );
  });
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

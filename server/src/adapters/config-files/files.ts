import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import type { ConfigFile } from "../../objects/document.ts";
import type { Findings } from "../../objects/problem.ts";

/** What a walk through a configuration directory found. */
export interface ConfigDirectory {
  /** In a stable order. */
  readonly files: readonly ConfigFile[];
  /** Every directory that was read, without links in its path. */
  readonly directories: readonly string[];
}

/** Greatest size of a file in bytes; a Kubernetes object has the same bound. */
export const MAX_FILE_SIZE = 1024 * 1024;
/** Most files of one directory; a bound against a wrong directory such as `/`, not against use. */
export const MAX_FILES = 10_000;
/** Greatest size of all files together; what the parser makes of them is about 30 times as large. */
export const MAX_TOTAL_SIZE = 16 * 1024 * 1024;
const MAX_DEPTH = 16;
const CONFIG_FILE = /\.(?:ya?ml|json)$/i;

function why(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ENOENT") return "it does not exist (a link to nothing, or removed meanwhile)";
  if (code === "EACCES" || code === "EPERM") return "the server's user may not read it";
  if (code === "ELOOP") return "its symbolic links go round in a circle";
  return code ?? "unknown error";
}

function kindOf(path: string): "a directory" | "a file" | "nothing there" {
  try {
    return statSync(path).isDirectory() ? "a directory" : "a file";
  } catch {
    return "nothing there";
  }
}

/**
 * Reads all `.yaml`, `.yml` and `.json` files below a directory, in a stable order. What begins with a dot is skipped.
 *
 * Symbolic links are followed, because Kubernetes mounts a ConfigMap as links into a hidden `..data` directory; a
 * directory or file that is reached a second time by another way is not read again, so that links can neither go in
 * circles nor double a document.
 *
 * Synchronous, so that no step waits for a turn in the pool of threads that hashes of passwords and the store keep
 * busy. While a server runs, its {@link ConfigThread} reads, which has nothing else to do.
 */
export function readConfigFiles(dir: string, findings: Findings): ConfigDirectory {
  const files: ConfigFile[] = [];
  const directories: string[] = [];
  const seen = new Set<string>();
  let full = false;
  let total = 0;

  const fail = (file: string, reason: string) => findings.error({ file: file || ".", line: 1, path: "" }, reason);

  function readOne(file: string, size: number): void {
    if (size > MAX_FILE_SIZE) {
      fail(file, `expected at most 1 MiB, got ${size} bytes; split the file`);
      return;
    }
    if (files.length >= MAX_FILES) {
      if (!full) fail(file, `expected at most ${MAX_FILES} files, this one and others are too many; is ${dir} right?`);
      full = true;
      return;
    }
    if (total + size > MAX_TOTAL_SIZE) {
      fail(file, `expected at most 16 MiB of files, this one and others are too much; is ${dir} right?`);
      full = true;
      return;
    }
    const bytes = readFileSync(join(dir, file));
    total += bytes.length;
    try {
      files.push({ file, text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) });
    } catch {
      fail(file, "expected UTF-8 text, got other bytes; save the file as UTF-8");
    }
  }

  function visit(path: string, depth: number): void {
    if (full) return;
    try {
      const info = statSync(join(dir, path));
      // Only regular files: opening a named pipe would wait forever.
      const wanted = info.isDirectory() || (info.isFile() && CONFIG_FILE.test(path));
      if (!wanted) return;
      const real = realpathSync(join(dir, path));
      if (seen.has(real)) return;
      seen.add(real);
      if (info.isFile()) {
        readOne(path, info.size);
      } else if (depth > MAX_DEPTH) {
        fail(path, `expected directories at most ${MAX_DEPTH} deep; is ${dir} right?`);
      } else {
        directories.push(real);
        const names = readdirSync(join(dir, path))
          .filter((name) => !name.startsWith("."))
          .sort();
        for (const name of names) visit(path === "" ? name : `${path}/${name}`, depth + 1);
      }
    } catch (error) {
      fail(path, `cannot be read: ${why(error)}`);
    }
  }

  const root = kindOf(dir);
  if (root !== "a directory") {
    fail("", `expected a directory at ${dir}, got ${root}; \`strongroom init\` makes one`);
    return { files, directories };
  }
  visit("", 0);
  return { files, directories };
}

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";

/** What a directory holds: for each path its kind and content. */
export interface Tree {
  /** By relative path: `directory`, `link -> target`, or size and SHA-256 of a file. */
  readonly entries: ReadonlyMap<string, string>;
  readonly files: number;
  /** Bytes. */
  readonly bytes: number;
}

/** Reads a directory whole, every byte of every file. */
export async function readTree(root: string, names: readonly string[]): Promise<Tree> {
  const entries = new Map<string, string>();
  let files = 0;
  let bytes = 0;
  const visit = async (path: string): Promise<void> => {
    const full = join(root, path);
    const stat = await lstat(full);
    if (stat.isDirectory()) {
      entries.set(path, "directory");
      for (const name of (await readdir(full)).sort()) await visit(join(path, name));
    } else if (stat.isSymbolicLink()) {
      entries.set(path, `link -> ${await readlink(full)}`);
    } else {
      const hash = createHash("sha256");
      await pipeline(createReadStream(full), hash);
      entries.set(path, `${stat.size} bytes, sha256 ${hash.digest("hex")}`);
      files++;
      bytes += stat.size;
    }
  };
  for (const name of names) await visit(name);
  return { entries, files, bytes };
}

/** Paths at which two trees differ. */
export function differences(a: Tree, b: Tree): string[] {
  const paths = new Set([...a.entries.keys(), ...b.entries.keys()]);
  return [...paths].filter((path) => a.entries.get(path) !== b.entries.get(path));
}

import { readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import type { ExecutionContext } from "ava";
import { DirectoryBlobStore } from "../../src/adapters/filesystem/directory-blob-store.ts";

/** A store that is closed at the end of the test. */
export async function openDirectory(t: ExecutionContext, root: string): Promise<DirectoryBlobStore> {
  const store = await DirectoryBlobStore.open(root);
  t.teardown(() => store.close());
  return store;
}

/** Every file and every empty directory below a store's directory, but for the lock. */
export async function filesBelow(root: string): Promise<string[]> {
  const found: string[] = [];
  const walk = async (directory: string): Promise<void> => {
    const entries = await readdir(directory, { withFileTypes: true });
    if (entries.length === 0) found.push(`${relative(root, directory)}/`);
    for (const entry of entries) {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) await walk(path);
      else if (entry.name !== ".lock") found.push(relative(root, path));
    }
  };
  await walk(root);
  return found.sort();
}

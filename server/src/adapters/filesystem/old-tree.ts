import { link, readdir, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BlobNotFoundError, BlobStoreError, type ForeignBlob } from "../../app/ports/blob-store.ts";
import { isMissing, systemErrorCode, unlessMissing } from "./disk-error.ts";
import { pruneUpTo, syncUpTo } from "./durable-files.ts";

/** Names at the root that are the store's own, or the file system's. */
const NOT_OLD: ReadonlySet<string> = new Set(["objects", "meta", "pending", ".lock", "lost+found"]);

/** What the Go CDK keeps beside each object: its content type and digest, in JSON. */
const SIDECAR = ".attrs";

/**
 * The objects of Backup Repository in the directory of a store: `<root>/<key>`, as `fileblob` of the Go CDK keeps them,
 * each with a file `<key>.attrs` beside it (https://pkg.go.dev/gocloud.dev/blob/fileblob). Adopting one gives it a second
 * name below `objects/`, by a hard link: nothing is copied, and neither program can take the bytes from the other.
 */
export class OldTree {
  readonly #root: string;
  readonly #objects: string;

  constructor(root: string, objects: string) {
    this.#root = root;
    this.#objects = objects;
  }

  /** Every object, by key; one directory at a time. */
  async *list(parent = ""): AsyncGenerator<ForeignBlob> {
    const entries = (await unlessMissing(() => readdir(join(this.#root, parent), { withFileTypes: true }))) ?? [];
    const files = new Set(entries.map(({ name }) => name));
    const names = entries
      .filter(({ name }) => !(parent === "" && NOT_OLD.has(name)))
      // A sidecar is one only beside its object.
      .filter(({ name }) => !(name.endsWith(SIDECAR) && files.has(name.slice(0, -SIDECAR.length))))
      .map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
      .sort();
    for (const name of names) {
      const key = `${parent}${name}`;
      if (name.endsWith("/")) {
        yield* this.list(key);
        continue;
      }
      const found = await unlessMissing(() => stat(join(this.#root, key), { bigint: true }));
      if (found?.isFile() === true) yield { key, size: found.size, modifiedAt: new Date(Number(found.mtimeMs)) };
    }
  }

  /**
   * Gives an object another name, which must be free, unless its name below `objects/` is one of it already. Returns
   * whether it did.
   */
  async link(key: string, name: string): Promise<boolean> {
    const path = join(this.#root, key);
    const old = await unlessMissing(() => stat(path, { bigint: true }));
    if (old?.isFile() !== true) throw new BlobNotFoundError(`There is no object ${key}.`);
    if ((await this.#adopted(key))?.ino === old.ino) return false;
    try {
      await link(path, name);
      return true;
    } catch (error) {
      const code = systemErrorCode(error);
      if (code !== "EPERM" && code !== "ENOTSUP" && code !== "EOPNOTSUPP" && code !== "EMLINK") throw error;
      throw new BlobStoreError(
        `Cannot adopt ${key}: it cannot get a second name (${code}). Give the directory and everything in it to the user ` +
          "that the server runs as; if it is theirs, the file system has no hard links: copy the directory to one that has.",
        { cause: error },
      );
    }
  }

  /** Removes the old name of an adopted object, and what lies beside it. An object that is not adopted stays. */
  async remove(key: string): Promise<void> {
    const path = join(this.#root, key);
    const old = await unlessMissing(() => stat(path, { bigint: true }));
    if (old !== undefined && old.ino !== (await this.#adopted(key))?.ino) return;
    for (const name of [path, `${path}${SIDECAR}`]) {
      try {
        await unlink(name);
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    }
    await syncUpTo(this.#root, dirname(path));
    await pruneUpTo(this.#root, dirname(path));
  }

  async #adopted(key: string) {
    return await unlessMissing(() => stat(join(this.#objects, key), { bigint: true }));
  }
}

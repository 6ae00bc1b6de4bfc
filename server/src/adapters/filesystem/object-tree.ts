import { type FileHandle, open, readdir, readFile, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { BlobStat, ListedBlob } from "../../app/ports/blob-store.ts";
import { BlobStoreError } from "../../app/ports/blob-store.ts";
import { unlessMissing } from "./disk-error.ts";
import { createDurably, moveDurably, pruneUpTo, syncUpTo } from "./durable-files.ts";

/**
 * Kept beside an object that was made of parts, so that completing it again can be distinguished from another upload's
 * attempt.
 */
export interface ObjectOrigin {
  readonly uploadId: string;
  /** The token it was made under. */
  readonly token: string;
}

/**
 * The finished objects: `objects/<key>` holds the bytes, `meta/<key>` the {@link ObjectOrigin} of those made of parts,
 * as JSON.
 *
 * An origin is durable before its object appears and goes after it. So an object with an origin was made of parts, one
 * without was put, and an origin without an object is what a crash left; it means nothing.
 *
 * Changes to one key must not overlap; the store's lock by key sees to that.
 */
export class ObjectTree {
  readonly #objects: string;
  readonly #meta: string;

  /** @param objects, meta directories that must exist. */
  constructor(objects: string, meta: string) {
    this.#objects = objects;
    this.#meta = meta;
  }

  /** Describes an object; undefined when there is none. */
  async stat(key: string): Promise<BlobStat | undefined> {
    const size = await fileSize(join(this.#objects, key));
    if (size === undefined) return undefined;
    const origin = await this.origin(key);
    if (origin !== undefined) return { key, size, uploadId: origin.uploadId };
    // No origin: either it was put, or a deletion took both files after the first look.
    const sizeNow = await fileSize(join(this.#objects, key));
    return sizeNow === undefined ? undefined : { key, size: sizeNow, uploadId: undefined };
  }

  /** The upload of an object that was made of parts; undefined when it was put, or is missing and left no trace. */
  async origin(key: string): Promise<ObjectOrigin | undefined> {
    const path = join(this.#meta, key);
    const text = await unlessMissing(() => readFile(path, "utf8"));
    if (text === undefined) return undefined;
    try {
      const { uploadId, token } = JSON.parse(text) as Partial<ObjectOrigin>;
      if (typeof uploadId === "string" && typeof token === "string") return { uploadId, token };
    } catch {}
    throw new BlobStoreError(
      `${path} is damaged: expected the upload id and the token in JSON. Check the disk; the object itself may ` +
        "be whole.",
    );
  }

  /** Opens an object for reading; undefined when there is none. The caller closes it. */
  async open(key: string): Promise<{ file: FileHandle; size: bigint } | undefined> {
    const file = await unlessMissing(() => open(join(this.#objects, key), "r"));
    if (file === undefined) return undefined;
    try {
      const status = await file.stat({ bigint: true });
      if (status.isFile()) return { file, size: status.size };
    } catch (error) {
      await file.close();
      throw error;
    }
    // A directory: the key is only the beginning of others.
    await file.close();
    return undefined;
  }

  /** Says where the object that is about to be placed comes from. @param temporary a path on the same file system. */
  async placeOrigin(key: string, origin: ObjectOrigin, temporary: string): Promise<void> {
    await createDurably(temporary, Buffer.from(JSON.stringify(origin)));
    await moveDurably(this.#meta, temporary, join(this.#meta, key));
  }

  /** Removes an origin if there is one. */
  async removeOrigin(key: string): Promise<void> {
    await removeDurably(this.#meta, join(this.#meta, key));
  }

  /** Moves a durable file into place, over an earlier object if there is one. */
  async place(key: string, source: string): Promise<void> {
    await moveDurably(this.#objects, source, join(this.#objects, key));
  }

  /** Makes durable that an object is in place: whoever placed it may have died before that. */
  async syncPlace(key: string): Promise<void> {
    await syncUpTo(this.#objects, dirname(join(this.#objects, key)));
  }

  /** Removes an object and its origin, if they are there, and the directories that this or a crash left empty. */
  async remove(key: string): Promise<void> {
    await removeDurably(this.#objects, join(this.#objects, key));
    await this.removeOrigin(key);
  }

  /** Every object whose key begins with the prefix, by key; reads one directory at a time. */
  async *list(prefix: string): AsyncGenerator<ListedBlob> {
    const slash = prefix.lastIndexOf("/");
    yield* this.#walk(prefix.slice(0, slash + 1), prefix.slice(slash + 1));
  }

  /** @param parent empty, or a key's beginning that ends in a slash. */
  async *#walk(parent: string, namePrefix: string): AsyncGenerator<ListedBlob> {
    // A directory that is missing was pruned meanwhile, or never was.
    const entries = await unlessMissing(() => readdir(join(this.#objects, parent), { withFileTypes: true }));
    // Keys are compared with their slashes: "a-b" comes before "a/b", though "a" comes before "a-b".
    const names = (entries ?? [])
      .filter(({ name }) => name.startsWith(namePrefix))
      .map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
      .sort();
    for (const name of names) {
      const key = `${parent}${name}`;
      if (name.endsWith("/")) {
        yield* this.#walk(key, "");
      } else {
        // Undefined when it was deleted meanwhile.
        const size = await fileSize(join(this.#objects, key));
        if (size !== undefined) yield { key, size };
      }
    }
  }
}

/** In bytes; undefined when there is no such file. A directory is none: its path is only the beginning of keys. */
async function fileSize(path: string): Promise<bigint | undefined> {
  const status = await unlessMissing(() => stat(path, { bigint: true }));
  return status?.isFile() ? status.size : undefined;
}

async function removeDurably(base: string, path: string): Promise<void> {
  if ((await fileSize(path)) !== undefined) await unlink(path);
  await syncUpTo(base, dirname(path));
  await pruneUpTo(base, dirname(path));
}

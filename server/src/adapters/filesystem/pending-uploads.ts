import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { BlobPart, PendingBlob } from "../../app/ports/blob-store.ts";
import { BlobNotFoundError, BlobStoreError } from "../../app/ports/blob-store.ts";
import { exists, systemErrorCode, unlessMissing } from "./disk-error.ts";
import { createDurably, DIRECTORY_MODE, FILE_MODE, syncDirectory } from "./durable-files.ts";

/** What is known of an unfinished object beside its parts. */
export interface PendingInfo {
  readonly key: string;
  readonly uploadId: string;
}

/** A part that is stored, and where it begins in the data file, in bytes. */
export interface PlacedPart extends BlobPart {
  readonly offset: bigint;
}

/** 128 random bits, so that a token is never given twice and names nothing but a directory here. */
const TOKEN = /^[0-9a-f]{32}$/;
const TEMPORARY = /^tmp-[0-9a-f]{32}$/;
const MARKER = /^part-(\d+)-(\d+)-(\d+)-([0-9a-f]{64})$/;

/**
 * The unfinished objects below `pending/`, each a directory named by its token:
 *
 * - `upload.json`: key and upload id, written once;
 * - `data`: the object in the making, every part at its offset; it moves away when the object is published;
 * - `part-<index>-<offset>-<size>-<sha256>`: an empty file for every part whose bytes are durable in `data`.
 *
 * Directories come and go by one rename, so none is ever seen half made or half removed. `tmp-*` is what a crash may
 * leave behind.
 */
export class PendingUploads {
  readonly #root: string;

  /** @param root the directory `pending`, which must exist. */
  constructor(root: string) {
    this.#root = root;
  }

  /**
   * Removes what a crash left half made or half removed. Only for the one holder of the store's lock, before anything
   * else.
   */
  async clean(): Promise<void> {
    for (const name of await readdir(this.#root)) {
      if (TEMPORARY.test(name)) await rm(join(this.#root, name), { recursive: true, force: true });
    }
  }

  /**
   * Runs an operation with a path for something that it makes and then renames into place. What is left there when it
   * fails is removed, or by {@link clean} after a crash.
   */
  async withTemporary<T>(operation: (path: string) => Promise<T>): Promise<T> {
    const path = join(this.#root, `tmp-${newToken()}`);
    try {
      return await operation(path);
    } catch (error) {
      // The first error counts; a full disk or a missing permission may well fail this too.
      await rm(path, { recursive: true, force: true }).catch(() => {});
      throw error;
    }
  }

  /** Where the bytes of an unfinished object are. */
  dataPath(token: string): string {
    return join(this.#directory(token), "data");
  }

  /** Makes an unfinished object without parts. @returns its token. */
  async create(info: PendingInfo): Promise<string> {
    const token = newToken();
    await this.withTemporary(async (making) => {
      await mkdir(making, { mode: DIRECTORY_MODE });
      await createDurably(join(making, "upload.json"), Buffer.from(JSON.stringify(info)));
      await createDurably(join(making, "data"), new Uint8Array());
      await syncDirectory(making);
      await rename(making, this.#directory(token));
    });
    await syncDirectory(this.#root);
    return token;
  }

  /** What is left of an unfinished object, also when its data has been published already. */
  async remains(token: string): Promise<PendingInfo | undefined> {
    if (!TOKEN.test(token)) return undefined;
    const path = join(this.#directory(token), "upload.json");
    const text = await unlessMissing(() => readFile(path, "utf8"));
    if (text === undefined) return undefined;
    try {
      const { key, uploadId } = JSON.parse(text) as Partial<PendingInfo>;
      if (typeof key === "string" && typeof uploadId === "string") return { key, uploadId };
    } catch {}
    throw new BlobStoreError(
      `${path} is damaged: expected the key and the upload id in JSON. Check the disk, then move its directory ` +
        "out of the store.",
    );
  }

  /** @throws BlobNotFoundError when there is no such unfinished object. */
  async find(blob: PendingBlob): Promise<PendingInfo> {
    const info = await this.remains(blob.token);
    if (info?.key === blob.key && (await this.hasData(blob.token))) return info;
    throw new BlobNotFoundError(`There is no unfinished object ${blob.key} with the token ${blob.token}.`);
  }

  /** False when the object has been published, and only the removal of what is left was cut short. */
  async hasData(token: string): Promise<boolean> {
    return await exists(this.dataPath(token));
  }

  /** Opens the data file, which must exist, for reading and writing. */
  async openData(token: string): Promise<FileHandle> {
    return await open(this.dataPath(token), "r+");
  }

  /** Whether exactly this part is durable. */
  async isMarked(token: string, part: PlacedPart): Promise<boolean> {
    return await exists(this.#markerPath(token, part));
  }

  /** Declares a part durable, whose bytes must be so. Repeating it succeeds. */
  async mark(token: string, part: PlacedPart): Promise<void> {
    try {
      const marker = await open(this.#markerPath(token, part), "wx", FILE_MODE);
      await marker.close();
    } catch (error) {
      if (systemErrorCode(error) !== "EEXIST") throw error;
    }
    // Also when the marker was there: the process that made it may have died before this.
    await syncDirectory(this.#directory(token));
  }

  /** The parts that are durable, by index. */
  async parts(token: string): Promise<Map<number, PlacedPart>> {
    const parts: PlacedPart[] = [];
    for (const name of await readdir(this.#directory(token))) {
      const part = parseMarker(name);
      if (part !== undefined) parts.push(part);
    }
    parts.sort((a, b) => a.index - b.index);
    const byIndex = new Map(parts.map((part) => [part.index, part]));
    if (byIndex.size === parts.length) return byIndex;
    // Only one of them can be what the data file holds.
    throw new BlobStoreError(
      `The unfinished object ${token} holds differing parts under one index, so its bytes cannot be trusted. ` +
        "Abort it and upload again.",
    );
  }

  /** Removes an unfinished object with everything in it, if it is there. */
  async remove(token: string): Promise<void> {
    await this.withTemporary(async (removing) => {
      await unlessMissing(() => rename(this.#directory(token), removing));
      await syncDirectory(this.#root);
      await rm(removing, { recursive: true, force: true });
    });
  }

  /** Makes durable that the data moved out of the directory. */
  async syncDeparture(token: string): Promise<void> {
    await syncDirectory(this.#directory(token));
  }

  /** The unfinished objects. */
  async *list(): AsyncGenerator<PendingBlob> {
    for (const token of await readdir(this.#root)) {
      const info = (await this.hasData(token)) ? await this.remains(token) : undefined;
      if (info !== undefined) yield { key: info.key, token };
    }
  }

  /**
   * The remains of objects that have been published; they are here only for the moment before their removal, or after a
   * crash in it.
   */
  async *listPublished(): AsyncGenerator<PendingBlob> {
    for (const token of await readdir(this.#root)) {
      const info = (await this.hasData(token)) ? undefined : await this.remains(token);
      if (info !== undefined) yield { key: info.key, token };
    }
  }

  #directory(token: string): string {
    return join(this.#root, token);
  }

  #markerPath(token: string, { index, offset, size, sha256 }: PlacedPart): string {
    return join(this.#directory(token), `part-${index}-${offset}-${size}-${Buffer.from(sha256).toString("hex")}`);
  }
}

function newToken(): string {
  return randomBytes(16).toString("hex");
}

function parseMarker(name: string): PlacedPart | undefined {
  const [, index, offset, size, sha256] = MARKER.exec(name) ?? [];
  if (index === undefined || offset === undefined || size === undefined || sha256 === undefined) return undefined;
  return { index: Number(index), offset: BigInt(offset), size: BigInt(size), sha256: Buffer.from(sha256, "hex") };
}

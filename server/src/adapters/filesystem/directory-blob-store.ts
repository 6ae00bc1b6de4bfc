import { realpath } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { makeFolder } from "@strongroom/protocol/make-folder";
import type {
  BlobPart,
  BlobStat,
  BlobStore,
  BlobStoreCapabilities,
  ForeignBlob,
  ListedBlob,
  PartPlacement,
  PendingBlob,
  StreamInput,
} from "../../app/ports/blob-store.ts";
import { BlobNotFoundError, BlobStoreError } from "../../app/ports/blob-store.ts";
import {
  assertAtMost,
  assertBlobKey,
  assertKeyPrefix,
  assertRange,
  assertReadableKey,
  contiguousSize,
  partOffset,
} from "../blob-store/blob-checks.ts";
import type { PartLister } from "../blob-store/part-lister.ts";
import { storeStream } from "../blob-store/store-stream.ts";
import { acquireFileLock, type FileLock } from "../file-lock/file-lock.ts";
import { eachOnDisk, onDisk } from "./disk-error.ts";
import { createDurably, DIRECTORY_MODE, syncDirectory, syncUpTo } from "./durable-files.ts";
import { KeyedLock } from "./keyed-lock.ts";
import { ObjectTree } from "./object-tree.ts";
import { OldTree } from "./old-tree.ts";
import { PartAttempts } from "./part-attempts.ts";
import { PendingUploads, type PlacedPart } from "./pending-uploads.ts";
import { publishObject } from "./publish-object.ts";
import { readFileRange } from "./read-file-range.ts";
import { writePartFile } from "./write-part-file.ts";

/**
 * A {@link BlobStore} in a local directory:
 *
 * - `objects/<key>`: the finished objects, plain files;
 * - `meta/<key>`: the upload of each finished object;
 * - `pending/<token>/`: unfinished objects, one data file each, see {@link PendingUploads};
 * - `<key>`: what Backup Repository stored in the same directory; an adopted object is one file with two names, the other
 *   of which is `objects/<key>`, see {@link OldTree};
 * - `.lock`: the lock that keeps a second server out, see {@link acquireFileLock}. Nothing in this process may open it.
 *
 * Everything that is acknowledged has been through fsync, file and directory. Publishing is one rename on one file
 * system, so all of it must be on one.
 */
export class DirectoryBlobStore implements BlobStore, PartLister {
  readonly capabilities: BlobStoreCapabilities = {
    name: "directory",
    verifiesPartDigests: false,
    minPartSize: 1n,
    maxParts: 1_000_000,
    // Every part is written to its place in the one file, checked or not.
    keepsRefusedBytes: true,
  };
  readonly #root: string;
  readonly #lock: FileLock;
  readonly #pending: PendingUploads;
  readonly #tree: ObjectTree;
  readonly #old: OldTree;
  readonly #attempts = new PartAttempts();
  readonly #keys = new KeyedLock();
  readonly #running = new Set<Promise<unknown>>();
  #closed = false;

  private constructor(root: string, lock: FileLock) {
    this.#root = root;
    this.#lock = lock;
    this.#pending = new PendingUploads(join(root, "pending"));
    this.#tree = new ObjectTree(join(root, "objects"), join(root, "meta"));
    this.#old = new OldTree(root, join(root, "objects"));
  }

  /**
   * Opens a store, creating its directory if it is missing, and removes what a crash left half made.
   * @throws FileLockedError when another server uses the directory.
   * @throws BlobStoreError when the directory cannot be used.
   */
  static async open(root: string): Promise<DirectoryBlobStore> {
    const opening = `open the store in ${root}`;
    const path = await onDisk(opening, async () => {
      const firstMade = await makeFolder(resolve(root), DIRECTORY_MODE);
      if (firstMade !== undefined) await syncUpTo(dirname(firstMade), resolve(root));
      return await realpath(root);
    });
    const lock = await acquireFileLock(join(path, ".lock"));
    try {
      const store = new DirectoryBlobStore(path, lock);
      await onDisk(opening, async () => {
        for (const name of ["objects", "meta", "pending"]) {
          await makeFolder(join(path, name), DIRECTORY_MODE);
        }
        await syncDirectory(path);
        await store.#recover();
      });
      return store;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  async begin(key: string, uploadId: string): Promise<string> {
    assertBlobKey(key);
    return await this.#run(`begin ${key}`, () => this.#pending.create({ key, uploadId }));
  }

  async writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    assertBlobKey(blob.key);
    const stored: PlacedPart = { ...part, offset: partOffset(part, placement, this.capabilities) };
    signal.throwIfAborted();
    await this.#track(async () => {
      const attempt = this.#attempts.start(blob.token, part.index);
      const onAbort = () => void attempt.stop(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        const doing = this.#doing(`store part ${part.index} of ${blob.key}`);
        await writePartFile({ pending: this.#pending, attempt, blob, part: stored, doing }, body);
      } finally {
        signal.removeEventListener("abort", onAbort);
        await this.#attempts.end(blob.token, part.index, attempt);
      }
    });
  }

  async listParts(blob: PendingBlob): Promise<BlobPart[]> {
    assertBlobKey(blob.key);
    return await this.#run(`list the parts of ${blob.key}`, async () => {
      await this.#pending.find(blob);
      const parts = await this.#pending.parts(blob.token);
      return [...parts.values()].map(({ index, size, sha256 }) => ({ index, size, sha256 }));
    });
  }

  async complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void> {
    const { key, token } = blob;
    assertBlobKey(key);
    const size = contiguousSize(key, parts);
    await this.#change(key, `complete ${key}`, async () => {
      const finished = await this.#tree.stat(key);
      if (finished === undefined) {
        await this.#pending.find(blob);
        await this.#attempts.withoutWriters(token, () =>
          publishObject({ pending: this.#pending, tree: this.#tree, blob, uploadId, parts, size }),
        );
        return;
      }
      if (finished.uploadId !== uploadId || finished.size !== size) {
        throw new BlobStoreError(`${key} exists already and belongs to another upload; it is not replaced.`);
      }
      // Published by an earlier call, which may have died before the last steps.
      await this.#tree.syncPlace(key);
      await this.#removePending(blob);
    });
  }

  putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint> {
    return storeStream(this, input, body);
  }

  async abort(blob: PendingBlob): Promise<void> {
    const { key } = blob;
    assertBlobKey(key);
    await this.#change(key, `abort ${key}`, async () => {
      // A `complete` that died may have left an origin and empty directories, without an object.
      if ((await this.#tree.stat(key)) === undefined) await this.#tree.remove(key);
      await this.#removePending(blob);
    });
  }

  async *listPending(): AsyncIterable<PendingBlob> {
    this.#assertOpen();
    yield* eachOnDisk(this.#doing("list the unfinished objects"), this.#pending.list());
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    assertBlobKey(key);
    await this.#change(key, `put ${key}`, async () => {
      const earlier = await this.#tree.stat(key);
      if (earlier?.uploadId !== undefined) {
        throw new BlobStoreError(`${key} exists already and belongs to an upload; it is not replaced.`);
      }
      // An origin that a crash left would make this object look like that upload's.
      if (earlier === undefined && (await this.#tree.origin(key)) !== undefined) await this.#tree.removeOrigin(key);
      await this.#pending.withTemporary(async (temporary) => {
        await createDurably(temporary, bytes);
        await this.#tree.place(key, temporary);
      });
    });
  }

  async get(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    assertReadableKey(key);
    return await this.#run(`read ${key}`, async () => {
      const found = await this.#tree.open(key);
      if (found === undefined) return undefined;
      try {
        assertAtMost(key, found.size, maxBytes);
        return await found.file.readFile();
      } finally {
        await found.file.close();
      }
    });
  }

  async stat(key: string): Promise<BlobStat | undefined> {
    assertReadableKey(key);
    return await this.#run(`look up ${key}`, () => this.#tree.stat(key));
  }

  async *read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array> {
    assertReadableKey(key);
    signal.throwIfAborted();
    const found = await this.#run(`read ${key}`, () => this.#tree.open(key));
    if (found === undefined) throw new BlobNotFoundError(`There is no object ${key}.`);
    try {
      assertRange(key, offset, length, found.size);
      yield* readFileRange(found.file, key, offset, length, signal);
    } finally {
      await found.file.close();
    }
  }

  async delete(key: string): Promise<void> {
    assertReadableKey(key);
    await this.#change(key, `delete ${key}`, () => this.#tree.remove(key));
  }

  async *list(prefix: string): AsyncIterable<ListedBlob> {
    assertKeyPrefix(prefix);
    this.#assertOpen();
    yield* eachOnDisk(this.#doing("list the objects"), this.#tree.list(prefix));
  }

  async *listForeign(): AsyncIterable<ForeignBlob> {
    this.#assertOpen();
    yield* eachOnDisk(this.#doing("list the objects of another program"), this.#old.list());
  }

  async adopt(key: string): Promise<void> {
    assertReadableKey(key);
    await this.#change(key, `adopt ${key}`, () =>
      this.#pending.withTemporary(async (temporary) => {
        if (await this.#old.link(key, temporary)) await this.#tree.place(key, temporary);
        else await this.#tree.syncPlace(key);
      }),
    );
  }

  async forgetForeign(key: string): Promise<void> {
    assertReadableKey(key);
    await this.#change(key, `take away the other name of ${key}`, () => this.#old.remove(key));
  }

  /** Breaks off parts under way, waits for everything else, and lets another server have the directory. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#attempts.stopAll(this.#closedError());
    await Promise.allSettled(this.#running);
    await this.#lock.release();
  }

  /** Ends what a crash cut short, as far as nobody will ask for it again. */
  async #recover(): Promise<void> {
    await this.#pending.clean();
    for await (const { key, token } of this.#pending.listPublished()) {
      await this.#tree.syncPlace(key);
      await this.#pending.remove(token);
    }
  }

  async #removePending({ key, token }: PendingBlob): Promise<void> {
    if ((await this.#pending.remains(token))?.key !== key) return;
    await this.#attempts.withoutWriters(token, () => this.#pending.remove(token));
  }

  #change<T>(key: string, doing: string, operation: () => Promise<T>): Promise<T> {
    return this.#run(doing, () => this.#keys.run(key, operation));
  }

  #run<T>(doing: string, operation: () => Promise<T>): Promise<T> {
    return this.#track(() => onDisk(this.#doing(doing), operation));
  }

  /** After `close` lets the lock go nothing may change the directory, so it must know what is under way. */
  async #track<T>(operation: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    const running = operation();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  #doing(what: string): string {
    return `${what} in ${this.#root}`;
  }

  #assertOpen(): void {
    if (this.#closed) throw this.#closedError();
  }

  #closedError(): BlobStoreError {
    return new BlobStoreError(`The store in ${this.#root} has been closed; the server is shutting down.`);
  }
}

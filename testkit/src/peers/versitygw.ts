/** What only versitygw does: it moves the parts of an unfinished object aside while it makes the object of them. */
import { once } from "node:events";
import { readdir, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import type { S3Peer } from "./s3.ts";

/** Where versitygw keeps unfinished objects in a bucket: a folder for each key, in it one for each upload. */
const MULTIPART = join(".sgwtmp", "multipart");

/** Ending of an upload's folder while its object is being made. */
export const IN_PROGRESS = ".inprogress";

/** Kills a running versitygw by SIGKILL when it has begun to make an object of its parts. */
export class CompletionKiller {
  readonly #peer: S3Peer;
  readonly #worker: Worker;
  readonly #state: Int32Array;

  private constructor(peer: S3Peer) {
    this.#peer = peer;
    this.#state = new Int32Array(new SharedArrayBuffer(4));
    this.#worker = new Worker(new URL("./versitygw-killer.ts", import.meta.url), {
      workerData: { folder: join(peer.folder, MULTIPART), ending: IN_PROGRESS, state: this.#state },
    });
  }

  /** Makes one, with its thread ready. */
  static async open(peer: S3Peer): Promise<CompletionKiller> {
    const killer = new CompletionKiller(peer);
    await once(killer.#worker, "message");
    return killer;
  }

  /** Kills at the next completion. Resolves to whether it has, or was taken back before. */
  async arm(): Promise<boolean> {
    const answer = once(this.#worker, "message");
    Atomics.store(this.#state, 0, this.#peer.pid() ?? 0);
    Atomics.notify(this.#state, 0);
    return (await answer)[0] === "killed";
  }

  /** Takes it back, if it has not struck. */
  disarm(): void {
    Atomics.store(this.#state, 0, 0);
  }

  /** Ends its thread. */
  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

/**
 * Brings back what a versitygw that was killed had moved aside, as docs/operations.md says: the folder of the upload
 * gets its name back, also beside the data, where metadata may be kept. The server must be stopped.
 * @returns how many uploads there were.
 */
export async function bringBackParts(peer: S3Peer): Promise<number> {
  const bucket = peer.folder;
  const sidecar = join(dirname(dirname(bucket)), "sidecar", peer.bucket);
  let count = 0;
  for (const root of [bucket, sidecar]) {
    const entries = await readdir(join(root, MULTIPART), { recursive: true, withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isDirectory() || !entry.name.endsWith(IN_PROGRESS)) continue;
      // UPLOAD.ETAG.inprogress
      await rename(join(entry.parentPath, entry.name), join(entry.parentPath, entry.name.split(".", 1).join()));
      if (root === bucket) count++;
    }
  }
  return count;
}

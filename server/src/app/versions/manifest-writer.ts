import { setTimeout as sleep } from "node:timers/promises";
import { splitDigests } from "@strongroom/protocol/digests";
import { manifestKey } from "../../domain/object-keys.ts";
import type { BlobStore } from "../ports/blob-store.ts";
import type { Database, VersionRow } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { encodeManifest } from "./manifest.ts";

/** What writing a manifest needs. */
export interface ManifestDeps {
  readonly database: Database;
  readonly store: Pick<BlobStore, "put">;
  readonly log: Log;
}

/** How long a call waits for the manifest of what it changed, in milliseconds. */
export const MANIFEST_WAIT_MS = 10_000;

/**
 * Makes the manifest say what the row says, so that a rebuild from the store does not bring back what was changed. Of
 * two that write at once the row knows afterwards that the older manifest may be the one that stayed.
 * @returns the revision that the store is now known to say; 0 when the version is gone.
 */
export async function rewriteManifest(
  { database, store }: Pick<ManifestDeps, "database" | "store">,
  version: VersionRow,
): Promise<number> {
  const { id, key, revision, manifestRevision: before, segmentCount } = version;
  const digests = await database.transaction(async (tx) => await tx.versions.segmentDigests(id, 0, segmentCount));
  await store.put(manifestKey(key), encodeManifest(version, splitDigests(digests)));
  return await database.transaction(async (tx) => {
    await tx.versions.manifestWritten(id, { revision, before });
    return (await tx.versions.findById(id))?.manifestRevision ?? 0;
  });
}

/**
 * Writes the manifest of a version within the call that changed it, after the change is committed: from the answer on
 * it survives the loss of the database. A store that is down does not undo the change; the row says that its manifest
 * is behind, the caller is told, and the sweeper writes it.
 */
export class ManifestWriter {
  readonly #deps: ManifestDeps;
  readonly #waitMs: number;
  /** The one that is being written; the next begins after it, since a manifest can have 100 MiB. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(deps: ManifestDeps, waitMs: number = MANIFEST_WAIT_MS) {
    this.#deps = deps;
    this.#waitMs = waitMs;
  }

  /** @param row as the database has it. @returns it, with what its manifest says now. Never throws. */
  async settle(row: VersionRow): Promise<VersionRow> {
    if (row.manifestRevision === row.revision || row.state === "purged") return row;
    const waiting = new AbortController();
    const written = this.#last.then(async () => {
      // Nobody waits any more: the sweeper does it.
      waiting.signal.throwIfAborted();
      return await rewriteManifest(this.#deps, row);
    });
    this.#last = written.catch(() => {});
    const late = sleep(this.#waitMs, undefined, { signal: waiting.signal }).then(() => {
      throw new Error(`the store took longer than ${this.#waitMs} ms`);
    });
    late.catch(() => {});
    try {
      return { ...row, manifestRevision: await Promise.race([written, late]) };
    } catch (error) {
      const { collectionName: collection, number, key } = row;
      const message = "the manifest of a version that was changed could not be written; the sweeper does it later";
      this.#deps.log.warn({ collection, number: String(number), key, err: error }, message);
      return row;
    } finally {
      waiting.abort();
    }
  }
}

import type { BlobPart, PendingBlob } from "../../app/ports/blob-store.ts";
import { BlobStoreError } from "../../app/ports/blob-store.ts";
import { assertPartsStored } from "../blob-store/blob-checks.ts";
import type { ObjectTree } from "./object-tree.ts";
import type { PendingUploads, PlacedPart } from "./pending-uploads.ts";

/** What {@link publishObject} publishes. */
export interface Publication {
  readonly pending: PendingUploads;
  readonly tree: ObjectTree;
  /**
   * An unfinished object that exists, whose key names no finished one, and that nobody writes to or publishes
   * meanwhile.
   */
  readonly blob: PendingBlob;
  readonly uploadId: string;
  readonly parts: readonly BlobPart[];
  /** The size of the parts together, in bytes. */
  readonly size: bigint;
}

/**
 * Turns an unfinished object into a finished one. Every step is durable before the next and may be repeated, so that a
 * crash between any two is mended by completing the object again. What counts is the rename: before it there is no
 * object, after it a whole one.
 *
 * @throws BlobStoreError when what is stored is not what was asked for; nothing has changed then.
 */
export async function publishObject({ pending, tree, blob, uploadId, parts, size }: Publication): Promise<void> {
  const { key, token } = blob;
  const info = await pending.find(blob);
  if (info.uploadId !== uploadId) {
    throw new BlobStoreError(`${key} was begun for the upload ${info.uploadId}, not for ${uploadId}.`);
  }
  const stored = await pending.parts(token);
  assertPartsStored(key, parts, stored);
  assertAdjoining(key, parts, stored);
  await trimData(pending, blob, size);
  await pending.withTemporary((temporary) => tree.placeOrigin(key, { uploadId, token }, temporary));
  await tree.place(key, pending.dataPath(token));
  await pending.syncDeparture(token);
  await pending.remove(token);
}

/** Every part must begin where the one before ends, or the file has gaps: that takes one segment size for all calls. */
function assertAdjoining(key: string, parts: readonly BlobPart[], stored: ReadonlyMap<number, PlacedPart>): void {
  let end = 0n;
  for (const { index, size } of parts) {
    const offset = stored.get(index)?.offset;
    if (offset !== end) {
      throw new BlobStoreError(
        `${key} cannot be completed: part ${index} was written at ${offset}, but the parts before it end at ` +
          `${end}. All parts but the last ` +
          "must have the segment size.",
      );
    }
    end += size;
  }
}

/** Gives the data file its final size and makes it durable. */
async function trimData(pending: PendingUploads, { key, token }: PendingBlob, size: bigint): Promise<void> {
  const file = await pending.openData(token);
  try {
    const status = await file.stat({ bigint: true });
    if (status.size < size) {
      throw new BlobStoreError(
        `${key} cannot be completed: its file has ${status.size} bytes, but its parts have ${size}. Check the ` +
          "disk, abort, and upload again.",
      );
    }
    // A broken attempt at a part that is not wanted may have left bytes after the end.
    if (status.size > size) await file.truncate(Number(size));
    await file.sync();
  } finally {
    await file.close();
  }
}

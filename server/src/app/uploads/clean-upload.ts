import { formatTimeIn } from "@strongroom/protocol/times";
import { DomainError } from "../../domain/errors.ts";
import { clockDoubt } from "../clock-doubt.ts";
import { isSameInstallation } from "../installation.ts";
import type { BlobStore, PendingBlob } from "../ports/blob-store.ts";
import { type ConfigSource, timezoneOf } from "../ports/config-source.ts";
import type { Database, Transaction, UploadRow } from "../ports/database.ts";
import { changeReservation, endUpload, lockCollection } from "./reservations.ts";
import { givesWay, RoomTakenError } from "./room.ts";
import type { SegmentAttempts } from "./segment-attempts.ts";

/** The ports for deleting the bytes of uploads that ended without a version. */
export interface CleanDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly attempts: SegmentAttempts;
}

/** The same, where an upload ends for the room of another. */
export interface RoomDeps extends CleanDeps {
  readonly config: ConfigSource;
}

/**
 * Frees the store of an upload that ended without a version, and with it the space it took. Safe to repeat, also while
 * another server does the same.
 * @param strays further unfinished objects under its key.
 */
export async function cleanUpload(
  deps: CleanDeps,
  upload: UploadRow,
  strays: readonly PendingBlob[] = [],
): Promise<void> {
  await deps.attempts.end(
    upload.id,
    new DomainError("UPLOAD_NOT_OPEN", `the upload is ${upload.state}`, { metadata: { state: upload.state } }),
  );
  if (upload.storeToken !== null) await deps.store.abort({ key: upload.key, token: upload.storeToken });
  // A server that died between asking the store and noting its token leaves an unfinished object nobody wrote down.
  for (const stray of strays) await deps.store.abort(stray);
  await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(upload.collectionId);
    const current = (await tx.uploads.find(upload.id))!;
    if (current.cleanedAt === null) await noteCleaned(tx, current);
  });
}

/** The store has nothing of an ended upload any more: its space is free. The collection must be locked. */
export async function noteCleaned(tx: Transaction, upload: UploadRow): Promise<UploadRow> {
  await tx.segments.deleteAll(upload.id);
  return await changeReservation(tx, upload, -upload.reservedBytes, { cleanedAt: tx.now });
}

/**
 * Runs work that may need room. Where bytes of ended or lapsed uploads of its collection are in the way, they are
 * deleted first, those unheard of longest before others, and the work is done again; so a crash never blocks the next
 * backup. Its caller only waits for the store.
 * @throws DomainError STORE_UNAVAILABLE when the store does not delete them; the call may be repeated.
 */
export async function withRoom<T>(deps: RoomDeps, work: (tx: Transaction) => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await deps.database.transaction(work);
    } catch (error) {
      if (!(error instanceof RoomTakenError)) throw error;
      await makeRoom(deps, error);
    }
  }
}

async function makeRoom(deps: RoomDeps, { collectionId, forUploadId }: RoomTakenError): Promise<void> {
  const ended = await deps.database.transaction(async (tx) => {
    const { uploads } = await lockCollection(tx, { id: collectionId });
    // Two that were both silent must not end each other: the one that was ended first is refused.
    if (forUploadId !== undefined && uploads.find((u) => u.id === forUploadId)?.state !== "open") return undefined;
    const doubt = await clockDoubt(tx);
    const [oldest] = uploads
      .filter((u) => u.id !== forUploadId && givesWay(u, doubt))
      .sort((a, b) => Number(a.state === "open") - Number(b.state === "open") || silentSince(a) - silentSince(b));
    if (oldest?.state !== "open") return oldest;
    const timezone = timezoneOf(deps.config, oldest.collectionName);
    const reason =
      `nothing was heard of the client, its lease ran out ${formatTimeIn(oldest.leaseExpiresAt, timezone)}, and another ` +
      "upload needed its space";
    return await endUpload(tx, oldest, "expired", reason, "server");
  });
  if (ended === undefined) return;
  try {
    if (!(await isSameInstallation(deps.database, deps.store)))
      throw new Error("the store does not carry the installation id of the database; nothing is deleted");
    await cleanUpload(deps, ended);
  } catch (error) {
    if (error instanceof DomainError) throw error;
    throw new DomainError(
      "STORE_UNAVAILABLE",
      "the object store did not delete what an earlier upload left, whose space is needed; repeat the call in a moment",
      { cause: error, retryAfterMs: 1000 },
    );
  }
}

const silentSince = (upload: UploadRow) => upload.leaseExpiresAt.getTime();

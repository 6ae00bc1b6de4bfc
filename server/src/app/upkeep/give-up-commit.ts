import { manifestKey } from "../../domain/object-keys.ts";
import { isSameInstallation } from "../installation.ts";
import type { UploadRow } from "../ports/database.ts";
import { noteCleaned } from "../uploads/clean-upload.ts";
import { noteFailed } from "../uploads/reservations.ts";
import { UnsafeError } from "./inventory.ts";
import type { SweepDeps } from "./sweep.ts";

/**
 * Ends a commit that the store can never finish, since neither the object nor its unfinished parts exist any more: the
 * upload counts as aborted, its space is free. For an operator, after looking why they are gone.
 * @throws UnsafeError when the store still has something of it, or the upload is not being committed.
 */
export async function giveUpCommit(deps: SweepDeps, uploadId: string): Promise<UploadRow> {
  const { database, store } = deps;
  const upload = await database.transaction(async (tx) => await tx.uploads.find(uploadId));
  if (upload === undefined) throw new UnsafeError(`there is no upload ${uploadId}`);
  requireCommitting(upload);
  if (!(await isSameInstallation(database, store)))
    throw new UnsafeError("the store carries another installation id than the database; nothing was changed");
  // In this order: completing turns the one into the other.
  for await (const pending of store.listPending()) {
    if (pending.key !== upload.key) continue;
    throw new UnsafeError(
      `the unfinished object of upload ${uploadId} is in the store; the next sweep tries to finish the commit, ` +
        "and its log says why it could not",
    );
  }
  if ((await store.stat(upload.key)) !== undefined)
    throw new UnsafeError(`the object of upload ${uploadId} is in the store; the next sweep finishes the commit`);
  // One may have been written for an object that was deleted without the server.
  await store.delete(manifestKey(upload.key));
  return await database.transaction(async (tx) => {
    await tx.collections.lockById(upload.collectionId);
    const current = (await tx.uploads.find(uploadId))!;
    requireCommitting(current);
    const reason = "an operator gave the commit up: the store had neither the object nor its parts";
    const aborted = { state: "aborted", abortReason: reason, endedAt: tx.now, lapsed: true } as const;
    await tx.uploads.update(current.id, "committing", aborted);
    await noteFailed(tx, current, reason);
    const ended = await noteCleaned(tx, { ...current, ...aborted });
    await tx.audit({
      kind: "upload.given-up",
      actor: "operator",
      collectionName: current.collectionName,
      details: {
        upload_id: uploadId,
        reason,
        number: String(current.versionNumber),
        size: String(current.reservedBytes),
      },
    });
    deps.log.warn({ upload_id: uploadId, collection: current.collectionName }, "gave up a commit, as an operator said");
    return ended;
  });
}

function requireCommitting(upload: UploadRow): void {
  if (upload.state === "committing") return;
  throw new UnsafeError(`upload ${upload.id} is ${upload.state}; only a commit that cannot end can be given up`);
}

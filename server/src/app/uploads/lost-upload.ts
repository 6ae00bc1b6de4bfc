import { DomainError } from "../../domain/errors.ts";
import { isLost } from "../../domain/store-health.ts";
import { isSameInstallation } from "../installation.ts";
import { BlobNotFoundError, BlobStoreUnavailableError } from "../ports/blob-store.ts";
import type { UploadRow } from "../ports/database.ts";
import { refuseUpload } from "./manage-uploads.ts";
import type { UploadDeps } from "./upload-deps.ts";

/** A server that waits for the store to complete an object says so this often, in milliseconds. */
const RENEW_MS = 20_000;

/** Nobody takes a commit for lost for so long after a server said that it waits for the store, in milliseconds. */
export const HOLD_MS = 60_000;

/**
 * Waits for the store to complete an object. Says so in the upload's row when it takes long: some stores show neither
 * the object nor its parts meanwhile, and another server must not take it for lost.
 */
export async function whileCompleting<T>(deps: UploadDeps, upload: UploadRow, work: () => Promise<T>): Promise<T> {
  const renew = async () =>
    await deps.database.transaction(async (tx) => {
      const completingUntil = new Date(tx.now.getTime() + HOLD_MS);
      await tx.uploads.update(upload.id, "committing", { completingUntil });
    });
  // Where the database fails too, the worst is that another server says "lost" for a while.
  const timer = setInterval(() => void renew().catch(() => {}), RENEW_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/**
 * Notes whether the store has lost what it should complete: it has neither the object nor its parts.
 * @returns the refusal that ends the client's repeating, once it has been so for long enough.
 */
export async function noteLoss(deps: UploadDeps, upload: UploadRow, error: unknown): Promise<DomainError | undefined> {
  const isGone = error instanceof BlobNotFoundError;
  if (error instanceof BlobStoreUnavailableError || (!isGone && upload.lostSince === null)) return undefined;
  if (isGone && !(await isSameInstallation(deps.database, deps.store))) return undefined;
  return await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(upload.collectionId);
    const row = (await tx.uploads.find(upload.id))!;
    const isWaitedFor = row.completingUntil !== null && row.completingUntil > tx.now;
    const lostSince = isGone && !isWaitedFor ? (row.lostSince ?? tx.now) : null;
    if (lostSince !== row.lostSince) await tx.uploads.update(row.id, "committing", { lostSince });
    return isLost({ lostSince }, tx.now) ? uploadLost({ ...row, lostSince }) : undefined;
  });
}

/** The refusal of an upload that the store has lost. */
export function uploadLost({ id, state, versionNumber, lostSince }: UploadRow): DomainError {
  const metadata: Record<string, string> = { upload_id: id, state };
  if (lostSince !== null) metadata.lost_since = lostSince.toISOString();
  if (versionNumber !== null) metadata.number = String(versionNumber);
  const next =
    state === "committing"
      ? "Make a new backup, and notify the operator: its parts may still be found, or its space freed by " +
        `\`strongroom sweep --give-up-commit ${id} --yes\``
      : "Make a new backup. A lifecycle rule that deletes unfinished uploads must leave them for longer than a " +
        "backup " +
        "takes";
  return new DomainError(
    "UPLOAD_LOST",
    `the object store has lost upload ${id}: it has neither its object nor its parts. ${next}`,
    { metadata },
  );
}

/**
 * Ends an open upload that the store has lost: what was acknowledged is gone, so it can never become a version.
 * @returns the refusal; undefined when the whole store is another one.
 */
export async function endLostUpload(deps: UploadDeps, upload: UploadRow): Promise<DomainError | undefined> {
  if (!(await isSameInstallation(deps.database, deps.store))) return undefined;
  await refuseUpload(
    deps,
    upload.id,
    "the object store has lost its parts: a lifecycle rule deleted them, or somebody did",
  );
  return uploadLost({ ...upload, state: "aborted" });
}

import { mayDo, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { bytesOfMap, cutPage } from "../../domain/page.ts";
import {
  isOwn,
  requireOwnOrManagedUpload,
  requireOwnUpload,
  requireUploadAccess,
  requireUploadAccessIfConfigured,
  requireVisible,
  uploadNotOpen,
} from "../guards.ts";
import { pinned } from "../ports/config-source.ts";
import type { SegmentRow, UploadRow } from "../ports/database.ts";
import { atLeastZero } from "./create-upload.ts";
import { endUpload, lockCollection, lockOwnUpload, renewLease, storedBytesOf } from "./reservations.ts";
import { roomFor } from "./room.ts";
import type { UploadDeps, UploadView } from "./upload-deps.ts";

/** How an upload stands, with a page of its stored segments. */
export interface UploadStatus extends UploadView {
  readonly segments: readonly SegmentRow[];
  /** Index to go on from; undefined on the last page. */
  readonly nextIndex: number | undefined;
}

/** Tells how one's own upload stands. */
export async function getUpload(
  deps: UploadDeps,
  principal: Principal,
  input: { uploadId: string; fromIndex: number; pageSize: number },
): Promise<UploadStatus> {
  return await deps.database.transaction(async (tx) => {
    const upload = await requireOwnUpload(tx, principal, input.uploadId);
    const { config } = pinned(deps);
    const spec = requireUploadAccess(config, principal, upload);
    const page = await tx.segments.list(upload.id, input.fromIndex, input.pageSize + 1);
    const nextIndex = page.length > input.pageSize ? page[input.pageSize]!.index : undefined;
    const segments = page.slice(0, input.pageSize).filter((s) => s.state === "stored");
    const storedBytes = await storedBytesOf(tx, upload);
    if (upload.state !== "open") return { upload, remaining: 0n, storedBytes, segments, nextIndex };
    const collection = await lockCollection(tx, { id: upload.collectionId });
    const room = await roomFor(tx, config, spec, collection, upload.id);
    const remaining = atLeastZero(room.total - upload.reservedBytes);
    return { upload, remaining, storedBytes, segments, nextIndex };
  });
}

/**
 * Lists the uploads of a collection that are open or being committed, newest first: one's own, or with the right to
 * manage it all of them. They are as few as the collection has places, and those whose lease lapsed within the last
 * day, so a page is cut from the whole list.
 */
export async function listUploads(
  deps: UploadDeps,
  principal: Principal,
  input: { collection: string; from: number; pageSize: number },
): Promise<{ uploads: UploadView[]; next: number | undefined }> {
  const spec = requireVisible(deps.config, principal, input.collection);
  const all = mayDo(principal, spec, "manage");
  return await deps.database.read(async (tx) => {
    const collection = await tx.collections.findByName(spec.name);
    const rows = collection === undefined ? [] : await tx.uploads.unsettled(collection.id);
    const seen = rows.filter((row) => all || isOwn(principal, row)).sort((a, b) => Number(b.ordinal - a.ordinal));
    const { page, more } = cutPage(seen.slice(input.from), input.pageSize, (row) => bytesOfMap(row.clientMetadata));
    const stored = await tx.segments.storedBytes(page.map((row) => row.id));
    const uploads = page.map((upload) => ({ upload, remaining: 0n, storedBytes: stored.get(upload.id) ?? 0n }));
    return { uploads, next: more ? input.from + page.length : undefined };
  });
}

/**
 * Gives up an upload: one's own, or another's in a collection that one may manage. An aborted or expired one stays as
 * it is; one that is being or was committed is left alone.
 */
export async function abortUpload(
  deps: UploadDeps,
  principal: Principal,
  input: { uploadId: string; reason: string },
): Promise<UploadView> {
  const ended = await deps.database.transaction(async (tx) => {
    const found = await requireOwnOrManagedUpload(tx, deps.config, principal, input.uploadId);
    if (isOwn(principal, found)) requireUploadAccessIfConfigured(deps.config, principal, found);
    await tx.collections.lockById(found.collectionId);
    const upload = (await tx.uploads.find(found.id))!;
    if (upload.state === "aborted" || upload.state === "expired") return upload;
    if (upload.state !== "open") throw uploadNotOpen(upload);
    const reason = input.reason === "" ? "aborted by the client" : input.reason;
    return await endUpload(tx, upload, "aborted", reason, principal);
  });
  await deps.attempts.end(
    ended.id,
    new DomainError("UPLOAD_NOT_OPEN", "the upload was aborted", { metadata: { state: "aborted" } }),
  );
  return { upload: ended, remaining: 0n, storedBytes: 0n };
}

/** Extends the lease of one's own upload; one that lapsed takes its place again. */
export async function renewUpload(deps: UploadDeps, principal: Principal, uploadId: string): Promise<UploadRow> {
  return await deps.database.transaction(async (tx) => {
    const at = pinned(deps);
    const own = await lockOwnUpload(tx, principal, uploadId, (found) =>
      requireUploadAccess(at.config, principal, found),
    );
    const { upload, collection, access: spec } = own;
    if (upload.state !== "open") throw uploadNotOpen(upload);
    return (await renewLease(tx, at, spec, collection, upload)).upload;
  });
}

/** Ends an open upload whose ciphertext can never become a version. */
export async function refuseUpload(deps: UploadDeps, uploadId: string, reason: string): Promise<void> {
  await deps.database.transaction(async (tx) => {
    const found = await tx.uploads.find(uploadId);
    if (found === undefined) return;
    await tx.collections.lockById(found.collectionId);
    const current = (await tx.uploads.find(uploadId))!;
    if (current.state === "open") await endUpload(tx, current, "aborted", reason);
  });
}

import { type CollectionAction, mayDo, maySee, type Principal } from "../domain/access.ts";
import { collectionNotFound, DomainError } from "../domain/errors.ts";
import type { CollectionSpec } from "../domain/objects.ts";
import type { ConfigSource } from "./ports.ts";
import type { Transaction, UploadRow } from "./repositories.ts";

/** The collection if the caller may see it, else the one answer for both other cases. */
export function requireVisible(config: ConfigSource, principal: Principal, name: string): CollectionSpec {
  const spec = config.current().collections.get(name);
  if (spec === undefined || !maySee(principal, spec)) throw collectionNotFound(name);
  return spec;
}

/** The collection if the caller may do this to it. */
export function requireAction(
  config: ConfigSource,
  principal: Principal,
  name: string,
  action: CollectionAction,
): CollectionSpec {
  const spec = requireVisible(config, principal, name);
  if (!mayDo(principal, spec, action)) {
    throw new DomainError(
      "ACCESS_DENIED",
      `you may not ${action} in collection "${name}"; ask for a role that allows it (behaviour of roles: docs/configuration.md)`,
      { metadata: { action, collection: name } },
    );
  }
  return spec;
}

/** Finds an upload of the caller. Somebody else's upload and none at all have the same answer. */
export async function requireOwnUpload(tx: Transaction, principal: Principal, uploadId: string): Promise<UploadRow> {
  const upload = await tx.uploads.find(uploadId);
  if (upload === undefined || upload.userName !== principal.user.name || upload.accessKey !== principal.accessKey) {
    throw new DomainError(
      "UPLOAD_NOT_FOUND",
      `there is no upload ${uploadId} of yours; an upload is continued by the user and access key that created it`,
      { metadata: { upload_id: uploadId } },
    );
  }
  return upload;
}

/** The specification of an upload's collection, which must still be configured, and the caller must still be allowed to upload to it. */
export function requireUploadAccess(config: ConfigSource, principal: Principal, upload: UploadRow): CollectionSpec {
  if (!config.current().collections.has(upload.collectionName)) {
    throw new DomainError(
      "COLLECTION_FROZEN",
      `collection "${upload.collectionName}" is not configured any more; nothing can be uploaded to it`,
    );
  }
  return requireAction(config, principal, upload.collectionName, "upload");
}

/**
 * As {@link requireUploadAccess}, where the collection is still configured. Without it there is nobody left who could have the right, and its owner
 * may learn how the upload ended, or end it; not in a session that is narrowed to other things.
 */
export function requireUploadAccessIfConfigured(config: ConfigSource, principal: Principal, upload: UploadRow): void {
  const configured = config.current().collections.has(upload.collectionName);
  if (configured || principal.scope.length > 0) requireUploadAccess(config, principal, upload);
}

/** The upload is committed, aborted or expired. */
export function uploadNotOpen(upload: UploadRow): DomainError {
  const why = upload.abortReason === "" ? "" : `: ${upload.abortReason}`;
  return new DomainError("UPLOAD_NOT_OPEN", `upload ${upload.id} is ${upload.state}${why}; create a new upload`, {
    metadata: { state: upload.state, abort_reason: upload.abortReason },
  });
}

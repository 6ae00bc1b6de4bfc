import { type CollectionAction, hasSystemRole, mayDo, maySee, type Principal } from "../domain/access.ts";
import type { CollectionSpec } from "../domain/configuration.ts";
import { collectionNotFound, DomainError } from "../domain/errors.ts";
import { type ConfigSource, isOutdated } from "./ports/config-source.ts";
import type { CollectionRow, Database, Transaction, UploadRow } from "./ports/database.ts";

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
      `you may not ${action} in collection "${name}"; ask for a role that allows it (behaviour of roles: ` +
        "docs/configuration.md)",
      { metadata: { action, collection: name } },
    );
  }
  return spec;
}

/**
 * What reads need of a collection. A frozen one, whose configuration object is gone while versions remain, has
 * a name and no limits; it is there for systemAdmin only, since the access list is gone too.
 */
export type ReadableCollection = Pick<CollectionSpec, "name" | "minRetentionMs"> &
  Partial<Pick<CollectionSpec, "timezone">>;

/** The collection if the caller may read in it: see it, or with "download" its bytes too. */
export async function requireReadable(
  tx: Transaction,
  config: ConfigSource,
  principal: Principal,
  name: string,
  action?: "download",
): Promise<ReadableCollection> {
  if ((await findFrozen(tx, config, principal, name)) !== undefined) return { name, minRetentionMs: undefined };
  return action === undefined
    ? requireVisible(config, principal, name)
    : requireAction(config, principal, name, action);
}

/** The collection if the caller may do this to it and it is not frozen. */
export async function requireWritable(
  deps: { readonly config: ConfigSource; readonly database: Database },
  principal: Principal,
  name: string,
  action: CollectionAction,
): Promise<CollectionSpec> {
  const isConfigured = deps.config.current().collections.has(name);
  if (!isConfigured && (await deps.database.read(async (tx) => await findFrozen(tx, deps.config, principal, name))))
    throw collectionFrozen(deps.config, name);
  return requireAction(deps.config, principal, name, action);
}

/**
 * The row of a collection if it is frozen and the caller may know of it. Asks the database only where the configuration
 * does not answer.
 */
export async function findFrozen(
  tx: Transaction,
  config: ConfigSource,
  principal: Principal,
  name: string,
): Promise<CollectionRow | undefined> {
  if (config.current().collections.has(name) || !hasSystemRole(principal, "systemAdmin")) return undefined;
  const row = await tx.collections.findByName(name);
  return row !== undefined && isFrozen(config, row) ? row : undefined;
}

/** Whether a collection has versions and no configuration object. */
export function isFrozen(config: ConfigSource, row: Pick<CollectionRow, "name" | "storedBytes">): boolean {
  return row.storedBytes > 0n && !config.current().collections.has(row.name);
}

function collectionFrozen(config: ConfigSource, name: string): DomainError {
  if (isOutdated(config))
    return new DomainError(
      "CONFIGURATION_OUTDATED",
      `this server does not know collection "${name}", and could not take up the newest configuration, which may ` +
        "name it; another server may know it",
      { metadata: { collection: name }, retryAfterMs: 5000 },
    );
  return new DomainError(
    "COLLECTION_FROZEN",
    `collection "${name}" is not configured any more; its versions can be read, and nothing is uploaded, ` +
      "rotated or deleted until its configuration object is back",
    { metadata: { collection: name } },
  );
}

/** Whether the caller's user and access key began this upload. */
export function isOwn(principal: Principal, upload: UploadRow): boolean {
  return upload.userName === principal.user.name && upload.accessKey === principal.accessKey;
}

/** Finds an upload of the caller. Somebody else's upload and none at all have the same answer. */
export async function requireOwnUpload(tx: Transaction, principal: Principal, uploadId: string): Promise<UploadRow> {
  const upload = await tx.uploads.find(uploadId);
  if (upload === undefined || !isOwn(principal, upload)) throw uploadNotFound(uploadId);
  return upload;
}

/**
 * Finds an upload of the caller, or one in a collection that the caller may manage. Any other and none at all have the
 * same answer.
 */
export async function requireOwnOrManagedUpload(
  tx: Transaction,
  config: ConfigSource,
  principal: Principal,
  uploadId: string,
): Promise<UploadRow> {
  const upload = await tx.uploads.find(uploadId);
  if (upload === undefined) throw uploadNotFound(uploadId);
  const spec = config.current().collections.get(upload.collectionName);
  const manages = spec !== undefined && mayDo(principal, spec, "manage");
  if (!manages && !isOwn(principal, upload)) throw uploadNotFound(uploadId);
  return upload;
}

/** There is no such upload, or it is another's. */
export function uploadNotFound(uploadId: string): DomainError {
  return new DomainError(
    "UPLOAD_NOT_FOUND",
    `there is no upload ${uploadId} of yours; an upload is continued by the user and access key that created it`,
    { metadata: { upload_id: uploadId } },
  );
}

/**
 * The specification of an upload's collection, which must still be configured, and the caller must still be allowed to
 * upload to it.
 */
export function requireUploadAccess(config: ConfigSource, principal: Principal, upload: UploadRow): CollectionSpec {
  if (!config.current().collections.has(upload.collectionName)) {
    throw collectionFrozen(config, upload.collectionName);
  }
  return requireAction(config, principal, upload.collectionName, "upload");
}

/**
 * As {@link requireUploadAccess}, where the collection is still configured. Without it there is nobody left who could
 * have the right, and its owner may learn how the upload ended, or end it; not in a session that is narrowed to other
 * things.
 */
export function requireUploadAccessIfConfigured(config: ConfigSource, principal: Principal, upload: UploadRow): void {
  const configured = config.current().collections.has(upload.collectionName);
  if (configured || principal.scope.length > 0) requireUploadAccess(config, principal, upload);
}

/** The upload is being committed, committed, aborted or expired. */
export function uploadNotOpen(upload: UploadRow): DomainError {
  if (upload.state === "committing")
    return new DomainError(
      "UPLOAD_NOT_OPEN",
      `upload ${upload.id} is being committed and can not be changed or aborted; repeat its commit. When the store ` +
        "has lost it (health check `store`), an operator ends it: strongroom sweep --give-up-commit " +
        `${upload.id} --yes`,
      { metadata: { state: upload.state, abort_reason: "" } },
    );
  const why = upload.abortReason === "" ? "" : `: ${upload.abortReason}`;
  return new DomainError("UPLOAD_NOT_OPEN", `upload ${upload.id} is ${upload.state}${why}; create a new upload`, {
    metadata: { state: upload.state, abort_reason: upload.abortReason },
  });
}

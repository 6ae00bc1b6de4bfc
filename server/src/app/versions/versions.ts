import { splitDigests } from "@strongroom/protocol/digests";
import { formatTimeIn } from "@strongroom/protocol/times";
import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { bytesOfMap, type CutPage, cutPage } from "../../domain/page.ts";
import { isRemovalBlocked } from "../../domain/rotation.ts";
import { withProtection } from "../../domain/version.ts";
import type { AuditNotes } from "../audit/trail.ts";
import { type ReadableCollection, requireAction, requireReadable, requireWritable } from "../guards.ts";
import type { BlobReader } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, Transaction, VersionRow } from "../ports/database.ts";
import type { LiveVersion } from "../ports/live-versions.ts";
import type { Log, UploadSettings } from "../settings.ts";
import type { ManifestWriter } from "./manifest-writer.ts";
import { storedBytes } from "./read-stored.ts";
import { removeVersion, requireRoomForCommits } from "./removal.ts";

/** The ports and settings for reading, changing and deleting versions. */
export interface VersionDeps {
  readonly database: Database;
  readonly store: BlobReader;
  readonly config: ConfigSource;
  readonly settings: UploadSettings;
  readonly log: Log;
  readonly audit?: AuditNotes | undefined;
  /** Writes the manifest of what a call changed; the sweeper alone does when left out, for tests. */
  readonly manifests?: ManifestWriter | undefined;
}

/** Names a version by its number, or the newest live one. */
export interface VersionName {
  readonly collection: string;
  readonly number: bigint | "newest";
}

/**
 * Lists live versions, highest number first, below `beforeNumber`; or, with `removed`, those that can be brought back.
 */
export async function listVersions(
  deps: VersionDeps,
  principal: Principal,
  input: { collection: string; beforeNumber: bigint | undefined; pageSize: number; removed?: boolean },
): Promise<{ versions: VersionRow[]; nextBefore: bigint | undefined }> {
  return await deps.database.transaction(async (tx) => {
    const spec = await requireReadable(tx, deps.config, principal, input.collection);
    const collection = await tx.collections.findByName(spec.name);
    if (collection === undefined) return { versions: [], nextBefore: undefined };
    const read = async (before: bigint | undefined, limit: number) =>
      input.removed === true
        ? await tx.versions.listRemoved(collection.id, tx.now, before, limit)
        : await tx.versions.listLive(collection.id, before, limit);
    const { page, more } = await readPage(read, input.beforeNumber, input.pageSize);
    const versions = page.map((v) => withProtection(v, spec));
    return { versions, nextBefore: more ? versions.at(-1)!.number : undefined };
  });
}

/** Versions read from the database at once for a page, which may be full of bytes before it is full of rows. */
const READ_AT_ONCE = 100;

async function readPage(
  read: (before: bigint | undefined, limit: number) => Promise<VersionRow[]>,
  beforeNumber: bigint | undefined,
  pageSize: number,
): Promise<CutPage<VersionRow>> {
  const rows: VersionRow[] = [];
  for (;;) {
    const limit = Math.min(pageSize + 1 - rows.length, READ_AT_ONCE);
    const next = await read(rows.at(-1)?.number ?? beforeNumber, limit);
    rows.push(...next);
    const cut = cutPage(rows, pageSize, (row) => bytesOfMap(row.labels) + bytesOfMap(row.clientMetadata));
    if (cut.more || next.length < limit) return cut;
  }
}

/** Describes a live version. */
export async function getVersion(deps: VersionDeps, principal: Principal, name: VersionName): Promise<VersionRow> {
  return await deps.database.transaction(async (tx) => {
    const spec = await requireReadable(tx, deps.config, principal, name.collection);
    return await requireVersion(tx, spec, name, isLive);
  });
}

/** Digests of a version's segments, `pageSize` of them from `first`. */
export async function listSegmentDigests(
  deps: VersionDeps,
  principal: Principal,
  input: VersionName & { first: number; pageSize: number },
): Promise<{ digests: Uint8Array[]; nextFirst: number | undefined }> {
  return await deps.database.transaction(async (tx) => {
    const spec = await requireReadable(tx, deps.config, principal, input.collection);
    const version = await requireVersion(tx, spec, input, isReadable(tx.now));
    const digests = splitDigests(await tx.versions.segmentDigests(version.id, input.first, input.pageSize));
    const next = input.first + digests.length;
    return { digests, nextFirst: next < version.segmentCount ? next : undefined };
  });
}

/** A download: the version and its bytes. */
export interface VersionRead {
  readonly version: VersionRow;
  readonly offset: bigint;
  /** Bytes that follow. */
  readonly length: bigint;
  readonly body: AsyncIterable<Uint8Array>;
}

/**
 * Opens a version for reading. By number, one that was removed a moment ago can still be read, so that running
 * downloads can be resumed.
 * @param input.limit most bytes; 0 for all.
 */
export async function readVersion(
  deps: VersionDeps,
  principal: Principal,
  input: VersionName & { offset: bigint; limit: bigint },
  signal: AbortSignal,
): Promise<VersionRead> {
  const event = {
    kind: "version.read",
    actor: principal,
    collectionName: input.collection,
    // A restore reads on after every break, and may ask for parts.
    object: input.number === "newest" ? "newest" : `version ${input.number}`,
    details: { offset: String(input.offset), limit: String(input.limit) },
  } as const;
  // Asked once, and only for who may read: what is counted instead of written counts as done.
  let isNoted: boolean | undefined;
  const version = await deps.database.transaction(async (tx) => {
    const spec = await requireReadable(tx, deps.config, principal, input.collection, "download");
    const found = await requireVersion(tx, spec, input, isReadable(tx.now));
    isNoted ??= deps.audit?.takes(event) ?? true;
    // Before the first byte leaves.
    const details = { ...event.details, number: String(found.number), size: String(found.size) };
    if (isNoted) await tx.audit({ ...event, object: found.id, details });
    return found;
  });
  if (input.offset > version.size) {
    throw new DomainError(
      "RANGE_INVALID",
      `offset ${input.offset} is beyond the end of version ${version.number}, which has ${version.size} bytes`,
      {
        metadata: { size_bytes: String(version.size) },
      },
    );
  }
  const rest = version.size - input.offset;
  const length = input.limit > 0n && input.limit < rest ? input.limit : rest;
  return {
    version,
    offset: input.offset,
    length,
    body: storedBytes(deps, version, input.offset, length, signal),
  };
}

/**
 * Whether a download may go on; asked again for each chunk, since a download can take hours.
 * @throws DomainError COLLECTION_NOT_FOUND or ACCESS_DENIED
 */
export function requireDownload(config: ConfigSource, principal: Principal, collection: string): void {
  // A frozen one is still there for systemAdmin; there is no access list that could say more.
  const frozen = !config.current().collections.has(collection);
  if (!(frozen && hasSystemRole(principal, "systemAdmin"))) requireAction(config, principal, collection, "download");
}

/**
 * Removes a version. One that is removed already is returned as it is. COLLECTION_BUSY while a commit counts on its
 * place.
 */
export async function deleteVersion(
  deps: VersionDeps,
  principal: Principal,
  name: VersionName & { number: bigint },
): Promise<{ readonly version: VersionRow; readonly alreadyRemoved: boolean }> {
  await requireWritable(deps, principal, name.collection, "manage");
  const { row, spec, alreadyRemoved } = await deps.database.transaction(async (tx) => {
    // Again: the protection may have changed while this waited for its turn.
    const spec = requireAction(deps.config, principal, name.collection, "manage");
    const found = await requireVersion(tx, spec, name, () => true);
    await tx.collections.lockById(found.collectionId);
    const row = (await tx.versions.findById(found.id))!;
    if (row.state !== "live") return { row, spec, alreadyRemoved: true };
    const version = withProtection(row, spec);
    if (isRemovalBlocked(version, tx.now)) throw versionProtected(version, spec.timezone);
    const others = (live: readonly LiveVersion[]) => live.filter(({ id }) => id !== version.id);
    await requireRoomForCommits(tx, spec, version, others, "delete");
    const removedBy = `user:${principal.user.name}`;
    await removeVersion(tx, deps.settings, spec, version, removedBy);
    await tx.audit({
      kind: "version.removed",
      actor: principal,
      collectionName: version.collectionName,
      object: version.id,
      details: { number: String(version.number), size: String(version.size) },
    });
    return { row: (await tx.versions.findById(version.id))!, spec, alreadyRemoved: false };
  });
  return { version: withProtection(await settled(deps, row), spec), alreadyRemoved };
}

/** A version that a call has changed, after its manifest was written. */
export async function settled({ manifests }: VersionDeps, row: VersionRow): Promise<VersionRow> {
  return manifests === undefined ? row : await manifests.settle(row);
}

function versionProtected(version: VersionRow, timezone: string): DomainError {
  const until = version.protectedUntil ?? undefined;
  const why = version.held
    ? `held: ${version.holdReason}`
    : `protected until ${until === undefined ? "" : formatTimeIn(until, timezone)}`;
  return new DomainError(
    "VERSION_PROTECTED",
    `version ${version.number} of "${version.collectionName}" is ${why}; it cannot be removed`,
    {
      metadata: version.held
        ? { hold_reason: version.holdReason }
        : { protected_until: until?.toISOString() ?? "", timezone },
    },
  );
}

const isLive = (version: VersionRow) => version.state === "live";

const isReadable = (now: Date) => (version: VersionRow) =>
  version.state === "live" || (version.state === "removed" && version.purgeAfter! > now);

/**
 * The version of this name that `accept` takes, with the protection in force.
 * @throws DomainError VERSION_NOT_FOUND, which says of a removed one that it was removed.
 */
export async function requireVersion(
  tx: Transaction,
  spec: ReadableCollection,
  name: VersionName,
  accept: (version: VersionRow) => boolean,
): Promise<VersionRow> {
  const collection = await tx.collections.findByName(spec.name);
  const version =
    collection === undefined
      ? undefined
      : name.number === "newest"
        ? (await tx.versions.listLive(collection.id, undefined, 1))[0]
        : await tx.versions.findByNumber(collection.id, name.number);
  if (version === undefined || !accept(version)) throw versionNotFound(spec, name.number, version, tx.now);
  return withProtection(version, spec);
}

/** The refusal of a version that is not there: it never was, or `removed` is what is left of it. */
export function versionNotFound(
  { name: collection, timezone = "" }: ReadableCollection,
  number: bigint | "newest",
  removed: VersionRow | undefined,
  now: Date,
): DomainError {
  if (number === "newest") {
    const message = `collection "${collection}" has no version yet`;
    return new DomainError("VERSION_NOT_FOUND", message, { metadata: { collection } });
  }
  const metadata = { collection, number: String(number) };
  if (removed?.removedAt == null) {
    const message = `collection "${collection}" has no version ${number}; list the versions to see what there is`;
    return new DomainError("VERSION_NOT_FOUND", message, { metadata });
  }
  const at = (time: Date) => formatTimeIn(time, timezone);
  const how = removed.removedBy.startsWith("user:") ? "by a person" : "by rotation";
  const until = removed.state === "removed" && removed.purgeAfter! > now ? removed.purgeAfter! : undefined;
  const then =
    until === undefined
      ? "the time to bring it back is over"
      : `until ${at(until)} \`strongroom undelete ${collection} ${number}\` brings it back`;
  return new DomainError(
    "VERSION_NOT_FOUND",
    `version ${number} of "${collection}" was removed ${how} at ${at(removed.removedAt)}; ${then}`,
    {
      metadata: {
        ...metadata,
        removed_at: removed.removedAt.toISOString(),
        ...(until === undefined ? {} : { purge_after: until.toISOString() }),
        ...(timezone === "" ? {} : { timezone }),
      },
    },
  );
}

/** What a store says of versions without a database: its list, by collection, and its manifests. */
import { foreignPrefix, manifestKey, meaningOf, VERSIONS_PREFIX } from "../../domain/object-keys.ts";
import type { Version } from "../../domain/version.ts";
import type { BlobLister, BlobReader } from "../ports/blob-store.ts";
import type { NewUploadRow, Transaction, VersionRow } from "../ports/database.ts";
import { MANIFEST_MAX_BYTES, type Manifest, ManifestError, parseManifest } from "../versions/manifest.ts";
import { moveUsage } from "../versions/removal.ts";

/** Name of the storage that versions are recorded in; there is one. */
export const STORAGE = "default";

/** What the store lists of one collection. */
export interface StoredCollection {
  readonly name: string;
  /** Bytes of each object, by its key. */
  readonly objects: ReadonlyMap<string, bigint>;
  /** Keys of objects that have a manifest beside them. */
  readonly manifests: ReadonlySet<string>;
}

/**
 * The collections in a store, one after the other, as keys are listed in order.
 * @param foreign called for keys among them that are not Strongroom's.
 */
export async function* storedCollections(
  store: BlobLister,
  foreign: (key: string) => void = () => {},
): AsyncGenerator<StoredCollection> {
  let current: { name: string; objects: Map<string, bigint>; manifests: Set<string> } | undefined;
  for await (const { key, size } of store.list(VERSIONS_PREFIX)) {
    const meaning = meaningOf(key);
    if (meaning.kind !== "object" && meaning.kind !== "manifest") {
      foreign(key);
      continue;
    }
    const { collection: name, objectKey } = meaning;
    if (current?.name !== name) {
      if (current !== undefined) yield current;
      current = { name, objects: new Map(), manifests: new Set() };
    }
    if (meaning.kind === "object") current.objects.set(key, size);
    else current.manifests.add(objectKey);
  }
  if (current !== undefined) yield current;
}

/**
 * The manifest of an object; undefined when there is none.
 * @throws ManifestError when it cannot be read, or is another object's.
 */
export async function storedManifest(
  store: BlobReader,
  collection: string,
  objectKey: string,
): Promise<Manifest | undefined> {
  const bytes = await store.get(manifestKey(objectKey), MANIFEST_MAX_BYTES);
  if (bytes === undefined) return undefined;
  const manifest = parseManifest(bytes, STORAGE);
  const { key, collectionName } = manifest.version;
  if (key !== objectKey || collectionName !== collection) throw new ManifestError(`it belongs to ${key}`);
  return manifest;
}

/**
 * Bytes of the adopted objects of a collection, by key. The store is asked only where one of the versions has such an
 * object.
 */
export async function adoptedSizes(
  store: BlobLister,
  collection: string,
  versions: readonly Pick<Version, "adoptedKey" | "state">[],
): Promise<ReadonlyMap<string, bigint>> {
  const wanted = new Set(versions.map(({ adoptedKey, state }) => (state === "purged" ? null : adoptedKey)));
  wanted.delete(null);
  const sizes = new Map<string, bigint>();
  if (wanted.size === 0) return sizes;
  for await (const { key, size } of store.list(foreignPrefix(collection))) if (wanted.has(key)) sizes.set(key, size);
  return sizes;
}

/**
 * What is restored of a version whose object is missing or has another size than its manifest says.
 * @param size of the object in bytes; undefined when it is missing.
 */
export function withDamage(manifest: Manifest, size: bigint | undefined, now: Date): Manifest {
  const { version } = manifest;
  const damage =
    size === undefined
      ? "the object is missing in the store"
      : `the object has ${size} bytes; ${version.size} were acknowledged`;
  const damageReason = size === undefined ? "object-missing" : "size-differs";
  // The manifest does not say so yet, unless it is known for longer.
  const revision = version.damage === damage ? version.revision : version.revision + 1;
  const damagedAt = version.damage === "" ? now : version.damagedAt;
  return {
    ...manifest,
    version: { ...version, damage, damageReason, damagedSegment: null, damagedAt, revision, verifiedAt: now },
  };
}

/**
 * Makes the rows of a version that the store has: its own, and that of the upload it was. The collection must be
 * locked.
 */
export async function restoreVersion(
  tx: Transaction,
  { version, segmentDigests }: Manifest,
  collectionId: string,
): Promise<void> {
  const row: VersionRow = { ...version, collectionId };
  if ((await tx.uploads.find(row.id)) === undefined) await tx.uploads.insert(committedUpload(row));
  await tx.versions.insert(row, segmentDigests);
  await moveUsage(tx, row, row.state === "live" ? { storedBytes: row.size } : { trashBytes: row.size });
}

/** The upload that a version was, so that a client whose commit was not answered gets its answer. */
export function committedUpload(version: VersionRow): NewUploadRow {
  return {
    id: version.id,
    collectionId: version.collectionId,
    collectionName: version.collectionName,
    organization: version.organization,
    storage: version.storage,
    key: version.key,
    storeToken: null,
    state: "committed",
    userName: version.userName,
    accessKey: version.accessKey,
    sessionId: version.sessionId,
    requestId: "",
    requestDigest: "",
    filename: version.filename,
    contentEncoding: version.contentEncoding,
    labels: version.labels,
    clientMetadata: version.clientMetadata,
    segmentSize: version.segmentSize,
    maxSize: version.size,
    reservedBytes: 0n,
    lapsed: true,
    leaseExpiresAt: version.committedAt,
    expiresAt: version.committedAt,
    begunAt: version.begunAt,
    endedAt: version.committedAt,
    abortReason: "",
    versionNumber: version.number,
    usualSize: version.usualSize,
    cleanedAt: version.committedAt,
    completingUntil: null,
    lostSince: null,
  };
}

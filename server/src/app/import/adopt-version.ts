import { createHash } from "node:crypto";
import { compositeSha256, splitDigests } from "@strongroom/protocol/digests";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { manifestKey, objectKey } from "../../domain/object-keys.ts";
import { chooseSegmentSize } from "../../domain/segments.ts";
import { PUBLISHED } from "../../domain/version.ts";
import { storeInstallation } from "../installation.ts";
import { BlobNotFoundError, type BlobStore, BlobStoreError } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, VersionRow } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";
import { restoreVersion, STORAGE } from "../upkeep/stored-versions.ts";
import { encodeManifest } from "../versions/manifest.ts";
import { type Inspection, inspectObject } from "./inspect-object.ts";
import type { ImportProblem, PlannedVersion } from "./plan.ts";

/** What {@link adoptVersion} needs. */
export interface AdoptDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly config: ConfigSource;
  readonly settings: Pick<UploadSettings, "leastSegmentSize">;
  /** Id of the installation. */
  readonly installation: string;
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
}

/** What became of an object. */
export interface Adopted {
  /** `present`: it was imported before. */
  readonly outcome: "imported" | "present";
  /** Why its ciphertext is not known to be of an accepted form; empty when it is. */
  readonly unchecked: string;
}

/** How often an object is read before it counts as one that cannot be. */
const TRIES = 3;

/**
 * Makes one object a version, where it lies: reads it, then records the version, then writes its manifest. Each step may
 * be repeated after a death; the sweeper writes a manifest that is missing.
 * @returns a problem when there is no version of it after all.
 * @throws BlobStoreError when the store as a whole does not answer, or cannot adopt.
 */
export async function adoptVersion(
  deps: AdoptDeps,
  collection: string,
  planned: PlannedVersion,
): Promise<Adopted | ImportProblem> {
  const { database, store } = deps;
  const { key, number } = planned;
  const { same, other } = await database.read(async (tx) => {
    const { id } = (await tx.collections.findByName(collection))!;
    return { same: await tx.versions.findByNumber(id, number), other: (await tx.versions.byKeys([key]))[0] };
  });
  if (same?.adoptedKey === key) {
    if (same.state !== "purged" && same.manifestRevision !== same.revision) await writeManifest(deps, same);
    return { outcome: "present", unchecked: same.unchecked };
  }
  if (same !== undefined) return { kind: "conflict", key, why: `version ${number} here is another one` };
  if (other !== undefined) {
    const why = `it was imported as version ${other.number} of "${other.collectionName}", and replaced since`;
    return { kind: "conflict", key, why };
  }
  let found: Inspection | undefined;
  let size = planned.size;
  let segmentSize = 0n;
  for (let tries = 1; found === undefined; tries++) {
    try {
      await store.adopt(key);
      size = (await store.stat(key))?.size ?? 0n;
      if (size === 0n) return { kind: "missing", key, why: `version ${number}: its object is empty` };
      segmentSize = chooseSegmentSize(size, deps.settings.leastSegmentSize, store.capabilities);
      found = await inspectObject(store, { key, size }, segmentSize, deps.signal, deps.onBytes);
    } catch (error) {
      deps.signal.throwIfAborted();
      if (error instanceof BlobNotFoundError)
        return { kind: "missing", key, why: `version ${number}: the store has no such object` };
      // What keeps all objects from being adopted must not leave an import without any.
      if (!(error instanceof BlobStoreError) || segmentSize === 0n) throw error;
      if (tries < TRIES) continue;
      await storeInstallation(store);
      return { kind: "unreadable", key, why: `version ${number}: ${error.message}` };
    }
  }
  const row = await database.transaction(async (tx) => {
    const { id: collectionId } = await tx.collections.lockByName(collection);
    const spec = deps.config.current().collections.get(collection);
    const wanted = planned.old?.id ?? "";
    const isFree = UUID.test(wanted) && (await tx.versions.findById(wanted)) === undefined;
    const id = isFree ? wanted : derivedId(`${deps.installation}/${collection}/${number}/${key}`);
    const version: VersionRow = {
      ...plannedRow({ ...planned, size }, collection, spec, tx.now),
      id,
      collectionId,
      key: objectKey(collection, id),
      segmentSize,
      segmentCount: found.digests.length,
      compositeSha256: compositeSha256(found.digests),
      encryptionFormat: found.format,
      armored: found.armored,
      recipients: found.recipients,
      unchecked: found.unchecked || sizeDiffers(planned, size),
      manifestRevision: 0,
    };
    const again = await tx.versions.findById(id);
    if (again !== undefined) return again;
    await restoreVersion(tx, { version, segmentDigests: Buffer.concat(found.digests) }, collectionId);
    return version;
  });
  await writeManifest(deps, row);
  return { outcome: "imported", unchecked: row.unchecked };
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The same for the same text, so that a repeated import makes no other version; of the form of UUIDs, version 8. */
function derivedId(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex");
  const variant = "89ab"[Number.parseInt(hex[16]!, 16) % 4]!;
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}

/** Backup Repository counted other bytes than there are: what it acknowledged is not what is stored. */
function sizeDiffers({ old }: PlannedVersion, size: bigint): string {
  if (old?.size === undefined || old.size === size) return "";
  return `size-differs: Backup Repository recorded ${old.size} bytes, the object has ${size}`;
}

/** The row of a version as far as it is known before its object was read. */
export function plannedRow(
  { number, key, filename, size, at, old }: PlannedVersion,
  collectionName: string,
  spec: CollectionSpec | undefined,
  now: Date,
): VersionRow {
  // A time beyond now is none; the version was stored before.
  const committedAt = at > now ? now : at;
  const minRetentionMs = spec?.minRetentionMs;
  return {
    ...PUBLISHED,
    id: "",
    collectionId: "",
    collectionName,
    organization: spec?.organization ?? "",
    storage: STORAGE,
    key: "",
    number,
    filename,
    size,
    segmentSize: size,
    segmentCount: 1,
    compositeSha256: new Uint8Array(),
    contentEncoding: "none",
    encryptionFormat: "openpgp",
    armored: false,
    begunAt: committedAt,
    committedAt,
    userName: old?.userName ?? "",
    accessKey: old?.accessKey ?? "",
    sessionId: old?.sessionId ?? "",
    labels: {},
    clientMetadata: {},
    usualSize: null,
    aboveSoftLimit: spec !== undefined && size > spec.maxOneVersionSize,
    protectedUntil: minRetentionMs === undefined ? null : new Date(committedAt.getTime() + minRetentionMs),
    protectedForMs: minRetentionMs ?? null,
    recipients: null,
    adoptedKey: key,
    keptForReturn: true,
  };
}

async function writeManifest({ database, store }: AdoptDeps, version: VersionRow): Promise<void> {
  const { id, revision, manifestRevision: before, segmentCount } = version;
  const digests = await database.read(async (tx) => await tx.versions.segmentDigests(id, 0, segmentCount));
  await store.put(manifestKey(version.key), encodeManifest(version, splitDigests(digests)));
  await database.transaction(async (tx) => await tx.versions.manifestWritten(id, { revision, before }));
}

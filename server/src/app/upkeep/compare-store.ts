import { splitDigests } from "@strongroom/protocol/digests";
import { manifestKey } from "../../domain/object-keys.ts";
import { objectOf } from "../../domain/version.ts";
import { InstallationMismatchError, isSameInstallation } from "../installation.ts";
import { type BlobStore, BlobStoreError } from "../ports/blob-store.ts";
import { type Database, EMPTY_COLLECTION, type UploadRow, type VersionRow } from "../ports/database.ts";
import type { Log, UploadSettings } from "../settings.ts";
import { changeReservation } from "../uploads/reservations.ts";
import { encodeManifest, type Manifest, ManifestError } from "../versions/manifest.ts";
import { recordVerification, verifyObject } from "../versions/verify-version.ts";
import { noteLaterState } from "./later-state.ts";
import {
  adoptedSizes,
  committedUpload,
  restoreVersion,
  storedCollections,
  storedManifest,
  withDamage,
} from "./stored-versions.ts";

/** The database and the store that are compared. */
export interface CompareDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly log: Log;
  readonly settings: Pick<UploadSettings, "purgeDelayMs">;
}

/**
 * What a comparison does: adds a version from the store, marks one without its object, has a manifest written again.
 */
export type CompareAction = "added" | "missing" | "manifestsWrong";

/** Does one thing of a comparison, or only says so. `work` returns false when there was nothing to do after all. */
export type CompareAct = (
  kind: CompareAction,
  what: string,
  fields: Record<string, string>,
  work: () => Promise<unknown>,
) => Promise<void>;

const ROLLED_BACK =
  "the database was rolled back: the store has versions that it does not know. They are added, and nothing of the " +
  "collection is deleted until `strongroom sweep --confirm-rollback`";

/** Rows looked up by their keys at once. */
const BATCH = 500;

interface Listed {
  readonly name: string;
  readonly objects: ReadonlyMap<string, bigint>;
  readonly manifests: ReadonlySet<string>;
}

/**
 * Compares the list of the store with the versions in the database, both ways. Versions whose object and manifest are
 * in the store and that no row knows are added: the database was rolled back. Live versions without their object are
 * marked as damaged. Manifests that are missing or say something else than the row are marked to be written again. It
 * deletes nothing.
 * @param options.contents read every manifest too; else only their presence is compared.
 * @throws BlobStoreError when the store cannot be listed. @throws InstallationMismatchError when it is another one.
 */
export async function compareStore(
  deps: CompareDeps,
  act: CompareAct,
  options: { readonly contents: boolean },
): Promise<void> {
  if (!(await isSameInstallation(deps.database, deps.store)))
    throw new InstallationMismatchError(
      "the store does not carry the installation id of the database; nothing was compared",
    );
  const listed = new Set<string>();
  for await (const collection of storedCollections(deps.store)) {
    listed.add(collection.name);
    await compareCollection(deps, act, collection, options.contents);
  }
  const rows = await deps.database.transaction(async (tx) => await tx.collections.all());
  for (const { name } of rows)
    if (!listed.has(name))
      await compareCollection(deps, act, { name, objects: new Map(), manifests: new Set() }, false);
}

async function compareCollection(deps: CompareDeps, act: CompareAct, listed: Listed, contents: boolean): Promise<void> {
  const { versions, uploads } = await rowsOf(deps, listed);
  const known = [...versions.values()];
  const sizeOf = await sizesOf(deps, listed, known);
  for (const version of known) {
    const { state, damage } = version;
    if (state === "live" && damage === "" && sizeOf(version) !== version.size)
      await act("missing", "a live version has no object, or one of another size", ofVersion(version), async () => {
        const found = await verifyObject(deps, version);
        if (found.damage !== "") await recordVerification(deps, version, found);
        return found.damage !== "";
      });
    if (state !== "purged") await compareManifest(deps, act, version, listed, contents);
  }
  const lost: Manifest[] = [];
  for (const objectKey of listed.manifests) {
    const state = uploads.get(objectKey)?.state;
    // What is being committed has its manifest before its row.
    if (versions.has(objectKey) || state === "committing" || state === "committed") continue;
    const manifest = await usable(deps, listed.name, objectKey);
    if (manifest !== undefined) lost.push(manifest);
  }
  const sizeOfLost = await sizesOf(
    deps,
    listed,
    lost.map(({ version }) => version),
  );
  // Of two of one number, which a database gave out twice, the one published last has it.
  lost.sort((a, b) => b.version.committedAt.getTime() - a.version.committedAt.getTime());
  for (const manifest of lost) {
    const size = sizeOfLost(manifest.version);
    if (size === undefined) continue;
    await act(
      "added",
      "added a version that the store has and the database did not know",
      ofVersion(manifest.version),
      () => add(deps, manifest, size),
    );
  }
}

/** The sizes of objects as the store lists them; undefined for one that it does not. */
async function sizesOf(
  { store }: CompareDeps,
  { name, objects }: Listed,
  versions: readonly Pick<VersionRow, "adoptedKey" | "state">[],
): Promise<(version: Pick<VersionRow, "key" | "adoptedKey">) => bigint | undefined> {
  const adopted = await adoptedSizes(store, name, versions);
  return (version) => (version.adoptedKey === null ? objects : adopted).get(objectOf(version));
}

/** Rows of what is listed, whatever their state, and every live version of the collection, by key. */
async function rowsOf({ database }: CompareDeps, { name, objects, manifests }: Listed) {
  const versions = new Map<string, VersionRow>();
  const uploads = new Map<string, UploadRow>();
  const keys = [...new Set([...objects.keys(), ...manifests])];
  for (let from = 0; from < keys.length; from += BATCH) {
    const batch = keys.slice(from, from + BATCH);
    await database.transaction(async (tx) => {
      // In this order: what is published in between is seen as committing at least.
      for (const row of await tx.uploads.byKeys(batch)) uploads.set(row.key, row);
      for (const row of await tx.versions.byKeys(batch)) versions.set(row.key, row);
    });
  }
  const collection = await database.transaction(async (tx) => await tx.collections.findByName(name));
  const live =
    collection === undefined ? [] : await database.transaction(async (tx) => await tx.versions.allLive(collection.id));
  const known = new Set([...versions.values()].map(({ id }) => id));
  for (const { id } of live.filter((row) => !known.has(row.id))) {
    const row = await database.transaction(async (tx) => await tx.versions.findById(id));
    if (row !== undefined) versions.set(row.key, row);
  }
  return { versions, uploads };
}

async function usable({ store, log }: CompareDeps, collection: string, key: string): Promise<Manifest | undefined> {
  try {
    return await storedManifest(store, collection, key);
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    log.warn(
      { key, why: error.message },
      "an object that the database does not know has a manifest that cannot be used",
    );
    return undefined;
  }
}

/** Has the sweeper write a manifest again that is missing, or that says something else than the row. */
async function compareManifest(
  deps: CompareDeps,
  act: CompareAct,
  version: VersionRow,
  { manifests }: Listed,
  contents: boolean,
): Promise<void> {
  // It is known to be another one, and written again soon.
  if (version.manifestRevision !== version.revision) return;
  const isListed = manifests.has(version.key);
  if (isListed && !contents) return;
  const found = isListed ? await said(deps, version) : "missing";
  if (found instanceof BlobStoreError) {
    // It may say that a removed version is live again: that is not overwritten.
    const what = "the manifest of a version cannot be read";
    return await act("manifestsWrong", what, ofVersion(version), async () => await Promise.reject(found));
  }
  if (typeof found === "object" && (await isSame(deps, version, found))) return;
  const newer = typeof found === "object" && found.version.revision > version.revision ? found.version : undefined;
  const what =
    found === "missing" ? "the manifest of a version is missing" : "the manifest of a version says something else";
  await act("manifestsWrong", what, ofVersion(version), async () => {
    if (found === "missing" && (await deps.store.stat(manifestKey(version.key))) !== undefined) return false;
    return await deps.database.transaction(async (tx) => {
      await tx.collections.lockById(version.collectionId);
      const row = await tx.versions.findById(version.id);
      if (row?.revision !== version.revision || row.state === "purged") return false;
      if (newer !== undefined) await noteLaterState(tx, row, newer);
      else await tx.versions.manifestWritten(row.id, { revision: 0, before: row.manifestRevision });
      return true;
    });
  });
}

/** One that the store does not read, while it answers, must not keep the others from being compared. */
async function said(deps: CompareDeps, version: VersionRow): Promise<Manifest | "missing" | "wrong" | BlobStoreError> {
  try {
    return (await storedManifest(deps.store, version.collectionName, version.key)) ?? "missing";
  } catch (error) {
    if (error instanceof ManifestError) return "wrong";
    if (!(error instanceof BlobStoreError) || !(await isSameInstallation(deps.database, deps.store))) throw error;
    return error;
  }
}

/** Whether a manifest, of any format, says what the row says. */
async function isSame({ database }: CompareDeps, version: VersionRow, found: Manifest): Promise<boolean> {
  const digests = await database.transaction(
    async (tx) => await tx.versions.segmentDigests(version.id, 0, version.segmentCount),
  );
  const encoded = (of: VersionRow, segments: Uint8Array) => encodeManifest(of, splitDigests(segments));
  return Buffer.compare(encoded(version, digests), encoded(found.version, found.segmentDigests)) === 0;
}

/**
 * Adds one version, unless another one has its number: then it stays in the store, and health says so all the same.
 * Returns false when a row has appeared meanwhile.
 */
async function add(deps: CompareDeps, manifest: Manifest, size: bigint): Promise<boolean> {
  const { id, number, collectionName: name } = manifest.version;
  return await deps.database.transaction(async (tx) => {
    if ((await tx.collections.findByName(name)) === undefined) {
      await tx.collections.insert({ id: manifest.version.collectionId, name, lastNumber: 0n, ...EMPTY_COLLECTION });
    }
    const collection = await tx.collections.lockByName(name);
    if ((await tx.versions.findById(id)) !== undefined) return false;
    const upload = await tx.uploads.find(id);
    if (upload?.state === "committing") return false;
    await tx.collections.skipNumbers(collection.id, number);
    const fields = { number: String(number), key: manifest.version.key };
    const isTaken = (await tx.versions.findByNumber(collection.id, number)) !== undefined;
    if (isTaken) {
      const name = { key: manifest.version.key, token: "" };
      // It was found before, and somebody has confirmed that since.
      if (collection.rolledBackAt === null && (await tx.unknownObjects.isKnown(name))) return false;
      await tx.unknownObjects.seen([name], tx.now);
    }
    await tx.collections.noteRollback(collection.id, tx.now, isTaken ? 0 : 1);
    if (collection.rolledBackAt === null) deps.log.error({ collection: name }, ROLLED_BACK);
    if (isTaken) {
      deps.log.error(
        { collection: name, ...fields },
        "a version in the store has a number that the database gave out again; it is not added, and stays in the store",
      );
      return false;
    }
    if (upload !== undefined) {
      const { state, endedAt, cleanedAt, versionNumber } = committedUpload(manifest.version);
      const ended = { state, endedAt, cleanedAt, versionNumber, abortReason: "", lapsed: true, lostSince: null };
      await changeReservation(tx, upload, -upload.reservedBytes, ended);
      await tx.segments.deleteAll(id);
    }
    const kept = withTime(manifest, new Date(tx.now.getTime() + deps.settings.purgeDelayMs));
    await restoreVersion(tx, size === kept.version.size ? kept : withDamage(kept, size, tx.now), collection.id);
    await tx.audit({ kind: "version.added", actor: "server", collectionName: name, details: fields });
    return true;
  });
}

/** A removed version keeps its bytes until then at least, so that somebody can look. */
function withTime(manifest: Manifest, least: Date): Manifest {
  const { version } = manifest;
  if (version.purgeAfter === null || version.purgeAfter >= least) return manifest;
  return { ...manifest, version: { ...version, purgeAfter: least, revision: version.revision + 1 } };
}

function ofVersion({ collectionName, number, key }: VersionRow): Record<string, string> {
  return { collection: collectionName, number: String(number), key };
}

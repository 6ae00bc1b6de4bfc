import { INSTALLATION_KEY, meaningOf, VERSIONS_PREFIX } from "../../domain/object-keys.ts";
import type { Version } from "../../domain/version.ts";
import { storeInstallation } from "../installation.ts";
import type { BlobLister, BlobReader } from "../ports/blob-store.ts";
import type { Database, Transaction, UploadRow, VersionRow } from "../ports/database.ts";
import { MANIFEST_MAX_BYTES, type Manifest, ManifestError, parseManifest } from "../versions/manifest.ts";
import { moveUsage } from "../versions/removal.ts";
import { UnsafeError } from "./inventory.ts";

/** The store that is read, and the database that is filled from it. */
export interface RecoverDeps {
  /** Undefined for a dry run, which looks at the store only. */
  readonly database: Database | undefined;
  readonly store: BlobReader & BlobLister;
  /** Called after each collection. */
  readonly onCollection?: (name: string, versions: number) => void;
}

/** Something in the store that a person should look at. */
export interface RecoveryProblem {
  readonly key: string;
  readonly why: string;
}

/** What a rebuild did, or in a dry run would do. */
export interface RecoveryReport {
  readonly installation: string;
  readonly collections: number;
  /** Live versions. */
  readonly versions: number;
  /** Removed versions whose time had not come. */
  readonly removed: number;
  /** Bytes of live versions. */
  readonly bytes: bigint;
  /** Versions whose object is missing, has another size or was found damaged before; restored and marked as damaged. */
  readonly damaged: readonly RecoveryProblem[];
  /** Manifests that cannot be used: their versions are not restored. */
  readonly skipped: readonly RecoveryProblem[];
  /** Objects without a manifest, and what is not Strongroom's; left alone. */
  readonly unknown: readonly RecoveryProblem[];
  /** Unfinished objects; their uploads cannot be resumed. */
  readonly unfinished: number;
}

/** Name of the storage that versions are recorded in; there is one. */
const STORAGE = "default";

interface Found {
  readonly manifest: Manifest;
  readonly key: string;
}

/**
 * Rebuilds an empty database from the manifests in a store: versions with their numbers and provenance, the counters,
 * and the last number of each collection. Takes over the store's installation id. Each collection is one transaction,
 * and the database refuses to serve until all are done; after a crash the same call goes on.
 * @throws UnsafeError when the database is in use, or the store is no Strongroom store.
 */
export async function recover(deps: RecoverDeps): Promise<RecoveryReport> {
  const { database, store } = deps;
  const installation = await storeInstallation(store);
  if (installation === undefined) {
    throw new UnsafeError(
      `the store has no ${INSTALLATION_KEY}: it is empty, or not a store of Strongroom. Check the storage URL`,
    );
  }
  if (database !== undefined && !(await database.startRecovery(installation))) {
    throw new UnsafeError(
      "the database is in use; a rebuild needs an empty one, so that nothing is mixed up. Give it another " +
        "--database, or move the old one away",
    );
  }
  const report = {
    installation,
    collections: 0,
    versions: 0,
    removed: 0,
    bytes: 0n,
    damaged: [] as RecoveryProblem[],
    skipped: [] as RecoveryProblem[],
    unknown: [] as RecoveryProblem[],
    unfinished: 0,
  };
  for await (const { name, manifests, sizes } of collectionsIn(store, report)) {
    const { usable, lastNumber } = withoutDuplicates(manifests, report.skipped);
    const versions = await restorable(usable, sizes, report, database);
    if (database !== undefined) {
      await database.transaction(async (tx) => await restoreCollection(tx, name, usable, versions, lastNumber));
    }
    const live = versions.filter(({ version }) => version.state === "live");
    if (usable.length > 0) report.collections++;
    report.versions += live.length;
    report.removed += versions.length - live.length;
    report.bytes += live.reduce((sum, { version }) => sum + version.size, 0n);
    deps.onCollection?.(name, versions.length);
  }
  for await (const _ of store.listPending()) report.unfinished++;
  await database?.finishRecovery();
  return report;
}

/** The collections in a store, one after the other, as keys are listed in order. */
async function* collectionsIn(
  store: BlobReader & BlobLister,
  report: { readonly skipped: RecoveryProblem[]; readonly unknown: RecoveryProblem[] },
): AsyncGenerator<{ name: string; manifests: Found[]; sizes: Map<string, bigint> }> {
  let current: { name: string; manifests: Found[]; sizes: Map<string, bigint>; keys: Set<string> } | undefined;
  const finish = () => {
    for (const key of current!.sizes.keys()) {
      if (!current!.keys.has(key)) report.unknown.push({ key, why: "the object has no manifest" });
    }
    return { name: current!.name, manifests: current!.manifests, sizes: current!.sizes };
  };
  for await (const { key, size } of store.list(VERSIONS_PREFIX)) {
    const meaning = meaningOf(key);
    if (meaning.kind !== "object" && meaning.kind !== "manifest") {
      report.unknown.push({ key, why: "it is not Strongroom's" });
      continue;
    }
    const { collection: name, objectKey } = meaning;
    if (current?.name !== name) {
      if (current !== undefined) yield finish();
      current = { name, manifests: [], sizes: new Map(), keys: new Set() };
    }
    if (meaning.kind === "object") {
      current.sizes.set(key, size);
      continue;
    }
    current.keys.add(objectKey);
    try {
      const bytes = await store.get(key, MANIFEST_MAX_BYTES);
      if (bytes === undefined) throw new ManifestError("it has gone");
      const manifest = parseManifest(bytes, STORAGE);
      if (manifest.version.key !== objectKey || manifest.version.collectionName !== name)
        throw new ManifestError(`it belongs to ${manifest.version.key}`);
      current.manifests.push({ key, manifest });
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      report.skipped.push({ key, why: `the manifest cannot be used: ${error.message}` });
    }
  }
  if (current !== undefined) yield finish();
}

/**
 * A number that was given out twice, by a database that had been rolled back, stays with the version published last; of
 * two manifests of one version, the higher revision counts.
 */
function withoutDuplicates(manifests: readonly Found[], skipped: RecoveryProblem[]) {
  const byNumber = new Map<bigint, Found>();
  let lastNumber = 0n;
  const time = ({ manifest }: Found) => manifest.version.committedAt.getTime();
  const revision = ({ manifest }: Found) => manifest.version.revision;
  const newestFirst = (a: Found, b: Found) => time(b) - time(a) || revision(b) - revision(a);
  for (const found of [...manifests].sort(newestFirst)) {
    const { number } = found.manifest.version;
    if (number > lastNumber) lastNumber = number;
    const other = byNumber.get(number);
    if (other === undefined) byNumber.set(number, found);
    else skipped.push({ key: found.key, why: `number ${number} is that of ${other.manifest.version.key} too` });
  }
  return { usable: [...byNumber.values()].map(({ manifest }) => manifest), lastNumber };
}

/**
 * The versions to restore, those without their object marked as damaged. Removed ones whose object has been deleted are
 * gone.
 */
async function restorable(
  manifests: readonly Manifest[],
  sizes: ReadonlyMap<string, bigint>,
  report: { readonly damaged: RecoveryProblem[] },
  database: Database | undefined,
): Promise<Manifest[]> {
  const now = (await database?.transaction(async (tx) => tx.now)) ?? new Date();
  const kept: Manifest[] = [];
  for (const manifest of manifests) {
    const { version } = manifest;
    const size = sizes.get(version.key);
    if (size === version.size) {
      // Nothing is read here, so what an earlier verification found still holds.
      if (version.damage !== "") report.damaged.push({ key: version.key, why: damageOf(version, version.damage) });
      kept.push(manifest);
      continue;
    }
    if (size === undefined && version.state === "removed" && version.purgeAfter! <= now) continue;
    const damage =
      size === undefined
        ? "the object is missing in the store"
        : `the object has ${size} bytes; ${version.size} were acknowledged`;
    const damageReason = size === undefined ? "object-missing" : "size-differs";
    report.damaged.push({ key: version.key, why: damageOf(version, damage) });
    // The manifest does not say so yet, unless it is known for longer.
    const revision = version.damage === damage ? version.revision : version.revision + 1;
    kept.push({
      ...manifest,
      version: { ...version, damage, damageReason, damagedSegment: null, revision, verifiedAt: now },
    });
  }
  return kept;
}

function damageOf({ number }: Pick<Version, "number">, damage: string): string {
  return `version ${number}: ${damage}`;
}

async function restoreCollection(
  tx: Transaction,
  name: string,
  manifests: readonly Manifest[],
  versions: readonly Manifest[],
  lastNumber: bigint,
): Promise<void> {
  // Done by a call that died later.
  if (manifests.length === 0 || (await tx.collections.findByName(name)) !== undefined) return;
  const id = manifests[0]!.version.collectionId;
  const empty = { storedBytes: 0n, reservedBytes: 0n, trashBytes: 0n, rolledBackAt: null, addedVersions: 0 };
  await tx.collections.insert({ id, name, lastNumber, ...empty });
  await tx.collections.lockById(id);
  for (const { version, segmentDigests } of versions) {
    const row: VersionRow = { ...version, collectionId: id };
    await tx.uploads.insert(committedUpload(row));
    await tx.versions.insert(row, segmentDigests);
    await moveUsage(tx, row, row.state === "live" ? { storedBytes: row.size } : { trashBytes: row.size });
  }
  await tx.audit({
    kind: "collection.recovered",
    actor: "operator",
    collectionName: name,
    details: { versions: String(versions.length), last_number: String(lastNumber) },
  });
}

/** The upload that a version was, so that a client whose commit was not answered gets its answer. */
function committedUpload(version: VersionRow): UploadRow {
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
    cleanedAt: version.committedAt,
    completingUntil: null,
    lostSince: null,
  };
}

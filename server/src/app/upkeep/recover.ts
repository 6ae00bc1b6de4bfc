import { INSTALLATION_KEY, manifestKey } from "../../domain/object-keys.ts";
import { objectOf, type Version } from "../../domain/version.ts";
import { storeInstallation } from "../installation.ts";
import { type StoredClosing, storedClosings } from "../organizations/closing-object.ts";
import type { BlobLister, BlobReader } from "../ports/blob-store.ts";
import { type Database, EMPTY_COLLECTION, type Transaction } from "../ports/database.ts";
import { type Manifest, ManifestError } from "../versions/manifest.ts";
import { UnsafeError } from "./inventory.ts";
import {
  adoptedSizes,
  restoreVersion,
  type StoredCollection,
  storedCollections,
  storedManifest,
  withDamage,
} from "./stored-versions.ts";

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

interface Found {
  readonly manifest: Manifest;
  readonly key: string;
}

/**
 * Rebuilds an empty database from the manifests in a store: versions with their numbers and provenance, the counters,
 * and the last number of each collection. Takes over the store's installation id. Each collection is one transaction,
 * and the database refuses to serve until all are done; after a crash the same call goes on.
 * @throws UnsafeError when the database is in use, something else makes collections in it meanwhile, or the store is no Strongroom store.
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
  const foreign = (key: string) => void report.unknown.push({ key, why: "it is not Strongroom's" });
  for await (const stored of storedCollections(store, foreign)) {
    const { name } = stored;
    const { usable, lastNumber } = withoutDuplicates(await manifestsOf(store, stored, report), report.skipped);
    const adopted = await adoptedSizes(
      store,
      name,
      usable.map(({ version }) => version),
    );
    const sizes = new Map([...stored.objects, ...adopted]);
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
  for await (const closing of storedClosings(store)) {
    if ("why" in closing) report.skipped.push(closing);
    else await database?.transaction(async (tx) => await restoreClosing(tx, closing));
  }
  for await (const _ of store.listPending()) report.unfinished++;
  await database?.finishRecovery();
  return report;
}

/** The manifests of a collection that can be used; notes what cannot. */
async function manifestsOf(
  store: BlobReader,
  { name, objects, manifests }: StoredCollection,
  report: { readonly skipped: RecoveryProblem[]; readonly unknown: RecoveryProblem[] },
): Promise<Found[]> {
  const found: Found[] = [];
  for (const objectKey of manifests) {
    const key = manifestKey(objectKey);
    try {
      const manifest = await storedManifest(store, name, objectKey);
      if (manifest === undefined) throw new ManifestError("it has gone");
      found.push({ key, manifest });
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      report.skipped.push({ key, why: `the manifest cannot be used: ${error.message}` });
    }
  }
  for (const key of objects.keys())
    if (!manifests.has(key)) report.unknown.push({ key, why: "the object has no manifest" });
  return found;
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
    const size = sizes.get(objectOf(version));
    if (size === version.size) {
      // Nothing is read here, so what an earlier verification found still holds.
      if (version.damage !== "")
        report.damaged.push({ key: objectOf(version), why: damageOf(version, version.damage) });
      kept.push(manifest);
      continue;
    }
    if (size === undefined && version.state === "removed" && version.purgeAfter! <= now) continue;
    const damaged = withDamage(manifest, size, now);
    report.damaged.push({ key: objectOf(version), why: damageOf(version, damaged.version.damage) });
    kept.push(damaged);
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
  if (manifests.length === 0) return;
  const existing = await tx.collections.findByName(name);
  // Done by a call that died later.
  if (existing !== undefined && existing.lastNumber > 0n) return;
  if (existing !== undefined) {
    throw new UnsafeError(
      `something else made collection ${name} in the database during the rebuild; end every server that runs on the ` +
        "database, and run the same command again",
    );
  }
  const id = manifests[0]!.version.collectionId;
  await tx.collections.insert({ id, name, lastNumber, ...EMPTY_COLLECTION });
  await tx.collections.lockById(id);
  for (const manifest of versions) await restoreVersion(tx, manifest, id);
  await tx.audit({
    kind: "collection.recovered",
    actor: "operator",
    collectionName: name,
    details: { versions: String(versions.length), last_number: String(lastNumber) },
  });
}

async function restoreClosing(tx: Transaction, { name, closedAt, closedBy, closedReason, purge }: StoredClosing) {
  await tx.organizations.close(name, { closedAt, closedBy, closedReason });
  if (purge !== null) await tx.organizations.notePurge(name, purge);
}

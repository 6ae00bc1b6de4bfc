import { INSTALLATION_KEY, meaningOf } from "../../domain/object-keys.ts";
import { isSameInstallation } from "../installation.ts";
import type { BlobStore, PendingBlob } from "../ports/blob-store.ts";
import type { Database, StoredName, UploadState } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { MANIFEST_MAX_BYTES, ManifestError, parseManifest } from "../versions/manifest.ts";

/** The database and the store that are compared, and a log for what cannot be read. */
export interface InventoryDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly log: Log;
}

/** Something in the store that no row of the database accounts for. */
export interface UnknownObject extends StoredName {
  /** Bytes; undefined for an unfinished object. */
  readonly size: bigint | undefined;
  /** Why it is unknown. */
  readonly why: string;
  /** False for what does not have the form of Strongroom's own keys; it is never deleted. */
  readonly isOurs: boolean;
  /** Since when every inventory has found it unknown. */
  readonly since: Date;
}

/** What an inventory found. */
export interface Inventory {
  readonly unknown: readonly UnknownObject[];
  /** Objects and manifests of purged versions. */
  readonly leftovers: readonly string[];
  /** Unfinished objects of uploads that have ended. */
  readonly unfinished: readonly PendingBlob[];
}

/** Unknown objects are deleted only after they were known as such for this long, in milliseconds. */
export const UNKNOWN_GRACE_MS = 24 * 3_600_000;

/** Objects looked up in the database at once. */
const BATCH = 500;

type Finding = Omit<UnknownObject, "since">;

/**
 * Compares what the store holds with what the database knows. Deletes nothing.
 * @param options.finished also look at finished objects, which reads the whole list of the store; else only at
 *   unfinished ones.
 * @param options.record note since when objects are unknown.
 */
export async function takeInventory(
  deps: InventoryDeps,
  options: { readonly finished: boolean; readonly record: boolean },
): Promise<Inventory> {
  const started = await deps.database.transaction(async (tx) => tx.now);
  const unknown: UnknownObject[] = [];
  const leftovers: string[] = [];
  const unfinished: PendingBlob[] = [];

  const note = async (findings: readonly Finding[]) => {
    if (findings.length === 0) return;
    const since = await deps.database.transaction(async (tx) =>
      options.record ? await tx.unknownObjects.seen(findings, started) : findings.map(() => started),
    );
    unknown.push(...findings.map((finding, i) => ({ ...finding, since: since[i]! })));
  };

  for await (const batch of batches(deps.store.listPending())) {
    const keys = batch.map((b) => b.key);
    const { uploads, versions } = await deps.database.transaction(async (tx) => ({
      uploads: await tx.uploads.byKeys(keys),
      versions: await tx.versions.byKeys(keys),
    }));
    // The row of an upload goes a week after its end; its version says then that it has ended.
    const stateOf = new Map<string, UploadState>([
      ...versions.map((version) => [version.key, "committed"] as const),
      ...uploads.map((upload) => [upload.key, upload.state] as const),
    ]);
    const findings: Finding[] = [];
    for (const blob of batch) {
      const state = stateOf.get(blob.key);
      if (state === undefined) {
        findings.push({ ...unknownName(blob.key), token: blob.token, size: undefined });
      } else if (state !== "open" && state !== "committing") {
        unfinished.push(blob);
      }
    }
    await note(findings);
  }
  if (!options.finished) return { unknown, leftovers, unfinished };

  for await (const batch of batches(deps.store.list(""))) {
    const keys = [...new Set(batch.map(({ key }) => objectKeyOf(key)))];
    const { versions, uploads } = await deps.database.transaction(async (tx) => ({
      versions: await tx.versions.byKeys(keys),
      uploads: await tx.uploads.byKeys(keys),
    }));
    const versionState = new Map(
      versions.flatMap(({ key, adoptedKey, state }) => [[key, state] as const, [adoptedKey ?? key, state] as const]),
    );
    const uploadState = new Map(uploads.map((upload) => [upload.key, upload.state]));
    const findings: Finding[] = [];
    for (const { key, size } of batch) {
      const version = versionState.get(objectKeyOf(key));
      const upload = uploadState.get(objectKeyOf(key));
      if (version === "purged") leftovers.push(key);
      // Committed, without a version a moment ago: it was published in between.
      else if (version !== undefined || upload === "committing" || upload === "committed" || key === INSTALLATION_KEY) {
      } else if (upload === undefined) findings.push({ ...unknownName(key), token: "", size });
      else {
        // Only a database that was rolled back, or a commit given up too early, makes this; the bytes may be a version.
        const why = `the database says that this upload is ${upload}, but its object is finished`;
        findings.push({ key, token: "", size, why, isOurs: true });
      }
    }
    await note(findings);
  }
  if (options.record) await deps.database.transaction(async (tx) => await tx.unknownObjects.forget(started));
  return { unknown, leftovers, unfinished };
}

/** The key of the object that a manifest lies beside; other keys stay. */
export function objectKeyOf(key: string): string {
  const meaning = meaningOf(key);
  return meaning.kind === "manifest" ? meaning.objectKey : key;
}

function unknownName(key: string): Pick<Finding, "key" | "why" | "isOurs"> {
  const { kind } = meaningOf(key);
  const isOurs = kind === "object" || kind === "manifest";
  return { key, isOurs, why: isOurs ? "the database has no such upload" : "it is not Strongroom's" };
}

function collectionOf(key: string): string {
  const meaning = meaningOf(key);
  return "collection" in meaning ? meaning.collection : "";
}

async function* batches<T extends { readonly key: string }>(items: AsyncIterable<T>): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const item of items) {
    const { kind } = meaningOf(item.key);
    if (kind === "probe" || kind === "audit" || kind === "organization") continue;
    batch.push(item);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

/** A command will not do what it was asked, since that could destroy versions. */
export class UnsafeError extends Error {
  override name = "UnsafeError";
}

/** The unknown objects that an explicit command may delete now. */
export async function deletableObjects(deps: InventoryDeps, found: Inventory): Promise<UnknownObject[]> {
  const now = await deps.database.transaction(async (tx) => tx.now);
  return found.unknown.filter(({ isOurs, since }) => isOurs && now.getTime() - since.getTime() >= UNKNOWN_GRACE_MS);
}

/**
 * Deletes unknown objects, for an operator who said so.
 * @throws UnsafeError when a manifest shows that the database has been rolled back.
 */
export async function deleteUnknown(
  deps: InventoryDeps,
  found: Inventory,
  objects: readonly UnknownObject[],
): Promise<void> {
  if (!(await isSameInstallation(deps.database, deps.store)))
    throw new UnsafeError("the store carries another installation id than the database; nothing was deleted");
  await requireNotRolledBack(deps, found);
  for (const { key, token, why } of objects) {
    if (token === "") await deps.store.delete(key);
    else await deps.store.abort({ key, token });
    deps.log.warn({ key, why }, "sweeper: deleted an unknown object, as an operator said");
    await deps.database.transaction(
      async (tx) =>
        await tx.audit({
          kind: "object.deleted",
          actor: "operator",
          collectionName: collectionOf(key),
          details: { key, why },
        }),
    );
  }
}

/** A number that the database never gave out, or gave to another version, was given out by a later state of it. */
async function requireNotRolledBack(deps: InventoryDeps, { unknown }: Inventory): Promise<void> {
  for (const { key, token } of unknown) {
    if (token !== "" || meaningOf(key).kind !== "manifest") continue;
    const bytes = await deps.store.get(key, MANIFEST_MAX_BYTES);
    if (bytes === undefined) continue;
    let number: bigint;
    let collectionName: string;
    try {
      ({ number, collectionName } = parseManifest(bytes, "").version);
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      continue;
    }
    const older = "put back the newest copy of the database, or rebuild it from the store with `strongroom recover`";
    const proof = await deps.database.transaction(async (tx) => {
      const collection = await tx.collections.findByName(collectionName);
      if (collection === undefined) return { but: "the database has no such collection", way: older };
      if (number > collection.lastNumber)
        return { but: `the database has given out only ${collection.lastNumber}`, way: older };
      const other = await tx.versions.findByNumber(collection.id, number);
      // Somebody has confirmed it, so that this is no news.
      if (other === undefined || collection.rolledBackAt === null) return undefined;
      const confirm = `\`strongroom sweep --confirm-rollback ${collectionName} --yes\``;
      return {
        but: "the database has another version of that number",
        way: `${older}; or look at both versions (docs/restore-by-hand.md), then ${confirm}`,
      };
    });
    if (proof === undefined) continue;
    throw new UnsafeError(
      `the database has been rolled back: ${key} says that it is version ${number} of "${collectionName}", but ` +
        `${proof.but}. Nothing was deleted; ${proof.way}`,
    );
  }
}

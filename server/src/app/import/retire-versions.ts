import { foreignName } from "../../domain/object-keys.ts";
import { isRemovalBlocked } from "../../domain/rotation.ts";
import { withProtection } from "../../domain/version.ts";
import type { BlobReader } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, Transaction, Verification, VersionRow } from "../ports/database.ts";
import type { OldDatabase } from "../ports/old-installation.ts";
import type { UploadSettings } from "../settings.ts";
import { removeVersion } from "../versions/removal.ts";
import { verifyVersion } from "../versions/verify-version.ts";
import type { PlannedCollection } from "./plan.ts";

/** What {@link retireVersions} needs. */
export interface RetireDeps {
  readonly database: Database;
  readonly store: BlobReader;
  readonly signal: AbortSignal;
  readonly old: OldDatabase | undefined;
  readonly config: ConfigSource;
  readonly settings: Pick<UploadSettings, "purgeDelayMs">;
}

/** Versions read at once. */
const BATCH = 200;

/**
 * Removes versions that were imported before and that Backup Repository, which went on working, has deleted since, or
 * whose object it has replaced by that of a later version. What is held or protected here stays. No version keeps an
 * object that has been replaced, or its deletion would be that of the later one.
 * @returns how many; in a dry run how many it would be.
 */
export async function retireVersions(
  deps: RetireDeps,
  { name, versions }: PlannedCollection,
  { dryRun }: { readonly dryRun: boolean },
): Promise<number> {
  const numberOf = new Map(versions.map(({ key, number }) => [key, number]));
  const gone: { row: VersionRow; isReplaced: boolean }[] = [];
  for await (const row of adoptedOf(deps.database, name)) {
    const isReplaced = numberOf.has(row.adoptedKey);
    if (numberOf.get(row.adoptedKey) !== row.number) gone.push({ row, isReplaced });
  }
  const filenameOf = (row: { adoptedKey: string }) => foreignName(row.adoptedKey)?.filename ?? "";
  const filenames = gone.map(({ row }) => filenameOf({ adoptedKey: row.adoptedKey ?? "" }));
  const deleted =
    filenames.length === 0 ? new Set<string>() : ((await deps.old?.deleted(name, filenames)) ?? new Set());
  let retired = 0;
  for (const [index, { row, isReplaced }] of gone.entries()) {
    if (!isReplaced && !deleted.has(filenames[index]!)) continue;
    if (dryRun || (await retire(deps, row, isReplaced))) retired++;
  }
  if (!dryRun) await loseReplaced(deps, numberOf);
  return retired;
}

/**
 * Versions of any state whose object is that of another version by now lose it. One that has to stay loses it only
 * when it has other bytes, and is damaged then: in a directory both have their bytes.
 */
async function loseReplaced(deps: RetireDeps, numberOf: ReadonlyMap<string, bigint>): Promise<void> {
  const { database, config, store, signal } = deps;
  const keys = [...numberOf.keys()];
  for (let first = 0; first < keys.length; first += BATCH) {
    signal.throwIfAborted();
    const { rows, now } = await database.transaction(async (tx) => ({
      rows: await tx.versions.byKeys(keys.slice(first, first + BATCH)),
      now: tx.now,
    }));
    for (const row of rows) {
      const number = row.adoptedKey === null ? undefined : numberOf.get(row.adoptedKey);
      if (number === undefined || number === row.number) continue;
      const version = withProtection(row, config.current().collections.get(row.collectionName));
      let damage: Verification | undefined;
      if (row.state === "live" || (row.state === "removed" && isRemovalBlocked(version, now))) {
        damage = await verifyVersion({ database, store }, row, { signal });
        if (damage.damage === "") continue;
      }
      await database.transaction(async (tx) => {
        await tx.collections.lockById(row.collectionId);
        if (damage !== undefined) await noteDamage(tx, row, damage);
        await tx.versions.loseAdopted(row.id);
      });
    }
  }
}

async function noteDamage(
  tx: Transaction,
  { id, number, collectionName, adoptedKey }: VersionRow,
  found: Verification,
) {
  await tx.versions.recordVerification(id, tx.now, found);
  await tx.audit({
    kind: "version.damaged",
    actor: "operator",
    collectionName,
    object: id,
    reason: "Backup Repository stored another version over it",
    details: { number: String(number), key: adoptedKey ?? "", damage: found.damage },
  });
}

async function* adoptedOf(database: Database, name: string): AsyncGenerator<VersionRow & { adoptedKey: string }> {
  const collection = await database.read(async (tx) => await tx.collections.findByName(name));
  if (collection === undefined) return;
  for (let before: bigint | undefined; ; ) {
    const page = await database.read(async (tx) => await tx.versions.listLive(collection.id, before, BATCH));
    for (const row of page) {
      const { adoptedKey } = row;
      if (adoptedKey !== null && row.keptForReturn) yield { ...row, adoptedKey };
    }
    if (page.length < BATCH) return;
    before = page.at(-1)!.number;
  }
}

async function retire(
  { database, config, settings }: RetireDeps,
  row: VersionRow,
  isReplaced: boolean,
): Promise<boolean> {
  return await database.transaction(async (tx) => {
    await tx.collections.lockById(row.collectionId);
    const spec = config.current().collections.get(row.collectionName);
    const version = withProtection((await tx.versions.findById(row.id))!, spec);
    if (version.state !== "live" || isRemovalBlocked(version, tx.now)) return false;
    if ((await removeVersion(tx, settings, spec ?? { trashRetentionMs: undefined }, version, "import")) === undefined)
      return false;
    if (isReplaced) await tx.versions.loseAdopted(version.id);
    await tx.audit({
      kind: "version.removed",
      actor: "operator",
      collectionName: version.collectionName,
      object: version.id,
      reason: isReplaced ? "Backup Repository stored another version over it" : "Backup Repository deleted it",
      details: { number: String(version.number), size: String(version.size) },
    });
    return true;
  });
}

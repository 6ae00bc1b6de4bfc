import { foreignName } from "../../domain/object-keys.ts";
import { isRemovalBlocked } from "../../domain/rotation.ts";
import { withProtection } from "../../domain/version.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, VersionRow } from "../ports/database.ts";
import type { OldDatabase } from "../ports/old-installation.ts";
import type { UploadSettings } from "../settings.ts";
import { removeVersion } from "../versions/removal.ts";
import type { PlannedCollection } from "./plan.ts";

/** What {@link retireVersions} needs. */
export interface RetireDeps {
  readonly database: Database;
  readonly old: OldDatabase | undefined;
  readonly config: ConfigSource;
  readonly settings: Pick<UploadSettings, "purgeDelayMs">;
}

/** Live versions read at once. */
const BATCH = 200;

/**
 * Removes versions that were imported before and that Backup Repository, which went on working, has deleted since, or
 * whose object it has replaced by that of a later version. What is held or protected here stays.
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
  return retired;
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

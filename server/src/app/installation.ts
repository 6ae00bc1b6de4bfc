import { foreignName, INSTALLATION_KEY } from "../domain/object-keys.ts";
import type { BlobReader, BlobStore } from "./ports/blob-store.ts";
import type { Database } from "./ports/database.ts";

/**
 * Database and store do not belong together; the server must not start, since its sweeper could delete what it does not
 * know.
 */
export class InstallationMismatchError extends Error {
  override name = "InstallationMismatchError";
}

/**
 * Makes sure that database and store carry the same installation id: an empty or rolled-back database must never empty
 * a store. A new database and an unmarked store are bound together here, unless another program uses the store.
 * @param accepted.importing also while the first import is not complete.
 * @throws InstallationMismatchError
 */
export async function checkInstallation(
  database: Database,
  store: BlobStore,
  accepted: { readonly importing?: boolean } = {},
): Promise<string> {
  const { id, fresh, recovering, importing } = await database.installation();
  if (recovering) {
    throw new InstallationMismatchError(
      "the database is being rebuilt and is not complete: run `strongroom recover` with the same storage and " +
        "database again",
    );
  }
  if (importing && accepted.importing !== true) {
    throw new InstallationMismatchError(
      "the versions of Backup Repository are being taken over, and some are missing yet: run `strongroom import` with " +
        "the same storage and database again",
    );
  }
  const bytes = await store.get(INSTALLATION_KEY, 4096);
  if (bytes === undefined) {
    if (!fresh) {
      throw new InstallationMismatchError(
        `the database is in use (installation ${id}), but the ${store.capabilities.name} store has no ` +
          `${INSTALLATION_KEY}: it is empty or another one. Check the storage URL; if the store was lost on ` +
          "purpose, begin with a new database",
      );
    }
    for await (const { key } of store.listForeign()) {
      if (foreignName(key) === undefined) continue;
      throw new InstallationMismatchError(
        `the database is new, but the store holds objects of another program (${key}). If they are those of Backup ` +
          "Repository, take them over first: `strongroom import`. Else choose an empty bucket, prefix or directory",
      );
    }
    await markInstallation(store, id);
    return id;
  }
  const found = installationIdOf(bytes);
  if (found !== id) {
    throw new InstallationMismatchError(
      `the store belongs to installation ${found}, the database to ${id}. Check the storage URL and the ` +
        "database; never point two installations at one place. If the database was lost, rebuild it: " +
        "`strongroom recover`",
    );
  }
  return id;
}

/** Writes into a store to which installation it belongs. */
export async function markInstallation(store: BlobStore, id: string): Promise<void> {
  const marker = { installation_id: id, what: "Belongs to the Strongroom installation of this id. Do not delete." };
  await store.put(INSTALLATION_KEY, new TextEncoder().encode(`${JSON.stringify(marker)}\n`));
}

/**
 * Whether the store still is the one that belongs to the database; asked before anything is deleted or called missing,
 * since a disk can be unmounted and a bucket changed while the server runs.
 */
export async function isSameInstallation(database: Database, store: BlobReader): Promise<boolean> {
  const { id } = await database.installation();
  return (await storeInstallation(store)) === id;
}

/**
 * The installation id that the store carries; undefined when it is unmarked. @throws InstallationMismatchError when the
 * mark cannot be read.
 */
export async function storeInstallation(store: BlobReader): Promise<string | undefined> {
  const bytes = await store.get(INSTALLATION_KEY, 4096);
  return bytes === undefined ? undefined : installationIdOf(bytes);
}

/** Reads the marker of a store. @throws InstallationMismatchError when it is damaged. */
export function installationIdOf(bytes: Uint8Array): string {
  try {
    const parsed = JSON.parse(new TextDecoder().decode(bytes)) as { installation_id?: unknown };
    if (typeof parsed.installation_id === "string") return parsed.installation_id;
  } catch {
    // Falls through.
  }
  throw new InstallationMismatchError(`${INSTALLATION_KEY} in the store cannot be read; restore it from a backup`);
}

import { access } from "node:fs/promises";
import { join } from "node:path";
import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { Logger } from "pino";
import type { StorageLocation } from "../adapters/stores.ts";
import type { BlobStore } from "../app/ports/blob-store.ts";
import type { Database } from "../app/ports/database.ts";
import type { CommandIo } from "./context.ts";
import type { DataOptions } from "./settings.ts";

/**
 * Runs a command on the server's data, and turns the errors of store, database and locks into messages with their exit
 * codes.
 * @throws CommandError
 */
export async function onData(
  options: Pick<DataOptions, "logLevel" | "logFormat">,
  io: CommandIo,
  work: (log: Logger) => Promise<ExitCode>,
): Promise<ExitCode> {
  const { openLog } = await import("./log.ts");
  try {
    return await work(await openLog(options, io, { sync: true }));
  } catch (error) {
    throw await asCommandError(error);
  }
}

/** An error of store, database or locks as one with an exit code; any other as it is. */
export async function asCommandError(error: unknown): Promise<unknown> {
  if (error instanceof CommandError || !(error instanceof Error)) return error;
  const [{ FileLockedError }, { InstallationMismatchError }, { BlobStoreError }, inventory, copying, { DomainError }] =
    await Promise.all([
      import("../adapters/file-lock/file-lock.ts"),
      import("../app/installation.ts"),
      import("../app/ports/blob-store.ts"),
      import("../app/upkeep/inventory.ts"),
      import("../app/upkeep/copy-storage.ts"),
      import("../domain/errors.ts"),
    ]);
  const is = (...kinds: ReadonlyArray<abstract new (...args: never[]) => Error>) =>
    kinds.some((kind) => error instanceof kind);
  if (is(FileLockedError))
    return new CommandError(error.message, EXIT.refused, {
      hint:
        "The embedded database and a storage directory have one user at a time: stop the server, run this, and " +
        "start it again.",
      cause: error,
    });
  if (is(inventory.UnsafeError, InstallationMismatchError, copying.CopyRefusedError))
    return new CommandError(error.message, EXIT.refused, { cause: error });
  if (error instanceof DomainError)
    return new CommandError(error.message, EXIT.network, { cause: error, reason: error.reason });
  if (is(BlobStoreError))
    return new CommandError(error.message, EXIT.network, { cause: error, reason: "STORE_UNAVAILABLE" });
  return new CommandError(error.message, EXIT.unexpected, { cause: error });
}

/**
 * Opens store and database for a command, which must belong together.
 * @param opening.importing also while the first import is not complete.
 * @throws UsageError when there is nothing at that place: a command makes no new data.
 */
export async function openData(
  options: DataOptions,
  log: Logger,
  { importing = false }: { readonly importing?: boolean } = {},
): Promise<{ store: BlobStore; database: Database }> {
  await requireDirectory(options.storage, "--data and --storage");
  const { database } = options;
  if (database.kind === "pglite" && database.directory !== undefined && !(await exists(database.directory)))
    throw new UsageError(`there is no database in ${database.directory}; check --data and --database`);
  const [{ openStorage }, { checkInstallation, InstallationMismatchError, storeInstallation }] = await Promise.all([
    import("../main.ts"),
    import("../app/installation.ts"),
  ]);
  const opened = await openStorage(options, log);
  try {
    if ((await storeInstallation(opened.store)) === undefined)
      throw new InstallationMismatchError("the store is empty, or not one of Strongroom; check --storage");
    await checkInstallation(opened.database, opened.store, { importing });
    return opened;
  } catch (error) {
    await opened.database.close();
    await opened.store.close();
    throw error;
  }
}

/**
 * @param folder that a storage directory has, if it must have been used before.
 * @throws UsageError when the storage is a directory that does not exist, or is none of a storage: opening it would
 *   make it.
 */
export async function requireDirectory(storage: StorageLocation, check: string, folder = ""): Promise<void> {
  if (storage.kind !== "directory") return;
  if (!(await exists(storage.path))) throw new UsageError(`there is no directory ${storage.path}; check ${check}`);
  if (!(await exists(join(storage.path, folder))))
    throw new UsageError(`${storage.path} is no storage, it has no folder ${folder}; check ${check}`);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

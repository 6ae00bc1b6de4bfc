import { access } from "node:fs/promises";
import { destination, type Logger, pino } from "pino";
import { FileLockedError } from "../adapters/file-lock/file-lock.ts";
import { checkInstallation, InstallationMismatchError, storeInstallation } from "../app/installation.ts";
import { type BlobStore, BlobStoreError } from "../app/ports/blob-store.ts";
import type { Database } from "../app/ports/database.ts";
import { UnsafeError } from "../app/upkeep/inventory.ts";
import { DomainError } from "../domain/errors.ts";
import { openStorage } from "../main.ts";
import type { ServerOptions } from "../server-options.ts";
import type { CommandIo } from "./configuration.ts";
import { type CommandLine, commandHelp, type DataCommand, parseCommandLine, UsageError } from "./options.ts";

/** Exit codes of commands on the server's data; the same meanings as everywhere in the program. */
export const DATA_EXIT = { ok: 0, failed: 1, usage: 2, refused: 4, unavailable: 5, integrity: 6 } as const;

/** Runs a command on the server's data: reads its arguments, and turns every error into a message and an exit code. */
export async function runDataCommand(
  command: DataCommand,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  io: CommandIo,
  work: (line: CommandLine, log: Logger) => Promise<number>,
): Promise<number> {
  const say = (text: string) => io.stderr.write(`strongroom ${command.name}: ${text}\n`);
  try {
    const line = parseCommandLine(command, args, env);
    if (line === "help") {
      io.stdout.write(commandHelp(command));
      return DATA_EXIT.ok;
    }
    const log = pino(
      { level: line.server.logLevel, base: { service: "strongroom" } },
      destination({ dest: 2, sync: true }),
    );
    return await work(line, log);
  } catch (error) {
    if (error instanceof UsageError) {
      say(error.message);
      return DATA_EXIT.usage;
    }
    if (error instanceof FileLockedError) {
      say(
        `${error.message}\nThe embedded database and a storage directory have one user at a time: stop the server, run this, and start it again.`,
      );
      return DATA_EXIT.refused;
    }
    say(error instanceof Error ? error.message : String(error));
    if (error instanceof UnsafeError || error instanceof InstallationMismatchError) return DATA_EXIT.refused;
    if (error instanceof DomainError || error instanceof BlobStoreError) return DATA_EXIT.unavailable;
    return DATA_EXIT.failed;
  }
}

/** JSON with byte counts as texts, on one line. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? String(item) : item))}\n`;
}

/**
 * Opens store and database for a command, which must belong together.
 * @throws UsageError when there is nothing at that place: a command makes no new data.
 */
export async function openData(options: ServerOptions, log: Logger): Promise<{ store: BlobStore; database: Database }> {
  await requireStorage(options);
  const { database } = options;
  if (database.kind === "pglite" && database.directory !== undefined && !(await exists(database.directory)))
    throw new UsageError(`there is no database in ${database.directory}; check --data and --database`);
  const opened = await openStorage(options, log);
  try {
    if ((await storeInstallation(opened.store)) === undefined)
      throw new InstallationMismatchError("the store is empty, or not one of Strongroom; check --storage");
    await checkInstallation(opened.database, opened.store);
    return opened;
  } catch (error) {
    await opened.database.close();
    await opened.store.close();
    throw error;
  }
}

/** @throws UsageError when the storage is a directory that does not exist. */
export async function requireStorage({ storage }: ServerOptions): Promise<void> {
  if (storage.kind === "directory" && !(await exists(storage.path)))
    throw new UsageError(`there is no directory ${storage.path}; check --data and --storage`);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

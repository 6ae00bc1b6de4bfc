import { join } from "node:path";
import { migrate } from "drizzle-orm/pglite/migrator";
import { acquireFileLock } from "../file-lock/file-lock.ts";
import { SqlDatabase } from "../postgres/database.ts";
import { MIGRATIONS_FOLDER, needsMigration } from "../postgres/migrations.ts";
import { EmbeddedDriver } from "./embedded-driver.ts";
import { makeDirectoryDurably } from "./sync-tree.ts";

/** Where the embedded database keeps its files; undefined for memory, for tests. */
export interface PgliteOptions {
  readonly directory: string | undefined;
  /** What memory holds at first, in the place of an empty database. For tests, since making one takes seconds. */
  readonly prepared?: Blob | undefined;
  /** Replaces the database's clock; for tests. */
  readonly clock?: (() => Date) | undefined;
  /**
   * Called when PostgreSQL ended by itself, as when its disk is full or broken; it is started again when it is needed.
   */
  readonly onEnded?: ((reason: string) => void) | undefined;
}

/**
 * Opens the embedded PostgreSQL (PGlite, in this process) and applies migrations. What is committed in a directory is
 * synced to the disk. It takes an exclusive lock on the directory: a second server there fails with `FileLockedError`.
 * Needs no migration lock of its own for that reason.
 */
export async function openPglite(options: PgliteOptions): Promise<SqlDatabase> {
  let release = async () => {};
  let directory: string | undefined;
  if (options.directory !== undefined) {
    makeDirectoryDurably(options.directory, 0o700);
    const lock = await acquireFileLock(join(options.directory, "strongroom.lock"));
    release = async () => await lock.release();
    directory = join(options.directory, "data");
  }
  try {
    const driver = await EmbeddedDriver.open({ directory, prepared: options.prepared, onEnded: options.onEnded });
    const closing = release;
    release = async () => {
      await driver.close();
      await closing();
    };
    if (await needsMigration(driver.db)) await migrate(driver.db, { migrationsFolder: MIGRATIONS_FOLDER });
    return new SqlDatabase({
      driver: {
        transaction: async (work) => await driver.transaction(work),
        run: async (work) => await driver.run(work),
        exclusively: async (name, work) => await driver.exclusively(name, work),
        close: async () => await release(),
      },
      clock: options.clock,
    });
  } catch (error) {
    await release();
    throw error;
  }
}

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { drizzle } from "drizzle-orm/pglite";
import { migrate } from "drizzle-orm/pglite/migrator";
import { acquireFileLock } from "../file-lock/file-lock.ts";
import { SqlDatabase } from "../postgres/database.ts";
import { MIGRATIONS_FOLDER, needsMigration } from "../postgres/migrations.ts";
import * as schema from "../postgres/schema.ts";

/** Where the embedded database keeps its files; undefined for memory, for tests. */
export interface PgliteOptions {
  readonly directory: string | undefined;
  /** Replaces the database's clock; for tests. */
  readonly clock?: (() => Date) | undefined;
}

/**
 * Opens the embedded PostgreSQL (PGlite, in this process) and applies migrations. It takes an exclusive lock on the directory: a second server
 * there fails with `FileLockedError`. Needs no migration lock of its own for that reason.
 */
export async function openPglite(options: PgliteOptions): Promise<SqlDatabase> {
  let release = async () => {};
  if (options.directory !== undefined) {
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    const lock = await acquireFileLock(join(options.directory, "strongroom.lock"));
    release = async () => await lock.release();
  }
  try {
    const client = await PGlite.create(
      options.directory === undefined ? {} : { dataDir: join(options.directory, "data") },
    );
    const db = drizzle({ client, schema });
    if (await needsMigration(db)) await migrate(db, { migrationsFolder: MIGRATIONS_FOLDER });
    return new SqlDatabase({
      driver: {
        transaction: async (work) => await db.transaction(work),
        run: async (work) => await work(db),
        // The lock on the directory has excluded every other server.
        exclusively: async (_name, work) => ({ result: await work() }),
        close: async () => {
          await client.close();
          await release();
        },
      },
      clock: options.clock,
    });
  } catch (error) {
    await release();
    throw error;
  }
}

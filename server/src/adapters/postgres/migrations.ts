import { fileURLToPath } from "node:url";
import { sql } from "drizzle-orm";
import { readMigrationFiles } from "drizzle-orm/migrator";
import type { Executor } from "./repositories.ts";
import { rowsOf } from "./rows.ts";

/** Folder with the SQL migrations made by drizzle-kit. */
export const MIGRATIONS_FOLDER = fileURLToPath(new URL("../../../../migrations", import.meta.url));

/** The database was migrated by a newer version of Strongroom, whose tables this one does not know. */
export class NewerDatabaseError extends Error {
  override name = "NewerDatabaseError";
}

/** When the newest migration that this version has was made, in milliseconds since 1970. */
function newestKnown(): number {
  return Math.max(...readMigrationFiles({ migrationsFolder: MIGRATIONS_FOLDER }).map((m) => m.folderMillis));
}

async function newestApplied(db: Executor): Promise<number> {
  const rows = rowsOf(
    await db.execute(sql`select coalesce(max(created_at), 0)::text as newest from drizzle.__drizzle_migrations`),
  );
  return Number(rows[0]!.newest);
}

/**
 * Whether a newer version of Strongroom has migrated the database while this one was running: a replica of it runs
 * beside this one, and knows more of what the rows mean.
 */
export async function isOutdated(db: Executor): Promise<boolean> {
  return (await newestApplied(db)) > newestKnown();
}

/**
 * Whether the database lacks migrations. One that has them all is left alone, so that a role without the right to
 * change tables can serve it.
 * @throws NewerDatabaseError
 */
export async function needsMigration(db: Executor): Promise<boolean> {
  const table = rowsOf(await db.execute(sql`select to_regclass('drizzle.__drizzle_migrations')::text as name`));
  if (table[0]?.name === null) return true;
  const known = newestKnown();
  const newest = await newestApplied(db);
  if (newest > known) {
    throw new NewerDatabaseError(
      "the database was migrated by a newer version of Strongroom, and there is no way back. Start that " +
        "version, or put back the copy of the database that was made before the upgrade (docs/operations.md)",
    );
  }
  return newest < known;
}

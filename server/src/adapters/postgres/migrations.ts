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

/**
 * Whether the database lacks migrations. One that has them all is left alone, so that a role without the right to
 * change tables can serve it.
 * @throws NewerDatabaseError
 */
export async function needsMigration(db: Executor): Promise<boolean> {
  const table = rowsOf(await db.execute(sql`select to_regclass('drizzle.__drizzle_migrations')::text as name`));
  if (table[0]?.name === null) return true;
  const applied = rowsOf(
    await db.execute(sql`select coalesce(max(created_at), 0)::text as newest from drizzle.__drizzle_migrations`),
  );
  const known = Math.max(...readMigrationFiles({ migrationsFolder: MIGRATIONS_FOLDER }).map((m) => m.folderMillis));
  const newest = Number(applied[0]!.newest);
  if (newest > known) {
    throw new NewerDatabaseError(
      "the database was migrated by a newer version of Strongroom, and there is no way back. Start that " +
        "version, or put back the copy of the database that was made before the upgrade (docs/operations.md)",
    );
  }
  return newest < known;
}

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

let known: number | undefined;

/**
 * When the newest migration that this version has was made, in milliseconds since 1970. Read once, at the start: an
 * upgrade may replace the files while this process, which knows nothing of the new ones, still runs.
 */
function newestKnown(): number {
  known ??= Math.max(...readMigrationFiles({ migrationsFolder: MIGRATIONS_FOLDER }).map((m) => m.folderMillis));
  return known;
}

async function newestApplied(db: Executor): Promise<number> {
  const rows = rowsOf(
    await db.execute(sql`select coalesce(max(created_at), 0)::text as newest from drizzle.__drizzle_migrations`),
  );
  return Number(rows[0]!.newest);
}

/**
 * Whether a newer version of Strongroom has migrated the database while this one was running: it knows more of what the
 * rows mean, whether a replica of it still runs beside this one or not.
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
  // First, since a new database asks for no more than the next line.
  const ours = newestKnown();
  const table = rowsOf(await db.execute(sql`select to_regclass('drizzle.__drizzle_migrations')::text as name`));
  if (table[0]?.name === null) return true;
  const newest = await newestApplied(db);
  if (newest > ours) {
    throw new NewerDatabaseError(
      "the database was migrated by a newer version of Strongroom, and there is no way back. Start that " +
        "version, or put back the copy of the database that was made before the upgrade (docs/operations.md)",
    );
  }
  return newest < ours;
}

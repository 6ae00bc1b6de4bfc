/** Embedded databases in memory that need not be made anew for each test. */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { migrate } from "drizzle-orm/pglite/migrator";
import { EmbeddedDriver } from "../../src/adapters/pglite/embedded-driver.ts";
import { openPglite } from "../../src/adapters/pglite/pglite.ts";
import type { SqlDatabase } from "../../src/adapters/postgres/database.ts";
import { MIGRATIONS_FOLDER } from "../../src/adapters/postgres/migrations.ts";

const CACHE = fileURLToPath(new URL("../../../node_modules/.cache/strongroom-test/", import.meta.url));
const PACKAGE = fileURLToPath(new URL("../../../node_modules/@electric-sql/pglite/package.json", import.meta.url));

let prepared: Promise<Blob> | undefined;

/**
 * Opens a new database in memory with every migration. The first process makes one and keeps it among the packages; the
 * others begin with a copy, which takes a quarter of the time. A change of the migrations or of PGlite makes another.
 */
export async function openMemoryDatabase(clock?: () => Date): Promise<SqlDatabase> {
  prepared ??= prepare();
  return await openPglite({ directory: undefined, prepared: await prepared, clock });
}

async function prepare(): Promise<Blob> {
  const hash = createHash("sha256").update(await readFile(PACKAGE));
  const files = (await readdir(MIGRATIONS_FOLDER)).filter((name) => name.endsWith(".sql")).sort();
  for (const name of files) hash.update(name).update(await readFile(`${MIGRATIONS_FOLDER}/${name}`));
  const file = `${CACHE}${hash.digest("hex")}.tar`;
  try {
    return new Blob([await readFile(file)]);
  } catch {
    // Not made yet.
  }
  const driver = await EmbeddedDriver.open({ directory: undefined });
  await migrate(driver.db, { migrationsFolder: MIGRATIONS_FOLDER });
  const dump = await driver.dump();
  await driver.close();
  await mkdir(CACHE, { recursive: true });
  for (const old of await readdir(CACHE)) if (old.endsWith(".tar")) await rm(`${CACHE}${old}`, { force: true });
  const temporary = `${file}.${process.pid}`;
  await writeFile(temporary, new Uint8Array(await dump.arrayBuffer()));
  await rename(temporary, file);
  return dump;
}

/** The tables of docs/clocks.md and docs/limits.md name everything that the database keeps. */
import { readdir, readFile } from "node:fs/promises";
import test from "ava";
import { is } from "drizzle-orm";
import { getTableConfig, PgTable } from "drizzle-orm/pg-core";
import * as schema from "../src/adapters/postgres/schema.ts";

const ROOT = new URL("../../", import.meta.url);
const page = async (name: string) => await readFile(new URL(`docs/${name}`, ROOT), "utf8");
const tables = Object.values(schema)
  .filter((value) => is(value, PgTable))
  .map((table) => getTableConfig(table as PgTable));

test("docs/clocks.md says of each stored time what it does when the clock jumps", async (t) => {
  const times = tables.flatMap(({ name, columns }) =>
    columns.filter((column) => column.getSQLType().startsWith("timestamp")).map((column) => `${name}.${column.name}`),
  );
  t.true(times.length > 50);
  // Times that are kept as something else.
  times.push("login_budgets.full_at_ms", "usage_days.day", "organizations.purge");
  const text = await page("clocks.md");
  const named = (time: string) => text.includes(`\`${time}\``);
  t.deepEqual(
    times.filter((time) => !named(time)),
    [],
    "a new one gets a row there, and a test in clock-jumps or clock-records",
  );
  const known = new Set(tables.flatMap(({ name, columns }) => columns.map((column) => `${name}.${column.name}`)));
  const columns = [...text.matchAll(/`([a-z_]+\.[a-z_]+)`/g)].map(([, column]) => column!);
  t.deepEqual(
    columns.filter((column) => !known.has(column) && tables.some(({ name }) => column.startsWith(`${name}.`))),
    [],
    "there is no such column",
  );
});

test("docs/limits.md says of each table what bounds it, and names tests that exist", async (t) => {
  const text = await page("limits.md");
  const kept = text.slice(text.indexOf("## Kept"), text.indexOf("## Held"));
  const rows = kept.split("\n").filter((line) => line.startsWith("| "));
  t.deepEqual(
    tables.map(({ name }) => name).filter((name) => !rows.some((row) => row.split("|")[1]!.includes(`\`${name}\``))),
    [],
    "a new one gets a row there",
  );
  const tests = rows.flatMap((row) =>
    [
      ...row
        .split("|")
        .at(-2)!
        .matchAll(/`([a-z-]+)`/g),
    ].map(([, name]) => name!),
  );
  t.true(tests.length > 20);
  const files = await Promise.all(["server", "framing"].map(async (of) => await readdir(new URL(`${of}/test`, ROOT))));
  t.deepEqual(
    tests.filter((name) => !files.flat().includes(`${name}.test.ts`)),
    [],
    "there is no such test",
  );
});

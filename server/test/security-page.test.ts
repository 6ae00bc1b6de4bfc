/** docs/security.md claims no limit without the test that shows it, and no page names a test that is not there. */
import { access, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test from "ava";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TEST_FILE = /`[\w-]+\/test\/[\w/-]+\.test\.ts`/;

const page = async (name: string) => await readFile(join(ROOT, "docs", name), "utf8");

test("every limit that docs/security.md claims names its test", async (t) => {
  const lists = [...(await page("security.md")).matchAll(/What\s+limits\s+it:\n\n((?:- .*\n(?: {2}.*\n)*)+)/g)];
  t.true(lists.length >= 8);
  for (const [, list] of lists) for (const item of list!.split(/^- /m).slice(1)) t.regex(item, TEST_FILE);
});

test("every feature of the older system names the test that shows it, or says that it is not there", async (t) => {
  const rows = (await page("features-of-backup-repository.md"))
    .split("\n")
    .filter((line) => line.startsWith("| ") && !/^\| (---|feature there)/.test(line));
  t.true(rows.length >= 45);
  for (const row of rows) {
    const [, feature, here, tests] = row.split(/(?<!\\)\|/).map((cell) => cell.trim());
    t.not(feature, "", row);
    t.not(here, "", row);
    if (!here!.startsWith("not there")) t.regex(tests!, TEST_FILE, row);
  }
});

test("every test that a page names is there", async (t) => {
  const named = new Set<string>();
  for (const name of (await readdir(join(ROOT, "docs"))).filter((each) => each.endsWith(".md")))
    for (const [file] of (await page(name)).matchAll(new RegExp(TEST_FILE, "g"))) named.add(file.slice(1, -1));
  t.true(named.size >= 20);
  for (const file of named) await t.notThrowsAsync(access(join(ROOT, file)), file);
});

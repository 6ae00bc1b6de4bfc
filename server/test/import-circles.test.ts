import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import test from "ava";
import { importedFile, importsOf } from "./support/imports.ts";

/*
 * No file imports itself by way of others, and no folder of server/src/app does. The linter refuses circles of files
 * too; this test also follows types, import() and imports by a workspace's name, and shows that it can fail.
 */

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const APP = "server/src/app/";
/** These quote imports in their examples, and nobody imports them. */
const QUOTING = /\/test\/import-[a-z]+\.test\.ts$/;

/** What leads where: files or folders. */
type Graph = ReadonlyMap<string, ReadonlySet<string>>;

/** Which files import which; those of packages and of the generated code are left out. */
function graphOf(sources: ReadonlyMap<string, string>): Graph {
  return new Map(
    [...sources].map(([file, source]) => {
      const imported = importsOf(source).flatMap(({ specifier }) => importedFile(file, specifier) ?? []);
      return [file, new Set(imported.filter((path) => path.endsWith(".ts") && !path.startsWith("gen/")))];
    }),
  );
}

/** The folders of `server/src/app` with what they import of each other; a file beside the folders stands for itself. */
function foldersOf(graph: Graph): Graph {
  const folder = (path: string) => path.slice(APP.length).split("/")[0]!;
  const folders = new Map<string, Set<string>>();
  for (const [file, imported] of graph) {
    if (!file.startsWith(APP)) continue;
    const own = folders.get(folder(file)) ?? new Set();
    for (const path of imported) if (path.startsWith(APP) && folder(path) !== folder(file)) own.add(folder(path));
    folders.set(folder(file), own);
  }
  return folders;
}

/** A circle, its first stop again at the end; empty when there is none. */
function circleIn(graph: Graph): string[] {
  const open = new Map(graph);
  const leads = (from: string) => [...(open.get(from) ?? [])].filter((to) => open.has(to));
  // What leads nowhere is in no circle; what is left at the end leads into one.
  for (let size = -1; size !== open.size; ) {
    size = open.size;
    for (const each of [...open.keys()]) if (leads(each).length === 0) open.delete(each);
  }
  const way: string[] = [];
  for (let at = open.keys().next().value; at !== undefined; at = leads(at)[0]) {
    if (way.includes(at)) return [...way.slice(way.indexOf(at)), at];
    way.push(at);
  }
  return [];
}

async function sourcesOfRepository(): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await readdir(ROOT, { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name.startsWith(".") || ["node_modules", "gen"].includes(entry.name)) continue;
    for (const name of await readdir(`${ROOT}${entry.name}`, { recursive: true })) {
      const file = `${entry.name}/${name}`;
      if (file.endsWith(".ts") && !QUOTING.test(file)) found.set(file, await readFile(`${ROOT}${file}`, "utf8"));
    }
  }
  return found;
}

const sources = await sourcesOfRepository();
const graph = graphOf(sources);

test("no file imports itself by way of others", (t) => t.deepEqual(circleIn(graph), []));

test("no folder of the use cases imports itself by way of others", (t) => t.deepEqual(circleIn(foldersOf(graph)), []));

test("all workspaces were read, and every import leads to a file that was", async (t) => {
  const { workspaces } = JSON.parse(await readFile(`${ROOT}package.json`, "utf8")) as { workspaces: string[] };
  const read = new Set([...sources.keys()].map((file) => file.split("/")[0]!));
  for (const workspace of workspaces) t.true(workspace === "gen" || read.has(workspace), workspace);
  const lost = [...graph].flatMap(([file, imported]) =>
    [...imported].filter((path) => !sources.has(path)).map((path) => `${file} -> ${path}`),
  );
  t.deepEqual(lost, []);
});

test("a small circle is found, whatever it is made of", (t) => {
  const circle = (a: string, b: string, c: string) =>
    circleIn(
      graphOf(
        new Map([
          ["server/src/start.ts", 'import { a } from "./a.ts";'],
          ["server/src/a.ts", a],
          ["server/src/b.ts", b],
          ["cli/src/c.ts", c],
          ["server/src/end.ts", ""],
        ]),
      ),
    );
  const found = ["server/src/a.ts", "server/src/b.ts", "cli/src/c.ts", "server/src/a.ts"];
  const [toB, toC] = ['import { b } from "./b.ts";\nimport "./end.ts";', 'export { c } from "@strongroom/cli/c";'];
  t.deepEqual(circle(toB, toC, 'import { a } from "@strongroom/server/a";'), found);
  t.deepEqual(circle(toB, toC, 'import type { A } from "@strongroom/server/a";'), found);
  t.deepEqual(circle(toB, toC, 'const { a } = await import("@strongroom/server/a");'), found);
  t.deepEqual(circle(toB, toC, 'import { end } from "@strongroom/server/end";'), []);
  t.deepEqual(circle('import "./a.ts";', "", ""), ["server/src/a.ts", "server/src/a.ts"]);
});

test("an import that closes a circle of the real files or folders is found", (t) => {
  const withImport = (file: string, path: string) =>
    new Map([...sources, [file, `${sources.get(file) ?? ""}\nimport type { X } from "${path}";\n`]]);
  const [importer] = [...graph].find(([file, imported]) => /\/domain\//.test(file) && imported.size > 0)!;
  const [imported] = graph.get(importer)!;
  const name = importer.replace("server/src/", "@strongroom/server/").replace(".ts", "");
  t.true(circleIn(graphOf(withImport(imported!, name))).includes(imported!));
  // The files still make no circle; the folders do, since uploads import versions.
  const back = withImport(`${APP}versions/new.ts`, "../uploads/new.ts").set(`${APP}uploads/new.ts`, "");
  t.deepEqual(circleIn(graphOf(back)), []);
  t.deepEqual(new Set(circleIn(foldersOf(graphOf(back)))), new Set(["versions", "uploads"]));
});

/** What a command line loads: help never loads the server, client commands not even its declarations. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test, { type ExecutionContext } from "ava";
import { runProcess } from "./support/process.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NODE = join(ROOT, "node_modules/.bin/node");
const MAIN = join(ROOT, "cli/src/main.ts");

/** Files of this repository and packages of others that are loaded by a command line. */
async function loadedBy(
  t: ExecutionContext,
  args: readonly string[],
  refuse = "",
): Promise<{ loaded: string[]; code: number | null; stdout: string; stderr: string }> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-lazy-"));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const [hook, list] = [join(dir, "hook.mjs"), join(dir, "loaded")];
  await writeFile(
    hook,
    `import { appendFileSync } from "node:fs";
import { registerHooks } from "node:module";
registerHooks({
  resolve(specifier, context, next) {
    if (${JSON.stringify(refuse)} !== "" && specifier.startsWith(${JSON.stringify(refuse)})) {
      throw Object.assign(new Error("Cannot find package '" + specifier + "'"), { code: "ERR_MODULE_NOT_FOUND" });
    }
    return next(specifier, context);
  },
  load(url, context, next) {
    if (url.startsWith("file:")) appendFileSync(${JSON.stringify(list)}, url + "\\n");
    return next(url, context);
  },
});
`,
  );
  const outcome = await runProcess(NODE, ["--import", hook, MAIN, ...args], { cwd: dir });
  const urls = (await readFile(list, "utf8")).trim().split("\n");
  const loaded = urls.map((url) => fileURLToPath(url)).map((path) => path.replace(ROOT, "").replace(/^\//, ""));
  return { loaded, ...outcome };
}

const serverFiles = (loaded: readonly string[]) => loaded.filter((path) => path.startsWith("server/"));
const packages = (loaded: readonly string[]) => [
  ...new Set(
    loaded
      .flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? [])
      .filter((name) => !name.startsWith("@strongroom/")),
  ),
];

test("help of the program, and of every command of the server, loads declarations only", async (t) => {
  for (const args of [["--help"], ["help", "sweep"], ["serve", "--help"], ["copy-storage", "--help"]]) {
    const { loaded, code, stdout } = await loadedBy(t, args);
    t.is(code, 0);
    t.true(stdout.includes("Usage: strongroom"));
    t.true(serverFiles(loaded).length > 5, "the declarations are loaded");
    t.deepEqual(
      serverFiles(loaded).filter((path) => !/^server\/src\/(commands|domain)\//.test(path)),
      [],
    );
    t.deepEqual(packages(loaded), ["commander"], args.join(" "));
  }
});

test("wrong arguments of serve are refused before the server is loaded", async (t) => {
  const { loaded, code } = await loadedBy(t, ["serve", "--listen", "nowhere"]);
  t.is(code, 2);
  t.deepEqual(packages(loaded), ["commander"]);
  t.false(serverFiles(loaded).includes("server/src/main.ts"));
});

test("a command of the client loads nothing of the server", async (t) => {
  const { loaded, code } = await loadedBy(t, ["keygen"]);
  t.is(code, 2);
  t.deepEqual(serverFiles(loaded), []);
});

test("the client works where the server is not installed", async (t) => {
  const help = await loadedBy(t, ["--help"], "@strongroom/server");
  t.is(help.code, 0, help.stderr);
  t.regex(help.stdout, /^ {2}backup\b/m);
  t.notRegex(help.stdout, /^ {2}serve\b/m);
  const serve = await loadedBy(t, ["serve"], "@strongroom/server");
  t.is(serve.code, 2);
  t.regex(serve.stderr, /unknown command 'serve'[\s\S]*the server is not installed here/);
});

/** The packages of the client, made and installed as a user would, against the real server. */
import { randomBytes } from "node:crypto";
import { copyFile, mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { initConfiguration, LOGIN, succeeded } from "@strongroom/testkit/installation";
import { run, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { packageClient } from "../../scripts/package-client.ts";
import { programVersion } from "../src/build.ts";
import { runProcess } from "./support/process.ts";

const MIB = 1024 * 1024;

/** Uses an installed client as its first day: log in, make a key, back up, look, restore, compare. */
async function firstDay(
  t: ExecutionContext,
  [program = "", ...args]: readonly string[],
  keys: string,
  env: Record<string, string>,
) {
  const dir = await temporaryFolder(t);
  const password = await initConfiguration(join(dir, "data", "config"), "db");
  const server = await startServerProcess(["--data", join(dir, "data")]);
  t.teardown(() => server.end("SIGTERM"));
  const all = { STRONGROOM_URL: server.url, ...env };
  // `env -i`, since a package must not need what happens to be set here.
  const variables = Object.entries(all).map(([name, value]) => `${name}=${value}`);
  const client = async (command: readonly string[], input?: string | Uint8Array) =>
    succeeded(
      t,
      await run("env", ["-i", ...variables, program, ...args, ...command], input === undefined ? {} : { input }),
    );
  const dump = randomBytes(5 * MIB);
  await client(LOGIN, password);
  await client(["keygen", "--name", "first", "--out-dir", keys]);
  await client(["backup", "db", "--public-key", join(keys, "first.pub.asc")], dump);
  const { versions } = JSON.parse((await client(["ls", "db", "--json"])).stdout.toString()) as { versions: unknown[] };
  t.is(versions.length, 1);
  const restored = await client(["restore", "db", "--private-key", join(keys, "first.key.asc")]);
  t.true(restored.stdout.equals(dump));
  await client(["health", "db"]);
}

test.serial(
  "npm installs the client, without packages, scripts or a network, and it is the whole client",
  async (t) => {
    const dir = await temporaryFolder(t);
    const tarball = (await packageClient(dir, ["npm"])).get("npm") ?? "";
    t.true((await stat(tarball)).size < 2 * MIB);
    const prefix = join(dir, "prefix");
    const install = ["install", "--global", "--offline", "--ignore-scripts", "--prefix", prefix, tarball];
    succeeded(t, await run("npm", install, { cwd: dir }));
    const program = join(prefix, "bin", "strongroom");
    const version = await runProcess(program, ["version", "--json"]);
    const { version: number, kind, commit } = JSON.parse(version.stdout) as Record<string, string>;
    t.deepEqual([number, kind], [programVersion(), "npm"]);
    t.regex(commit ?? "", /^([0-9a-f]{40}(\+changes)?|unknown)$/);

    const home = join(dir, "home");
    await mkdir(home, { mode: 0o700 });
    await firstDay(t, [program], home, { HOME: home, PATH: process.env.PATH ?? "" });

    const serve = await runProcess(program, ["serve"]);
    t.is(serve.code, 2);
    t.regex(serve.stderr, /the server is not installed here/);

    const listed = await run("npm", ["ls", "--global", "--all", "--parseable", "--prefix", prefix]);
    t.is(listed.stdout.toString().trim().split("\n").length, 2, "the prefix and the client");
    const manifest = JSON.parse(await readFile(join(prefix, "lib/node_modules/strongroom/package.json"), "utf8"));
    t.deepEqual([manifest.dependencies, manifest.scripts], [undefined, undefined]);
  },
);

test.serial("the package of npm names a Node.js that is too old, in one line", async (t) => {
  const dir = await temporaryFolder(t);
  const tarball = (await packageClient(dir, ["npm"])).get("npm") ?? "";
  succeeded(t, await run("tar", ["-xzf", tarball, "-C", dir]));
  // The launcher asks this object only; the real old one would have to be installed.
  const old = "Object.defineProperty(process, 'versions', { value: { node: '20.20.2' } });";
  const launcher = join(dir, "package", "strongroom.cjs");
  const ended = await runProcess(process.execPath, ["-e", `${old} require(${JSON.stringify(launcher)})`]);
  t.is(ended.code, 1);
  t.regex(ended.stderr, /^strongroom: expected Node\.js 22\.15\.0 or newer, got 20\.20\.2; .*\n$/);
});

test.serial("the executable runs where nothing else is: no Node.js, gpg, age, CA files, shell or home", async (t) => {
  if (process.platform !== "linux" || process.arch !== "x64" || process.getuid?.() !== 0) {
    t.log("SKIPPED: an empty root needs root, and Linux on x64");
    t.pass();
    return;
  }
  const dir = await temporaryFolder(t);
  const executable = (await packageClient(dir, ["x64"])).get("x64") ?? "";
  const root = join(dir, "root");
  for (const folder of ["keys", "config"]) await mkdir(join(root, folder), { recursive: true, mode: 0o700 });
  await copyFile(executable, join(root, "strongroom"));
  const { stdout } = succeeded(t, await run("ldd", [executable]));
  for (const [, library] of stdout.toString().matchAll(/(?:=> |^\t)(\/\S+) \(0x/gm)) {
    if (library === undefined) continue;
    await mkdir(join(root, dirname(library)), { recursive: true });
    await copyFile(library, join(root, library));
  }
  await firstDay(t, ["/usr/sbin/chroot", root, "/strongroom"], "/keys", { XDG_CONFIG_HOME: "/config" });
});

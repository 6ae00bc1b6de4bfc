/**
 * Makes the packages of the client into `dist/`: `npm run package:client`. Each has all of the client and nothing of
 * the server.
 *
 * - `strongroom-VERSION.tgz` for `npm install --global`: one file of JavaScript, no dependencies, no install scripts.
 * - `strongroom-linux-x64`, `strongroom-linux-arm64`: the same file inside of Node.js, as
 *   https://nodejs.org/docs/latest-v24.x/api/single-executable-applications.html says.
 *
 * `--only npm,x64,arm64` makes some of them, `--out FOLDER` puts them elsewhere.
 */
import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { type BuildOptions, build } from "esbuild";
import { programCommit, programVersion } from "../cli/src/build.ts";

const exec = promisify(execFile);
const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** What `bin/strongroom` starts Node.js with, and why, stands there. */
const NODE_OPTIONS = ["--max-semi-space-size=4"];

/** The oldest Node.js that has all the client uses: zstd in `node:zlib` came with it. */
const OLDEST_NODE = "22.15.0";

/** Packages that can be made. */
export type Kind = "npm" | "x64" | "arm64";
const KINDS: readonly Kind[] = ["npm", "x64", "arm64"];

/**
 * Makes packages of the client.
 *
 * @returns the path of each
 * @throws where a package of npm is not to be had, or a file cannot be written
 */
export async function packageClient(out: string, kinds: readonly Kind[] = KINDS): Promise<Map<Kind, string>> {
  await mkdir(out, { recursive: true });
  const work = await mkdtemp(join(tmpdir(), "strongroom-package-"));
  try {
    const made = new Map<Kind, string>();
    for (const kind of kinds)
      made.set(kind, kind === "npm" ? await npmPackage(work, out) : await executable(work, out, kind));
    return made;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Writes the client as one file, which says of itself what it was built from. */
async function bundle(file: string, kind: string): Promise<void> {
  const facts = `
    export const KIND = ${JSON.stringify(kind)};
    export const HAS_SERVER = false;
    export const programVersion = () => ${JSON.stringify(programVersion())};
    export const programCommit = async () => ${JSON.stringify(await programCommit())};`;
  const options: BuildOptions = {
    absWorkingDir: ROOT,
    entryPoints: ["cli/src/packaged.ts"],
    outfile: file,
    bundle: true,
    minify: true,
    // Error classes are known by their names in messages and in JSON.
    keepNames: true,
    platform: "node",
    // Executables of Node.js 24 start CommonJS only.
    format: "cjs",
    target: `node${OLDEST_NODE}`,
    // OpenPGP.js makes its `require` from it; in an executable it is the executable's.
    banner: { js: 'const moduleUrl = require("node:url").pathToFileURL(__filename).href;' },
    define: { "import.meta.url": "moduleUrl" },
    legalComments: "linked",
    external: ["@strongroom/server/*"],
    plugins: [
      {
        name: "build",
        setup: (builder) => builder.onLoad({ filter: /\/cli\/src\/build\.ts$/ }, () => ({ contents: facts })),
      },
    ],
  };
  const { warnings } = await build(options);
  if (warnings.length > 0) throw new Error(`expected no warnings of the bundler, got: ${warnings[0]?.text}`);
}

/** An older Node.js ends with one line, in place of an error about a module. */
const LAUNCHER = `#!/usr/bin/env -S node ${NODE_OPTIONS.join(" ")} --
"use strict";
const [major, minor] = process.versions.node.split(".").map(Number);
const [oldestMajor, oldestMinor] = "${OLDEST_NODE}".split(".").map(Number);
if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
  process.stderr.write(
    "strongroom: expected Node.js ${OLDEST_NODE} or newer, got " + process.versions.node +
      "; install a newer one, or take the executable, which needs none\\n",
  );
  process.exit(1);
}
require("./client.cjs");
`;

async function npmPackage(work: string, out: string): Promise<string> {
  const folder = join(work, "npm");
  await mkdir(folder);
  await bundle(join(folder, "client.cjs"), "npm");
  await writeFile(join(folder, "strongroom.cjs"), LAUNCHER, { mode: 0o755 });
  for (const name of ["LICENSE", "packaging/README.md"])
    await copyFile(join(ROOT, name), join(folder, name.replace("packaging/", "")));
  const manifest = {
    name: "strongroom",
    version: programVersion(),
    description: "Client of Strongroom: encrypted backups to a server that never sees a key",
    license: "MIT",
    bin: { strongroom: "strongroom.cjs" },
    engines: { node: `>=${OLDEST_NODE}` },
    files: ["strongroom.cjs", "client.cjs", "client.cjs.LEGAL.txt"],
  };
  await writeFile(join(folder, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
  const { stdout } = await exec("npm", ["pack", "--json", "--pack-destination", out], { cwd: folder });
  const [packed] = JSON.parse(stdout) as { filename: string }[];
  if (packed === undefined) throw new Error("expected npm pack to name its file");
  return join(out, packed.filename);
}

async function executable(work: string, out: string, arch: "x64" | "arm64"): Promise<string> {
  const script = join(work, `client-${arch}.cjs`);
  await bundle(script, "executable");
  const blob = join(work, `${arch}.blob`);
  const config = {
    main: script,
    output: blob,
    disableExperimentalSEAWarning: true,
    // Compiled code is of the machine that compiled it.
    useCodeCache: arch === process.arch,
    execArgv: NODE_OPTIONS,
    // NODE_OPTIONS of the surroundings are for other programs.
    execArgvExtension: "none",
  };
  const configFile = join(work, `${arch}.json`);
  await writeFile(configFile, JSON.stringify(config));
  await exec(process.execPath, ["--experimental-sea-config", configFile]);
  const file = join(out, `strongroom-linux-${arch}`);
  await copyFile(arch === process.arch ? process.execPath : await nodeOf(work, arch), file);
  await chmod(file, 0o755);
  const postject = fileURLToPath(import.meta.resolve("postject/dist/cli.js"));
  const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";
  await exec(process.execPath, [postject, file, "NODE_SEA_BLOB", blob, "--sentinel-fuse", fuse]);
  return file;
}

/** Node.js of this version for another machine, from its package. */
async function nodeOf(work: string, arch: string): Promise<string> {
  const name = `node-linux-${arch}@${process.versions.node}`;
  const { stdout } = await exec("npm", ["pack", "--json", "--pack-destination", work, name], { cwd: work });
  const [packed] = JSON.parse(stdout) as { filename: string }[];
  if (packed === undefined) throw new Error(`expected npm to have ${name}`);
  await exec("tar", ["-xzf", packed.filename, "package/bin/node"], { cwd: work });
  return join(work, "package/bin/node");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { only: { type: "string" }, out: { type: "string", default: "dist" } } });
  const kinds = values.only?.split(",") ?? KINDS;
  const unknown = kinds.find((kind) => !KINDS.includes(kind as Kind));
  if (unknown !== undefined) throw new Error(`expected --only to be some of ${KINDS.join(",")}, got ${unknown}`);
  for (const file of (await packageClient(resolve(values.out), kinds as Kind[])).values())
    process.stdout.write(`${file}\n`);
}

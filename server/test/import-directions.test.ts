import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import test from "ava";
import { type Import, importedFile, importsOf } from "./support/imports.ts";

/*
 * The directions of imports of docs/architecture: protocol <- framing <- domain <- objects <- app <- adapters, calls <-
 * transport <- main <- commands; the generated code only for transport, SDK and benchmarks; every vendor only in its
 * own adapters; the CLI over the SDK, and the server loaded lazily.
 */

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Folders that are walked. Tests and scripts may import what they need. */
const SOURCES = ["protocol/src", "framing/src", "server/src", "client-sdk/src", "command-line/src", "cli/src"] as const;

/**
 * Part of the program that a file belongs to: `domain`, `adapters/postgres`, `cli` ... The server's own files beside
 * its folders are `main`.
 */
function partOf(file: string): string {
  const [workspace, , folder, adapter, ...rest] = file.split("/");
  if (workspace !== "server") return workspace ?? "";
  if (folder === "server-options.ts") return "options";
  if (folder === "adapters" && adapter === "stores.ts") return "stores";
  if (adapter === undefined) return "main";
  return folder === "adapters" && rest.length > 0 ? `adapters/${adapter}` : (folder ?? "");
}

/** What an import leads to: a part of this program, `node:`, or a package of somebody else. */
function targetOf(
  file: string,
  specifier: string,
): { readonly part?: string; readonly path?: string; readonly vendor?: string } {
  if (specifier.startsWith("node:")) return { part: "node:" };
  const path = importedFile(file, specifier);
  if (path !== undefined) return { part: partOf(path), path };
  const [scope, name] = specifier.split("/");
  return { vendor: specifier.startsWith("@") ? `${scope}/${name}` : (scope ?? "") };
}

/** Which parts a part may import beside itself. */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  protocol: ["node:"],
  framing: ["protocol"],
  domain: ["protocol", "framing", "node:"],
  objects: ["domain", "protocol", "framing", "node:"],
  app: ["objects", "domain", "protocol", "framing", "node:"],
  adapters: ["app", "objects", "domain", "protocol", "framing", "node:"],
  calls: ["app", "domain", "protocol", "node:"],
  transport: ["calls", "app", "domain", "protocol", "framing", "gen", "node:"],
  stores: ["adapters", "app", "domain", "node:"],
  options: ["stores", "domain", "protocol", "node:"],
  main: ["options", "stores", "transport", "calls", "adapters", "app", "objects", "domain", "protocol", "node:"],
  commands: ["main", "options", "stores", "adapters", "app", "objects", "domain", "command-line", "protocol", "node:"],
  "client-sdk": ["protocol", "framing", "gen", "node:"],
  "command-line": ["protocol", "node:"],
  cli: ["client-sdk", "command-line", "protocol", "node:"],
};

/**
 * Adapters that build on another one: PGlite is PostgreSQL, and what stores share of their checks has a folder of its
 * own.
 */
const ADAPTER_PAIRS: ReadonlySet<string> = new Set([
  "pglite -> postgres",
  "pglite -> file-lock",
  "filesystem -> file-lock",
  "filesystem -> blob-store",
  "memory -> blob-store",
  "s3 -> blob-store",
]);

/** Packages of others, and the only parts they are imported from. A scope ends in a slash. */
const VENDORS: Readonly<Record<string, readonly string[]>> = {
  argon2: ["adapters/argon2"],
  jose: ["adapters/jose"],
  "drizzle-orm": ["adapters/postgres", "adapters/pglite"],
  postgres: ["adapters/postgres"],
  "@electric-sql/pglite": ["adapters/pglite"],
  yaml: ["objects"],
  openpgp: ["objects", "client-sdk"],
  "age-encryption": ["client-sdk"],
  "@aws-sdk/": ["adapters/s3"],
  "@smithy/": ["adapters/s3"],
  "@google-cloud/": ["adapters/gcs"],
  "@azure/": ["adapters/azure"],
  "@kubernetes/": ["adapters/kubernetes"],
  croner: ["domain"],
  pino: ["main", "commands"],
  nodemailer: ["adapters/mail"],
  "prom-client": ["calls"],
  "@bufbuild/protobuf": ["transport", "client-sdk"],
  "@connectrpc/connect": ["transport", "client-sdk"],
  "@connectrpc/connect-node": ["transport", "client-sdk"],
  commander: ["command-line"],
};

/** The one file of the CLI that reaches the server: the declarations of its commands. */
const SERVER_LOADER = "cli/src/server-modules.ts";
const SERVER_COMMANDS = "server/src/commands/index.ts";

/**
 * What a file of a command may import statically, so that help of the program never loads the server; the rest is
 * loaded when it runs.
 */
const LIGHT: readonly string[] = ["commands", "command-line", "domain", "protocol", "node:"];

/** What is wrong with one import; undefined when it is allowed. */
function problemOf(file: string, { specifier, kind }: Import): string | undefined {
  const from = partOf(file);
  const { part, path, vendor } = targetOf(file, specifier);
  if (from === "commands" && kind === "static" && !LIGHT.includes(part ?? ""))
    return "a command's file imports this by import() in its action, or its type only";
  if (vendor !== undefined) {
    const name = Object.keys(VENDORS).find((v) => v === vendor || (v.endsWith("/") && vendor.startsWith(v)));
    if (name === undefined) return `the package ${vendor} has no place in the table of vendors`;
    return VENDORS[name]!.includes(from) ? undefined : `only ${VENDORS[name]!.join(" and ")} may import ${vendor}`;
  }
  if (part === undefined) return "it leads nowhere";
  if (specifier.startsWith(".") && path?.split("/")[0] !== file.split("/")[0])
    return "what is in another workspace goes by its name";
  if (path?.startsWith("server/") && from === "cli") {
    return file === SERVER_LOADER && path === SERVER_COMMANDS && kind === "dynamic"
      ? undefined
      : `only ${SERVER_LOADER} loads commands of the server, lazily by import()`;
  }
  if (part === from) return undefined;
  if (part.startsWith("adapters/") && from.startsWith("adapters/")) {
    const pair = `${from.slice(9)} -> ${part.slice(9)}`;
    return ADAPTER_PAIRS.has(pair)
      ? undefined
      : `the pair ${pair} is not in the list of adapters that build on another`;
  }
  const [layer = "", target = ""] = [from, part].map((p) => (p.startsWith("adapters/") ? "adapters" : p));
  return PARTS[layer]?.includes(target) ? undefined : `${layer} must not import ${target}`;
}

/** What is wrong with the imports of a file. */
function problemsOf(file: string, source: string): string[] {
  return importsOf(source).flatMap((found) => {
    const problem = problemOf(file, found);
    return problem === undefined ? [] : [`${file}: ${found.specifier}: ${problem}`];
  });
}

async function sourceFiles(): Promise<string[]> {
  const all = await Promise.all(
    SOURCES.map(async (folder) =>
      (await readdir(`${ROOT}${folder}`, { recursive: true }))
        .filter((name) => /\.[cm]?[jt]s$/.test(name))
        .map((name) => `${folder}/${name}`),
    ),
  );
  return all.flat().sort();
}

const files = await sourceFiles();
const sources = new Map<string, string>();
for (const file of files) sources.set(file, await readFile(`${ROOT}${file}`, "utf8"));

test("every import goes in an allowed direction", (t) => {
  t.deepEqual(
    files.flatMap((file) => problemsOf(file, sources.get(file)!)),
    [],
  );
});

test("every workspace and every part was looked at", (t) => {
  const parts = new Set(files.map((file) => partOf(file).replace(/\/.*/, "")));
  t.deepEqual([...parts].sort(), Object.keys(PARTS).sort());
  for (const folder of SOURCES) {
    const own = files.filter((file) => file.startsWith(folder));
    t.true(own.length > 0, folder);
  }
});

test("every pair of adapters in the list is one that exists", (t) => {
  const pairs = new Set<string>();
  for (const file of files) {
    const from = partOf(file);
    for (const { specifier } of importsOf(sources.get(file)!)) {
      const { part } = targetOf(file, specifier);
      if (from.startsWith("adapters/") && part?.startsWith("adapters/") && part !== from) {
        pairs.add(`${from.slice(9)} -> ${part.slice(9)}`);
      }
    }
  }
  t.deepEqual([...pairs].sort(), [...ADAPTER_PAIRS].sort());
});

test("no statement with import or from escapes the reading", (t) => {
  for (const file of files) {
    const source = sources.get(file)!;
    // Compared with the crudest count: lines that end a statement with a quoted module name.
    const lines = source
      .split("\n")
      .filter((line) => /^(?:import|export|\}).*\bfrom ["'][^"']+["'];$|^import ["']/.test(line));
    const read = importsOf(source).filter(({ kind }) => kind !== "dynamic");
    t.true(read.length >= lines.length, `${file}: ${read.length} of ${lines.length}`);
    for (const { specifier } of read) {
      t.true(source.includes(`"${specifier}"`) || source.includes(`'${specifier}'`), `${file}: ${specifier}`);
    }
  }
});

test("packages of others are declared by the workspace that imports them", async (t) => {
  for (const folder of SOURCES) {
    const [workspace = ""] = folder.split("/");
    const manifest = JSON.parse(await readFile(`${ROOT}${workspace}/package.json`, "utf8")) as {
      dependencies?: Record<string, string>;
    };
    const declared = new Set(Object.keys(manifest.dependencies ?? {}));
    for (const file of files.filter((f) => f.startsWith(folder))) {
      for (const { specifier } of importsOf(sources.get(file)!)) {
        const { vendor } = targetOf(file, specifier);
        const own = /^@strongroom\/[^/]+/.exec(specifier)?.[0];
        const needed = own ?? vendor;
        if (needed !== undefined)
          t.true(declared.has(needed), `${file}: ${needed} is not in ${workspace}/package.json`);
      }
    }
  }
});

test("the reading of a source", (t) => {
  const source = `
import test, { type A } from "one";
import type { B } from "two";
import * as three from 'three';
import {
  four,
  type Four,
} from "./four.ts";
import "five";
export * from "six";
export { seven } from "../seven.ts";
export type { Eight } from "eight";
const nine = await import("nine");
const ten = () => import(\`ten/\${nine}\`);
type Eleven = typeof import("eleven");
const twelve = await import(nine);
const thirteen = require("thirteen");
export const from = "not this";
const text = 'import x from "not this";';
// import x from "not this";
/**
 * import x from "not this"; import("nor this")
 */
export function important(from: string) { return from; }
const url = import.meta.url;
`;
  t.deepEqual(
    importsOf(source).map(({ specifier, kind }) => `${specifier} ${kind}`),
    [
      "one static",
      "two type",
      "three static",
      "./four.ts static",
      "five static",
      "six static",
      "../seven.ts static",
      "eight type",
      "nine dynamic",
      "ten/${nine} dynamic",
      "eleven type",
      "(computed) dynamic",
      "thirteen static",
    ],
  );
});

const bad: [file: string, source: string, problem: RegExp][] = [
  ["framing/src/a.ts", 'import { x } from "node:crypto";', /framing must not import node:/],
  ["framing/src/a.ts", 'import { x } from "@strongroom/server/domain/quota";', /framing must not import domain/],
  ["server/src/domain/a.ts", 'import { x } from "../app/b.ts";', /domain must not import app/],
  ["server/src/domain/a.ts", 'import type { X } from "../app/b.ts";', /domain must not import app/],
  ["server/src/domain/a.ts", 'export { x } from "../transport/b.ts";', /domain must not import transport/],
  ["server/src/domain/a.ts", 'import { x } from "@strongroom/gen/a_pb";', /domain must not import gen/],
  ["server/src/domain/a.ts", 'import { x } from "yaml";', /only objects may import yaml/],
  ["server/src/app/a.ts", 'import { x } from "../adapters/jose/b.ts";', /app must not import adapters/],
  ["server/src/app/a.ts", 'const x = await import("../adapters/jose/b.ts");', /app must not import adapters/],
  ["server/src/app/a.ts", 'import { x } from "../transport/b.ts";', /app must not import transport/],
  ["server/src/app/a.ts", 'import { x } from "@strongroom/gen/a_pb";', /app must not import gen/],
  ["server/src/app/a.ts", 'import { x } from "@connectrpc/connect";', /only transport and client-sdk may/],
  ["server/src/app/a.ts", 'import { x } from "../server-options.ts";', /app must not import options/],
  ["server/src/calls/a.ts", 'import { x } from "../transport/b.ts";', /calls must not import transport/],
  ["server/src/calls/a.ts", 'import { x } from "../adapters/jose/b.ts";', /calls must not import adapters/],
  ["server/src/calls/a.ts", 'import { x } from "@strongroom/gen/a_pb";', /calls must not import gen/],
  ["server/src/calls/a.ts", 'import { x } from "@connectrpc/connect";', /only transport and client-sdk may/],
  ["server/src/app/a.ts", 'import { x } from "../calls/b.ts";', /app must not import calls/],
  ["server/src/adapters/jose/a.ts", 'import { x } from "../../calls/b.ts";', /adapters must not import calls/],
  ["server/src/transport/a.ts", 'import { x } from "prom-client";', /only calls may import prom-client/],
  ["server/src/transport/a.ts", 'import { x } from "../adapters/jose/b.ts";', /transport must not import adapters/],
  ["server/src/transport/a.ts", 'import { x } from "../main.ts";', /transport must not import main/],
  ["server/src/transport/a.ts", 'import { x } from "../server-options.ts";', /transport must not import options/],
  ["server/src/adapters/jose/a.ts", 'import { x } from "../../transport/b.ts";', /adapters must not import transport/],
  ["server/src/adapters/jose/a.ts", 'import { x } from "../argon2/b.ts";', /the pair jose -> argon2 is not/],
  ["server/src/adapters/postgres/a.ts", 'import { x } from "../pglite/b.ts";', /the pair postgres -> pglite is not/],
  ["server/src/adapters/jose/a.ts", 'import { x } from "argon2";', /only adapters\/argon2 may import argon2/],
  ["server/src/adapters/memory/a.ts", 'import { x } from "drizzle-orm/pg-core";', /only adapters\/postgres and/],
  ["server/src/adapters/memory/a.ts", 'import { S3Client } from "@aws-sdk/client-s3";', /only adapters\/s3 may/],
  ["server/src/adapters/memory/a.ts", 'import { x } from "left-pad";', /no place in the table of vendors/],
  ["server/src/adapters/memory/a.ts", "const x = await import(name);", /no place in the table/],
  ["server/src/main.ts", 'import { x } from "./commands/serve.ts";', /main must not import commands/],
  ["server/src/commands/a.ts", 'const x = await import("../transport/b.ts");', /commands must not import transport/],
  ["server/src/commands/a.ts", 'import { x } from "../main.ts";', /by import\(\) in its action/],
  ["server/src/commands/a.ts", 'import { x } from "../adapters/jose/b.ts";', /by import\(\) in its action/],
  ["server/src/commands/a.ts", 'import { x } from "../adapters/stores.ts";', /by import\(\) in its action/],
  ["server/src/commands/a.ts", 'import { pino } from "pino";', /by import\(\) in its action/],
  ["server/src/commands/a.ts", 'import { Command } from "commander";', /by import\(\) in its action/],
  ["server/src/app/a.ts", 'import { x } from "@strongroom/command-line/option";', /app must not import command-line/],
  ["command-line/src/a.ts", 'import { x } from "@strongroom/client-sdk";', /command-line must not import client-sdk/],
  [
    "command-line/src/a.ts",
    'import { x } from "@strongroom/server/domain/quota";',
    /command-line must not import domain/,
  ],
  ["cli/src/a.ts", 'import { Command } from "commander";', /only command-line may import commander/],
  ["server/src/main.ts", 'import { x } from "@strongroom/client-sdk";', /main must not import client-sdk/],
  ["client-sdk/src/a.ts", 'import { x } from "@strongroom/server/domain/quota";', /client-sdk must not import domain/],
  [
    "client-sdk/src/a.ts",
    'import { x } from "../../server/src/domain/quota.ts";',
    /another workspace goes by its name/,
  ],
  ["cli/src/commands/a.ts", 'import { x } from "@strongroom/server/main";', /lazily by import\(\)/],
  ["cli/src/server-modules.ts", 'import { x } from "@strongroom/server/main";', /lazily by import\(\)/],
  ["cli/src/server-modules.ts", 'import type { X } from "@strongroom/server/main";', /lazily by import\(\)/],
  ["cli/src/commands/backup.ts", 'const x = await import("@strongroom/server/main");', /only cli\/src\/server-modules/],
  ["cli/src/server-modules.ts", 'const x = await import("@strongroom/server/main");', /only cli\/src\/server-modules/],
  ["cli/src/a.ts", 'import { x } from "@strongroom/gen/a_pb";', /cli must not import gen/],
  ["cli/src/a.ts", 'import { x } from "@strongroom/framing";', /cli must not import framing/],
  ["cli/src/a.ts", 'import { x } from "../../client-sdk/src/a.ts";', /another workspace goes by its name/],
  ...["protocol", "framing", "server/domain", "server/app", "server", "client-sdk", "command-line", "cli"].map(
    (place): [string, string, RegExp] => {
      const [workspace, ...folder] = place.split("/");
      return [
        [workspace, "src", ...folder, "a.ts"].join("/"),
        'import { run } from "@strongroom/testkit/processes";',
        / must not import testkit$/,
      ];
    },
  ),
  [
    "server/src/adapters/s3/a.ts",
    'import type { X } from "@strongroom/testkit/a";',
    /adapters must not import testkit/,
  ],
  ["cli/src/a.ts", 'const x = await import("@strongroom/testkit/a");', /cli must not import testkit/],
  ["cli/src/a.ts", 'import { x } from "../../testkit/src/a.ts";', /another workspace goes by its name/],
  ["cli/src/a.ts", 'import { x } from "openpgp";', /only objects and client-sdk may import openpgp/],
];

for (const [file, source, problem] of bad) {
  test(`refused in ${file}: ${source}`, (t) => {
    const problems = problemsOf(file, source);
    t.is(problems.length, 1);
    t.regex(problems[0]!, problem);
  });
}

const good: [file: string, source: string][] = [
  ["framing/src/a.ts", 'import { x } from "./b.ts";'],
  ["server/src/domain/a.ts", 'import { createHash } from "node:crypto";\nimport { Cron } from "croner";'],
  ["server/src/domain/a.ts", 'import { x } from "@strongroom/framing";'],
  ["server/src/app/a.ts", 'import { x } from "../domain/b.ts";\nimport { y } from "./c.ts";'],
  ["server/src/adapters/pglite/a.ts", 'import { x } from "../postgres/b.ts";\nimport { y } from "drizzle-orm/pglite";'],
  ["server/src/adapters/s3/a.ts", 'import { S3Client } from "@aws-sdk/client-s3";'],
  ["server/src/adapters/s3/deep/a.ts", 'import { x } from "../b.ts";'],
  ["server/src/transport/a.ts", 'import { x } from "@strongroom/gen/strongroom/v1/resources_pb";'],
  ["server/src/main.ts", 'import { x } from "./adapters/jose/b.ts";\nimport { y } from "./server-options.ts";'],
  ["client-sdk/src/a.ts", 'import { x } from "@strongroom/gen/strongroom/v1/resources_pb";'],
  ["cli/src/a.ts", 'import { x } from "@strongroom/client-sdk";'],
  ["cli/src/server-modules.ts", 'const x = await import("@strongroom/server/commands/index");'],
  ["server/src/commands/a.ts", 'import { x } from "../domain/b.ts";\nimport type { Y } from "../main.ts";'],
  ["server/src/commands/a.ts", 'const x = await import("../main.ts");\nconst y = await import("pino");'],
  ["server/src/commands/a.ts", 'import { x } from "@strongroom/command-line/option";'],
];

for (const [file, source] of good) {
  test(`allowed in ${file}: ${source}`, (t) => t.deepEqual(problemsOf(file, source), []));
}

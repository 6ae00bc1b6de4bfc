/**
 * The programs of docs/api.md run as they stand there, each against a real server: clients in Go, Python, JavaScript
 * and with curl.
 */
import { randomBytes } from "node:crypto";
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { findPeer, hasPeers, requirePeer } from "@strongroom/testkit/peers/programs";
import { run, type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import anyTest, { type ExecutionContext, type TestFn } from "ava";

interface Context {
  folder: string;
  password: string;
  server: ServerProcess;
  page: string;
}

const test = anyTest as TestFn<Context>;
const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** A segment of a default server, and a part of the next. */
const DUMP_BYTES = 17 * 1024 * 1024;

/** A piece of a recipe: a file to write, or a script to run. */
interface Piece {
  readonly file: string | undefined;
  readonly text: string;
}

test.before(async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-recipes-"));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "other");
  const limits = "maxBackupsCount: 5, maxOneVersionSize: 100M, maxCollectionSize: 1G, encryption: any-of";
  await writeFile(join(config, "default.yaml"), collectionDocument("default", limits));
  const server = await startServerProcess(["--config", config, "--database", "pglite:memory", "--storage", "mem://"]);
  t.context = { folder, password, server, page: await readFile(join(ROOT, "docs/api.md"), "utf8") };
});
test.after.always(async (t) => {
  await t.context.server?.end("SIGTERM");
  if (t.context.folder !== undefined) await rm(t.context.folder, { recursive: true, force: true });
});

/** The pieces of a recipe, in the order of the page. */
function piecesOf(page: string, name: string): Piece[] {
  const blocks = page.matchAll(/<!-- recipe: (\S+)(?: (\S+))? -->\n```\w+\n([\s\S]+?\n)```/g);
  return [...blocks].filter((block) => block[1] === name).map(([, , file, text]) => ({ file, text: text! }));
}

/** Plays a recipe in a folder of its own. Returns the folder and what was printed. */
async function play(t: ExecutionContext<Context>, name: string, dump: boolean): Promise<{ work: string; out: string }> {
  const { folder, password, server, page } = t.context;
  const pieces = piecesOf(page, name);
  t.true(pieces.length > 0, `docs/api.md has no recipe ${name}`);
  const work = join(folder, name);
  await mkdir(work);
  await writeFile(join(work, "password.txt"), `${password}\n`, { mode: 0o600 });
  if (dump) {
    const made = await run(requirePeer("age-keygen"), []);
    const recipient = /age1\S+/.exec(made.stdout.toString())![0];
    const input = randomBytes(DUMP_BYTES);
    const encrypted = await run(requirePeer("age"), ["-r", recipient], { input });
    t.is(encrypted.code, 0, encrypted.stderr);
    await writeFile(join(work, "dump.age"), encrypted.stdout);
  }
  const address = new URL(server.url).host;
  for (const { file, text } of pieces) {
    if (file === undefined) continue;
    await mkdir(dirname(join(work, file)), { recursive: true });
    await writeFile(join(work, file), text);
  }
  const script = pieces
    .filter(({ file }) => file === undefined)
    .map(({ text }) => text.replaceAll("127.0.0.1:8080", address));
  const programs = ["protoc-gen-go", "python-grpc-tools-protoc", "go"]
    .map(findPeer)
    .filter((path) => path !== undefined);
  const path = [dirname(process.execPath), ...programs.map(dirname), process.env.PATH].join(delimiter);
  const env = { PATH: path, ADDRESS: address, CHECKOUT: ROOT.replace(/\/$/, "") };
  const outcome = await run("bash", ["-euo", "pipefail", "-c", script.join("\n")], { cwd: work, env });
  const out = outcome.stdout.toString();
  t.is(outcome.code, 0, `${outcome.stderr}\n${out}`);
  return { work, out };
}

/** That each of so many programs got the refusal of a taken place, stored a version and read it back. */
function isWhole(t: ExecutionContext, out: string, programs: number): void {
  t.is(out.match(/COLLECTION_BUSY/g)?.length, programs, out);
  t.is(out.match(/at the latest in|"retryDelay":"\d/g)?.length, programs, out);
  t.is(out.match(/read back: true/gi)?.length, programs, out);
  t.regex(out, /^version \d+ \d+ \S+/m);
}

const recipes: [title: string, name: string, programs: number, peers: string[]][] = [
  ["Go: grpc-go and connect-go", "go", 2, ["go", "protoc-gen-go", "protoc-gen-go-grpc", "protoc-gen-connect-go"]],
  ["Python: grpcio and connectrpc", "python", 2, ["python-grpc-tools-protoc", "protoc-gen-connectrpc"]],
  ["JavaScript with fetch", "javascript", 1, []],
  ["curl, with streams", "curl", 1, ["curl", "jq", "openssl"]],
];

// One after the other: the collection has one place.
for (const [title, name, programs, peers] of recipes) {
  test.serial(`docs/api.md: ${title}`, async (t) => {
    t.timeout(300_000);
    if (!hasPeers(t, "age", "age-keygen", ...peers)) return;
    const { work, out } = await play(t, name, true);
    isWhole(t, out, programs);
    // With types of its own for google.rpc beside those of genproto, a program in Go ends at its start.
    await t.throwsAsync(access(join(work, "gen/google")), { code: "ENOENT" });
  });
}

test.serial("docs/api.md: curl, with streams, once more in the same folder and with a wrong password", async (t) => {
  t.timeout(300_000);
  if (!hasPeers(t, "age", "age-keygen", "curl", "jq", "openssl")) return;
  const { folder, server } = t.context;
  const cwd = join(folder, "curl");
  const env = { PATH: process.env.PATH ?? "", ADDRESS: new URL(server.url).host };
  const again = await run("bash", ["dump.sh"], { cwd, env });
  t.is(again.code, 0, again.stderr);
  t.regex(again.stdout.toString(), /read back: true/);

  await writeFile(join(cwd, "password.txt"), "wrong\n");
  const refused = await run("bash", ["dump.sh"], { cwd, env });
  t.not(refused.code, 0);
  t.regex(refused.stderr, /CREDENTIALS_INVALID/);
  t.is(refused.stdout.toString(), "");
});

test.serial("docs/api.md: curl with JSON", async (t) => {
  if (!hasPeers(t, "curl", "jq", "openssl")) return;
  const { out } = await play(t, "json", false);
  t.regex(out, /"user":"admin"/);
  t.regex(out, /"maxVersionSizeBytes":"104857600"/);
  t.regex(out, /"leaseExpiresAt"/);
  t.regex(out, /"state":"UPLOAD_STATE_ABORTED"/);
});

test("peers/install.sh installs what docs/api.md says to install", async (t) => {
  const installer = await readFile(join(ROOT, "peers/install.sh"), "utf8");
  const blocks = [...t.context.page.matchAll(/<!-- install: \S+ -->\n```sh\n([\s\S]+?)```/g)].map((match) => match[1]!);
  const packages = blocks.join("\n").match(/\S+(==|@v)\S+/g) ?? [];
  t.true(packages.length >= 9);
  for (const each of packages) t.true(installer.includes(`  ${each}\n`), each);
});

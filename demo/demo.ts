/**
 * `npm run demo`: the main job, for real, on the embedded default. Starts a server in a temporary place, backs up a
 * directory of many files, shows what is refused, cuts the connection in the middle, restores and compares byte for
 * byte. Exits non-zero when anything differs. `npm run demo -- --keep` leaves the server running and prints the
 * commands to try.
 */

import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { createZstdDecompress } from "node:zlib";
import { findProgram, StrongroomClient, toStrongroomError } from "@strongroom/client-sdk";
import { initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { type Outcome, run, type ServerProcess, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { startProxy } from "@strongroom/testkit/proxy";
import { cutAfter } from "@strongroom/testkit/proxy-behaviours";
import { differences, readTree } from "@strongroom/testkit/trees";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const LEAST_BYTES = 128 * 1024 * 1024;
const CUT_AFTER_BYTES = 20 * 1024 * 1024;

const keep = process.argv.includes("--keep");
const startedAt = performance.now();

function say(text = ""): void {
  process.stdout.write(`${text}\n`);
}

function step(text: string): void {
  say(`\n== ${text}`);
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`demo: ${what}`);
}

const mib = (bytes: number | bigint) => `${(Number(bytes) / 1024 / 1024).toFixed(1)} MiB`;

const temporary = await mkdtemp(join(tmpdir(), "strongroom-demo-"));
const configDir = join(temporary, "data", "config");
const home = join(temporary, "home");
let server: ServerProcess | undefined;
let failed = false;

/** Runs the CLI against a URL with a home of its own, and shows what a person would see. */
async function strongroom(url: string, args: readonly string[], input = ""): Promise<Outcome> {
  say(`$ strongroom ${args.map((a) => (/^[\w./:=-]+$/.test(a) ? a : `'${a}'`)).join(" ")}`);
  const env = personEnvironment(home, url);
  const outcome = await run(STRONGROOM, args, { input, env, cwd: ROOT });
  for (const line of `${outcome.stdout}${outcome.stderr}`.trimEnd().split("\n")) say(`  ${line}`);
  return outcome;
}

async function succeed(url: string, args: readonly string[], input = ""): Promise<Outcome> {
  const outcome = await strongroom(url, args, input);
  check(outcome.code === 0, `"strongroom ${args[0]}" should have succeeded, and exited with ${outcome.code}`);
  return outcome;
}

/** Ends the server and leaves nothing behind. */
async function cleanUp(): Promise<void> {
  await server?.end("SIGTERM");
  await rm(temporary, { recursive: true, force: true });
}

// Ctrl-C in the middle leaves nothing behind either.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    void cleanUp().finally(() => process.exit(signal === "SIGINT" ? 130 : 143));
  });
}

try {
  await mkdir(home, { mode: 0o700 });
  step("A server on the embedded default: PGlite and a directory");
  const password = await initConfiguration(configDir, "files");
  await writeFile(join(configDir, "small.yaml"), SMALL_COLLECTION());
  server = await startServerProcess(["--data", join(temporary, "data")]);
  const { url } = server;
  say(`  listening on ${url}, everything below ${temporary}`);
  await succeed(url, LOGIN, password);
  await succeed(url, ["keygen", "--name", "demo", "--out-dir", temporary]);
  const publicKey = join(temporary, "demo.pub.asc");
  const privateKey = join(temporary, "demo.key.asc");

  step("Backing up a directory of many files; the connection is cut once in the middle");
  const names = await chooseDirectories();
  const before = await readTree(ROOT, names);
  say(`  ${before.files} files, ${mib(before.bytes)}, from node_modules`);
  check(before.bytes > 100 * 1024 * 1024, "the directory should have at least 100 MiB");
  const proxy = await startProxy(url);
  await succeed(proxy.url, LOGIN, password);
  proxy.behave(cutAfter(CUT_AFTER_BYTES));
  const began = performance.now();
  const tar = `tar -cf - ${names.join(" ")}`;
  await succeed(proxy.url, ["backup", "files", "--public-key", publicKey, "-c", tar]);
  const backupSeconds = (performance.now() - began) / 1000;
  check(proxy.fired("cut") === 1, `the connection should have been cut once, and was cut ${proxy.fired("cut")} times`);
  await proxy.close();

  step("What the server knows");
  const listing = await succeed(url, ["ls", "files", "--json"]);
  await succeed(url, ["ls", "files"]);
  await succeed(url, ["health", "files"]);
  check(listing.stdout.toString().includes("openpgp"), "the listing should show an OpenPGP version");

  step("What is refused");
  await refused(
    "an unencrypted dump",
    await strongroom(url, ["backup", "files", "--encryption", "none"], "SELECT 1;\n".repeat(1000)),
  );
  await refused(
    "a dump over the quota",
    await strongroom(url, [
      "backup",
      "small",
      "--public-key",
      publicKey,
      "--compress",
      "none",
      "-c",
      "head -c 8000000 /dev/urandom",
    ]),
  );
  say("  ... and plaintext sent to the server itself, past the checks of the client:");
  say(`  ${await sendPlaintext(url, password)}`);
  const versions = await succeed(url, ["ls", "small", "--json"]);
  check(!versions.stdout.toString().includes('"version":'), "nothing refused should have become a version");

  step("Restoring and comparing byte for byte");
  const restored = join(temporary, "restored");
  await mkdir(restored);
  const beganRestore = performance.now();
  await succeed(url, ["restore", "files", "--private-key", privateKey, "-c", `tar -xf - -C ${restored}`]);
  const restoreSeconds = (performance.now() - beganRestore) / 1000;
  const different = differences(before, await readTree(restored, names));
  check(different.length === 0, `restored files differ: ${different.slice(0, 5).join(", ")}`);
  say(`  all ${before.files} files are the same, byte for byte`);

  step("The same without Strongroom: the stored object and stock gpg");
  const encrypted = join(temporary, "files.gpg");
  await succeed(url, ["download", "files", "--output", encrypted]);
  if (findProgram("gpg") === undefined) say("  SKIPPED: gpg is not installed on this machine");
  else await openWithStockGpg(encrypted, privateKey, join(restored, "again"));

  step("Done");
  const seconds = (performance.now() - startedAt) / 1000;
  say(
    `  backup   ${mib(before.bytes)} in ${backupSeconds.toFixed(1)} s, ${mib(before.bytes / backupSeconds)}/s ` +
      "(tar, compression, gpg, upload, one cut)",
  );
  say(`  restore  ${mib(before.bytes)} in ${restoreSeconds.toFixed(1)} s, ${mib(before.bytes / restoreSeconds)}/s`);
  say(`  all in   ${seconds.toFixed(1)} s. Everything was the same at the end as at the beginning.`);
  if (keep) await keepRunning(server, password, publicKey, privateKey);
} catch (error) {
  failed = true;
  process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}\n`);
  if (server !== undefined)
    process.stderr.write(`\nThe server's last log lines:\n${server.log().split("\n").slice(-15).join("\n")}\n`);
} finally {
  await cleanUp();
}
process.exit(failed ? 1 : 0);

function SMALL_COLLECTION(): string {
  return `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata:
  name: small
spec:
  description: A collection with a small quota
  maxBackupsCount: 2
  maxOneVersionSize: 1M
  maxCollectionSize: 4M
`;
}

/** Directories of node_modules with enough bytes together. Links and caches are left out. */
async function chooseDirectories(): Promise<string[]> {
  const chosen: string[] = [];
  let bytes = 0;
  for (const name of (await readdir(join(ROOT, "node_modules"))).sort()) {
    if (name.startsWith(".") || name === "@strongroom") continue;
    const path = join("node_modules", name);
    bytes += (await readTree(ROOT, [path])).bytes;
    chosen.push(path);
    if (bytes >= LEAST_BYTES) break;
  }
  return chosen;
}

async function refused(what: string, outcome: Outcome): Promise<void> {
  check(outcome.code === 4, `${what} should be refused with exit code 4, and got ${outcome.code}`);
}

/** Sends plaintext through the generated client, as a program in another language could. Returns the refusal. */
async function sendPlaintext(url: string, password: string): Promise<string> {
  const anonymous = new StrongroomClient({ url });
  const { token } = await anonymous.login({ username: "admin", password });
  anonymous.close();
  const client = new StrongroomClient({ url, token });
  try {
    const { upload } = await client.uploads.createUpload({ collection: "files" });
    const bytes = Buffer.from("-- PostgreSQL database dump\n".repeat(1000));
    const sha256 = createHash("sha256").update(bytes).digest();
    const uploadId = upload!.uploadId;
    await client.uploads.writeSegment(
      (async function* () {
        yield {
          frame: { case: "header" as const, value: { uploadId, index: 0, sizeBytes: BigInt(bytes.length), sha256 } },
        };
        yield { frame: { case: "chunk" as const, value: bytes } };
      })(),
    );
  } catch (error) {
    const refusal = toStrongroomError(error);
    check(
      refusal.reason.endsWith("CIPHERTEXT_REFUSED"),
      `plaintext should be refused as such, and got ${refusal.reason}`,
    );
    return `${refusal.reason}: ${refusal.message}`;
  } finally {
    client.close();
  }
  throw new Error("demo: the server accepted plaintext");
}

/** gpg with a key ring of its own, then zstd, then tar: what a person does who has only the object and the key. */
async function openWithStockGpg(encrypted: string, privateKey: string, target: string): Promise<void> {
  const keyring = await mkdtemp(join(tmpdir(), "sr-gpg-"));
  const env = { GNUPGHOME: keyring };
  try {
    const imported = await run("gpg", ["--batch", "--quiet", "--import", privateKey], { env });
    check(imported.code === 0, `gpg could not import the key: ${imported.stderr}`);
    const opened = `${encrypted}.opened`;
    const decrypted = await run("gpg", ["--batch", "--quiet", "--output", opened, "--decrypt", encrypted], { env });
    check(decrypted.code === 0, `gpg could not decrypt: ${decrypted.stderr}`);
    const { createReadStream, createWriteStream } = await import("node:fs");
    const head = await readFile(opened).then((b) => b.subarray(0, 4).toString("hex"));
    const plain = `${opened}.tar`;
    if (head === "28b52ffd") await pipeline(createReadStream(opened), createZstdDecompress(), createWriteStream(plain));
    await mkdir(target);
    const extracted = await run("tar", ["-xf", head === "28b52ffd" ? plain : opened, "-C", target]);
    check(extracted.code === 0, `tar could not extract: ${extracted.stderr}`);
    const names = await readdir(join(target, "node_modules"));
    const paths = names.map((name) => join("node_modules", name));
    const different = differences(await readTree(ROOT, paths), await readTree(target, paths));
    check(different.length === 0, `files opened with gpg differ: ${different.slice(0, 5).join(", ")}`);
    say("  gpg --decrypt, zstd, tar: the same files, byte for byte");
  } finally {
    await run("gpgconf", ["--kill", "all"], { env }).catch(() => undefined);
    await rm(keyring, { recursive: true, force: true });
  }
}

async function keepRunning(of: ServerProcess, password: string, publicKey: string, privateKey: string): Promise<void> {
  say(`
The server goes on at ${of.url} until Ctrl-C. Things to try in another terminal, in ${ROOT}:

  export STRONGROOM_URL=${of.url} XDG_CONFIG_HOME=${home}
  bin/strongroom whoami                       # user admin, password ${password}
  echo "something of mine" | bin/strongroom backup files --public-key ${publicKey}
  bin/strongroom ls files
  bin/strongroom restore files --private-key ${privateKey}  > copy
  bin/strongroom health files
`);
  // Ends by a signal, which cleans up.
  await new Promise(() => {});
}

/**
 * Commands on the server's data, with the real program on the embedded default: sweep, verify, recover; and a restore
 * without the program.
 */

import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { initConfiguration, LOGIN, personEnvironment, succeeded } from "@strongroom/testkit/installation";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { startS3 } from "@strongroom/testkit/peers/s3";
import {
  cleanEnvironment,
  run,
  type ServerProcess,
  STRONGROOM,
  startServerProcess,
} from "@strongroom/testkit/processes";
import anyTest, { type ExecutionContext, type TestFn } from "ava";

const MIB = 1024 * 1024;

interface Place {
  readonly dir: string;
  readonly data: string;
  readonly password: string;
  readonly dumps: Buffer[];
}

const test = anyTest as TestFn<{ place: Place; server: ServerProcess | undefined }>;

/**
 * A directory with three versions of random or compressible dumps, whose server was killed right after the last
 * acknowledgement.
 */
test.before(async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-data-"));
  const data = join(dir, "data");
  const password = await initConfiguration(join(data, "config"), "db");
  await mkdir(join(dir, "home"), { mode: 0o700 });
  const compressible = Buffer.from("a line of a dump\n".repeat(200_000));
  const place = { dir, data, password, dumps: [randomBytes(3 * MIB + 5), compressible, randomBytes(1000)] };
  t.context = { place, server: undefined };
  await serving(t, async (server) => {
    succeeded(t, await client(place, server, ["keygen", "--name", "test", "--out-dir", dir]));
    for (const dump of place.dumps)
      succeeded(t, await client(place, server, ["backup", "db", "--public-key", "test.pub.asc"], dump));
    await server.end("SIGKILL");
  });
});
test.after.always(async (t) => {
  if (t.context.place !== undefined) await rm(t.context.place.dir, { recursive: true, force: true });
});

type T = ExecutionContext<{ place: Place; server: ServerProcess | undefined }>;

/** Runs a server over the place, logged in. */
async function serving(t: T, work: (server: ServerProcess) => Promise<void>): Promise<void> {
  const { place } = t.context;
  const server = await startServerProcess(["--data", place.data, "--segment-size", "1M", "--verify-every", "off"]);
  try {
    succeeded(t, await client(place, server, LOGIN, place.password));
    await work(server);
  } finally {
    await server.end("SIGTERM");
  }
}

async function client(place: Place, server: ServerProcess, args: readonly string[], input: string | Buffer = "") {
  const home = join(place.dir, "home");
  const env = personEnvironment(home, server.url);
  return await run(STRONGROOM, args, { input, env, cwd: place.dir });
}

const onData = async ({ data }: Place, command: string, ...args: string[]) =>
  await run(STRONGROOM, [command, ...args, "--data", data]);

/** Path of a version's object. */
async function objectOf({ data }: Place, number: number): Promise<string> {
  const folder = join(data, "storage", "objects", "collections", "db");
  for (const name of await readdir(folder)) {
    if (!name.endsWith(".manifest.json")) continue;
    const manifest = JSON.parse(await readFile(join(folder, name), "utf8")) as { number: string };
    if (manifest.number === String(number)) return join(folder, name.replace(".manifest.json", ""));
  }
  throw new Error(`no manifest of version ${number}`);
}

/** Puts more collections into the store, each with a copy of version 3 as its only one. */
async function addCollections(place: Place, count: number): Promise<void> {
  const object = await objectOf(place, 3);
  const manifest = JSON.parse(await readFile(`${object}.manifest.json`, "utf8")) as Record<string, unknown>;
  for (let index = 0; index < count; index++) {
    const [collection, id] = [`more-${index}`, randomUUID()];
    const folder = join(dirname(dirname(object)), collection);
    await mkdir(folder);
    await copyFile(object, join(folder, id));
    const key = `collections/${collection}/${id}`;
    const own = { version_id: id, collection, collection_id: randomUUID(), key, number: "1" };
    await writeFile(join(folder, `${id}.manifest.json`), JSON.stringify({ ...manifest, ...own }));
  }
}

/** Turns one bit over, in place. */
async function flipBit(path: string, at: number): Promise<void> {
  const file = await open(path, "r+");
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
  buffer[0]! ^= 1;
  await file.write(buffer, 0, 1, at);
  await file.close();
}

test.serial("wrong arguments and wrong places: reported before anything is made", async (t) => {
  const { place } = t.context;
  const nowhere = join(place.dir, "nowhere");
  for (const command of ["sweep", "verify", "recover"]) {
    const help = await run(STRONGROOM, [command, "--help"]);
    t.is(help.code, 0);
    t.regex(help.stdout.toString(), new RegExp(`^Usage: strongroom ${command} .*Exit codes:`, "s"));
    const unknown = await run(STRONGROOM, [command, "--no-such"]);
    t.is(unknown.code, 2);
    t.regex(unknown.stderr, /unknown option '--no-such'/);
    const config = join(place.data, "config");
    const missing = await run(STRONGROOM, [command, "--data", nowhere, "--config", config]);
    t.is(missing.code, 2, missing.stderr);
    t.regex(missing.stderr, /there is no directory/);
  }
  await t.throwsAsync(readdir(nowhere), { code: "ENOENT" });
  t.is((await onData(place, "sweep", "--give-up-commit", "x", "--yes")).code, 2);
  t.is((await onData(place, "sweep", "--dry-run", "--yes")).code, 2);
  t.is((await onData(place, "verify", "db/zero")).code, 2);
  const none = await onData(place, "sweep", "--give-up-commit", "00000000-0000-0000-0000-000000000000", "--yes");
  t.is(none.code, 4, none.stderr);
});

test.serial("while the server runs, the commands say that it must be stopped, and the server goes on", async (t) => {
  const { place } = t.context;
  await serving(t, async (server) => {
    for (const command of ["sweep", "verify", "recover"]) {
      const refused = await onData(place, command);
      t.is(refused.code, 4, refused.stderr);
      t.regex(refused.stderr, /stop the server/);
    }
    succeeded(t, await client(place, server, ["ls", "db"]));
  });
});

test.serial("sweep: a dry run, unknown objects, and their deletion only after a day", async (t) => {
  const { place } = t.context;
  const lost = join(dirname(await objectOf(place, 1)), "00000000-0000-4000-8000-000000000000");
  await writeFile(lost, "left by nobody");
  const dry = succeeded(t, await onData(place, "sweep", "--dry-run", "--json"));
  const report = JSON.parse(dry.stdout.toString()) as { unknown: { key: string; why: string }[]; failed: number };
  t.is(report.failed, 0);
  t.deepEqual(
    report.unknown.map(({ key }) => key),
    ["collections/db/00000000-0000-4000-8000-000000000000"],
  );
  const asked = succeeded(t, await onData(place, "sweep", "--delete-unknown", "--yes"));
  t.regex(asked.stderr, /1 object stays.*24 hours/);
  t.is(await readFile(lost, "utf8"), "left by nobody");
  await rm(lost);
});

test.serial(
  "sweep: only --delete-unknown --yes deletes, whatever else is written, also in the environment",
  async (t) => {
    const { place } = t.context;
    const lost = join(dirname(await objectOf(place, 1)), "00000000-0000-4000-8000-000000000001");
    await writeFile(lost, "left by nobody");
    const json = async (args: readonly string[], env: Record<string, string> = {}) => {
      const outcome = await run(STRONGROOM, ["sweep", "--data", place.data, "--json", ...args], { env });
      const [first = ""] = outcome.stdout.toString().split("\n");
      const report = JSON.parse(first) as { dryRun?: boolean; deleted?: unknown[]; unknown?: { since: string }[] };
      return { ...report, code: outcome.code, stderr: outcome.stderr };
    };
    t.like(await json(["--dry-run"]), { code: 0, dryRun: true });
    // A dry run remembers nothing, a real one since when the object is unknown.
    const [seen] = (await json(["--dry-run=false"], { STRONGROOM_DRY_RUN: "true" })).unknown!;
    t.like(await json(["--no-dry-run"]), { code: 0, dryRun: false, unknown: [{ since: seen!.since }] });
    await seenLongAgo(place);

    const nothing: Array<[args: string[], code: number, env?: Record<string, string>]> = [
      [["--delete-unknown", "--yes=no"], 2],
      [["--delete-unknown", "--yes=0"], 2],
      [["--delete-unknown", "--yes="], 2],
      [["--delete-unknown", "--yes=false"], 2],
      [["--delete-unknown", "--yes", "--no-yes"], 2],
      [["--delete-unknown", "--yes", "no"], 2],
      [["--delete-unknown=no", "--yes"], 2],
      [["--delete-unknown=false", "--yes=true"], 0],
      [["--delete-unknown", "--yes", "--dry-run"], 2],
      [["--delete-unknown", "--yes", "--dry-run=yes"], 2],
      [["--delete-unknown", "--yess"], 2],
      [["--delete-unknown"], 2, { STRONGROOM_YES: "true" }],
      [["--yes"], 0, { STRONGROOM_DELETE_UNKNOWN: "true" }],
    ];
    for (const [args, code, env] of nothing) {
      const outcome = await run(STRONGROOM, ["sweep", "--data", place.data, ...args], env === undefined ? {} : { env });
      t.is(outcome.code, code, `${args.join(" ")}: ${outcome.stderr}`);
      t.is(await readFile(lost, "utf8"), "left by nobody", args.join(" "));
    }
    const { code, deleted } = await json(["--delete-unknown=true", "--yes=true", "--dry-run=false"]);
    t.deepEqual([code, deleted?.length], [0, 1]);
    await t.throwsAsync(readFile(lost), { code: "ENOENT" });
  },
);

/** Makes the objects that are unknown ones of a week ago, in the embedded database. */
async function seenLongAgo({ data }: Place): Promise<void> {
  const database = await PGlite.create({ dataDir: join(data, "database", "data") });
  await database.exec("update unknown_objects set first_seen_at = first_seen_at - interval '7 days'");
  await database.close();
}

test.serial("copy-storage from a place that does not exist makes nothing", async (t) => {
  const dir = await mkdtemp(join(t.context.place.dir, "copy-"));
  const [nowhere, empty, target] = ["nowhere", "empty", "target"].map((name) => join(dir, name));
  await mkdir(empty!);
  const copy = async (...args: string[]) => await run(STRONGROOM, ["copy-storage", ...args]);
  const missing = await copy("--from", `file://${nowhere}`, "--to", `file://${target}`);
  t.is(missing.code, 2, missing.stderr);
  t.regex(missing.stderr, /there is no directory \S+nowhere; check --from/);
  t.deepEqual(await readdir(dir), ["empty"]);
  const notOurs = await copy("--from", `file://${empty}`, "--to", `file://${target}`);
  t.is(notOurs.code, 2, notOurs.stderr);
  t.regex(notOurs.stderr, /empty is no storage/);
  t.deepEqual(await readdir(dir), ["empty"], "the target was not made");
  t.deepEqual(await readdir(empty!), [], "nor anything in the source");
  t.is((await copy("--from", `file://${empty}`)).code, 2);
  t.is((await copy("--from", "nonsense", "--to", `file://${target}`)).code, 2);
  t.deepEqual(await readdir(dir), ["empty"]);
});

test.serial("verify: a flipped bit is found, health and ls show it, a repair clears it", async (t) => {
  const { place } = t.context;
  const all = succeeded(t, await onData(place, "verify"));
  t.regex(all.stdout.toString(), /db\/1: whole.*\n3 whole, 0 damaged, 0 not verified/s);
  await flipBit(await objectOf(place, 1), 2 * MIB + 1000);
  const json = await onData(place, "verify", "db", "--json");
  t.is(json.code, 6, json.stderr);
  const lines = json.stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { size: unknown });
  t.like(lines[0], { collection: "db", number: 1, ok: false, damagedSegment: 2 });
  t.like(lines[2], { number: 3, ok: true });
  t.deepEqual([...new Set(lines.map(({ size }) => typeof size))], ["number"]);
  await serving(t, async (server) => {
    const health = await client(place, server, ["health", "db"]);
    t.is(health.code, 8);
    t.regex(health.stdout.toString(), /integrity +failed +\S+ \S+ UTC +1 version failed.*version 1: segment 2 /);
    t.regex((await client(place, server, ["ls", "db"])).stdout.toString(), /^ +1 .*DAMAGED/m);
    const download = await client(place, server, ["restore", "db", "--version", "1", "--private-key", "test.key.asc"]);
    t.is(download.code, 6, "a download finds it too");
  });
  t.is((await onData(place, "verify", "db/1")).code, 6, "the version stays");
  await flipBit(await objectOf(place, 1), 2 * MIB + 1000);
  succeeded(t, await onData(place, "verify", "db/1"));
  await serving(t, async (server) => {
    succeeded(t, await client(place, server, ["health", "db"]));
  });
  t.is((await onData(place, "verify", "db/9")).code, 4);
});

test.serial("restore by hand: the page, with stock gpg, from the directory", async (t) => {
  const { place } = t.context;
  if (!hasPeers(t, "gpg", "jq", "zstd", "xxd", "bash")) return;
  await byHand(t, join(place.data, "storage", "objects"), "gpg-1");
});

test.serial("restore by hand: the page, from a bucket, with a stock client", async (t) => {
  const { place } = t.context;
  if (!hasPeers(t, "gpg", "jq", "zstd", "xxd", "bash", "aws", "versitygw")) return;
  const s3 = await startS3("versitygw");
  try {
    const env = { ...s3.env, AWS_ENDPOINT_URL: s3.endpoint };
    const aws = async (...args: string[]) => succeeded(t, await run(findPeer("aws")!, args, { env, cwd: place.dir }));
    await aws("s3", "cp", "--recursive", join(place.data, "storage", "objects"), `s3://${s3.bucket}/`);
    const objects = join(place.dir, "from-bucket");
    const manifests = ["--exclude", "*", "--include", "*.manifest.json"];
    await aws("s3", "cp", "--recursive", ...manifests, `s3://${s3.bucket}/collections/db`, `${objects}/collections/db`);
    t.is((await readdir(join(objects, "collections", "db"))).length, 3, "the manifests only");
    for (const number of [1, 2, 3]) {
      const key = `collections/db/${(await objectOf(place, number)).split("/").at(-1)}`;
      await aws("s3", "cp", `s3://${s3.bucket}/${key}`, join(objects, key));
    }
    await byHand(t, objects, "gpg-2");
  } finally {
    await s3.remove();
  }
});

/** Runs the page's script for every version, and finds damage with it. */
async function byHand(t: T, objects: string, keyring: string): Promise<void> {
  const { place } = t.context;
  const page = await readFile(new URL("../../docs/restore-by-hand.md", import.meta.url), "utf8");
  const script = /<!-- restore-by-hand -->\n```bash\n(.*?)```/s.exec(page)![1]!;
  const GNUPGHOME = join(place.dir, keyring);
  await mkdir(GNUPGHOME, { mode: 0o700 });
  const imported = await run("gpg", ["--batch", "--import", join(place.dir, "test.key.asc")], { env: { GNUPGHOME } });
  t.is(imported.code, 0, imported.stderr);
  const restore = async (number: number, output: string) =>
    await run("bash", ["-c", script], {
      env: { GNUPGHOME, objects, collection: "db", number: String(number), output: join(place.dir, output) },
    });
  for (const [i, dump] of place.dumps.entries()) {
    succeeded(t, await restore(i + 1, `by-hand-${i + 1}`));
    t.true(dump.equals(await readFile(join(place.dir, `by-hand-${i + 1}`))), `version ${i + 1}`);
  }
  const object = join(objects, "collections", "db", (await objectOf(place, 1)).split("/").at(-1)!);
  await flipBit(object, MIB + 7);
  t.not((await restore(1, "by-hand-damaged")).code, 0, "damage is found");
  await t.throwsAsync(readFile(join(place.dir, "by-hand-damaged")), { code: "ENOENT" });
  await flipBit(object, MIB + 7);
  await run("gpgconf", ["--kill", "all"], { env: { GNUPGHOME } });
}

test.serial("a restore whose command fails leaves no private key behind", async (t) => {
  const { place } = t.context;
  const temporary = join(place.dir, "tmp");
  await mkdir(temporary);
  await serving(t, async (server) => {
    const home = join(place.dir, "home");
    const env = { ...personEnvironment(home, server.url), TMPDIR: temporary };
    const restore = ["restore", "db", "--version", "2", "--private-key", "test.key.asc", "-c", "exit 3"];
    const { code, stderr } = await run(STRONGROOM, restore, { env, cwd: place.dir });
    t.is(code, 7, stderr);
    t.deepEqual(await readdir(temporary), []);
  });
});

test.serial("recover: the database is lost, the rebuild is killed, and all is there again", async (t) => {
  const { place } = t.context;
  const database = join(place.data, "database");
  await rename(database, join(place.dir, "lost-database"));
  const started = await t.throwsAsync(startServerProcess(["--data", place.data]));
  t.regex(started!.message, /the store belongs to installation.*strongroom recover/s);

  // So many that the rebuild is far from its end when its first line is read.
  await addCollections(place, 300);
  const dry = succeeded(t, await onData(place, "recover", "--dry-run", "--json"));
  const expected = JSON.parse(dry.stdout.toString()) as { versions: number; collections: number };
  t.like(expected, { versions: 303, collections: 301, damaged: [], skipped: [], unknown: [] });

  const child = spawn(STRONGROOM, ["recover", "--data", place.data], { env: cleanEnvironment() });
  const ended = once(child, "close");
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  t.deepEqual(await ended, [null, "SIGKILL"], "it was killed before its end");
  const real = succeeded(t, await onData(place, "recover", "--json"));
  t.deepEqual(JSON.parse(real.stdout.toString()), { ...expected, dryRun: false });
  const again = await onData(place, "recover");
  t.is(again.code, 4, "the database is in use now");
  t.regex(again.stderr, /database is in use/);

  await serving(t, async (server) => {
    const ls = JSON.parse((await client(place, server, ["ls", "db", "--json"])).stdout.toString()) as {
      versions: { version: number; uploadedBy: string }[];
    };
    t.deepEqual(
      ls.versions.map(({ version, uploadedBy }) => [version, uploadedBy]),
      [
        [3, "admin"],
        [2, "admin"],
        [1, "admin"],
      ],
    );
    const restored = await client(place, server, ["restore", "db", "--version", "2", "--private-key", "test.key.asc"]);
    t.true(place.dumps[1]!.equals(succeeded(t, restored).stdout));
    const backup = ["backup", "db", "--public-key", "test.pub.asc", "--json"];
    const next = succeeded(t, await client(place, server, backup, randomBytes(500)));
    t.regex(next.stdout.toString(), /"version":4/);
  });
  succeeded(t, await onData(place, "verify"));
  succeeded(t, await onData(place, "sweep"));
});

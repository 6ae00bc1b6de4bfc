/**
 * The real server process and the real CLI, on the embedded default.
 */

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  collectionDocument,
  initConfiguration,
  LOGIN,
  personEnvironment,
  succeeded,
} from "@strongroom/testkit/installation";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import {
  cleanEnvironment,
  type Outcome,
  run,
  type ServerProcess,
  STRONGROOM,
  startServerProcess,
} from "@strongroom/testkit/processes";
import { startProxy } from "@strongroom/testkit/proxy";
import { cutAfter } from "@strongroom/testkit/proxy-behaviours";
import { Encrypter } from "age-encryption";
import anyTest, { type TestFn } from "ava";

interface Place {
  readonly dir: string;
  readonly data: string;
  readonly password: string;
  server: ServerProcess;
}

const test = anyTest as TestFn<{ place: Place }>;
const MIB = 1024 * 1024;

test.before(async (t) => {
  t.context = { place: await makePlace() };
});
test.after.always(async (t) => {
  const { place } = t.context;
  await place?.server.end("SIGTERM");
  if (place !== undefined) await rm(place.dir, { recursive: true, force: true });
});

/** A collection that takes both formats. */
const ANY_COLLECTION = collectionDocument(
  "any",
  "maxBackupsCount: 20, maxOneVersionSize: 100M, maxCollectionSize: 3G, encryption: any-of",
);

/** A collection that takes one version an hour. */
const RARE_COLLECTION = collectionDocument(
  "rare",
  "maxBackupsCount: 20, maxOneVersionSize: 100M, maxCollectionSize: 3G, encryption: any-of, minInterval: 1h",
);

/** A temporary directory with a configuration, a running server, a session and a key. */
async function makePlace(): Promise<Place> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-e2e-"));
  const data = join(dir, "data");
  const password = await initConfiguration(join(data, "config"), "db");
  await writeFile(join(data, "config", "any.yaml"), ANY_COLLECTION);
  await writeFile(join(data, "config", "rare.yaml"), RARE_COLLECTION);
  const place = { dir, data, password, server: await startServerProcess(["--data", data]) };
  await mkdir(join(dir, "home"), { mode: 0o700 });
  await login(place);
  const key = await strongroom(place, ["keygen", "--name", "test", "--out-dir", dir]);
  if (key.code !== 0) throw new Error(key.stderr);
  return place;
}

const login = async (place: Place, url = place.server.url) =>
  await strongroom(place, LOGIN, { input: place.password, url });

async function strongroom(
  place: Place,
  args: readonly string[],
  { input = "" as string | Uint8Array, url = place.server?.url, env = {} as Record<string, string> } = {},
): Promise<Outcome> {
  const home = join(place.dir, "home");
  return await run(STRONGROOM, args, {
    input,
    env: { ...personEnvironment(home, url), ...env },
    cwd: place.dir,
  });
}

async function versionsOf(place: Place, collection = "db"): Promise<{ version: number; size: number }[]> {
  const { stdout } = await strongroom(place, ["ls", collection, "--json"]);
  return (JSON.parse(stdout.toString()) as { versions: { version: number; size: number }[] }).versions;
}

const PUBLIC = ["--public-key", "test.pub.asc"];
const PRIVATE = ["--private-key", "test.key.asc"];

for (const program of ["gpg", "library"] as const) {
  test.serial(`a dump goes in through stdin and comes back, with ${program}`, async (t) => {
    const { place } = t.context;
    if (program === "gpg" && !hasPeers(t, "gpg")) return;
    const dump = randomBytes(20 * MIB);
    const backup = await strongroom(place, ["backup", "db", ...PUBLIC, "--program", program], { input: dump });
    succeeded(t, backup);
    const restored = await strongroom(place, ["restore", "db", ...PRIVATE, "--program", program]);
    succeeded(t, restored);
    t.true(restored.stdout.equals(dump));
  });
}

test.serial("what the library encrypts, gpg opens; and the reverse", async (t) => {
  const { place } = t.context;
  if (!hasPeers(t, "gpg")) return;
  for (const [one, other] of [
    ["library", "gpg"],
    ["gpg", "library"],
  ] as const) {
    const dump = Buffer.from(`made by ${one}\n`.repeat(100_000));
    succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC, "--program", one], { input: dump }));
    const restored = await strongroom(place, ["restore", "db", ...PRIVATE, "--program", other]);
    t.true(succeeded(t, restored).stdout.equals(dump));
  }
});

for (const armor of [false, true]) {
  const form = armor ? "armored" : "binary";
  test.serial(`messages made by stock gpg are accepted, and ours open with it (${form})`, async (t) => {
    const { place } = t.context;
    if (!hasPeers(t, "gpg")) return;
    const dump = randomBytes(3 * MIB);
    const keyring = await mkdtemp(join(tmpdir(), "sr-gpg-"));
    const gpg = async (args: string[], input: Uint8Array = new Uint8Array()) =>
      await run("gpg", ["--batch", "--quiet", ...args], { input, env: { GNUPGHOME: keyring } });
    try {
      succeeded(t, await gpg(["--import", join(place.dir, "test.key.asc")]));
      const encrypt = ["--encrypt", "--trust-model", "always", "--recipient", "test", ...(armor ? ["--armor"] : [])];
      const message = succeeded(t, await gpg(encrypt, dump)).stdout;
      succeeded(t, await strongroom(place, ["backup", "any", "--encryption", "none"], { input: message }));
      t.true(succeeded(t, await strongroom(place, ["restore", "any", ...PRIVATE])).stdout.equals(dump));

      succeeded(t, await strongroom(place, ["backup", "any", ...PUBLIC, "--compress", "none"], { input: dump }));
      succeeded(t, await strongroom(place, ["download", "any", "--output", "ours.gpg", "--force"]));
      const opened = await gpg(["--decrypt", join(place.dir, "ours.gpg")]);
      t.true(succeeded(t, opened).stdout.equals(dump));
    } finally {
      await run("gpgconf", ["--kill", "all"], { env: { GNUPGHOME: keyring } });
      await rm(keyring, { recursive: true, force: true });
    }
  });

  test.serial(`messages made by stock age are accepted, and ours open with it (${form})`, async (t) => {
    const { place } = t.context;
    if (!hasPeers(t, "age")) return;
    const dump = randomBytes(3 * MIB);
    await rm(join(place.dir, "age.key"), { force: true });
    succeeded(t, await run("age-keygen", ["-o", join(place.dir, "age.key")]));
    const recipient = /age1[0-9a-z]+/.exec(await readFile(join(place.dir, "age.key"), "utf8"))![0];
    const message = await run("age", ["-r", recipient, ...(armor ? ["--armor"] : [])], { input: dump });
    const input = succeeded(t, message).stdout;
    const upload = ["backup", "any", "--encryption", "none"];
    if (!armor) {
      // Half of it looks whole.
      const cut = await strongroom(place, upload, { input: input.subarray(0, input.length >> 1) });
      t.is(cut.code, 2, cut.stderr);
      t.regex(cut.stderr, /looks whole wherever it is cut.*--expect-size BYTES/s);
      const declared = [...upload, "--expect-size", String(input.length)];
      const refused = await strongroom(place, declared, { input: input.subarray(0, input.length >> 1) });
      t.is(refused.code, 4, refused.stderr);
      upload.push("--expect-size", String(input.length));
    }
    succeeded(t, await strongroom(place, upload, { input }));
    for (const program of ["age", "library"]) {
      const restored = await strongroom(place, ["restore", "any", "--identity", "age.key", "--program", program]);
      t.true(succeeded(t, restored).stdout.equals(dump));
    }
    for (const program of ["age", "library"]) {
      const args = ["backup", "any", "--recipient", recipient, "--compress", "none", "--program", program];
      succeeded(t, await strongroom(place, args, { input: dump }));
      succeeded(t, await strongroom(place, ["download", "any", "--output", "ours.age", "--force"]));
      const opened = await run("age", ["--decrypt", "-i", join(place.dir, "age.key"), join(place.dir, "ours.age")]);
      t.true(succeeded(t, opened).stdout.equals(dump));
    }
  });
}

test.serial("a failing dump command never becomes a version, and health says why", async (t) => {
  const { place } = t.context;
  const before = await versionsOf(place);
  for (const command of ["head -c 3000000 /dev/urandom; exit 3", "head -c 3000000 /dev/urandom | false | cat"]) {
    t.is((await strongroom(place, ["backup", "db", ...PUBLIC, "-c", command])).code, 7);
  }
  t.deepEqual(await versionsOf(place), before);
  t.regex((await strongroom(place, ["health", "db"])).stdout.toString(), /dump command exited/);
  const empty = await strongroom(place, ["backup", "db", ...PUBLIC], { input: "" });
  t.not(empty.code, 0);
  t.deepEqual(await versionsOf(place), before);
});

test.serial("a dump command is not started for an upload that the server would refuse", async (t) => {
  const { place } = t.context;
  const command = [...PUBLIC, "-c", "touch started; echo dump"];
  const started = join(place.dir, "started");
  succeeded(t, await strongroom(place, ["backup", "rare", ...command]));
  await rm(started);
  for (const [collection, why] of [
    ["rare", "minInterval"],
    ["nowhere", 'collection "nowhere"'],
  ] as const) {
    const { code, stderr } = await strongroom(place, ["backup", collection, ...command]);
    t.not(code, 0);
    t.true(stderr.includes(why), stderr);
    await t.throwsAsync(stat(started), { code: "ENOENT" }, collection);
  }
});

test.serial("a cut connection: the upload goes on", async (t) => {
  const { place } = t.context;
  const proxy = await startProxy(place.server.url);
  await login(place, proxy.url);
  const dump = randomBytes(60 * MIB);
  await writeFile(join(place.dir, "dump"), dump);
  proxy.behave(cutAfter(25 * MIB));
  const args = ["backup", "db", ...PUBLIC, "--compress", "none", "-c", "cat dump"];
  const backup = await strongroom(place, args, { url: proxy.url });
  succeeded(t, backup);
  t.is(proxy.fired("cut"), 1);
  t.regex(backup.stderr, /connection lost/);
  await proxy.close();
  const restored = await strongroom(place, ["restore", "db", ...PRIVATE]);
  t.true(succeeded(t, restored).stdout.equals(dump));
});

test.serial("kill -9 right after the acknowledgement: the version is there", async (t) => {
  const { place } = t.context;
  const dump = randomBytes(5 * MIB);
  succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC], { input: dump }));
  await place.server.end("SIGKILL");
  place.server = await startServerProcess(["--data", place.data]);
  succeeded(t, await login(place));
  const restored = await strongroom(place, ["restore", "db", ...PRIVATE]);
  t.true(succeeded(t, restored).stdout.equals(dump));
});

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  test.serial(`${signal} of the server in the middle of an upload: it goes on after the restart`, async (t) => {
    const { place } = t.context;
    const { port } = new URL(place.server.url);
    const dump = randomBytes(80 * MIB);
    await writeFile(join(place.dir, "dump"), dump);
    // The source pauses in the middle, so that the signal surely meets an open upload.
    const command = "head -c 40000000 dump; until [ -e go ]; do sleep 0.1; done; tail -c +40000001 dump";
    await rm(join(place.dir, "go"), { force: true });
    const logged = place.server.log().length;
    const backup = strongroom(place, ["backup", "db", ...PUBLIC, "--compress", "none", "-c", command]);
    while (!/WriteSegment/.test(place.server.log().slice(logged))) await sleep(50);
    const code = await place.server.end(signal);
    t.is(code, signal === "SIGTERM" ? 0 : null);
    place.server = await startServerProcess(["--data", place.data, "--listen", `127.0.0.1:${port}`]);
    await writeFile(join(place.dir, "go"), "");
    succeeded(t, await backup);
    const restored = await strongroom(place, ["restore", "db", ...PRIVATE]);
    t.true(succeeded(t, restored).stdout.equals(dump));
  });
}

test.serial("a backup that was killed holds its place until somebody frees it", async (t) => {
  const { place } = t.context;
  const child = spawn(STRONGROOM, ["backup", "db", ...PUBLIC], {
    cwd: place.dir,
    env: {
      ...cleanEnvironment(),
      // The one address is dead, and the session of the other one serves both.
      ...personEnvironment(join(place.dir, "home"), `http://127.0.0.1:1,${place.server.url}`),
    },
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.stdin!.on("error", () => {});
  child.stdin!.write(randomBytes(2 * MIB));
  const underWay = async () => {
    const { stdout } = await strongroom(place, ["uploads", "db", "--json"]);
    return (JSON.parse(stdout.toString()) as { uploads: { uploadId: string; user: string }[] }).uploads;
  };
  while ((await underWay()).length === 0) await sleep(100);
  child.kill("SIGKILL");
  const busy = await strongroom(place, ["backup", "db", ...PUBLIC], { input: "dump" });
  t.is(busy.code, 4, busy.stderr);
  t.regex(busy.stderr, /strongroom uploads COLLECTION/);
  const [upload] = await underWay();
  t.is(upload!.user, "admin");
  t.regex((await strongroom(place, ["uploads", "db"])).stdout.toString(), new RegExp(upload!.uploadId.slice(0, 12)));
  succeeded(t, await strongroom(place, ["uploads", "db", "--abort", upload!.uploadId.slice(0, 8)]));
  succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC], { input: "dump" }));
  t.deepEqual(await underWay(), []);
});

test.serial("a restore without a key that the keyring does not open says what to give", async (t) => {
  const { place } = t.context;
  if (!hasPeers(t, "gpg")) return;
  succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC], { input: "dump" }));
  const restored = await strongroom(place, ["restore", "db"]);
  t.is(restored.code, 6);
  t.regex(restored.stderr, /--private-key FILE/);
});

test.serial("a second server on the same data refuses to start, and the first goes on", async (t) => {
  const { place } = t.context;
  const second = await run(STRONGROOM, ["serve", "--data", place.data, "--listen", "127.0.0.1:0"]);
  t.is(second.code, 1);
  t.regex(second.stderr, /in use|another/i);
  succeeded(t, await strongroom(place, ["ls"]));
});

test.serial("start-up errors say what to do", async (t) => {
  const { place } = t.context;
  const start = async (...args: string[]) => await run(STRONGROOM, ["serve", ...args]);
  const missing = await start("--data", join(place.dir, "none"));
  t.is(missing.code, 1);
  t.regex(missing.stderr, /strongroom init/);
  const usage = await start("--listen", "0.0.0.0:8080");
  t.is(usage.code, 2);
  t.regex(usage.stderr, /allow-plaintext/);
  const { port } = new URL(place.server.url);
  // Each of these opens its database and storage before it finds the port taken.
  for (const name of ["other", "third"]) {
    await run(STRONGROOM, ["init", join(place.dir, name, "config")]);
    const busy = await start("--data", join(place.dir, name), "--listen", `127.0.0.1:${port}`);
    t.is(busy.code, 1);
    t.regex(busy.stderr, /in use by another program/);
  }
  const swapped = await start(
    "--data",
    join(place.dir, "other"),
    "--storage",
    `file://${join(place.dir, "third", "storage")}`,
  );
  t.is(swapped.code, 1);
  t.regex(swapped.stderr, /never point two installations at one place/);
});

test.serial("check-config names file, line and reason", async (t) => {
  const { place } = t.context;
  const dir = join(place.dir, "broken");
  await mkdir(dir);
  const yaml =
    "apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupCollection\nmetadata: {name: x}\nspec:\n  " +
    "maxBackupsCount: 5\n  maxOneVersionSize: 1G\n  maxCollectionSize: 2G\n";
  await writeFile(join(dir, "x.yaml"), yaml);
  const outcome = await strongroom(place, ["check-config", dir]);
  t.is(outcome.code, 1);
  t.regex(outcome.stderr, /x\.yaml:\d+: spec/);
  succeeded(t, await strongroom(place, ["check-config", join(place.data, "config")]));
});

test.serial("secrets are in no log line, and files with secrets are private", async (t) => {
  const { place } = t.context;
  const credentials = join(place.dir, "home", "strongroom", "credentials.json");
  const token = /eyJ[\w.-]+/.exec(await readFile(credentials, "utf8"))![0];
  t.is((await stat(credentials)).mode & 0o777, 0o600);
  t.is((await stat(join(place.dir, "test.key.asc"))).mode & 0o777, 0o600);
  for (const secret of [place.password, token]) t.false(place.server.log().includes(secret));
  const hashed = await strongroom(place, ["hash-password"], { input: "a password" });
  t.regex(succeeded(t, hashed).stdout.toString(), /^\$argon2id\$/);
});

test.serial("logout ends the session at once", async (t) => {
  const { place } = t.context;
  succeeded(t, await strongroom(place, ["logout"]));
  t.is((await strongroom(place, ["whoami"])).code, 3);
  succeeded(t, await login(place));
});

test.serial("two jobs at once with a user and a password file do not meet, and leave no session behind", async (t) => {
  const { place } = t.context;
  const file = join(place.dir, "admin-password");
  await writeFile(file, `${place.password}\n`, { mode: 0o600 });
  const job = ["--username", "admin", "--password-file", file];
  const sessions = async () => {
    const { stdout } = succeeded(t, await strongroom(place, ["sessions", "--json"]));
    return (JSON.parse(stdout.toString()) as { sessions: { sessionId: string }[] }).sessions.length;
  };
  const before = await sessions();
  const dump = randomBytes(3 * MIB);
  const [one, two] = await Promise.all([
    strongroom(place, ["backup", "any", ...PUBLIC, ...job], { input: dump }),
    strongroom(place, ["health", "db", ...job]),
    strongroom(place, ["backup", "db", ...PUBLIC, "-c", "sleep 1; exit 3", ...job]),
  ]);
  succeeded(t, one);
  t.true(two.code === 0 || two.code === 8, two.stderr);
  const restored = succeeded(t, await strongroom(place, ["restore", "any", ...PRIVATE, ...job]));
  t.true(restored.stdout.equals(dump));
  const killed = ["-c", "kill -TERM $PPID; sleep 60"];
  t.is((await strongroom(place, ["backup", "db", ...PUBLIC, ...killed, ...job])).code, 143);
  t.is(await sessions(), before);
});

test.serial("all sessions of a user are listed and ended, and an unknown user is said to be unknown", async (t) => {
  const { place } = t.context;
  t.regex(succeeded(t, await strongroom(place, ["sessions", "--all"])).stdout.toString(), /admin/);
  const unknown = await strongroom(place, ["sessions", "--user", "nobody"]);
  t.is(unknown.code, 4);
  t.regex(unknown.stderr, /there is no user "nobody"/);
  t.regex(succeeded(t, await strongroom(place, ["sessions", "--revoke-all"])).stderr, /Ended \d+ session/);
  t.is((await strongroom(place, ["whoami"])).code, 3);
  succeeded(t, await login(place));
});

test.serial("garbage on the port does no harm", async (t) => {
  const { place } = t.context;
  const { port } = new URL(place.server.url);
  for (const bytes of ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\xff", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"]) {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => {}).resume();
    socket.end(bytes, "latin1");
    await new Promise((resolve) => socket.once("close", resolve));
  }
  succeeded(t, await strongroom(place, ["ls"]));
});

/** A folder with what the program `strongroom` and the tests' commands need, and neither gpg nor age. */
async function bareFolder(place: Place): Promise<string> {
  const folder = await mkdtemp(join(place.dir, "bare-"));
  for (const name of ["sh", "bash", "dirname", "readlink", "mkfifo", "cat", "head"]) {
    const found = (await run("sh", ["-c", `command -v ${name}`], {})).stdout.toString().trim();
    await symlink(found, join(folder, name));
  }
  return folder;
}

const messages = new URL("../../client-sdk/test/fixtures/", import.meta.url);

test.serial("messages that gpg does not know come back, with gpg on the PATH and without", async (t) => {
  const { place } = t.context;
  const bare = await bareFolder(place);
  await writeFile(join(place.dir, "pw-123"), "pw-123\n");
  for (const [name, ...key] of [
    ["seipdv2-v4key.pgp", "--private-key", fileURLToPath(new URL("seipdv2-v4key.key.asc", messages))],
    ["v6.pgp", "--private-key", fileURLToPath(new URL("v6.key.asc", messages))],
    ["argon2-passphrase-pw-123.pgp", "--passphrase-file", "pw-123"],
  ] as const) {
    const input = await readFile(new URL(name, messages));
    succeeded(t, await strongroom(place, ["backup", "any", "--encryption", "none"], { input }));
    for (const env of [{}, { PATH: bare }] as Record<string, string>[]) {
      const restored = succeeded(t, await strongroom(place, ["restore", "any", ...key], { env }));
      t.true(restored.stdout.length > 0, name);
    }
  }
});

test.serial("a wrong passphrase is reported, without gpg too, and nothing blocks the right one", async (t) => {
  const { place } = t.context;
  const bare = await bareFolder(place);
  const input = await readFile(new URL("wrong-passphrase.pgp", messages));
  succeeded(t, await strongroom(place, ["backup", "any", "--encryption", "none"], { input }));
  for (const passphrase of ["pw-123", "wrong-55"]) {
    await writeFile(join(place.dir, "wrong"), passphrase);
    for (const env of [{}, { PATH: bare }] as Record<string, string>[]) {
      const restore = ["restore", "any", "--passphrase-file", "wrong", "--output", "never"];
      const { code, stderr } = await strongroom(place, restore, { env });
      t.is(code, 6, stderr);
      if (env.PATH !== undefined) t.regex(stderr, /the passphrase does not open the version/);
    }
  }
  t.deepEqual(
    (await readdir(place.dir)).filter((name) => name.startsWith("never")),
    [],
  );
});

test.serial("what gpg exits with 0 for without decrypting it is no restored version", async (t) => {
  const { place } = t.context;
  if (!hasPeers(t, "gpg")) return;
  const input = await readFile(new URL("gpg-empty-success.pgp", messages));
  succeeded(t, await strongroom(place, ["backup", "any", "--encryption", "none"], { input }));
  const key = fileURLToPath(new URL("gpg-empty-success.key.asc", messages));
  const restored = await strongroom(place, ["restore", "any", "--private-key", key, "--output", "nothing"]);
  t.is(restored.code, 6, restored.stderr);
  t.regex(restored.stderr, /NODATA/);
  t.notRegex(restored.stderr, /verified/);
  t.deepEqual(
    (await readdir(place.dir)).filter((name) => name.startsWith("nothing")),
    [],
  );
});

test.serial("an age file with a passphrase comes back with --passphrase-file", async (t) => {
  const { place } = t.context;
  const dump = randomBytes(300_000);
  const encrypter = new Encrypter();
  encrypter.setScryptWorkFactor(10);
  encrypter.setPassphrase("correct horse");
  const input = Buffer.from(await encrypter.encrypt(dump));
  const upload = ["backup", "any", "--encryption", "none", "--expect-size", String(input.length)];
  succeeded(t, await strongroom(place, upload, { input }));
  await writeFile(join(place.dir, "horse"), "correct horse\n");
  const restored = succeeded(t, await strongroom(place, ["restore", "any", "--passphrase-file", "horse"]));
  t.true(restored.stdout.equals(dump));
});

test.serial("a command that stops reading a large dump ends with exit code 7, whatever its own", async (t) => {
  const { place } = t.context;
  succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC], { input: randomBytes(20 * MIB) }));
  const stopped = await strongroom(place, ["restore", "db", ...PRIVATE, "-c", "head -c 10 | cat >/dev/null"]);
  t.is(stopped.code, 7, stopped.stderr);
  t.regex(stopped.stderr, /stopped reading/);
  t.notRegex(stopped.stderr, /verified/);
  const reads = "head -c 10 >/dev/null; cat >/dev/null";
  t.regex(succeeded(t, await strongroom(place, ["restore", "db", ...PRIVATE, "-c", reads])).stderr, /verified/);
});

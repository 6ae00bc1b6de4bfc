import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { keyKind } from "../src/files/key-files.ts";
import { testContext } from "./support/context.ts";
import { PROGRAM, runProcess } from "./support/process.ts";

const mode = async (path: string) => (await stat(path)).mode & 0o777;

test("an OpenPGP pair: two files, the private one for its owner only, and what to do next", async (t) => {
  const { run, dir, stderr } = await testContext(t);
  t.is(
    await run("keygen", "--name", "Backup Key", "--email", "backup@example.org", "--out-dir", join(dir, "keys")),
    0,
    stderr.text,
  );
  const files = (await readdir(join(dir, "keys"))).sort();
  t.deepEqual(files, ["Backup-Key.key.asc", "Backup-Key.pub.asc"]);
  t.is(await mode(join(dir, "keys", "Backup-Key.key.asc")), 0o600);
  t.is(keyKind(await readFile(join(dir, "keys", "Backup-Key.key.asc"))), "openpgp-private");
  t.is(keyKind(await readFile(join(dir, "keys", "Backup-Key.pub.asc"))), "openpgp-public");
  t.true(stderr.text.includes("Keep the private key away from the server"));
});

test("an age pair that age itself would read", async (t) => {
  const { run, dir, stdout } = await testContext(t);
  t.is(await run("keygen", "--type", "age", "--out", join(dir, "cold"), "--json"), 0);
  const identity = await readFile(join(dir, "cold.age.key"), "utf8");
  const recipient = await readFile(join(dir, "cold.age.pub"), "utf8");
  t.is(await mode(join(dir, "cold.age.key")), 0o600);
  t.regex(recipient, /^age1[0-9a-z]+\n$/);
  t.regex(identity, /^# created: \S+\n# public key: age1[0-9a-z]+\nAGE-SECRET-KEY-1[0-9A-Z]+\n$/);
  const report = JSON.parse(stdout.text) as { recipient: string; privateKey: string };
  t.is(report.recipient, recipient.trim());
  t.false(stdout.text.includes("SECRET"));
});

test("keys are never overwritten, whichever of the two files is there", async (t) => {
  for (const existing of ["k.key.asc", "k.pub.asc"]) {
    const { run, dir, stderr } = await testContext(t);
    await writeFile(join(dir, existing), "precious");
    t.is(await run("keygen", "--name", "k", "--out-dir", dir), 2);
    t.true(stderr.text.includes("never overwritten"));
    t.is(await readFile(join(dir, existing), "utf8"), "precious");
    t.deepEqual((await readdir(dir)).sort(), [existing]);
  }
});

test("a private key whose public half cannot be written is not left behind", async (t) => {
  const { run, dir } = await testContext(t);
  // A link to nothing looks free, and cannot be made.
  await symlink("nowhere", join(dir, "k.pub.asc"));
  t.not(await run("keygen", "--name", "k", "--out-dir", dir), 0);
  t.deepEqual(await readdir(dir), ["k.pub.asc"]);
});

test("a passphrase comes from a file or the environment; age takes none", async (t) => {
  const { run, dir, stderr } = await testContext(t);
  await writeFile(join(dir, "pass"), "correct horse\n");
  t.is(await run("keygen", "--name", "a", "--out-dir", dir, "--passphrase-file", join(dir, "pass")), 0);
  t.true(stderr.text.includes(`a.key.asc (protected by the passphrase from ${join(dir, "pass")})`), stderr.text);
  const other = await testContext(t, { env: { BM_PASSPHRASE: "correct horse" } });
  t.is(await other.run("keygen", "--name", "b", "--out-dir", other.dir), 0);
  t.true(other.stderr.text.includes("b.key.asc (protected by the passphrase from BM_PASSPHRASE)"), other.stderr.text);
  t.is(await other.run("keygen", "--name", "j", "--out-dir", other.dir, "--json"), 0);
  t.is((JSON.parse(other.stdout.text) as { passphraseFrom: string }).passphraseFrom, "BM_PASSPHRASE");
  t.false(`${other.stdout.text}${other.stderr.text}`.includes("correct horse"));
  const bare = await testContext(t);
  t.is(await bare.run("keygen", "--name", "n", "--out-dir", bare.dir), 0);
  t.true(bare.stderr.text.includes("n.key.asc (without a passphrase)"), bare.stderr.text);
  t.is(await other.run("keygen", "--name", "e", "--type", "age", "--out-dir", other.dir), 0);
  t.true(other.stderr.text.includes("e.age.key (without a passphrase: an age key has none)"), other.stderr.text);
  t.is(await other.run("keygen", "--name", "c", "--type", "age", "--passphrase-file", join(dir, "pass")), 2);
  t.true(other.stderr.text.includes("no passphrase"));
  // No restore would take these, so no key is locked with them.
  await writeFile(join(dir, "lines"), "correct\nhorse\n");
  t.is(await run("keygen", "--name", "d", "--out-dir", dir, "--passphrase-file", join(dir, "lines")), 2);
  const broken = await testContext(t, { env: { STRONGROOM_PASSPHRASE: "correct horse\n" } });
  t.is(await broken.run("keygen", "--name", "e", "--out-dir", broken.dir), 2);
  t.regex(broken.stderr.text, /one line/);
  t.deepEqual(await readdir(broken.dir), []);
});

test("from the shell, in the current folder", async (t) => {
  const cwd = await temporaryFolder(t);
  const { code, stderr } = await runProcess(PROGRAM, ["keygen", "--type", "age", "--name", "../x/../evil"], { cwd });
  t.is(code, 0, stderr);
  t.deepEqual((await readdir(cwd)).length, 2, "a name does not lead out of the folder");
});

test("gpg imports what keygen makes", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const { run, dir } = await testContext(t);
  t.is(await run("keygen", "--name", "k", "--email", "k@example.org", "--out-dir", dir), 0);
  const home = join(dir, "gnupg");
  await mkdir(home, { mode: 0o700 });
  const env = { GNUPGHOME: home };
  for (const file of ["k.pub.asc", "k.key.asc"]) {
    const { code, stderr } = await runProcess("gpg", ["--batch", "--import", join(dir, file)], { env });
    t.is(code, 0, stderr);
  }
  const listed = await runProcess("gpg", ["--batch", "--list-secret-keys", "--with-colons"], { env });
  t.true(listed.stdout.includes("k@example.org"), listed.stdout);
});

test("a folder that cannot be made is an error, not a program that runs for ever", async (t) => {
  const { run, stderr } = await testContext(t);
  t.is(await run("keygen", "--type", "age", "--name", "k", "--out-dir", "/proc/none/below"), 1);
  t.regex(stderr.text, /^strongroom: \/proc\/none: no such file or folder/);
});

/** What other users of the machine can see while a program works, and what is left when it was stopped. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import test, { type ExecutionContext } from "ava";
import { generateKey } from "openpgp";
import { generateAgeKey } from "../src/encryption/age.ts";
import { generateOpenPgpKey } from "../src/encryption/openpgp-library.ts";
import { decryptionFailure, encryptionFailure, type Stage } from "../src/encryption/options.ts";
import { findProgram, runFilter } from "../src/encryption/programs.ts";
import { decryptionStage, encryptionStage } from "../src/encryption/stages.ts";
import { chunked, collect, noise } from "./support/bytes.ts";

const never = new AbortController().signal;
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

// The temporary directories of this file are looked at; no other test may make any in between.
const temporary = mkdtempSync(join(tmpdir(), "t"));
process.env.TMPDIR = temporary;
test.after.always(() => rmSync(temporary, { recursive: true, force: true }));

interface Seen {
  /** `/proc/<pid>/cmdline` and `environ` of every process that was started. */
  readonly visible: string;
  /** Modes of the private directories and of the files in them. */
  readonly modes: string[];
}

/** Arguments and environment of all descendants, taken at a moment when they surely run. */
function observe(): Seen {
  const parents = new Map<string, string>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      parents.set(
        pid,
        readFileSync(`/proc/${pid}/stat`, "utf8")
          .replace(/^.*\) \S /, "")
          .split(" ")[0]!,
      );
    } catch {
      // Ended meanwhile.
    }
  }
  const descends = (pid: string | undefined): boolean =>
    pid !== undefined && (pid === String(process.pid) || descends(parents.get(pid)));
  let visible = "";
  for (const pid of parents.keys()) {
    if (pid === String(process.pid) || !descends(pid)) continue;
    try {
      visible += readFileSync(`/proc/${pid}/cmdline`, "utf8") + readFileSync(`/proc/${pid}/environ`, "utf8");
    } catch {
      // Ended meanwhile.
    }
  }
  const modes = readdirSync(temporary, { recursive: true, withFileTypes: true })
    // What gpg makes itself (locks, public keys) is not looked at, in a directory that nobody else enters.
    .filter((entry) => entry.isDirectory() || /^(recipient|identity)/.test(entry.name))
    .map((entry) => `${entry.name} ${(statSync(join(entry.parentPath, entry.name)).mode & 0o077).toString(8)}`);
  return { visible, modes };
}

/** Sends bytes through a stage, and looks at the machine while its program waits for the second half. */
async function observed(stage: Stage, bytes: Uint8Array): Promise<Seen & { output: Buffer }> {
  let seen: Seen | undefined;
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, bytes.length >> 1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    seen = observe();
    yield bytes.subarray(bytes.length >> 1);
  }
  const output = await collect(stage(source(), never));
  return { ...seen!, output };
}

test.serial("no secret is in arguments or environment, and no file is open to others", async (t) => {
  if (process.platform !== "linux") {
    t.log("SKIPPED: needs /proc");
    t.pass();
    return;
  }
  if (!hasPeers(t, "gpg", "age")) return;
  const passphrase = "hunter2 hunter2";
  const { publicKey, privateKey } = await generateOpenPgpKey({ name: "Backup", passphrase });
  const publicKeys = [bytesOf(publicKey)];
  const privateKeys = [bytesOf(privateKey)];
  const { recipient, identity } = await generateAgeKey();
  const dump = noise(400_000);

  const pgp = await observed(encryptionStage({ kind: "openpgp", publicKeys, passphrase, program: "gpg" }), dump);
  const opened = await observed(
    decryptionStage({ kind: "openpgp", privateKeys, passphrase, program: "gpg" }),
    pgp.output,
  );
  const age = await observed(encryptionStage({ kind: "age", recipients: [recipient], program: "age" }), dump);
  const read = await observed(decryptionStage({ kind: "age", identities: [identity], program: "age" }), age.output);
  t.true(opened.output.equals(dump));
  t.true(read.output.equals(dump));
  for (const { visible, modes } of [pgp, opened, age, read]) {
    t.regex(visible, /--encrypt|--decrypt/, "the program was seen");
    t.false(visible.includes("hunter2"));
    t.false(visible.includes("AGE-SECRET-KEY"));
    t.false(visible.includes("PRIVATE KEY"));
    t.true(modes.length > 0);
    t.deepEqual(
      modes.filter((mode) => !mode.endsWith(" 0")),
      [],
    );
  }
  t.deepEqual(readdirSync(temporary), [], "nothing is left");
  await noAgentIsLeft(t);
});

test.serial("an abort kills the program and its agent and deletes the keys", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const { publicKey, privateKey } = await generateOpenPgpKey({ name: "Backup" });
  const publicKeys = [bytesOf(publicKey)];
  const message = await collect(encryptionStage({ kind: "openpgp", publicKeys })(chunked(noise(500_000)), never));
  for (const stage of [
    encryptionStage({ kind: "openpgp", publicKeys, program: "gpg" }),
    decryptionStage({ kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: "gpg" }),
  ]) {
    const controller = new AbortController();
    const reason = new Error("enough");
    async function* source(): AsyncGenerator<Uint8Array> {
      yield message.subarray(0, 300_000);
      controller.abort(reason);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    t.is(await t.throwsAsync(collect(stage(source(), controller.signal))), reason);
    t.deepEqual(readdirSync(temporary), []);
    await noAgentIsLeft(t);
  }
});

test.serial("a reader that stops kills the program", async (t) => {
  const cat = "/bin/cat";
  let ended = false;
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield noise(100_000);
    } finally {
      ended = true;
    }
  }
  const options = { program: cat, args: [], wholeInput: true, failure: encryptionFailure };
  for await (const _ of runFilter(options, endless(), never)) break;
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.true(ended);
});

test.serial(
  "a program that fails is quoted; one that stops early is a failure where the input must be taken whole",
  async (t) => {
    const base = { program: "/bin/sh", failure: encryptionFailure, wholeInput: true };
    const script = (text: string): { args: string[] } => ({ args: ["-c", text] });
    await t.throwsAsync(
      collect(
        runFilter({ ...base, ...script("cat >/dev/null; echo no such key >&2; exit 2") }, chunked(noise(10)), never),
      ),
      { name: "EncryptionError", message: /\/bin\/sh ended with exit status 2\. It said: no such key/ },
    );
    await t.throwsAsync(collect(runFilter({ ...base, ...script("kill -TERM $$") }, chunked(noise(10)), never)), {
      message: /ended by SIGTERM/,
    });
    await t.throwsAsync(collect(runFilter({ ...base, ...script("head -c 10") }, chunked(noise(10_000_000)), never)), {
      name: "EncryptionError",
      message: /before it had read all of its input/,
    });
    const output = await collect(
      runFilter(
        { ...base, ...script("head -c 10"), wholeInput: false, failure: decryptionFailure },
        chunked(noise(10_000_000)),
        never,
      ),
    );
    t.is(output.length, 10);
    await t.throwsAsync(collect(runFilter({ ...base, program: "/nowhere/gpg", args: [] }, chunked(noise(10)), never)), {
      name: "EncryptionError",
      message: /could not be started/,
    });
  },
);

test.serial("programs are found on the PATH, and what needs a missing one says so", (t) => {
  const path = process.env.PATH;
  try {
    process.env.PATH = `relative:${temporary}`;
    t.is(findProgram("gpg"), undefined);
    t.throws(() => encryptionStage({ kind: "openpgp", recipients: ["a@example.org"] }), {
      name: "EncryptionError",
      message: /gpg is not on the PATH/,
    });
    t.throws(() => encryptionStage({ kind: "openpgp", passphrase: "x", program: "gpg" }), { name: "EncryptionError" });
    t.throws(() => encryptionStage({ kind: "age", recipients: ["age1"], program: "age" }), { name: "EncryptionError" });
    t.throws(() => decryptionStage({ kind: "openpgp" }), { name: "DecryptionError", message: /keyring/ });
    t.notThrows(() => encryptionStage({ kind: "openpgp", passphrase: "x" }));
    t.notThrows(() => encryptionStage({ kind: "age", recipients: ["age1"] }));
  } finally {
    process.env.PATH = path;
  }
});

test.serial("names of the user's keyring encrypt, and the keyring decrypts", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const home = mkdtempSync(join(temporary, "k"));
  const before = process.env.GNUPGHOME;
  process.env.GNUPGHOME = home;
  try {
    const { privateKey } = await generateOpenPgpKey({ name: "Ring", email: "ring@example.org" });
    execFileSync("gpg", ["--batch", "--quiet", "--import"], { input: privateKey, stdio: ["pipe", "ignore", "ignore"] });
    const dump = noise(300_000);
    const encrypt = encryptionStage({ kind: "openpgp", recipients: ["ring@example.org"] });
    const message = await collect(encrypt(chunked(dump), never));
    const plain = await collect(decryptionStage({ kind: "openpgp" })(chunked(message), never));
    t.true(plain.equals(dump));
    const unknown = encryptionStage({ kind: "openpgp", recipients: ["nobody@example.org"] });
    await t.throwsAsync(collect(unknown(chunked(dump), never)), {
      name: "EncryptionError",
      message: /nobody@example.org/,
    });
    const past = new Date("2020-01-01T00:00:00Z");
    const old = await generateKey({
      type: "ecc",
      curve: "curve25519Legacy",
      userIDs: [{ email: "old@example.org" }],
      date: past,
      keyExpirationTime: 86_400,
    });
    execFileSync("gpg", ["--batch", "--quiet", "--import"], {
      input: old.publicKey,
      stdio: ["pipe", "ignore", "ignore"],
    });
    const expired = encryptionStage({ kind: "openpgp", recipients: ["old@example.org"] });
    await t.throwsAsync(collect(expired(chunked(dump), never)), {
      name: "EncryptionError",
      message: /<old@example.org>\) expired on 2020-01-02/,
    });
  } finally {
    execFileSync("gpgconf", ["--kill", "all"]);
    if (before === undefined) delete process.env.GNUPGHOME;
    else process.env.GNUPGHOME = before;
    rmSync(home, { recursive: true, force: true });
  }
});

test.serial("a long directory for temporary files is no obstacle", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const long = mkdtempSync(join(temporary, "x".repeat(120)));
  process.env.TMPDIR = long;
  try {
    const { publicKey, privateKey } = await generateOpenPgpKey({ name: "Backup" });
    const dump = noise(1000);
    const encrypt = encryptionStage({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program: "gpg" });
    const message = await collect(encrypt(chunked(dump), never));
    const decrypt = decryptionStage({ kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: "gpg" });
    t.true((await collect(decrypt(chunked(message), never))).equals(dump));
  } finally {
    process.env.TMPDIR = temporary;
    rmSync(long, { recursive: true, force: true });
  }
});

/** Command lines of all agents. */
/** An agent that was asked to end may take a moment. */
async function noAgentIsLeft(t: ExecutionContext): Promise<void> {
  for (let tries = 0; agents().includes(temporary) && tries < 500; tries++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  t.false(agents().includes(temporary), "no agent is left");
}

function agents(): string {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return line.includes("gpg-agent") ? line : "";
      } catch {
        return "";
      }
    })
    .join("\n");
}

/** What the library and node:crypto make of age files, against the stock `age`. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { armor, Encrypter } from "age-encryption";
import test from "ava";
import { type AgeKeyPair, generateAgeKey } from "../src/encryption/age.ts";
import type { Decryption } from "../src/encryption/options.ts";
import { decryptionStage, encryptionStage } from "../src/encryption/stages.ts";
import { chunked, collect, noise } from "./support/bytes.ts";

const never = new AbortController().signal;
const CHUNK = 64 * 1024;
/** Around the borders of chunks. */
const SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 10 * CHUNK + 77];

const home = mkdtempSync(join(tmpdir(), "strongroom-age-"));
test.after.always(() => rmSync(home, { recursive: true, force: true }));

let key: AgeKeyPair;
let other: AgeKeyPair;
test.before(async () => {
  [key, other] = [await generateAgeKey(), await generateAgeKey()];
});

function encrypt(bytes: Uint8Array, program: "age" | "library", recipients = [key.recipient], size = 60_000) {
  return collect(encryptionStage({ kind: "age", recipients, program })(chunked(bytes, size), never));
}

function decrypt(bytes: Uint8Array, decryption: Partial<Extract<Decryption, { kind: "age" }>> = {}, size = 60_000) {
  const whole: Decryption = { kind: "age", identities: [key.identity], program: "library", ...decryption };
  return collect(decryptionStage(whole)(chunked(bytes, size), never));
}

function age(args: readonly string[], input: Uint8Array): Buffer {
  return execFileSync("age", args, { input, maxBuffer: 1 << 28, stdio: ["pipe", "pipe", "pipe"] });
}

test("what the stock age makes, the library opens: binary and armored, around the borders of chunks", async (t) => {
  if (!hasPeers(t, "age")) return;
  for (const size of SIZES) {
    const dump = noise(size);
    const binary = age(["-r", key.recipient, "-r", other.recipient], dump);
    const armored = age(["-a", "-r", key.recipient], dump);
    for (const [index, file] of [binary, armored].entries()) {
      for (const pieces of [CHUNK, 1000]) t.true((await decrypt(file, {}, pieces)).equals(dump), `${size} ${index}`);
    }
    t.true((await decrypt(binary, { identities: [other.identity] })).equals(dump));
  }
});

test("what the library makes, the stock age opens, armored too", async (t) => {
  if (!hasPeers(t, "age")) return;
  const file = join(home, "identity");
  writeFileSync(file, `# a comment\n${other.identity}\n`, { mode: 0o600 });
  for (const size of SIZES) {
    const dump = noise(size);
    const message = await encrypt(dump, "library", [`# both\n${key.recipient}\n\n${other.recipient}\n`], 1 + size / 3);
    t.true(age(["-d", "-i", file], message).equals(dump), `${size}`);
    t.true(age(["-d", "-i", file], Buffer.from(armor.encode(message))).equals(dump), `${size}, armored`);
    t.true((await decrypt(message)).equals(dump));
  }
});

test("files of age-keygen are read", async (t) => {
  if (!hasPeers(t, "age") || !hasPeers(t, "age-keygen")) return;
  const text = execFileSync("age-keygen", { stdio: ["ignore", "pipe", "ignore"] }).toString();
  const recipient = /public key: (age1\w+)/.exec(text)![1]!;
  const dump = noise(1000);
  const message = await encrypt(dump, "library", [recipient]);
  for (const program of ["age", "library"] as const) {
    t.true((await decrypt(message, { identities: [text], program })).equals(dump));
  }
});

test("a file that was changed, cut or added to is refused, wherever", async (t) => {
  const dump = noise(2 * CHUNK);
  const message = await encrypt(dump, "library");
  const headerEnd = message.indexOf("\n--- ") + 5 + 43 + 1;
  const sealed = CHUNK + 16;
  const cuts = [0, 1, 21, 22, 23, headerEnd - 1, headerEnd, headerEnd + 15, headerEnd + 16, headerEnd + 17];
  for (const border of [headerEnd + 16 + sealed, headerEnd + 16 + 2 * sealed]) {
    cuts.push(border - 17, border - 16, border - 1, border, border + 1);
  }
  for (const at of cuts.filter((at) => at < message.length)) {
    await t.throwsAsync(decrypt(message.subarray(0, at)), { name: "DecryptionError" }, `cut at ${at}`);
  }
  for (const garbage of [Buffer.from("x"), noise(16), noise(sealed)]) {
    await t.throwsAsync(decrypt(Buffer.concat([message, garbage])), { name: "DecryptionError" });
  }
  for (const at of [5, 40, headerEnd - 10, headerEnd + 3, headerEnd + 20, message.length - 1]) {
    const changed = Buffer.from(message);
    changed[at]! ^= 1;
    await t.throwsAsync(decrypt(changed), { name: "DecryptionError" }, `changed at ${at}`);
  }
  // Two chunks swapped.
  const start = headerEnd + 16;
  const swapped = Buffer.concat([
    message.subarray(0, start),
    message.subarray(start + sealed),
    message.subarray(start, start + sealed),
  ]);
  await t.throwsAsync(decrypt(swapped), { name: "DecryptionError" });
});

test("SSH keys need the program, and the library says so", async (t) => {
  const ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@example.org";
  const missing = { message: /SSH keys need the age program.*install age/ };
  await t.throwsAsync(encrypt(noise(10), "library", [ssh]), { name: "EncryptionError", ...missing });
  const message = await encrypt(noise(10), "library");
  const privateKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
  await t.throwsAsync(decrypt(message, { identities: [privateKey] }), { name: "DecryptionError", ...missing });
  await t.throwsAsync(decrypt(message, { identities: ["AGE-PLUGIN-YUBIKEY-1AAAA"] }), {
    name: "DecryptionError",
    message: /Plugins need the age program/,
  });
  if (!hasPeers(t, "age") || !hasPeers(t, "ssh-keygen")) return;
  const file = join(home, "ssh");
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file]);
  const dump = noise(CHUNK + 1);
  const sealed = await encrypt(dump, "age", [readFileSync(`${file}.pub`, "utf8"), key.recipient]);
  t.true((await decrypt(sealed, { identities: [readFileSync(file)], program: "age" })).equals(dump));
  // Of both kinds of recipients the library opens with the one it knows.
  t.true((await decrypt(sealed)).equals(dump));
});

test("an identity file with a passphrase", async (t) => {
  const encrypter = new Encrypter();
  encrypter.setPassphrase("correct horse");
  encrypter.setScryptWorkFactor(10);
  const binary = await encrypter.encrypt(`# mine\n${key.identity}\n`);
  const dump = noise(1000);
  const message = await encrypt(dump, "library");
  const passphrase = "correct horse";
  const programs = hasPeers(t, "age") ? (["library", "age"] as const) : (["library"] as const);
  for (const program of programs) {
    for (const identity of [binary, armor.encode(binary)]) {
      t.true((await decrypt(message, { identities: [identity], passphrase, program })).equals(dump));
      await t.throwsAsync(decrypt(message, { identities: [identity], passphrase: "wrong", program }), {
        name: "DecryptionError",
        message: /passphrase does not open the identity file/,
      });
    }
  }
  await t.throwsAsync(decrypt(message, { identities: [binary] }), { message: /without its passphrase needs the age/ });
});

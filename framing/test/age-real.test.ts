import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join as joinPath } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import * as age from "age-encryption";
import test from "ava";
import { checkReal } from "./real.ts";
import { ANY, noise, run, text, violation } from "./support.ts";

/** Payload sizes around the chunks of 64 KiB. */
const SIZES = [0, 1, 1_000, 65_535, 65_536, 65_537, 131_072, 200_000];

test("files made by age", (t) => {
  if (!hasPeers(t, "age", "age-keygen")) return;
  const home = mkdtempSync("/tmp/sr-age-");
  try {
    const recipient = () => {
      const identity = execFileSync("age-keygen", { stdio: ["ignore", "pipe", "ignore"] }).toString();
      return /public key: (age1\w+)/.exec(identity)![1]!;
    };
    const one = recipient();
    const many = Array.from({ length: 30 }, () => ["--recipient", recipient()]).flat();
    const run = (args: readonly string[], input: Uint8Array) =>
      new Uint8Array(execFileSync("age", args, { input, maxBuffer: 1 << 28, stdio: ["pipe", "pipe", "pipe"] }));
    for (const size of SIZES) {
      const dump = noise(size, 1);
      checkReal(t, run(["--recipient", one], dump), "age", false);
      checkReal(t, run(["--recipient", one, "--armor"], dump), "age", true);
    }
    checkReal(t, run(many, noise(5_000, 2)), "age", false);
    checkReal(t, run([...many, "--armor"], noise(5_000, 2)), "age", true);
    const sshKeys = joinPath(home, "keys");
    writeFileSync(
      sshKeys,
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@example.org\n",
    );
    checkReal(t, run(["--recipients-file", sshKeys], noise(5_000, 2)), "age", false);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});

test("files made by npm's age-encryption", async (t) => {
  const make = async (fill: (encrypter: age.Encrypter) => unknown, dump: Uint8Array) => {
    const encrypter = new age.Encrypter();
    await fill(encrypter);
    return encrypter.encrypt(dump);
  };
  const recipient = await age.identityToRecipient(await age.generateX25519Identity());
  const hybrid = await age.identityToRecipient(await age.generateHybridIdentity());
  for (const size of SIZES) {
    const file = await make((encrypter) => encrypter.addRecipient(recipient), noise(size, 1));
    checkReal(t, file, "age", false);
    checkReal(t, text(age.armor.encode(file)), "age", true);
    t.is(violation(file, { formats: ["openpgp"] }), "format-not-accepted");
  }
  checkReal(t, await make((encrypter) => encrypter.addRecipient(hybrid), noise(900, 1)), "age", false);
  const passphrase = await make(
    (encrypter) => {
      encrypter.setPassphrase("correct horse");
      encrypter.setScryptWorkFactor(10);
    },
    noise(900, 1),
  );
  checkReal(t, passphrase, "age", false);
  t.is(violation(passphrase.subarray(0, passphrase.length - 901)), "truncated");
});

test("files made by age, cut and added to", (t) => {
  if (!hasPeers(t, "age", "age-keygen")) return;
  const key = () =>
    /public key: (age1\w+)/.exec(execFileSync("age-keygen", { stdio: ["ignore", "pipe", "ignore"] }).toString())![1]!;
  const recipients = ["--recipient", key(), "--recipient", key()];
  const make = (size: number, ...more: string[]) =>
    new Uint8Array(execFileSync("age", [...recipients, ...more], { input: noise(size, 3), maxBuffer: 1 << 28 }));
  const sealed = 65_536 + 16;
  for (const size of [0, 65_536, 131_073]) {
    const file = make(size);
    const payload = Buffer.from(file).indexOf("\n--- ") + 5 + 43 + 1;
    // Wherever the header, the nonce or the first tag is cut, the file is not whole.
    for (let at = 0; at < payload + 16 + 16; at++) t.false(run(file.subarray(0, at)).accepted, `${size}, cut at ${at}`);
    for (let border = payload + 16 + sealed; border < file.length; border += sealed) {
      // A beginning that ends on a border of chunks looks whole from outside; its digest and size tell.
      t.true(run(file.subarray(0, border)).accepted);
      for (let more = 1; more <= 16; more++)
        t.false(run(file.subarray(0, border + more)).accepted, `border and ${more}`);
    }
    const armored = make(size, "--armor");
    for (let at = 0; at < Math.min(armored.length - 1, 600); at++) t.false(run(armored.subarray(0, at)).accepted);
    for (const garbage of ["x", "-----BEGIN AGE ENCRYPTED FILE-----\n", "\0"]) {
      t.not(violation(Buffer.concat([armored, Buffer.from(garbage)]), ANY), "accepted");
    }
    // Fewer bytes than a tag after the last chunk can be nothing. (Of a last chunk that is not full, more bytes look
    // like a longer one.)
    if (size === 65_536) t.not(violation(Buffer.concat([file, Buffer.alloc(16)]), ANY), "accepted");
  }
});

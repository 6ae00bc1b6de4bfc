import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join as joinPath } from "node:path";
import * as age from "age-encryption";
import test from "ava";
import { checkReal, installed } from "./real.ts";
import { noise, text, violation } from "./support.ts";

/** Payload sizes around the chunks of 64 KiB. */
const SIZES = [0, 1, 1_000, 65_535, 65_536, 65_537, 131_072, 200_000];

test("files made by age", (t) => {
  if (!installed(t, "age") || !installed(t, "age-keygen")) return;
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

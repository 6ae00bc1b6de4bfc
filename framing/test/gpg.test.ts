import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import test from "ava";
import { checkReal } from "./real.ts";
import { noise, outcome, violation } from "./support.ts";

/** A GnuPG of its own. The path is short, since the agent's socket has at most 107 characters. */
class Gnupg {
  readonly home = mkdtempSync("/tmp/sr-");

  run(args: readonly string[], input: Uint8Array = new Uint8Array()): Uint8Array {
    const options = ["--homedir", this.home, "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"];
    const output = execFileSync("gpg", [...options, "--trust-model", "always", ...args], {
      input,
      maxBuffer: 1 << 28,
      stdio: ["pipe", "pipe", "pipe"],
    });
    return new Uint8Array(output);
  }

  /** Makes a key pair and returns the ids of its keys that encrypt. */
  key(user: string, algorithm: string): string[] {
    this.run(["--passphrase", "", "--quick-generate-key", user, algorithm, "default", "never"]);
    return this.encryptionKeys(user);
  }

  encryptionKeys(user: string): string[] {
    const listing = Buffer.from(this.run(["--with-colons", "--list-keys", user])).toString("utf8");
    const rows = listing.split("\n").map((line) => line.split(":"));
    return rows.filter((row) => row[0] === "sub" && row[11]?.includes("e")).map((row) => row[4]!.toLowerCase());
  }

  file(name: string, content: Uint8Array): string {
    const path = join(this.home, name);
    writeFileSync(path, content);
    return path;
  }

  close(): void {
    execFileSync("gpgconf", ["--homedir", this.home, "--kill", "all"], { stdio: "ignore" });
    rmSync(this.home, { recursive: true, force: true });
  }
}

test("messages made by gpg", (t) => {
  if (!hasPeers(t, "gpg")) return;
  const gpg = new Gnupg();
  try {
    const alice = gpg.key("alice@example.org", "future-default");
    const bob = gpg.key("bob@example.org", "rsa2048");
    gpg.run(["--passphrase", "", "--quick-add-key", fingerprint(gpg, "bob@example.org"), "rsa2048", "encr", "never"]);
    const bobs = [...new Set([...bob, ...gpg.encryptionKeys("bob@example.org")])];
    t.is(alice.length, 1);
    t.true(bobs.length > 0);

    const dump = noise(300_000, 1);
    const small = gpg.file("small.sql", noise(3_000, 2));
    const big = gpg.file("big.sql", dump);
    const empty = gpg.file("empty.sql", new Uint8Array());
    const text = gpg.file("text.sql", new Uint8Array(Buffer.from("INSERT INTO a VALUES (1);\n".repeat(9_000))));
    const to = ["--encrypt", "--recipient", "alice@example.org"];
    const none = ["--compress-algo", "none"];
    const passphrase = ["--symmetric", "--passphrase", "correct horse", "--s2k-count", "65536"];

    const messages: Record<string, Uint8Array> = {
      "file, small": gpg.run([...to, ...none, "--output", "-", small]),
      "file, large": gpg.run([...to, ...none, "--output", "-", big]),
      "file, compressed": gpg.run([...to, "--output", "-", text]),
      "pipe, partial lengths": gpg.run([...to, ...none], dump),
      "pipe, compressed": gpg.run(to, dump),
      "pipe, of the least first part": gpg.run([...to, ...none], dump.subarray(0, 512)),
      "empty file": gpg.run([...to, ...none, "--output", "-", empty]),
      "empty file, compressed": gpg.run([...to, "--output", "-", empty]),
      "empty pipe": gpg.run([...to, ...none], new Uint8Array()),
      "empty pipe, no name, 64-bit block cipher": gpg.run([
        ...passphrase,
        ...none,
        "--cipher-algo",
        "3DES",
        "--set-filename",
        "",
      ]),
      passphrase: gpg.run([...passphrase, ...none], dump),
      "passphrase and key": gpg.run([...to, ...passphrase], dump),
      "several recipients": gpg.run([...to, "--recipient", "bob@example.org"], dump),
      "hidden recipient": gpg.run(["--encrypt", "--hidden-recipient", "alice@example.org", ...none], dump),
      "hidden key ids": gpg.run([...to, "--throw-keyids", "--recipient", "bob@example.org"], dump),
      signed: gpg.run([...to, "--sign", "--local-user", "bob@example.org"], dump),
      "pipe, of one part": gpg.run([...to, ...none], dump.subarray(0, 8192)),
    };
    for (const [name, message] of Object.entries(messages)) {
      t.log(`${name}: ${message.length} bytes`);
      checkReal(t, message, "openpgp", false);
    }
    for (let size = 480; size < 530; size += 7) {
      t.is(violation(gpg.run([...to, ...none], dump.subarray(0, size))), "accepted", `${size} bytes`);
    }
    const armored: Record<string, Uint8Array> = {
      armored: gpg.run([...to, "--armor"], dump),
      "armored, uncompressed file": gpg.run([...to, ...none, "--armor", "--output", "-", small]),
      "armored, with comments": gpg.run([...to, "--armor", "--comment", "für morgen", "--emit-version"], dump),
      "armored, empty": gpg.run([...to, "--armor"]),
      "armored, passphrase": gpg.run([...passphrase, "--armor"], dump),
    };
    for (const message of Object.values(armored)) checkReal(t, message, "openpgp", true);

    const pinned = { formats: ["openpgp"], recipientKeyIds: alice } as const;
    const both = { formats: ["openpgp"], recipientKeyIds: [...alice, ...bobs] } as const;
    t.is(violation(messages["file, large"]!, pinned), "accepted");
    t.is(violation(armored.armored!, pinned), "accepted");
    t.is(violation(messages["several recipients"]!, both), "accepted");
    for (const name of [
      "several recipients",
      "hidden recipient",
      "hidden key ids",
      "passphrase",
      "passphrase and key",
    ]) {
      t.is(violation(messages[name]!, pinned), "recipient-not-accepted", name);
    }

    t.is(violation(gpg.run(["--sign", "--local-user", "bob@example.org", ...none], dump)), "not-ciphertext");
    t.is(violation(gpg.run(["--sign", "--local-user", "bob@example.org"], dump)), "not-ciphertext");
    t.is(violation(gpg.run(["--sign", "--armor", "--local-user", "bob@example.org"], dump)), "not-ciphertext");
    t.is(violation(gpg.run(["--clear-sign", "--local-user", "bob@example.org"], dump)), "not-ciphertext");
    t.is(violation(gpg.run(["--detach-sign", "--local-user", "bob@example.org"], dump)), "not-ciphertext");
    t.is(violation(gpg.run(["--store"], dump)), "not-ciphertext");
    t.is(violation(gpg.run(["--export", "alice@example.org"])), "not-ciphertext");
    t.is(violation(gpg.run(["--export", "--armor", "alice@example.org"])), "not-ciphertext");
    t.is(
      violation(gpg.run(["--export-secret-keys", "--armor", "--passphrase", "", "alice@example.org"])),
      "not-ciphertext",
    );
    const first = messages["file, small"]!;
    t.is(outcome(new Uint8Array([...first, ...first])), `trailing-data@${first.length}`);
  } finally {
    gpg.close();
  }
});

function fingerprint(gpg: Gnupg, user: string): string {
  const listing = Buffer.from(gpg.run(["--with-colons", "--list-keys", user])).toString("utf8");
  return listing
    .split("\n")
    .find((line) => line.startsWith("fpr:"))!
    .split(":")[9]!;
}

/**
 * Messages and keys that other programs made, and what the installed gpg and age can do with them; see
 * fixtures/README.md.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { Encrypter, generateHybridIdentity, identityToRecipient } from "age-encryption";
import test from "ava";
import { createMessage, encrypt as encryptWithLibrary, generateKey, readKey, revokeKey } from "openpgp";
import { generateAgeKey } from "../src/encryption/age.ts";
import { generateOpenPgpKey } from "../src/encryption/openpgp-library.ts";
import type { Decryption, Encryption } from "../src/encryption/options.ts";
import { findProgram } from "../src/encryption/programs.ts";
import { decryptionStage, encryptionStage } from "../src/encryption/stages.ts";
import { chunked, collect, noise } from "./support/bytes.ts";
import { compressed, literal, messageTo, packet, paddedAsBySq, padding } from "./support/openpgp-messages.ts";

const never = new AbortController().signal;
const fixture = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url));
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const failed = (message: RegExp) => ({ name: "DecryptionError", message });

function decrypt(decryption: Decryption, bytes: Uint8Array, size = 1000): Promise<Buffer> {
  return collect(decryptionStage(decryption)(chunked(bytes, size), never));
}

function encrypt(encryption: Encryption, bytes: Uint8Array): Promise<Buffer> {
  return collect(encryptionStage(encryption)(chunked(bytes), never));
}

const temporary = mkdtempSync(join(tmpdir(), "strongroom-foreign-"));
test.after.always(() => rmSync(temporary, { recursive: true, force: true }));

const pair = generateOpenPgpKey({ name: "Backup" });

test("gpg that decrypts nothing and exits with 0 is a failure", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const privateKeys = [fixture("gpg-empty-success.key.asc")];
  const message = fixture("gpg-empty-success.pgp");
  await t.throwsAsync(decrypt({ kind: "openpgp", privateKeys, program: "gpg" }, message), failed(/NODATA/));
  await t.throwsAsync(decrypt({ kind: "openpgp", privateKeys }, message), { name: "DecryptionError" });
});

test.serial("an age that exits with 0 is trusted only for a whole file that it read to the end", async (t) => {
  const { recipient, identity } = await generateAgeKey();
  const file = await encrypt({ kind: "age", recipients: [recipient], program: "library" }, noise(300_000));
  const path = process.env.PATH;
  const program = join(temporary, "age");
  const run = async (script: string, bytes: Uint8Array) => {
    writeFileSync(program, `#!/bin/sh\n${script}\n`);
    chmodSync(program, 0o755);
    return await decrypt({ kind: "age", identities: [identity], program: "age" }, bytes);
  };
  process.env.PATH = `${temporary}:${path}`;
  try {
    t.is((await run("cat >/dev/null; echo all", file)).toString(), "all\n");
    await t.throwsAsync(run("head -c 1000 >/dev/null; echo part", file), failed(/before it had read all/));
    // After the nonce and before the first byte of a chunk: no age file ends there.
    const cut = file.indexOf("\n--- ") + 5 + 43 + 1 + 16;
    await t.throwsAsync(
      run("cat >/dev/null; echo all", file.subarray(0, cut)),
      failed(/ends inside a binary age file/),
    );
  } finally {
    process.env.PATH = path;
    rmSync(program);
  }
});

test("a wrong passphrase is said to be wrong, whatever it makes of the message", async (t) => {
  const message = fixture("wrong-passphrase.pgp");
  const wrong = ["pw-123", "wrong-55", ...Array.from({ length: 300 }, (_, index) => `wrong-${index}`)];
  for (const passphrase of wrong) {
    const decryption: Decryption = { kind: "openpgp", passphrase, program: "library" };
    await t.throwsAsync(decrypt(decryption, message), failed(/passphrase does not open the version/), passphrase);
  }
});

test("a message within a message is named, and not waited for", async (t) => {
  const { publicKey, privateKey } = await pair;
  const decryption: Decryption = { kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: "library" };
  const inner = await messageTo(publicKey, literal("twice"));
  await t.throwsAsync(decrypt(decryption, await messageTo(publicKey, inner)), failed(/encrypted twice/));
  // Types whose end the library waited for.
  for (const type of [9, 18, 20]) {
    const strange = packet(type, 1, noise(500));
    await t.throwsAsync(decrypt(decryption, await messageTo(publicKey, strange)), { name: "DecryptionError" });
    const afterMarker = Buffer.concat([packet(10, "PGP"), strange]);
    await t.throwsAsync(decrypt(decryption, await messageTo(publicKey, afterMarker)), { name: "DecryptionError" });
    await t.throwsAsync(decrypt(decryption, await messageTo(publicKey, compressed(1, strange))), {
      name: "DecryptionError",
    });
  }
});

test("an abort ends a decryption whose source stands still", async (t) => {
  const { publicKey, privateKey } = await pair;
  const { recipient, identity } = await generateAgeKey();
  const dump = noise(200_000);
  const inputs: [Decryption, Buffer][] = [
    [
      { kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: "library" },
      await encrypt({ kind: "openpgp", publicKeys: [bytesOf(publicKey)] }, dump),
    ],
    [
      { kind: "age", identities: [identity], program: "library" },
      await encrypt({ kind: "age", recipients: [recipient] }, dump),
    ],
  ];
  for (const [decryption, message] of inputs) {
    for (const given of [10, 150_000]) {
      const ending = new AbortController();
      const reason = new Error("enough");
      async function* source(): AsyncGenerator<Uint8Array> {
        yield message.subarray(0, given);
        setImmediate(() => ending.abort(reason));
        await new Promise(() => undefined);
      }
      const run = collect(decryptionStage(decryption)(source(), ending.signal));
      t.is(await t.throwsAsync(run), reason);
    }
  }
});

test("auto opens with the library what the installed gpg cannot; gpg asked for by name says what can", async (t) => {
  const cases: [string, Decryption & { kind: "openpgp" }][] = [
    ["seipdv2-v4key.pgp", { kind: "openpgp", privateKeys: [fixture("seipdv2-v4key.key.asc")] }],
    ["v6.pgp", { kind: "openpgp", privateKeys: [fixture("v6.key.asc")] }],
    ["argon2-passphrase-pw-123.pgp", { kind: "openpgp", passphrase: "pw-123" }],
  ];
  for (const [name, decryption] of cases) {
    t.true((await decrypt(decryption, fixture(name))).length > 0, name);
    t.true((await decrypt({ ...decryption, program: "library" }, fixture(name))).length > 0, name);
  }
  if (!hasPeers(t, "gpg")) return;
  for (const [name, decryption] of cases) {
    await t.throwsAsync(decrypt({ ...decryption, program: "gpg" }, fixture(name)), failed(/--program library/), name);
  }
});

test("LibrePGP's data with AEAD opens, whatever gpg is installed", async (t) => {
  const { publicKey, privateKey } = await pair;
  const dump = noise(10_000);
  const message = await messageTo(publicKey, literal(dump), { ocb: true });
  for (const program of ["auto", "library"] as const) {
    t.true((await decrypt({ kind: "openpgp", privateKeys: [bytesOf(privateKey)], program }, message)).equals(dump));
  }
  message[message.length - 20]! ^= 1;
  await t.throwsAsync(decrypt({ kind: "openpgp", privateKeys: [bytesOf(privateKey)] }, message), {
    name: "DecryptionError",
  });
});

test("a passphrase packet before the key packets does not keep the key from opening", async (t) => {
  const { publicKey, privateKey } = await pair;
  const dump = noise(50_000);
  const message = (await encryptWithLibrary({
    message: await createMessage({ binary: dump }),
    encryptionKeys: await readKey({ armoredKey: publicKey }),
    passwords: ["third"],
    format: "binary",
  })) as Uint8Array;
  // The library writes packets to keys first: a header of two octets, and a body of as many as the second says.
  t.is(message[0]! & 0x3f, 1);
  const keyPacket = message.subarray(0, 2 + message[1]!);
  const rest = message.subarray(keyPacket.length);
  t.is(rest[0]! & 0x3f, 3);
  const passphrasePacket = rest.subarray(0, 2 + rest[1]!);
  const turned = Buffer.concat([passphrasePacket, keyPacket, rest.subarray(passphrasePacket.length)]);
  for (const program of ["gpg", "library"] as const) {
    if (program === "gpg" && !hasPeers(t, "gpg")) continue;
    for (const way of [{ privateKeys: [bytesOf(privateKey)] }, { passphrase: "third" }]) {
      t.true((await decrypt({ kind: "openpgp", program, ...way }, turned)).equals(dump), program);
    }
  }
});

test("padding where senders put it, compression, signatures and text make no difference", async (t) => {
  const { publicKey, privateKey } = await pair;
  const dump = Buffer.concat([noise(20_000), Buffer.from("\r\n\r")]);
  const privateKeys = [bytesOf(privateKey)];
  const contents: [string, Buffer][] = [
    ["padding after", Buffer.concat([literal(dump), padding(3000)])],
    ["padding before", Buffer.concat([padding(300), literal(dump)])],
    ["padding inside compressed", compressed(1, Buffer.concat([literal(dump), padding(70_000)]))],
    ["zlib", compressed(2, literal(dump))],
    ["twice compressed", compressed(2, compressed(1, literal(dump)))],
    ["marker", Buffer.concat([packet(10, "PGP"), literal(dump)])],
    ["something not critical", Buffer.concat([packet(60, noise(10)), literal(dump)])],
  ];
  for (const [name, content] of contents) {
    const message = await messageTo(publicKey, content);
    for (const size of [70_000, 997, 61]) {
      t.true((await decrypt({ kind: "openpgp", privateKeys, program: "library" }, message, size)).equals(dump), name);
    }
  }
  const outside = await messageTo(publicKey, literal(dump), { before: padding(100), after: padding(100) });
  for (const program of ["gpg", "library"] as const) {
    if (program === "gpg" && !hasPeers(t, "gpg")) continue;
    t.true((await decrypt({ kind: "openpgp", privateKeys, program }, outside)).equals(dump), program);
  }
  const text = await messageTo(publicKey, literal("one\r\ntwo\r\n", "t"));
  for (const program of ["gpg", "library"] as const) {
    if (program === "gpg" && !hasPeers(t, "gpg")) continue;
    t.is((await decrypt({ kind: "openpgp", privateKeys, program }, text, 1)).toString(), "one\ntwo\n", program);
  }
});

test("padding as sq adds it: the library reads over any, and of a long one gpg's failure names the library", async (t) => {
  const { publicKey, privateKey } = await pair;
  const dump = noise(300_000);
  const privateKeys = [bytesOf(privateKey)];
  for (const size of [0, 100, 30_000, 101_000, 400_000]) {
    const message = await messageTo(publicKey, paddedAsBySq(literal(dump), size));
    const opened = await decrypt({ kind: "openpgp", privateKeys, program: "library" }, message, 70_000);
    t.true(opened.equals(dump), `${size}`);
    if (!hasPeers(t, "gpg")) continue;
    const withGpg = decrypt({ kind: "openpgp", privateKeys, program: "gpg" }, message, 70_000);
    // Newer ones may read over more of it.
    const outcome = await withGpg.catch((error: Error) => error);
    if (outcome instanceof Error) t.regex(outcome.message, /padding that gpg cannot read, as `sq`.*--program library/);
    else t.true(outcome.equals(dump), `${size}`);
  }
});

test("what gpg compresses in each of its ways, and signs, the library opens", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const home = mkdtempSync(join(temporary, "h"));
  const { privateKey } = await pair;
  const gpg = (args: string[], input: Uint8Array) =>
    execFileSync("gpg", ["--homedir", home, "--batch", "--quiet", "--trust-model", "always", ...args], {
      input,
      maxBuffer: 1 << 26,
      stdio: ["pipe", "pipe", "ignore"],
    });
  gpg(["--import"], bytesOf(privateKey));
  const dump = Buffer.concat([Buffer.alloc(300_000, "a line that compresses\n"), noise(100_000)]);
  for (const algorithm of ["none", "zip", "zlib", "bzip2"]) {
    for (const sign of [[], ["--sign"]]) {
      for (const armor of [[], ["--armor"]]) {
        const message = gpg(["--compress-algo", algorithm, ...sign, ...armor, "-e", "-r", "Backup"], dump);
        const decryption: Decryption = { kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: "library" };
        t.true((await decrypt(decryption, message, 5000)).equals(dump), `${algorithm} ${sign} ${armor}`);
      }
    }
  }
  execFileSync("gpgconf", ["--homedir", home, "--kill", "all"]);
});

test("a message that was changed at its very end is refused, also when the dump ended before", async (t) => {
  const { publicKey, privateKey } = await pair;
  const decryption: Decryption = { kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: "library" };
  for (const content of [literal("dump"), compressed(1, literal("dump")), compressed(2, literal("dump"))]) {
    t.is((await decrypt(decryption, await messageTo(publicKey, content))).toString(), "dump");
    for (const size of [1, 10, 1000]) {
      const message = await messageTo(publicKey, content, { wrongDigest: true });
      await t.throwsAsync(decrypt(decryption, message, size), failed(/changed or cut short/));
    }
  }
  const two = await messageTo(publicKey, Buffer.concat([literal("one"), literal("two")]));
  await t.throwsAsync(decrypt(decryption, two), failed(/more than one dump/));
  await t.throwsAsync(decrypt(decryption, await messageTo(publicKey, padding(50))), failed(/no dump/));
});

test("a dump that the library encrypts opens with gpg, also to a key that asks for AEAD", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const { publicKey, privateKey } = await generateKey({
    curve: "curve25519Legacy",
    type: "ecc",
    userIDs: [{ name: "Aead" }],
    config: { aeadProtect: true },
    format: "armored",
  });
  const dump = noise(100_000);
  const message = await encrypt({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program: "library" }, dump);
  for (const program of ["gpg", "library"] as const) {
    t.true((await decrypt({ kind: "openpgp", privateKeys: [bytesOf(privateKey)], program }, message)).equals(dump));
  }
});

test("auto encrypts with the library to a key that the installed gpg does not know", async (t) => {
  const { readPrivateKey } = await import("openpgp");
  const privateKey = await readPrivateKey({ armoredKey: fixture("v6.key.asc").toString() });
  const publicKeys = [bytesOf(privateKey.toPublic().armor())];
  const dump = noise(10_000);
  const message = await encrypt({ kind: "openpgp", publicKeys }, dump);
  t.true((await decrypt({ kind: "openpgp", privateKeys: [fixture("v6.key.asc")] }, message)).equals(dump));
});

test("a key that does not serve is called expired, revoked or for signing only, whatever the program", async (t) => {
  const past = new Date("2020-01-01T00:00:00Z");
  const type = { curve: "curve25519Legacy", type: "ecc" } as const;
  const expired = await generateKey({ ...type, userIDs: [{ name: "Old" }], date: past, keyExpirationTime: 86_400 });
  const fresh = await generateKey({ ...type, userIDs: [{ name: "Lost" }], format: "object" });
  const revoked = await revokeKey({ key: fresh.privateKey, format: "armored" });
  const signer = await generateKey({ ...type, userIDs: [{ name: "Pen" }], subkeys: [] });
  const sub = await generateKey({
    ...type,
    userIDs: [{ name: "Half" }],
    date: past,
    subkeys: [{ keyExpirationTime: 86_400 }] as never,
  });
  const cases: [string, RegExp][] = [
    [expired.publicKey, /\(Old\) expired on 2020-01-02/],
    [revoked.publicKey, /\(Lost\) is revoked/],
    [signer.publicKey, /\(Pen\) can only sign/],
    [sub.publicKey, /\(Half\) cannot encrypt: its part that encrypts expired on 2020-01-02/],
  ];
  for (const program of ["gpg", "library", "auto"] as const) {
    if (program === "gpg" && !hasPeers(t, "gpg")) continue;
    for (const [key, message] of cases) {
      await t.throwsAsync(encrypt({ kind: "openpgp", publicKeys: [bytesOf(key)], program }, noise(10)), {
        name: "EncryptionError",
        message,
      });
    }
  }
});

test("keys that the library does not take are named by their true reason, and gpg takes them", async (t) => {
  const expected: [string, RegExp][] = [
    ["brainpool.pub.asc", /uses the curve brainpoolP256r1, which the library does not have; (?<advice>.*)/],
    ["dsa.pub.asc", /of the kind DSA, to which the library does not encrypt; (?<advice>.*)/],
  ];
  // Whoever has gpg is not told to install it.
  const advice = findProgram("gpg") === undefined ? /^install gpg\.$/ : /^gpg is installed .*--program gpg/;
  for (const [name, message] of expected) {
    const encryption: Encryption = { kind: "openpgp", publicKeys: [fixture(name)], program: "library" };
    const error = await t.throwsAsync(encrypt(encryption, noise(10)), { name: "EncryptionError", message });
    t.regex(message.exec(error!.message)!.groups!.advice!, advice);
  }
  const privateKeys = [fixture("brainpool.key.asc")];
  await t.throwsAsync(
    decrypt({ kind: "openpgp", privateKeys, program: "library" }, fixture("brainpool.pgp")),
    failed(/curve brainpoolP256r1/),
  );
  if (!hasPeers(t, "gpg")) return;
  for (const [name] of expected)
    t.true((await encrypt({ kind: "openpgp", publicKeys: [fixture(name)] }, noise(10))).length > 0);
  t.true((await decrypt({ kind: "openpgp", privateKeys }, fixture("brainpool.pgp"))).length > 0);
});

test("old dumps open with keys that expired or were revoked since", async (t) => {
  const type = { curve: "curve25519Legacy", type: "ecc" } as const;
  const userIDs = [{ name: "Was" }];
  const past = new Date("2020-01-01T00:00:00Z");
  const expired = await generateKey({ ...type, userIDs, date: past, keyExpirationTime: 86_400, format: "object" });
  const { privateKey, publicKey } = await generateKey({ ...type, userIDs, format: "object" });
  const revoked = await revokeKey({ key: privateKey, format: "object" });
  const dump = noise(1000);
  for (const [to, by, date] of [
    [expired.publicKey, expired.privateKey, new Date("2020-01-01T01:00:00Z")],
    [publicKey, revoked.privateKey, new Date()],
  ] as const) {
    const message = (await encryptWithLibrary({
      message: await createMessage({ binary: dump }),
      encryptionKeys: to,
      date,
      format: "binary",
    })) as Uint8Array;
    for (const program of ["gpg", "library"] as const) {
      if (program === "gpg" && !hasPeers(t, "gpg")) continue;
      t.true((await decrypt({ kind: "openpgp", privateKeys: [bytesOf(by.armor())], program }, message)).equals(dump));
    }
  }
});

test("age: post-quantum keys work whatever age is installed, and a passphrase opens what `age -p` made", async (t) => {
  const identity = await generateHybridIdentity();
  const recipient = await identityToRecipient(identity);
  const dump = noise(200_000);
  const file = await encrypt({ kind: "age", recipients: [recipient] }, dump);
  t.true((await decrypt({ kind: "age", identities: [identity] }, file)).equals(dump));

  const encrypter = new Encrypter();
  encrypter.setScryptWorkFactor(12);
  encrypter.setPassphrase("correct horse");
  const withPassphrase = await encrypter.encrypt(dump);
  for (const program of ["auto", "library"] as const) {
    const decryption: Decryption = { kind: "age", identities: [], program };
    t.true((await decrypt({ ...decryption, passphrase: "correct horse" }, withPassphrase)).equals(dump));
    await t.throwsAsync(decrypt({ ...decryption, passphrase: "wrong" }, withPassphrase), failed(/does not open/));
    await t.throwsAsync(decrypt({ ...decryption, passphrase: "correct horse" }, file), failed(/encrypted to age keys/));
  }
  await t.throwsAsync(decrypt({ kind: "age", identities: [identity] }, withPassphrase), failed(/with a passphrase/));
  if (!hasPeers(t, "age")) return;
  await t.throwsAsync(
    decrypt({ kind: "age", identities: [], passphrase: "correct horse", program: "age" }, withPassphrase),
    failed(/--program library/),
  );
});

test("age armor with blank lines before it opens with both", async (t) => {
  const identities = [fixture("age-armor-leading-blank.id")];
  for (const program of ["age", "library", "auto"] as const) {
    if (program === "age" && !hasPeers(t, "age")) continue;
    t.is((await decrypt({ kind: "age", identities, program }, fixture("age-armor-leading-blank"))).length, 3, program);
  }
});

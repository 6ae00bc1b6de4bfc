import { hasPeers } from "@strongroom/testkit/peers/programs";
import test from "ava";
import { generateAgeKey } from "../src/encryption/age.ts";
import { generateOpenPgpKey } from "../src/encryption/openpgp-library.ts";
import type { Decryption, Encryption } from "../src/encryption/options.ts";
import { decryptionStage, encryptionStage } from "../src/encryption/stages.ts";
import { chunked, collect, noise } from "./support/bytes.ts";

const never = new AbortController().signal;
const dump = noise(3 * 1024 * 1024 + 17);

function encrypt(encryption: Encryption, bytes: Uint8Array = dump): Promise<Buffer> {
  return collect(encryptionStage(encryption)(chunked(bytes), never));
}

function decrypt(decryption: Decryption, bytes: Uint8Array): Promise<Buffer> {
  return collect(decryptionStage(decryption)(chunked(bytes), never));
}

const pgp = generateOpenPgpKey({ name: "Backup", email: "backup@example.org" });
const guarded = generateOpenPgpKey({ name: "Guarded", passphrase: "correct horse" });
const bytesOf = (armored: string): Uint8Array => new TextEncoder().encode(armored);

type PgpProgram = "gpg" | "library";
const pgpPairs: [PgpProgram, PgpProgram][] = [
  ["gpg", "gpg"],
  ["gpg", "library"],
  ["library", "gpg"],
  ["library", "library"],
];

for (const [writer, reader] of pgpPairs) {
  const needed = [writer, reader].includes("gpg") ? (["gpg"] as const) : [];

  test(`OpenPGP: what ${writer} encrypts to a key, ${reader} opens`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const { publicKey, privateKey } = await pgp;
    const message = await encrypt({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program: writer });
    t.true(message[0]! >= 0x80, "binary, not armored");
    t.true(message.length < dump.length + 4096);
    const plain = await decrypt({ kind: "openpgp", privateKeys: [bytesOf(privateKey)], program: reader }, message);
    t.true(plain.equals(dump));
  });

  test(`OpenPGP: what ${writer} encrypts to a protected key, ${reader} opens with its passphrase only`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const { publicKey, privateKey } = await guarded;
    const privateKeys = [bytesOf(privateKey)];
    const message = await encrypt({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program: writer });
    const passphrase = "correct horse";
    t.true((await decrypt({ kind: "openpgp", privateKeys, passphrase, program: reader }, message)).equals(dump));
    await t.throwsAsync(decrypt({ kind: "openpgp", privateKeys, program: reader }, message), {
      name: "DecryptionError",
    });
    await t.throwsAsync(decrypt({ kind: "openpgp", privateKeys, passphrase: "wrong", program: reader }, message), {
      name: "DecryptionError",
    });
  });

  test(`OpenPGP: what ${writer} encrypts with a passphrase, ${reader} opens`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const passphrase = "blau grün 1";
    const message = await encrypt({ kind: "openpgp", passphrase, program: writer });
    t.true((await decrypt({ kind: "openpgp", passphrase, program: reader }, message)).equals(dump));
    await t.throwsAsync(decrypt({ kind: "openpgp", passphrase: "blau", program: reader }, message), {
      name: "DecryptionError",
    });
  });

  test(`OpenPGP: what ${writer} encrypts to two keys and a passphrase, ${reader} opens with any`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const one = await pgp;
    const two = await guarded;
    const publicKeys = [bytesOf(one.publicKey), bytesOf(two.publicKey)];
    const message = await encrypt({ kind: "openpgp", publicKeys, passphrase: "third", program: writer });
    const ways: Decryption[] = [
      { kind: "openpgp", privateKeys: [bytesOf(one.privateKey)], program: reader },
      { kind: "openpgp", privateKeys: [bytesOf(two.privateKey)], passphrase: "correct horse", program: reader },
      { kind: "openpgp", passphrase: "third", program: reader },
    ];
    for (const way of ways) t.true((await decrypt(way, message)).equals(dump));
  });
}

for (const program of ["gpg", "library"] as const) {
  const needed = program === "gpg" ? (["gpg"] as const) : [];

  test(`OpenPGP: ${program} refuses a message that was changed or cut`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const { publicKey, privateKey } = await pgp;
    const message = await encrypt({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program });
    const decryption: Decryption = { kind: "openpgp", privateKeys: [bytesOf(privateKey)], program };
    const changed = Buffer.from(message);
    changed[changed.length >> 1]! ^= 1;
    await t.throwsAsync(decrypt(decryption, changed), { name: "DecryptionError" });
    await t.throwsAsync(decrypt(decryption, message.subarray(0, message.length - 100)), { name: "DecryptionError" });
    await t.throwsAsync(decrypt(decryption, noise(1000)), { name: "DecryptionError" });
  });

  test(`OpenPGP: ${program} says what is wrong with a key`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const error = await t.throwsAsync(encrypt({ kind: "openpgp", publicKeys: [bytesOf("no key")], program }), {
      name: "EncryptionError",
    });
    t.true(error!.message.length > 20);
    const other = await guarded;
    const message = await encrypt({ kind: "openpgp", publicKeys: [bytesOf((await pgp).publicKey)], program });
    await t.throwsAsync(
      decrypt(
        { kind: "openpgp", privateKeys: [bytesOf(other.privateKey)], passphrase: "correct horse", program },
        message,
      ),
      { name: "DecryptionError" },
    );
  });

  test(`OpenPGP: ${program} passes an error of the source on as it is`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const failure = new Error("disk gone");
    async function* source(): AsyncGenerator<Uint8Array> {
      yield dump;
      throw failure;
    }
    const { publicKey } = await pgp;
    const stage = encryptionStage({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program });
    t.is(await t.throwsAsync(collect(stage(source(), never))), failure);
  });
}

test("OpenPGP: the library opens an armored message", async (t) => {
  if (!hasPeers(t, "gpg")) return;
  const { publicKey, privateKey } = await pgp;
  const { createMessage, encrypt: encryptArmored, readKey } = await import("openpgp");
  const armored = await encryptArmored({
    message: await createMessage({ binary: dump }),
    encryptionKeys: await readKey({ armoredKey: publicKey }),
  });
  for (const program of ["library", "gpg"] as const) {
    const decryption: Decryption = { kind: "openpgp", privateKeys: [bytesOf(privateKey)], program };
    t.true((await decrypt(decryption, bytesOf(armored as string))).equals(dump));
  }
});

const age = generateAgeKey();
type AgeProgram = "age" | "library";
const agePairs: [AgeProgram, AgeProgram][] = [
  ["age", "age"],
  ["age", "library"],
  ["library", "age"],
  ["library", "library"],
];

for (const [writer, reader] of agePairs) {
  const needed = [writer, reader].includes("age") ? (["age"] as const) : [];

  test(`age: what ${writer} encrypts, ${reader} opens`, async (t) => {
    if (!hasPeers(t, ...needed)) return;
    const { recipient, identity } = await age;
    const other = await generateAgeKey();
    const file = await encrypt({ kind: "age", recipients: [`# both\n${recipient}`, other.recipient], program: writer });
    t.true(file.subarray(0, 22).equals(Buffer.from("age-encryption.org/v1\n")));
    const identities = [`# created: today\n${identity}\n`];
    t.true((await decrypt({ kind: "age", identities, program: reader }, file)).equals(dump));
    const stranger = await generateAgeKey();
    await t.throwsAsync(decrypt({ kind: "age", identities: [stranger.identity], program: reader }, file), {
      name: "DecryptionError",
    });
  });
}

for (const program of ["age", "library"] as const) {
  test(`age: ${program} refuses a file that was changed or cut`, async (t) => {
    if (program === "age" && !hasPeers(t, "age")) return;
    const { recipient, identity } = await age;
    const file = await encrypt({ kind: "age", recipients: [recipient], program });
    const decryption: Decryption = { kind: "age", identities: [identity], program };
    const changed = Buffer.from(file);
    changed[changed.length >> 1]! ^= 1;
    await t.throwsAsync(decrypt(decryption, changed), { name: "DecryptionError" });
    await t.throwsAsync(decrypt(decryption, file.subarray(0, file.length - 100)), { name: "DecryptionError" });
  });
}

test("age: the library opens an armored file, whatever the chunks", async (t) => {
  const { recipient, identity } = await age;
  const file = await encrypt({ kind: "age", recipients: [recipient], program: "library" }, dump.subarray(0, 200_000));
  const { armor } = await import("age-encryption");
  const armored = Buffer.from(armor.encode(file));
  const decryption: Decryption = { kind: "age", identities: [identity], program: "library" };
  for (const size of [1_000_000, 65, 7]) {
    const plain = await collect(decryptionStage(decryption)(chunked(armored, size), never));
    t.true(plain.equals(dump.subarray(0, 200_000)));
  }
  await t.throwsAsync(decrypt(decryption, armored.subarray(0, armored.length - 200)), { name: "DecryptionError" });
});

test("an empty dump can be encrypted and decrypted everywhere", async (t) => {
  const { publicKey, privateKey } = await pgp;
  const { recipient, identity } = await age;
  const empty = Buffer.alloc(0);
  for (const program of ["auto", "library"] as const) {
    const message = await encrypt({ kind: "openpgp", publicKeys: [bytesOf(publicKey)], program }, empty);
    t.is((await decrypt({ kind: "openpgp", privateKeys: [bytesOf(privateKey)], program }, message)).length, 0);
    const file = await encrypt({ kind: "age", recipients: [recipient], program }, empty);
    t.is((await decrypt({ kind: "age", identities: [identity], program }, file)).length, 0);
  }
});

test("what makes no sense is refused before anything is read", (t) => {
  const refused = { name: "InvalidRequestError" };
  t.throws(() => encryptionStage({ kind: "openpgp" }), refused);
  t.throws(() => encryptionStage({ kind: "openpgp", passphrase: "two\nlines" }), refused);
  t.throws(() => encryptionStage({ kind: "openpgp", passphrase: "" }), refused);
  t.throws(() => encryptionStage({ kind: "openpgp", recipients: ["a@example.org"], program: "library" }), refused);
  t.throws(() => encryptionStage({ kind: "age", recipients: ["# nothing"] }), refused);
  t.throws(() => decryptionStage({ kind: "openpgp", program: "library" }), refused);
  t.throws(() => decryptionStage({ kind: "age", identities: [] }), refused);
});

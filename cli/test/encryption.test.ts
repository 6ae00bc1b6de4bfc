import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { OptionValues } from "@strongroom/command-line/values";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { DECRYPTION_OPTIONS, decryptionFor } from "../src/decryption-choice.ts";
import { ENCRYPTION_OPTIONS, encryptionFor } from "../src/encryption-choice.ts";
import { keyKind } from "../src/files/key-files.ts";
import { givenTexts } from "./support/context.ts";

const ARMORED_PUBLIC = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxjM=\n-----END PGP PUBLIC KEY BLOCK-----\n";
const ARMORED_PRIVATE = ARMORED_PUBLIC.replaceAll("PUBLIC", "PRIVATE");
const RECIPIENT = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";
const IDENTITY = `# created: now\n# public key: ${RECIPIENT}\nAGE-SECRET-KEY-1QQQ\n`;

async function files(t: ExecutionContext) {
  const dir = await temporaryFolder(t);
  const write = async (name: string, content: string | Uint8Array) => {
    const path = join(dir, name);
    await writeFile(path, content);
    return path;
  };
  return {
    pub: await write("k.pub.asc", ARMORED_PUBLIC),
    key: await write("k.key.asc", ARMORED_PRIVATE),
    agePub: await write("k.age.pub", `# team\n${RECIPIENT}\n`),
    ageKey: await write("k.age.key", IDENTITY),
    passphrase: await write("pass", "from file\n"),
    empty: await write("empty", ""),
    junk: await write("junk", "hello"),
  };
}

const encryption = (given: Readonly<Record<string, string | readonly string[]>>, env: NodeJS.ProcessEnv = {}) =>
  encryptionFor(OptionValues.resolve(ENCRYPTION_OPTIONS, givenTexts(given), env), { env });
const decryption = (given: Readonly<Record<string, string | readonly string[]>>, env: NodeJS.ProcessEnv = {}) =>
  decryptionFor(OptionValues.resolve(DECRYPTION_OPTIONS, givenTexts(given), env), { env });

test("what is in a key file is recognized by its content", (t) => {
  const kind = (content: string | number[]) => keyKind(Buffer.from(content as string));
  t.is(kind(ARMORED_PUBLIC), "openpgp-public");
  t.is(kind(`comment\n${ARMORED_PRIVATE}`), "openpgp-private");
  t.is(kind([0x99, 0x01]), "openpgp-public", "old format");
  t.is(kind([0xc6, 0x33]), "openpgp-public", "new format");
  t.is(kind([0x95, 0x01]), "openpgp-private", "old format");
  t.is(kind([0xc5, 0x33]), "openpgp-private", "new format");
  t.is(kind([0x85, 0x01]), "unknown", "an encrypted message");
  t.is(kind(`${RECIPIENT}\n`), "age-public");
  t.is(kind(IDENTITY), "age-private", "the comment with the public key does not make it public");
  t.is(kind("hello"), "unknown");
  t.is(kind(""), "unknown");
});

test("keys decide between OpenPGP and age", async (t) => {
  const { pub, agePub } = await files(t);
  const openpgp = await encryption({ publicKey: [pub] });
  t.deepEqual(openpgp, { kind: "openpgp", program: "auto", publicKeys: [Buffer.from(ARMORED_PUBLIC)] });
  t.deepEqual(await encryption({ recipient: ["backup@example.org", "0xABCD"] }), {
    kind: "openpgp",
    program: "auto",
    recipients: ["backup@example.org", "0xABCD"],
  });
  const age = { kind: "age" as const, program: "auto" as const, recipients: [RECIPIENT] };
  t.deepEqual(await encryption({ recipient: [RECIPIENT] }), age);
  t.deepEqual(await encryption({ recipientsFile: [agePub] }), age);
  t.deepEqual(await encryption({ publicKey: [agePub] }), age);
  t.deepEqual(await encryption({ encryption: "none" }), { kind: "none" });
});

test("what does not fit together is refused", async (t) => {
  const { pub, key, agePub, ageKey, empty, junk, passphrase } = await files(t);
  const cases: Array<[given: Readonly<Record<string, string | readonly string[]>>, expected: RegExp]> = [
    [{}, /no key to encrypt to/],
    [{ publicKey: [pub], recipient: [RECIPIENT] }, /one of the two/],
    [{ recipient: [RECIPIENT], passphraseFile: passphrase }, /one of the two/],
    [{ encryption: "age", publicKey: [pub] }, /expected age recipients/],
    [{ encryption: "openpgp", publicKey: [agePub] }, /expected OpenPGP keys/],
    [{ encryption: "none", recipient: ["x"] }, /contradict/],
    [{ publicKey: [key] }, /is a private key/],
    [{ publicKey: [ageKey] }, /is a private key/],
    [{ recipientsFile: [ageKey] }, /holds a private key/],
    [{ recipientsFile: [pub] }, /holds no age recipient/],
    [{ publicKey: [junk] }, /neither/],
    [{ publicKey: [empty] }, /is empty/],
    [{ publicKey: [pub], program: "age" }, /--program age cannot/],
    [{ recipient: [RECIPIENT], program: "gpg" }, /--program gpg cannot/],
  ];
  for (const [given, expected] of cases) {
    const error = await t.throwsAsync(() => encryption(given), { instanceOf: UsageError }, JSON.stringify(given));
    t.regex(error.message, expected);
    t.notRegex(error.message, /SECRET-KEY/);
  }
});

test("a passphrase in the environment does not open dumps that are made with keys; one asked for does", async (t) => {
  const { pub, passphrase } = await files(t);
  const env = { BM_PASSPHRASE: "of the private key" };
  t.false("passphrase" in (await encryption({ publicKey: [pub] }, env)));
  t.like(await encryption({}, env), { kind: "openpgp", passphrase: "of the private key" });
  t.like(await encryption({ publicKey: [pub], passphraseFile: passphrase }, env), { passphrase: "from file" });
});

test("the passphrase: --passphrase-file, STRONGROOM_PASSPHRASE, its _FILE form, BM_PASSPHRASE", async (t) => {
  const { passphrase } = await files(t);
  const all = { STRONGROOM_PASSPHRASE: "own", STRONGROOM_PASSPHRASE_FILE: passphrase, BM_PASSPHRASE: "bm" };
  t.like(await encryption({ passphraseFile: passphrase }, all), { passphrase: "from file" });
  t.like(await encryption({}, all), { passphrase: "own" });
  t.like(await encryption({}, { ...all, STRONGROOM_PASSPHRASE: "" }), { passphrase: "from file" });
  t.like(await encryption({}, { BM_PASSPHRASE: "bm" }), { passphrase: "bm" });
});

test("BM_RECIPIENT names the key in BM_PUBLIC_KEY_PATH, and no other", async (t) => {
  const { pub } = await files(t);
  const env = { BM_PUBLIC_KEY_PATH: pub, BM_RECIPIENT: "test@example.org" };
  t.deepEqual(await encryption({}, env), {
    kind: "openpgp",
    program: "auto",
    publicKeys: [Buffer.from(ARMORED_PUBLIC)],
  });
  t.like(await encryption({}, { BM_RECIPIENT: "test@example.org" }), { recipients: ["test@example.org"] });
  t.like(await encryption({ recipient: ["other"] }, env), { recipients: ["other"] });
});

test("--program age without an identity says what is missing, and not what was never given", async (t) => {
  const { key, passphrase } = await files(t);
  const program = "age";
  const alone = await t.throwsAsync(() => decryption({ passphraseFile: passphrase, program }), {
    instanceOf: UsageError,
  });
  t.regex(alone!.message, /reads a passphrase from a terminal only/);
  const wrong = await t.throwsAsync(() => decryption({ privateKey: [key], program }), { instanceOf: UsageError });
  t.regex(wrong!.message, /the keys are for OpenPGP/);
  t.is(await decryption({ program }), undefined);
});

test("private keys decide how a version is decrypted", async (t) => {
  const { pub, key, ageKey, junk, passphrase } = await files(t);
  t.is(await decryption({}), undefined);
  t.deepEqual(await decryption({ privateKey: [key], passphraseFile: passphrase }), {
    kind: "openpgp",
    program: "auto",
    privateKeys: [Buffer.from(ARMORED_PRIVATE)],
    passphrase: "from file",
  });
  t.deepEqual(await decryption({}, { BM_PASSPHRASE: "p" }), { kind: "openpgp", program: "auto", passphrase: "p" });
  const age = { kind: "age" as const, program: "auto" as const, identities: ["AGE-SECRET-KEY-1QQQ"] };
  t.deepEqual(await decryption({ identity: [ageKey] }), age);
  t.deepEqual(await decryption({ privateKey: [ageKey] }), age);
  const cases: ReadonlyArray<Record<string, string[]>> = [
    { privateKey: [pub] },
    { privateKey: [junk] },
    { identity: [key] },
    { privateKey: [key], identity: [ageKey] },
  ];
  for (const given of cases) {
    const error = await t.throwsAsync(() => decryption(given), { instanceOf: UsageError });
    t.notRegex(error.message, /SECRET-KEY-1/);
  }
});

test("age recipients and identities of every kind, and what is none", async (t) => {
  const dir = await temporaryFolder(t);
  const file = async (name: string, content: string) => {
    await writeFile(join(dir, name), content);
    return join(dir, name);
  };
  const ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@example.org";
  const list = await file("recipients", `# of the team\n\n${RECIPIENT}\r\n${ssh}\n`);
  t.like(await encryption({ recipientsFile: [list] }), { kind: "age", recipients: [RECIPIENT, ssh] });
  t.like(await encryption({ recipient: [ssh] }), { kind: "age", recipients: [ssh] });
  t.like(await encryption({ publicKey: [await file("id.pub", `${ssh}\n`)] }), { kind: "age", recipients: [ssh] });
  const typo = await file("typo", `${RECIPIENT}\nage1not-a-key\n`);
  await t.throwsAsync(encryption({ recipientsFile: [typo] }), { message: /typo: line 2 is no age recipient/ });

  const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
  const sshKey = await file("id", key);
  t.deepEqual(await decryption({ identity: [sshKey] }), {
    kind: "age",
    program: "auto",
    identities: [Buffer.from(key)],
  });
  await t.throwsAsync(encryption({ publicKey: [sshKey] }), { message: /is a private key/ });
  await t.throwsAsync(encryption({ recipientsFile: [sshKey] }), { message: /holds a private key/ });
  const guarded = await file("guarded", "age-encryption.org/v1\n-> scrypt AAAA 18\n");
  t.false("passphrase" in (await decryption({ identity: [guarded] }))!);
  t.like(await decryption({ identity: [guarded] }, { STRONGROOM_PASSPHRASE: "of it" }), { passphrase: "of it" });
  t.false("passphrase" in (await decryption({ identity: [sshKey] }, { STRONGROOM_PASSPHRASE: "of it" }))!);
  await t.throwsAsync(decryption({ identity: [list] }), { message: /is a public key; give --identity the private/ });
  await t.throwsAsync(decryption({ privateKey: [list] }), { message: /is a public key/ });
});

/**
 * age v1 (https://age-encryption.org/v1): with the user's `age`, or with the library for the header and node:crypto for
 * the payload.
 */
import { armor, Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { orAborted } from "../abort.ts";
import { DecryptionError, EncryptionError } from "../errors.ts";
import { peek, replay } from "../peek.ts";
import { onlyLibraryDecrypts, onlyLibraryEncrypts, stanzaKinds } from "./age-abilities.ts";
import { passphraseIdentity } from "./age-passphrase.ts";
import { openPayload, sealPayload, splitHeader } from "./age-payload.ts";
import { FramedSource } from "./framed.ts";
import { abortable, failed, RecordedSource } from "./library-stage.ts";
import {
  type Decryption,
  decryptionFailure,
  type Encryption,
  encryptionFailure,
  lines,
  type Stage,
} from "./options.ts";
import { PrivateDirectory } from "./private-directory.ts";
import { findProgram, runFilter } from "./programs.ts";
import { isArmored, unarmor } from "./unarmor.ts";

type AgeDecryption = Extract<Decryption, { kind: "age" }>;

/** An age file, binary. */
interface AgeFile {
  /** The header with its last line. */
  readonly header: Uint8Array;
  /** What follows. */
  readonly rest: AsyncIterable<Uint8Array>;
}

type AgeStage = (file: AgeFile, signal: AbortSignal) => AsyncIterable<Uint8Array>;

/** Encrypts with the `age` program; recipients of every kind it knows, plugins and SSH keys among them. */
export function ageProgramEncryption(options: Extract<Encryption, { kind: "age" }>, age = findProgram("age")): Stage {
  if (age === undefined)
    throw new EncryptionError("age was asked for, but is not on the PATH; install it, or use the library.");
  return async function* (source, signal) {
    const directory = await PrivateDirectory.create();
    try {
      const file = await directory.write("recipients", `${lines(...options.recipients).join("\n")}\n`);
      const args = ["--encrypt", "--recipients-file", file];
      yield* runFilter({ program: age, args, wholeInput: true, failure: encryptionFailure }, source, signal);
    } finally {
      await directory.remove();
    }
  };
}

/** Decrypts with the `age` program; the identities are in a file of mode 0600 for as long as it runs. */
export function ageProgramDecryption(options: AgeDecryption, age = findProgram("age")): AgeStage {
  if (age === undefined)
    throw new DecryptionError("age was asked for, but is not on the PATH; install it, or use the library.");
  return async function* ({ header, rest }, signal) {
    const directory = await PrivateDirectory.create();
    try {
      // As they are: an identity file may be a passphrase-protected age file or an SSH key.
      const args = ["--decrypt"];
      for (const [index, identity] of (await openedIdentities(options)).entries()) {
        const content = typeof identity === "string" && !identity.endsWith("\n") ? `${identity}\n` : identity;
        args.push("--identity", await directory.write(`identity-${index}`, content));
      }
      const whole = replay([header], rest[Symbol.asyncIterator]());
      yield* runFilter({ program: age, args, wholeInput: true, failure: decryptionFailure }, whole, signal);
    } finally {
      await directory.remove();
    }
  };
}

/** Encrypts with the library; `age1...` recipients only. The payload goes through node:crypto. */
export function ageLibraryEncryption(options: Extract<Encryption, { kind: "age" }>): Stage {
  return async function* (source, signal) {
    const input = new RecordedSource(source);
    try {
      const { header, fileKey } = await makeHeader(lines(...options.recipients));
      signal.throwIfAborted();
      yield header;
      for await (const chunk of sealPayload(input, fileKey)) {
        yield chunk;
        signal.throwIfAborted();
      }
    } catch (error) {
      throw failed(error, input, signal, "The age library could not encrypt", encryptionFailure);
    }
  };
}

/**
 * A header for these recipients, and the key in it: the library encrypts an empty payload, whose nonce and only chunk
 * are cut off.
 */
async function makeHeader(recipients: readonly string[]): Promise<{ header: Uint8Array; fileKey: Uint8Array }> {
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    if (!/^age1[0-9a-z]+$/.test(recipient)) {
      const kind = recipient.startsWith("ssh-") ? "SSH keys" : "other recipients";
      throw encryptionFailure(
        `The age library knows age1... recipients only; ${kind} need the age program, which is not used here: ` +
          "install age, and ask for no other program.",
      );
    }
    encrypter.addRecipient(recipient);
  }
  let fileKey = new Uint8Array();
  encrypter.addRecipient({
    wrapFileKey: (key) => {
      fileKey = Uint8Array.from(key);
      return [];
    },
  });
  const file = await encrypter.encrypt(new Uint8Array());
  return { header: file.subarray(0, file.length - EMPTY_PAYLOAD), fileKey };
}

/** Decrypts with the library: `AGE-SECRET-KEY-...` identities and passphrases. The payload goes through node:crypto. */
export function ageLibraryDecryption(options: AgeDecryption): AgeStage {
  return async function* ({ header, rest }, signal) {
    const input = new RecordedSource(rest);
    try {
      const decrypter = new Decrypter();
      for (const identity of await openedIdentities(options)) {
        if (isAgeFile(identity)) throw needsProgram("A protected identity file without its passphrase needs");
        const text = typeof identity === "string" ? identity : Buffer.from(identity).toString("utf8");
        if (text.includes("PRIVATE KEY-----")) throw needsProgram("SSH keys need");
        for (const line of lines(text)) {
          if (/^AGE-PLUGIN-/i.test(line)) throw needsProgram("Plugins need");
          decrypter.addIdentity(line);
        }
      }
      if (options.passphrase !== undefined) decrypter.addIdentity(passphraseIdentity(options.passphrase));
      const fileKey = await orAborted(decrypter.decryptHeader(header), signal);
      for await (const chunk of openPayload(input, fileKey)) {
        yield chunk;
        signal.throwIfAborted();
      }
    } catch (error) {
      throw failed(error, input, signal, "The age library could not decrypt", decryptionFailure);
    }
  };
}

/**
 * Decrypts with what can: a passphrase with node:crypto, since `age` reads it from a terminal only; keys with the
 * program that is asked for, `auto` by the file's recipients. Either is given the file binary, and its exit code 0
 * counts only when it was a whole one.
 */
export function ageDecryption(options: AgeDecryption): Stage {
  const { program = "auto" } = options;
  const age = program === "library" ? undefined : findProgram("age");
  // The first is for its error.
  if (program === "age" && age === undefined) ageProgramDecryption(options, age);
  return async function* (source, signal) {
    const framed = new FramedSource(source);
    const { head, stream } = await peek(abortable(framed, signal), ARMOR_PEEK);
    const file = await splitHeader(isArmored(Buffer.concat(head)) ? unarmor(stream) : stream);
    yield* (await chosen(options, age, stanzaKinds(file.header)))(file, signal);
    framed.finish();
  };
}

async function chosen(options: AgeDecryption, age: string | undefined, kinds: readonly string[]): Promise<AgeStage> {
  const { identities, passphrase, program = "auto" } = options;
  if (kinds.includes("scrypt")) {
    if (passphrase === undefined)
      throw decryptionFailure("The version is encrypted with a passphrase, but only keys were given.");
    if (program === "age") {
      throw decryptionFailure(
        "The age program reads a passphrase from a terminal only; use the library (--program library).",
      );
    }
    return ageLibraryDecryption({ ...options, identities: [] });
  }
  if (identities.length === 0)
    throw decryptionFailure("The version is encrypted to age keys, but only a passphrase was given.");
  if (age === undefined) return ageLibraryDecryption(options);
  const wanted = identities.flatMap((identity) =>
    typeof identity === "string" ? lines(identity) : lines(Buffer.from(identity).toString("latin1")),
  );
  const onlyLibrary = await onlyLibraryDecrypts(age, kinds, wanted);
  if (!onlyLibrary) return ageProgramDecryption(options, age);
  if (program === "auto") return ageLibraryDecryption(options);
  throw decryptionFailure(
    `${age} is too old for post-quantum keys; use the library (--program library), or install age 1.3.`,
  );
}

/** Encrypts with the program that is asked for, `auto` by the recipients. */
export function ageEncryption(options: Extract<Encryption, { kind: "age" }>): Stage {
  const { program = "auto", recipients } = options;
  const age = program === "library" ? undefined : findProgram("age");
  if (program === "age") return ageProgramEncryption(options, age);
  if (age === undefined) return ageLibraryEncryption(options);
  return async function* (source, signal) {
    const useLibrary = await onlyLibraryEncrypts(age, lines(...recipients));
    yield* (useLibrary ? ageLibraryEncryption(options) : ageProgramEncryption(options, age))(source, signal);
  };
}

function needsProgram(what: string): Error {
  return decryptionFailure(
    `${what} the age program, which is not used here: install age, and ask for no other program.`,
  );
}

/** Nonce and tag of a payload without bytes. */
const EMPTY_PAYLOAD = 32;

const INTRODUCTION = Buffer.from("age-encryption.org/v1\n");

/** Whether the content of an identity file is itself an age file: identities protected by a passphrase. */
function isAgeFile(content: string | Uint8Array): boolean {
  const head = Buffer.from(content.slice(0, 64) as string);
  return [INTRODUCTION, ARMOR_BEGIN].some((begin) => head.subarray(0, begin.length).equals(begin));
}

/** The identities, those protected by a passphrase opened where it is known. */
async function openedIdentities(options: AgeDecryption): Promise<(string | Uint8Array)[]> {
  const { identities, passphrase } = options;
  return await Promise.all(
    identities.map(async (content) => {
      if (passphrase === undefined || !isAgeFile(content)) return content;
      const bytes = Buffer.from(content as string);
      const binary = bytes.subarray(0, ARMOR_BEGIN.length).equals(ARMOR_BEGIN)
        ? armor.decode(bytes.toString("latin1"))
        : bytes;
      const decrypter = new Decrypter();
      decrypter.addPassphrase(passphrase);
      try {
        return await decrypter.decrypt(binary, "text");
      } catch (cause) {
        throw decryptionFailure("The passphrase does not open the identity file.", cause);
      }
    }),
  );
}

const ARMOR_BEGIN = Buffer.from("-----BEGIN AGE ENCRYPTED FILE-----");

/** White space that may precede the armor; the server takes no more either. */
const ARMOR_PEEK = 1024 + ARMOR_BEGIN.length;

/** A new age key pair. */
export interface AgeKeyPair {
  /** `age1...`, to encrypt with. */
  recipient: string;
  /** `AGE-SECRET-KEY-1...`, to decrypt with. */
  identity: string;
}

/** Makes an age key pair (X25519), as `age-keygen` does. */
export async function generateAgeKey(): Promise<AgeKeyPair> {
  const identity = await generateX25519Identity();
  return { recipient: await identityToRecipient(identity), identity };
}

/** age v1 (https://age-encryption.org/v1): with the user's `age`, or with the library for the header and node:crypto for the payload. */
import { armor, Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { DecryptionError, EncryptionError } from "../errors.ts";
import { peek } from "../peek.ts";
import { openPayload, sealPayload, splitHeader } from "./age-payload.ts";
import { failed, WatchedSource } from "./library-stage.ts";
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
export function ageProgramDecryption(options: Extract<Decryption, { kind: "age" }>, age = findProgram("age")): Stage {
  if (age === undefined)
    throw new DecryptionError("age was asked for, but is not on the PATH; install it, or use the library.");
  return async function* (source, signal) {
    const directory = await PrivateDirectory.create();
    try {
      // As they are: an identity file may be a passphrase-protected age file or an SSH key.
      const args = ["--decrypt"];
      for (const [index, identity] of (await openedIdentities(options)).entries()) {
        const content = typeof identity === "string" && !identity.endsWith("\n") ? `${identity}\n` : identity;
        args.push("--identity", await directory.write(`identity-${index}`, content));
      }
      yield* runFilter({ program: age, args, wholeInput: false, failure: decryptionFailure }, source, signal);
    } finally {
      await directory.remove();
    }
  };
}

/** Encrypts with the library; `age1...` recipients only. The payload goes through node:crypto. */
export function ageLibraryEncryption(options: Extract<Encryption, { kind: "age" }>): Stage {
  return async function* (source, signal) {
    const input = new WatchedSource(source);
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

/** A header for these recipients, and the key in it: the library encrypts an empty payload, whose nonce and only chunk are cut off. */
async function makeHeader(recipients: readonly string[]): Promise<{ header: Uint8Array; fileKey: Uint8Array }> {
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    if (!/^age1[0-9a-z]+$/.test(recipient)) {
      const kind = recipient.startsWith("ssh-") ? "SSH keys" : "other recipients";
      throw encryptionFailure(
        `The age library knows age1... recipients only; ${kind} need the age program, which is not used here: install age, or leave the choice of the program to us.`,
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

/** Decrypts with the library, binary and armored files; `AGE-SECRET-KEY-1...` identities only. The payload goes through node:crypto. */
export function ageLibraryDecryption(options: Extract<Decryption, { kind: "age" }>): Stage {
  return async function* (source, signal) {
    const input = new WatchedSource(source);
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
      const { head, stream } = await peek(input, ARMOR_BEGIN.length);
      const armored = Buffer.concat(head).subarray(0, ARMOR_BEGIN.length).equals(ARMOR_BEGIN);
      const { header, rest } = await splitHeader(armored ? unarmor(stream) : stream);
      const fileKey = await decrypter.decryptHeader(header);
      for await (const chunk of openPayload(rest, fileKey)) {
        yield chunk;
        signal.throwIfAborted();
      }
    } catch (error) {
      throw failed(error, input, signal, "The age library could not decrypt", decryptionFailure);
    }
  };
}

function needsProgram(what: string): Error {
  return decryptionFailure(
    `${what} the age program, which is not used here: install age, or leave the choice of the program to us.`,
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
async function openedIdentities(options: Extract<Decryption, { kind: "age" }>): Promise<(string | Uint8Array)[]> {
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

/** Takes the armor off (base64 in lines between two markers), a buffer at a time; the library can only do that to a whole file. */
async function* unarmor(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let pending = "";
  let inside = false;
  for await (const chunk of source) {
    const text = pending + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString("latin1");
    const parts = text.split("\n");
    pending = parts.pop()!;
    let base64 = "";
    let ended = false;
    for (const part of parts) {
      const line = part.trim();
      ended ||= line.startsWith("-----END");
      if (inside && !ended) base64 += line;
      inside ||= line.startsWith("-----BEGIN");
    }
    // Every line but the last has 64 characters, so a buffer ends on a group of four.
    if (base64 !== "") yield Buffer.from(base64, "base64");
    if (ended) return;
  }
  if (!pending.trim().startsWith("-----END"))
    throw decryptionFailure("The armored age file ends before its last line.");
}

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

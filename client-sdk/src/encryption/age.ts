/** age v1 (https://age-encryption.org/v1): with the user's `age`, which is ten times faster, or with the library. */
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { DecryptionError, EncryptionError } from "../errors.ts";
import { peek } from "../peek.ts";
import { fromWebStream, toWebStream } from "../streams.ts";
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
      for (const [index, identity] of options.identities.entries()) {
        args.push(
          "--identity",
          await directory.write(`identity-${index}`, identity.endsWith("\n") ? identity : `${identity}\n`),
        );
      }
      yield* runFilter({ program: age, args, wholeInput: false, failure: decryptionFailure }, source, signal);
    } finally {
      await directory.remove();
    }
  };
}

/** Encrypts with the library; `age1...` recipients only. */
export function ageLibraryEncryption(options: Extract<Encryption, { kind: "age" }>): Stage {
  return async function* (source, signal) {
    const input = new WatchedSource(source);
    try {
      const encrypter = new Encrypter();
      for (const recipient of lines(...options.recipients)) encrypter.addRecipient(recipient);
      yield* fromWebStream(await encrypter.encrypt(toWebStream(input) as ReadableStream<Uint8Array>), signal);
    } catch (error) {
      throw failed(error, input, signal, "The age library could not encrypt", encryptionFailure);
    }
  };
}

/** Decrypts with the library, binary and armored files; `AGE-SECRET-KEY-1...` identities only. */
export function ageLibraryDecryption(options: Extract<Decryption, { kind: "age" }>): Stage {
  return async function* (source, signal) {
    const input = new WatchedSource(source);
    try {
      const decrypter = new Decrypter();
      for (const identity of lines(...options.identities)) decrypter.addIdentity(identity);
      const { head, stream } = await peek(input, ARMOR_BEGIN.length);
      const armored = Buffer.concat(head).subarray(0, ARMOR_BEGIN.length).equals(ARMOR_BEGIN);
      const binary = armored ? unarmor(stream) : stream;
      yield* fromWebStream(await decrypter.decrypt(toWebStream(binary) as ReadableStream<Uint8Array>), signal);
    } catch (error) {
      throw failed(error, input, signal, "The age library could not decrypt", decryptionFailure);
    }
  };
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

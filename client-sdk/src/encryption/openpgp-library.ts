/**
 * OpenPGP with the library `openpgp`, for machines without `gpg`: about half as fast, and without the user's keyring.
 *
 * What it writes opens with `gpg -d` (2.2 and later), and the reverse.
 */
import { randomBytes } from "node:crypto";
import {
  createMessage,
  decrypt,
  decryptKey,
  encrypt,
  generateKey,
  generateSessionKey,
  type Key,
  type Message,
  type PrivateKey,
  readKeys,
  readMessage,
  readPrivateKeys,
} from "openpgp";
import { replay } from "../peek.ts";
import { fromWebStream, toWebStream } from "../streams.ts";
import { failed, WatchedSource } from "./library-stage.ts";
import {
  checkPassphrase,
  type Decryption,
  decryptionFailure,
  type Encryption,
  encryptionFailure,
  type Stage,
} from "./options.ts";

/** The library's type for streams comes from a package that is not installed; this is what it means. */
type Bytes = ReadableStream<Uint8Array>;

/** Encrypts with the library: AES-256, binary, no compression; with AEAD only where every key asks for it. */
export function openpgpEncryption(options: Extract<Encryption, { kind: "openpgp" }>): Stage {
  const { publicKeys = [], passphrase } = options;
  return async function* (source, signal) {
    const input = new WatchedSource(source);
    try {
      const encryptionKeys = (await Promise.all(publicKeys.map((key) => readPublicKeys(key)))).flat();
      // A key that does not list AES-256 would make the library choose AES-128; the session key says what is used.
      const suite = encryptionKeys.length > 0 ? await generateSessionKey({ encryptionKeys }) : undefined;
      const sessionKey = { ...suite, data: new Uint8Array(randomBytes(32)), algorithm: "aes256" as const };
      const output = (await encrypt({
        message: await createMessage({ binary: toWebStream(input) as never }),
        encryptionKeys,
        sessionKey,
        format: "binary",
        ...(passphrase === undefined ? {} : { passwords: [passphrase] }),
      })) as unknown as Bytes;
      yield* fromWebStream(output, signal);
    } catch (error) {
      throw failed(error, input, signal, "The library could not encrypt", encryptionFailure);
    }
  };
}

/**
 * Decrypts with the library while the bytes come: a changed message is seen at its end at the latest, and fails the stage there.
 */
export function openpgpDecryption(options: Extract<Decryption, { kind: "openpgp" }>): Stage {
  const { privateKeys = [], passphrase } = options;
  return async function* (source, signal) {
    const input = new WatchedSource(source);
    try {
      const keys = (await Promise.all(privateKeys.map((key) => readAndUnlock(key, passphrase)))).flat();
      const message = await openMessage(input);
      const usesKey = keys.length > 0 && addressedTo(message, keys);
      if (!usesKey && passphrase === undefined) {
        throw decryptionFailure(
          "The version is encrypted to other keys than those given, and no passphrase was given.",
        );
      }
      const { data } = await decrypt({
        message,
        format: "binary",
        config: { allowUnauthenticatedStream: true },
        ...(usesKey ? { decryptionKeys: keys } : { passwords: [passphrase!] }),
      });
      yield* fromWebStream(data as unknown as Bytes, signal);
    } catch (error) {
      throw failed(error, input, signal, "The library could not decrypt", decryptionFailure);
    }
  };
}

/** A new OpenPGP key pair, as the user keeps it. */
export interface OpenPgpKeyPair {
  /** ASCII-armored public key, to encrypt with. */
  publicKey: string;
  /** ASCII-armored private key, to decrypt with; protected when a passphrase was given. */
  privateKey: string;
  /** Fingerprint of the primary key, upper-case hexadecimal as gpg shows it. */
  fingerprint: string;
}

/**
 * Makes an OpenPGP key pair: version 4, Ed25519 to sign and Curve25519 to encrypt in the forms that gpg 2.2 reads; it does not expire, since a
 * backup must open years later.
 *
 * @param options - name and address of the owner; a passphrase protects the private key
 * @throws InvalidRequestError when the passphrase is empty or more than one line, which no restore would take
 */
export async function generateOpenPgpKey(options: {
  name: string;
  email?: string;
  passphrase?: string;
}): Promise<OpenPgpKeyPair> {
  const { name, email, passphrase } = options;
  checkPassphrase(passphrase);
  const { publicKey, privateKey } = await generateKey({
    type: "ecc",
    curve: "curve25519Legacy",
    userIDs: [{ name, ...(email === undefined ? {} : { email }) }],
    format: "object",
    ...(passphrase === undefined ? {} : { passphrase }),
  });
  return {
    publicKey: publicKey.armor(),
    privateKey: privateKey.armor(),
    fingerprint: publicKey.getFingerprint().toUpperCase(),
  };
}

async function readPublicKeys(file: Uint8Array): Promise<Key[]> {
  return isArmored(file)
    ? readKeys({ armoredKeys: new TextDecoder().decode(file) })
    : readKeys({ binaryKeys: new Uint8Array(file) });
}

async function readAndUnlock(file: Uint8Array, passphrase: string | undefined): Promise<PrivateKey[]> {
  const keys = await (isArmored(file)
    ? readPrivateKeys({ armoredKeys: new TextDecoder().decode(file) })
    : readPrivateKeys({ binaryKeys: new Uint8Array(file) }));
  return Promise.all(
    keys.map(async (privateKey) => {
      if (privateKey.isDecrypted()) return privateKey;
      if (passphrase === undefined) {
        throw decryptionFailure("The private key is protected with a passphrase, but none was given.");
      }
      return decryptKey({ privateKey, passphrase });
    }),
  );
}

/** The first octet of a binary packet has its highest bit set (RFC 9580 section 4.2), a letter or dash has not. */
function isArmored(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes[0]! < 0x80;
}

async function openMessage(source: AsyncIterable<Uint8Array>): Promise<Message<Uint8Array>> {
  const iterator = source[Symbol.asyncIterator]();
  let first: Uint8Array = new Uint8Array(0);
  while (first.length === 0) {
    const result = await iterator.next();
    if (result.done === true) throw decryptionFailure("Expected an OpenPGP message, but the version is empty.");
    first = result.value;
  }
  const bytes = toWebStream(replay([first], iterator));
  const message = isArmored(first)
    ? await readMessage({ armoredMessage: bytes.pipeThrough(new TextDecoderStream()) as never })
    : await readMessage({ binaryMessage: bytes as never });
  return message as Message<Uint8Array>;
}

/** Whether one of the keys is named by the message; a message may also hide for whom it is, with a key id of zeros. */
function addressedTo(message: Message<Uint8Array>, keys: readonly PrivateKey[]): boolean {
  return message
    .getEncryptionKeyIDs()
    .some((id) => /^0+$/.test(id.toHex()) || keys.some((key) => key.getKeys(id).length > 0));
}

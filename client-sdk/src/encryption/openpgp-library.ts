/**
 * OpenPGP with the library `openpgp`, for machines without `gpg`: about half as fast, and without the user's keyring.
 *
 * What it writes opens with `gpg -d` (2.2 and later), and the reverse.
 */
import { randomBytes } from "node:crypto";
import {
  createMessage,
  decrypt,
  decryptSessionKeys,
  encrypt,
  generateKey,
  generateSessionKey,
  type Message,
  type PrivateKey,
  readMessage,
} from "openpgp";
import { orAborted } from "../abort.ts";
import { StrongroomError } from "../errors.ts";
import { fromWebStream, toWebStream } from "../streams.ts";
import { keyProblems, missingInLibrary } from "./key-problems.ts";
import { failed, RecordedSource } from "./library-stage.ts";
import type { MessageStage, OpenPgpMessage } from "./openpgp-message.ts";
import {
  checkPassphrase,
  type Decryption,
  decryptionFailure,
  type Encryption,
  encryptionFailure,
  type Stage,
} from "./options.ts";
import { PACKET } from "./packets.ts";
import { literalData } from "./plaintext.ts";
import { openProtectedData, type SessionKey } from "./protected-data.ts";
import { readAndUnlock, readPublicKeys } from "./read-keys.ts";

/** The library's type for streams comes from a package that is not installed; this is what it means. */
type Bytes = ReadableStream<Uint8Array>;

/**
 * Encrypts with the library: AES-256, binary, no compression; with AEAD only for keys of version 6, which no gpg reads
 * anyway.
 */
export function openpgpEncryption(options: Extract<Encryption, { kind: "openpgp" }>): Stage {
  const { publicKeys = [], passphrase } = options;
  return async function* (source, signal) {
    const input = new RecordedSource(source);
    try {
      const encryptionKeys = (await Promise.all(publicKeys.map((key) => readPublicKeys(key)))).flat();
      const problems = await keyProblems(encryptionKeys, true);
      if (problems !== "") throw encryptionFailure(problems.trimEnd());
      // Data with AEAD, which keys of version 4 may ask for, no gpg opens. A key that does not list AES-256 would make
      // the library choose AES-128; the session key says what is used.
      const withAead = encryptionKeys.length > 0 && encryptionKeys.every((key) => key.keyPacket.version === 6);
      const suite = withAead ? await generateSessionKey({ encryptionKeys }) : undefined;
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

/** Opens old keys and messages, too: their owner wants the dump back, whatever is thought of the algorithm today. */
const LENIENT = {
  allowUnauthenticatedStream: true,
  minRSABits: 0,
  rejectPublicKeyAlgorithms: new Set<never>(),
  rejectCurves: new Set<never>(),
  rejectHashAlgorithms: new Set<never>(),
};

/**
 * Decrypts with the library: it finds the session key; data of version 1 is decrypted with node:crypto, data with AEAD
 * by the library. A changed message is seen at its end at the latest, and fails the stage there.
 */
export function openpgpDecryption(options: Extract<Decryption, { kind: "openpgp" }>): MessageStage {
  return async function* (message, signal) {
    try {
      const keys = await orAborted(sessionKeys(message, options), signal);
      if (message.data.type === PACKET.protectedData && message.data.version === 1) {
        const plain = new RecordedSource(openProtectedData(message.body(), keys));
        yield* literalData(plain);
        // What is wrong at the very end is seen although the dump ended before.
        if (plain.failure !== undefined) throw plain.failure.error;
        if (!plain.ended) throw decryptionFailure("The encrypted data goes on after the dump's end.");
        return;
      }
      const whole = await orAborted(readMessage({ binaryMessage: toWebStream(message.whole()) as never }), signal);
      const { data } = await orAborted(
        decrypt({ message: whole, format: "binary", config: LENIENT, sessionKeys: keys as never }),
        signal,
      );
      yield* fromWebStream(data as unknown as Bytes, signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof StrongroomError) throw error;
      throw decryptionFailure(`The library could not decrypt: ${reasonOf(error)}`, error);
    } finally {
      message.close();
    }
  };
}

/**
 * The session keys that keys and passphrase give; of a passphrase without a check of its own that may be a wrong one.
 * @throws DecryptionError when there is none
 */
async function sessionKeys(
  message: OpenPgpMessage,
  { privateKeys = [], passphrase }: Extract<Decryption, { kind: "openpgp" }>,
): Promise<SessionKey[]> {
  const keys = (await Promise.all(privateKeys.map((key) => readAndUnlock(key, passphrase)))).flat();
  const stub = (await readMessage({
    binaryMessage: new Uint8Array(message.stub()),
    config: LENIENT,
  })) as Message<Uint8Array>;
  const found: SessionKey[] = [];
  let failure: unknown;
  const ask = async (how: { decryptionKeys: PrivateKey[] } | { passwords: string[] }): Promise<void> => {
    try {
      found.push(...((await decryptSessionKeys({ message: stub, ...how, config: LENIENT })) as SessionKey[]));
    } catch (error) {
      failure ??= error;
    }
  };
  const addressed = keys.length > 0 && addressedTo(stub, keys);
  if (addressed) await ask({ decryptionKeys: keys });
  if (found.length === 0 && passphrase !== undefined && message.has("passphrase"))
    await ask({ passwords: [passphrase] });
  if (found.length > 0) return found;
  const missing = keys.map(missingInLibrary).find((problem) => problem !== "");
  if (missing !== undefined) throw decryptionFailure(missing);
  if (!addressed && keys.length > 0 && message.has("key")) {
    throw decryptionFailure("The version is encrypted to other keys than those given.");
  }
  if (keys.length === 0 && !message.has("passphrase")) {
    throw decryptionFailure("The version is encrypted to keys, and only a passphrase was given.");
  }
  if (passphrase === undefined) {
    throw decryptionFailure("The version is encrypted to other keys than those given, and no passphrase was given.");
  }
  throw decryptionFailure(
    `The key or the passphrase does not open the version${failure === undefined ? "" : `: ${reasonOf(failure)}`}`,
    failure,
  );
}

function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/^Error (decrypting|encrypting)[a-z ]*: /, "").split("\n")[0]!;
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
 * Makes an OpenPGP key pair: version 4, Ed25519 to sign and Curve25519 to encrypt in the forms that gpg 2.2 reads; it
 * does not expire, since a backup must open years later.
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

/** Whether one of the keys is named by the message; a message may also hide for whom it is, with a key id of zeros. */
function addressedTo(message: Message<Uint8Array>, keys: readonly PrivateKey[]): boolean {
  return message
    .getEncryptionKeyIDs()
    .some((id) => /^0+$/.test(id.toHex()) || keys.some((key) => key.getKeys(id).length > 0));
}

/** Chooses what encrypts and decrypts. */

import { DecryptionError, EncryptionError } from "../errors.ts";
import { ageDecryption, ageEncryption } from "./age.ts";
import { FramedSource } from "./framed.ts";
import { gpgDecryption, gpgEncryption } from "./gpg.ts";
import { gpgObstacles } from "./gpg-abilities.ts";
import { keyProblems, knownToGpg } from "./key-problems.ts";
import { abortable } from "./library-stage.ts";
import { openpgpDecryption, openpgpEncryption } from "./openpgp-library.ts";
import { type MessageStage, OpenPgpMessage } from "./openpgp-message.ts";
import {
  checkDecryption,
  checkEncryption,
  type Decryption,
  decryptionFailure,
  type Encryption,
  type Stage,
} from "./options.ts";
import { findProgram } from "./programs.ts";
import { readPublicKeys } from "./read-keys.ts";

const unchanged: Stage = (source) => source;

/**
 * The stage that encrypts. Nothing is read or started before it is used.
 *
 * @throws InvalidRequestError when the request makes no sense
 * @throws EncryptionError when the program it needs is not installed
 */
export function encryptionStage(encryption: Encryption): Stage {
  checkEncryption(encryption);
  if (encryption.kind === "none") return unchanged;
  if (encryption.kind === "age") return ageEncryption(encryption);
  const { program = "auto" } = encryption;
  const gpg = program === "library" ? undefined : findProgram("gpg");
  const { publicKeys = [], recipients = [] } = encryption;
  if (program === "gpg" || (gpg !== undefined && (recipients.length > 0 || publicKeys.length === 0))) {
    return gpgEncryption(encryption);
  }
  if (gpg !== undefined) {
    return async function* (source, signal) {
      // A key that cannot be read is explained by gpg as well as by the library.
      const keys = await Promise.all(publicKeys.map((key) => readPublicKeys(key))).catch(() => undefined);
      const useLibrary =
        keys !== undefined && !knownToGpg(keys.flat()) && (await keyProblems(keys.flat(), true)) === "";
      yield* (useLibrary ? openpgpEncryption(encryption) : gpgEncryption(encryption, gpg))(source, signal);
    };
  }
  if ((encryption.recipients ?? []).length > 0) {
    throw new EncryptionError(
      "Recipients are looked up in the gpg keyring, but gpg is not on the PATH; install it, or give public keys.",
    );
  }
  return openpgpEncryption(encryption);
}

/**
 * The stage that decrypts. Nothing is read or started before it is used.
 *
 * @throws InvalidRequestError when the request makes no sense
 * @throws DecryptionError when the program it needs is not installed
 */
export function decryptionStage(decryption: Decryption): Stage {
  checkDecryption(decryption);
  if (decryption.kind === "none") return unchanged;
  if (decryption.kind === "age") return ageDecryption(decryption);
  const { program = "auto" } = decryption;
  const gpg = program === "library" ? undefined : findProgram("gpg");
  const canUseLibrary = (decryption.privateKeys ?? []).length > 0 || decryption.passphrase !== undefined;
  if (program === "gpg" && gpg === undefined) return fromMessage(gpgDecryption(decryption, gpg));
  if (gpg === undefined && !canUseLibrary) {
    throw new DecryptionError(
      "The keyring is read by gpg, but gpg is not on the PATH; install it, or give private keys.",
    );
  }
  return fromMessage(async function* (message, signal) {
    const obstacles = gpg === undefined ? [] : await gpgObstacles(message, gpg);
    if (gpg === undefined || (program === "auto" && canUseLibrary && obstacles.length > 0)) {
      yield* openpgpDecryption(decryption)(message, signal);
      return;
    }
    try {
      yield* gpgDecryption(decryption, gpg)(message, signal);
    } catch (error) {
      if (obstacles.length === 0 || !(error instanceof DecryptionError)) throw error;
      throw decryptionFailure(
        `${gpg} cannot open this message: ${obstacles.join("; ")}. Use the library (--program library), with ` +
          "the private key as a file or the passphrase.",
        error,
      );
    }
  });
}

/** A stage that reads the beginning of the message first, and in the end that it was a whole one. */
function fromMessage(open: MessageStage): Stage {
  return async function* (source, signal) {
    const framed = new FramedSource(source);
    const message = await OpenPgpMessage.read(abortable(framed, signal));
    try {
      yield* open(message, signal);
    } finally {
      message.close();
    }
    framed.finish();
  };
}

/** Chooses what encrypts and decrypts. */

import { DecryptionError, EncryptionError } from "../errors.ts";
import { ageLibraryDecryption, ageLibraryEncryption, ageProgramDecryption, ageProgramEncryption } from "./age.ts";
import { gpgDecryption, gpgEncryption } from "./gpg.ts";
import { openpgpDecryption, openpgpEncryption } from "./openpgp-library.ts";
import { checkDecryption, checkEncryption, type Decryption, type Encryption, type Stage } from "./options.ts";
import { findProgram } from "./programs.ts";

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
  const { program = "auto" } = encryption;
  if (encryption.kind === "age") {
    const useProgram = program === "age" || (program === "auto" && findProgram("age") !== undefined);
    return useProgram ? ageProgramEncryption(encryption) : ageLibraryEncryption(encryption);
  }
  if (program === "gpg" || (program === "auto" && findProgram("gpg") !== undefined)) return gpgEncryption(encryption);
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
  const { program = "auto" } = decryption;
  if (decryption.kind === "age") {
    const useProgram = program === "age" || (program === "auto" && findProgram("age") !== undefined);
    return useProgram ? ageProgramDecryption(decryption) : ageLibraryDecryption(decryption);
  }
  if (program === "gpg" || (program === "auto" && findProgram("gpg") !== undefined)) return gpgDecryption(decryption);
  if ((decryption.privateKeys ?? []).length === 0 && decryption.passphrase === undefined) {
    throw new DecryptionError(
      "The keyring is read by gpg, but gpg is not on the PATH; install it, or give private keys.",
    );
  }
  return openpgpDecryption(decryption);
}

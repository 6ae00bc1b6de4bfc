/** What a caller can ask for, and the checks that need neither a program nor a byte. */
import { DecryptionError, EncryptionError, InvalidRequestError, type StrongroomError } from "../errors.ts";

/** How a dump is encrypted before it leaves this machine. */
export type Encryption =
  /** The source is ciphertext already (one OpenPGP message or one age file). */
  | { kind: "none" }
  | {
      kind: "openpgp";
      /** Contents of public key files, armored or binary, one key in each. */
      publicKeys?: Uint8Array[];
      /** Names, addresses or fingerprints of keys in the user's keyring; needs `gpg`. */
      recipients?: string[];
      /** A passphrase, instead of or besides the keys; one line. */
      passphrase?: string;
      /**
       * What encrypts: the user's `gpg` (faster, knows the keyring), the library, or `auto`: `gpg` where it is
       * installed and knows the keys.
       */
      program?: "auto" | "gpg" | "library";
    }
  | {
      kind: "age";
      /** `age1...` recipients; with the `age` program also SSH keys and plugins. */
      recipients: string[];
      /**
       * What encrypts: the user's `age`, the library, or `auto`: `age` where it is installed and knows the recipients.
       */
      program?: "auto" | "age" | "library";
    };

/** How a version is decrypted. */
export type Decryption =
  /** The ciphertext is put out as it is stored. */
  | { kind: "none" }
  | {
      kind: "openpgp";
      /**
       * Contents of private key files, armored or binary. Without them `gpg` uses the user's keyring and smart cards.
       */
      privateKeys?: Uint8Array[];
      /** Passphrase of the key, or of the message; one line. */
      passphrase?: string;
      /**
       * What decrypts: the user's `gpg`, the library, or `auto`: `gpg` where it is installed, unless the message has a
       * form that only the library opens. The keyring needs `gpg`.
       */
      program?: "auto" | "gpg" | "library";
    }
  | {
      kind: "age";
      /**
       * Contents of identity files: lines of `AGE-SECRET-KEY-1...`, comments are fine. With the `age` program also SSH
       * private keys, plugins, and files protected by a passphrase, which it asks for on the terminal. May be empty
       * where there is a passphrase.
       */
      identities: (string | Uint8Array)[];
      /** Passphrase of protected identity files, so that nobody is asked; or of the version itself (`age -p`). */
      passphrase?: string;
      /** What decrypts, as for encryption. */
      program?: "auto" | "age" | "library";
    };

/** A step in the pipeline of bytes: reads one stream, gives another. */
export type Stage = (source: AsyncIterable<Uint8Array>, signal: AbortSignal) => AsyncIterable<Uint8Array>;

/** Makes the error of a failed step. */
export type Failure = (message: string, cause?: unknown) => StrongroomError;

/** An {@link EncryptionError} that keeps the error it was made from. */
export const encryptionFailure: Failure = (message, cause) => new EncryptionError(message, { cause });

/** A {@link DecryptionError} that keeps the error it was made from. */
export const decryptionFailure: Failure = (message, cause) => new DecryptionError(message, { cause });

function refuse(message: string): never {
  throw new InvalidRequestError(message, { code: "invalid_argument" });
}

/**
 * Checks what was asked for.
 * @throws InvalidRequestError when nothing could decrypt the result, or a value cannot be passed to a program safely
 */
export function checkEncryption(encryption: Encryption): void {
  if (encryption.kind === "openpgp") {
    const { publicKeys = [], recipients = [], passphrase } = encryption;
    if (publicKeys.length + recipients.length === 0 && passphrase === undefined) {
      refuse(
        "OpenPGP encryption needs a public key, a recipient in the gpg keyring or a passphrase, but none was given.",
      );
    }
    if (recipients.some((r) => r.trim() === "")) refuse("A recipient of OpenPGP encryption is empty.");
    if (recipients.length > 0 && encryption.program === "library") {
      refuse(
        "Recipients are looked up in the gpg keyring, which the library cannot read; give their public keys, " +
          "or use gpg.",
      );
    }
    checkPassphrase(passphrase);
  } else if (encryption.kind === "age") {
    checkLines(encryption.recipients, "age encryption needs at least one recipient (age1...).");
  }
}

/**
 * Checks what was asked for.
 * @throws InvalidRequestError when there is nothing to decrypt with
 */
export function checkDecryption(decryption: Decryption): void {
  if (decryption.kind === "openpgp") {
    const { privateKeys = [], passphrase, program } = decryption;
    if (program === "library" && privateKeys.length === 0 && passphrase === undefined) {
      refuse("OpenPGP decryption with the library needs a private key or a passphrase, but neither was given.");
    }
    checkPassphrase(passphrase);
  } else if (decryption.kind === "age") {
    checkPassphrase(decryption.passphrase);
    if (decryption.passphrase !== undefined && decryption.identities.length === 0) return;
    checkLines(
      decryption.identities.map((identity) =>
        typeof identity === "string" ? identity : Buffer.from(identity).toString("latin1"),
      ),
      "age decryption needs at least one identity (AGE-SECRET-KEY-1...).",
    );
  }
}

/**
 * gpg reads a passphrase up to the end of a line; a longer one would lock a version, or a key, that only the library
 * opens.
 * @throws InvalidRequestError when it is empty or more than one line
 */
export function checkPassphrase(passphrase: string | undefined): void {
  if (passphrase === undefined) return;
  if (passphrase === "") refuse("The passphrase is empty.");
  if (/[\r\n\0]/.test(passphrase)) refuse("Expected the passphrase as one line, without a line break at its end.");
}

function checkLines(values: readonly string[], message: string): void {
  if (!values.some((value) => lines(value).length > 0)) refuse(message);
}

/** The lines of recipient or identity files that are neither empty nor comments. */
export function lines(...values: readonly string[]): string[] {
  return values
    .flatMap((value) => value.split(/\r?\n/))
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

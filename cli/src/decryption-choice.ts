import type { Decryption, Version } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import type { OptionValues } from "@strongroom/command-line/values";
import type { Context, Sdk } from "./context.ts";
import { givenPassphrase, programFor } from "./encryption-choice.ts";
import { readInputFile } from "./files/input-files.ts";
import { ageIdentities, isProtectedIdentity, isWholeIdentity, keyKind } from "./files/key-files.ts";
import { OPTIONS } from "./options.ts";

/** The options that choose how a version is decrypted. */
export const DECRYPTION_OPTIONS = [
  OPTIONS.privateKey,
  OPTIONS.identity,
  OPTIONS.passphraseFile,
  OPTIONS.program,
] as const;

/**
 * Decides from options and environment how a version is decrypted; undefined when no key was given.
 * @throws {UsageError} for a file that is no private key, or keys of both kinds.
 */
export async function decryptionFor(
  values: OptionValues,
  context: Pick<Context, "env">,
): Promise<Decryption | undefined> {
  const privateKeys: Uint8Array[] = [];
  const identities: (string | Uint8Array)[] = [];
  let isProtected = false;
  const take = (bytes: Uint8Array): void => {
    isProtected ||= isProtectedIdentity(bytes);
    // What is whole goes to age as it is.
    if (isWholeIdentity(bytes)) identities.push(bytes);
    else identities.push(...ageIdentities(bytes));
  };
  for (const path of values.get(OPTIONS.privateKey)) {
    const bytes = await readInputFile(path, "private key");
    const kind = keyKind(bytes);
    if (kind === "openpgp-private") privateKeys.push(bytes);
    else if (kind === "age-private") take(bytes);
    else if (kind === "unknown")
      throw new UsageError(`${path} holds neither an OpenPGP private key nor an age identity.`);
    else throw new UsageError(`${path} is a public key; decryption needs the private one.`);
  }
  for (const path of values.get(OPTIONS.identity)) {
    const bytes = await readInputFile(path, "identity");
    const kind = keyKind(bytes);
    if (kind === "age-public") throw new UsageError(`${path} is a public key; give --identity the private one.`);
    if (kind !== "age-private")
      throw new UsageError(`${path} holds no age identity (lines that begin with AGE-SECRET-KEY-, or an SSH key).`);
    take(bytes);
  }
  if (identities.length > 0 && privateKeys.length > 0)
    throw new UsageError("There are OpenPGP private keys and age identities; give those of one kind.");
  const passphrase = await givenPassphrase(values, context);
  if (identities.length > 0) {
    const opening = isProtected && passphrase !== undefined ? { passphrase } : {};
    return { kind: "age", identities, program: programFor(values, "age"), ...opening };
  }
  if (privateKeys.length === 0 && passphrase === undefined) return undefined;
  if (privateKeys.length === 0 && values.get(OPTIONS.program) === "age")
    throw new UsageError("--program age cannot do this: the age program reads a passphrase from a terminal only.", {
      hint: "leave --program out, or give --program library",
    });
  return {
    kind: "openpgp",
    program: programFor(values, "gpg"),
    ...(privateKeys.length > 0 ? { privateKeys } : {}),
    ...(passphrase === undefined ? {} : { passphrase }),
  };
}

/** What `restore` does without a key: gpg knows the user's keyring and smart cards. */
export function keyringDecryption(values: OptionValues): Decryption {
  if (values.get(OPTIONS.program) === "age")
    throw new UsageError("--program age cannot do this: no age identity was given.", { hint: "give --identity FILE" });
  return { kind: "openpgp", program: programFor(values, "gpg") };
}

/**
 * Compares the key with what the version is, before its first byte.
 * @throws {UsageError} when the one cannot open the other.
 */
export function checkFits(decryption: Decryption, version: Version, sdk: Pick<Sdk, "EncryptionFormat">): void {
  const { EncryptionFormat } = sdk;
  const what = `version ${version.number} is encrypted with`;
  // A passphrase may be that of an age file as well; the SDK goes by what the version is.
  const passphraseAlone =
    decryption.kind === "openpgp" && decryption.passphrase !== undefined && decryption.privateKeys === undefined;
  if (decryption.kind === "openpgp" && version.encryptionFormat === EncryptionFormat.AGE && !passphraseAlone) {
    const given = decryption.privateKeys === undefined ? "" : ", and the private key that was given is for OpenPGP";
    throw new UsageError(`${what} age${given}.`, { hint: "give --identity FILE with an age identity" });
  }
  if (decryption.kind === "age" && version.encryptionFormat === EncryptionFormat.OPENPGP) {
    throw new UsageError(`${what} OpenPGP, and the identity that was given is for age.`, {
      hint: "give --private-key FILE, or --passphrase-file FILE",
    });
  }
}

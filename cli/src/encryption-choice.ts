import type { Encryption } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { flagOf, type Option } from "@strongroom/command-line/option";
import type { OptionValues } from "@strongroom/command-line/values";
import type { Context } from "./context.ts";
import { secretFromEnv } from "./context.ts";
import { readInputFile, readSecretFile } from "./files/input-files.ts";
import {
  ageIdentities,
  ageRecipients,
  foreignLine,
  isAgeRecipient,
  isWholeIdentity,
  keyKind,
} from "./files/key-files.ts";
import { OPTIONS, SECRETS } from "./options.ts";

/** The options that choose how a dump is encrypted. */
export const ENCRYPTION_OPTIONS = [
  OPTIONS.publicKey,
  OPTIONS.recipient,
  OPTIONS.recipientsFile,
  OPTIONS.passphraseFile,
  OPTIONS.encryption,
  OPTIONS.program,
] as const;

const NO_KEY_HINT = [
  "give one of",
  "  --public-key backup.pub.asc          (made with: strongroom keygen --name backup)",
  "  --recipient backup@example.org       (a key of your gpg keyring)",
  "  --recipient age1...                  (an age key)",
  "  --passphrase-file passphrase.txt",
  "  --encryption none                    (the input is encrypted already)",
].join("\n");

/**
 * Decides from options and environment how a dump is encrypted. A key file speaks for itself: what is in it decides
 * between OpenPGP and age.
 * @throws {UsageError} when there is no key, keys of both kinds, a private key, or a program that does not fit.
 */
export async function encryptionFor(values: OptionValues, context: Pick<Context, "env">): Promise<Encryption> {
  const kind = values.get(OPTIONS.encryption);
  if (kind === "none") return withoutEncryption(values);
  const publicKeys: Uint8Array[] = [];
  const age: string[] = [];
  for (const path of values.get(OPTIONS.publicKey)) {
    const bytes = await readInputFile(path, "public key");
    switch (keyKind(bytes)) {
      case "openpgp-public":
        publicKeys.push(bytes);
        break;
      case "age-public":
        age.push(...ageRecipients(bytes));
        break;
      case "openpgp-private":
      case "age-private":
        throw new UsageError(`${path} is a private key; give --public-key the public one.`, {
          hint: "keep private keys off machines that only make backups",
        });
      default:
        throw new UsageError(`${path} holds neither an OpenPGP public key nor age recipients.`);
    }
  }
  for (const path of values.get(OPTIONS.recipientsFile))
    age.push(...recipientsIn(await readInputFile(path, "recipients file"), path));
  const named = recipients(values, publicKeys.length + age.length > 0);
  age.push(...named.filter(isAgeRecipient));
  const keyring = named.filter((name) => !isAgeRecipient(name));
  const hasKeys = publicKeys.length + keyring.length + age.length > 0;
  const passphrase = await passphraseFor(values, context, hasKeys);
  return assemble(values, { publicKeys, keyring, age, passphrase });
}

function assemble(
  values: OptionValues,
  keys: { publicKeys: Uint8Array[]; keyring: string[]; age: string[]; passphrase: string | undefined },
): Encryption {
  const { publicKeys, keyring, age, passphrase } = keys;
  const wanted = values.get(OPTIONS.encryption);
  const openpgp = publicKeys.length > 0 || keyring.length > 0 || passphrase !== undefined;
  if (!openpgp && age.length === 0) throw new UsageError("There is no key to encrypt to.", { hint: NO_KEY_HINT });
  if (openpgp && age.length > 0)
    throw new UsageError(
      "There are OpenPGP keys (or a passphrase) and age recipients; one dump is encrypted with one of the two.",
    );
  if (wanted === "age" && openpgp)
    throw new UsageError("--encryption age: expected age recipients, got OpenPGP keys or a passphrase.");
  if (wanted === "openpgp" && !openpgp)
    throw new UsageError("--encryption openpgp: expected OpenPGP keys or a passphrase, got age recipients.");
  if (age.length > 0) return { kind: "age", recipients: age, program: programFor(values, "age") };
  return {
    kind: "openpgp",
    program: programFor(values, "gpg"),
    ...(publicKeys.length > 0 ? { publicKeys } : {}),
    ...(keyring.length > 0 ? { recipients: keyring } : {}),
    ...(passphrase === undefined ? {} : { passphrase }),
  };
}

/** `--encryption none`; keys in the environment are for other runs, keys in the arguments are a mistake. */
function withoutEncryption(values: OptionValues): Encryption {
  for (const spec of [
    OPTIONS.publicKey,
    OPTIONS.recipient,
    OPTIONS.recipientsFile,
    OPTIONS.passphraseFile,
  ] as ReadonlyArray<Option<unknown>>) {
    if (values.source(spec) === "flag")
      throw new UsageError(`--encryption none and ${flagOf(spec)} contradict each other.`);
  }
  return { kind: "none" };
}

/**
 * `--recipient`. Backup Maker's BM_RECIPIENT only names the key that is in BM_PUBLIC_KEY_PATH, which speaks for itself
 * here.
 */
function recipients(values: OptionValues, hasKeyFiles: boolean): readonly string[] {
  if (hasKeyFiles && values.source(OPTIONS.recipient) === "alias") return [];
  return values.get(OPTIONS.recipient);
}

/**
 * The passphrase to encrypt with. One in the environment is left out when there are keys: there it is usually that of
 * the private key, meant for restores, and a dump must not open with it by accident.
 */
async function passphraseFor(
  values: OptionValues,
  context: Pick<Context, "env">,
  hasKeys: boolean,
): Promise<string | undefined> {
  if (hasKeys && values.source(OPTIONS.passphraseFile) !== "flag") return undefined;
  return await givenPassphrase(values, context);
}

/** The passphrase that was given; see {@link passphraseFrom}. */
export async function givenPassphrase(
  values: OptionValues,
  context: Pick<Context, "env">,
): Promise<string | undefined> {
  return (await passphraseFrom(values, context))?.value;
}

/**
 * The passphrase that was given, and the name of the file or variable it is from. The order: --passphrase-file,
 * STRONGROOM_PASSPHRASE, STRONGROOM_PASSPHRASE_FILE, BM_PASSPHRASE.
 */
export async function passphraseFrom(
  values: OptionValues,
  context: Pick<Context, "env">,
): Promise<{ value: string; origin: string } | undefined> {
  const path = values.get(OPTIONS.passphraseFile);
  const secret = secretFromEnv(SECRETS.passphrase, context.env);
  const fileFirst = values.source(OPTIONS.passphraseFile) === "flag" || secret?.source !== "environment";
  const isFile = path !== undefined && fileFirst;
  const value = isFile ? await readSecretFile(path, "passphrase") : secret?.value;
  if (value === "") throw new UsageError("The passphrase is empty.");
  return value === undefined ? undefined : { value, origin: isFile ? path : secret!.name };
}

/** `--program` for the kind of encryption at hand. */
export function programFor<P extends "gpg" | "age">(values: OptionValues, own: P): "auto" | "library" | P {
  const program = values.get(OPTIONS.program);
  if (program === "auto" || program === "library") return program;
  if (program !== own)
    throw new UsageError(`--program ${program} cannot do this: the keys are for ${own === "gpg" ? "OpenPGP" : "age"}.`);
  return own;
}

function recipientsIn(bytes: Uint8Array, path: string): string[] {
  if (ageIdentities(bytes).length > 0 || isWholeIdentity(bytes))
    throw new UsageError(`${path} holds a private key; give --recipients-file age recipients.`);
  const found = ageRecipients(bytes);
  if (found.length === 0)
    throw new UsageError(`${path} holds no age recipient (lines that begin with age1, ssh-ed25519 or ssh-rsa).`);
  // Left out, whoever it was meant for could not read the backups, and would learn it too late.
  const foreign = foreignLine(bytes);
  if (foreign !== undefined)
    throw new UsageError(`${path}: line ${foreign} is no age recipient.`, { hint: "comments begin with #" });
  return found;
}

/**
 * OpenPGP with the user's own `gpg`: twice as fast as the library, and the way to a keyring and to smart cards.
 *
 * Key files are used in a home directory of their own that is deleted afterwards, with the agent gpg starts there, so
 * that the user's keyring neither changes nor matters. Passphrases go over a file descriptor, never into arguments or
 * the environment.
 */
import { dirname, join } from "node:path";
import { DecryptionError, EncryptionError } from "../errors.ts";
import { GpgStatus } from "./gpg-status.ts";
import { keyProblems } from "./key-problems.ts";
import type { MessageStage } from "./openpgp-message.ts";
import { type Decryption, decryptionFailure, type Encryption, encryptionFailure, type Stage } from "./options.ts";
import { PrivateDirectory } from "./private-directory.ts";
import { findProgram, runFilter, runProgram } from "./programs.ts";
import { readPublicKeys } from "./read-keys.ts";

/** How long ending an agent may take, in milliseconds. */
const KILL_TIMEOUT_MS = 10_000;

/** Never asks anything; never looks keys up in the network. */
const COMMON = ["--batch", "--no-tty", "--yes", "--no-auto-key-locate", "--no-auto-key-retrieve"];

/** Reads the passphrase from descriptor 3 instead of asking for it. */
const WITH_SECRET = ["--pinentry-mode", "loopback", "--passphrase-fd", "3"];

/** Writes its status to descriptor 4: the exit status alone does not tell whether anything was decrypted. */
const WITH_STATUS = ["--status-fd", "4"];

/**
 * Encrypts with `gpg`: AES-256, binary, and without gpg's own compression, which is sixteen times slower than
 * encrypting.
 */
export function gpgEncryption(options: Extract<Encryption, { kind: "openpgp" }>, gpg = findProgram("gpg")): Stage {
  if (gpg === undefined)
    throw new EncryptionError("gpg was asked for, but is not on the PATH; install it, or use the library.");
  const { publicKeys = [], recipients = [], passphrase } = options;
  return async function* encrypt(source, signal) {
    const home = await PrivateDirectory.create();
    // Only names need the user's keyring. Its gpg.conf may then still add recipients, as its owner wants.
    const ownHome = recipients.length === 0;
    try {
      const args = [
        ...COMMON,
        "--no-armor",
        "--compress-algo",
        "none",
        "--cipher-algo",
        "AES256",
        "--trust-model",
        "always",
      ];
      for (const [index, key] of publicKeys.entries()) {
        args.push("--recipient-file", await home.write(`recipient-${index}`, key));
      }
      for (const recipient of recipients) args.push("--recipient", recipient);
      const status = new GpgStatus();
      args.push(...WITH_STATUS);
      if (publicKeys.length + recipients.length > 0) args.push("--encrypt");
      if (passphrase !== undefined) args.push("--symmetric", ...WITH_SECRET);
      const env: Record<string, string> = ownHome ? { GNUPGHOME: home.path } : {};
      yield* runFilter(
        {
          program: gpg,
          args,
          env,
          secret: passphrase,
          wholeInput: true,
          failure: encryptionFailure,
          onStatus: (line) => status.line(line),
          explain: () => (publicKeys.length === 0 ? status.rejectedRecipient : ""),
          check: () => status.requireEncrypted(encryptionFailure),
        },
        source,
        signal,
      );
    } catch (error) {
      if (!(error instanceof EncryptionError)) throw error;
      // gpg says of every key that does not serve that it is "unusable".
      const files = [...publicKeys, ...(await exportedKeys(gpg, recipients, signal))];
      const keys = await Promise.all(files.map((key) => readPublicKeys(key))).catch(() => []);
      throw encryptionFailure(`${await keyProblems(keys.flat(), false)}${error.message}`, error);
    } finally {
      await removeHome(home, gpg, ownHome);
    }
  };
}

/**
 * Decrypts with `gpg`: with the given private keys, else with the user's keyring, or with the passphrase of the
 * message.
 */
export function gpgDecryption(
  options: Extract<Decryption, { kind: "openpgp" }>,
  gpg = findProgram("gpg"),
): MessageStage {
  if (gpg === undefined)
    throw new DecryptionError("gpg was asked for, but is not on the PATH; install it, or use the library.");
  const { privateKeys = [], passphrase } = options;
  return async function* decrypt(message, signal) {
    const ownHome = privateKeys.length > 0;
    const home = await PrivateDirectory.create();
    try {
      const env: Record<string, string> = ownHome ? { GNUPGHOME: home.path } : {};
      const run = { program: gpg, env, failure: decryptionFailure };
      for (const key of privateKeys) {
        await runProgram({ ...run, args: [...COMMON, "--import"] }, key, signal);
      }
      // A signature inside is not what is asked for here, and its key is usually not at hand: gpg would fail after the
      // last byte.
      const args = [...COMMON, "--skip-verify", ...WITH_STATUS];
      if (passphrase !== undefined) args.push(...WITH_SECRET);
      // A protected key without a passphrase is an error, not a window on somebody's screen.
      else if (ownHome) args.push("--pinentry-mode", "loopback");
      const status = new GpgStatus();
      yield* runFilter(
        {
          ...run,
          args: [...args, "--decrypt"],
          secret: passphrase,
          wholeInput: true,
          onStatus: (line) => status.line(line),
          explain: () => status.lateFailure,
          check: () => status.requireDecrypted(decryptionFailure),
        },
        message.forGpg(passphrase !== undefined || !ownHome),
        signal,
      );
    } finally {
      await removeHome(home, gpg, ownHome);
    }
  };
}

/** Keys of the user's keyring, to look at them; none when gpg does not give them. */
async function exportedKeys(gpg: string, names: readonly string[], signal: AbortSignal): Promise<Uint8Array[]> {
  if (names.length === 0) return [];
  async function* nothing(): AsyncGenerator<Uint8Array> {}
  const args = [...COMMON, "--export", "--", ...names];
  const chunks: Uint8Array[] = [];
  try {
    const run = { program: gpg, args, wholeInput: false, failure: encryptionFailure };
    for await (const chunk of runFilter(run, nothing(), signal)) chunks.push(chunk);
  } catch {
    return [];
  }
  return chunks.length === 0 ? [] : [Buffer.concat(chunks)];
}

/** Ends what gpg started in the directory, and deletes it with the keys in it. */
async function removeHome(home: PrivateDirectory, gpg: string, used: boolean): Promise<void> {
  try {
    if (used) await endAgents(home, gpg);
  } finally {
    await home.remove();
  }
}

async function endAgents(home: PrivateDirectory, gpg: string): Promise<void> {
  const program = findProgram("gpgconf") ?? join(dirname(gpg), "gpgconf");
  const run = { program, env: { GNUPGHOME: home.path }, failure: decryptionFailure };
  // Not the caller's signal: this has to happen after an abort, too. An agent that stays ends by itself once its
  // directory is gone.
  for (const args of [["--kill", "all"], ["--remove-socketdir"]]) {
    await runProgram({ ...run, args }, new Uint8Array(0), AbortSignal.timeout(KILL_TIMEOUT_MS)).catch(() => undefined);
  }
}

import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { OptionValues } from "@strongroom/command-line/values";
import { requiredCollection } from "../collection-argument.ts";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Context } from "../context.ts";
import { DECRYPTION_OPTIONS, decryptionFor, keyringDecryption } from "../decryption-choice.ts";
import { fetchVersion, type Target } from "../fetch-version.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SECRETS, SESSION_SECRETS } from "../options.ts";

const EXAMPLE = 'strongroom restore pg-main --private-key backup.key.asc -c "psql app"';

/** `strongroom restore`. */
export const restore: CommandSpec = {
  name: "restore",
  summary: "fetch a version, decrypt it, and feed a command, a file or standard output",
  details:
    "A command sees the end of its input only after every digest and the decryption were verified. If anything " +
    "is wrong, it is ended by " +
    "SIGTERM (then SIGKILL) instead. A file is written as FILE.partial and renamed when it is verified. A pipe " +
    "behind standard output sees its " +
    "end in any case: only the exit code shows it, so prefer -c or --output. A strongroom that is itself " +
    "killed by SIGKILL cannot hold its promise: " +
    "make the command all-or-nothing where it can be (psql --single-transaction).\n" +
    "A command that stops reading before the end of the dump is a failure, also when it exits with 0: add `; " +
    "cat > /dev/null` where it knows its end by itself.\n" +
    "Without a key, gpg looks into your keyring.",
  args: [["[collection]", "name of the collection"]],
  options: [
    OPTIONS.restoreCommand,
    OPTIONS.output,
    OPTIONS.force,
    OPTIONS.version,
    ...DECRYPTION_OPTIONS,
    OPTIONS.timeout,
    OPTIONS.retryFor,
    OPTIONS.collection,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  ],
  secrets: [...SESSION_SECRETS, SECRETS.passphrase],
  examples: [
    [EXAMPLE, "the newest version into a database"],
    [
      "strongroom restore pg-main --version 7 --private-key backup.key.asc --output app.sql",
      "an older one into a file",
    ],
    ["strongroom restore www --identity backup.age.key -c 'tar -x -C /srv'", "encrypted with age"],
  ],
  run: async (invocation): Promise<ExitCode> => {
    const { args, values, context } = invocation;
    const collection = requiredCollection(args[0], values, EXAMPLE);
    const target = restoreTarget(values, context.env);
    refuseTerminal(target, invocation);
    const given = await decryptionFor(values, context);
    try {
      return await fetchVersion(invocation, {
        collection,
        number: values.get(OPTIONS.version) ?? "newest",
        decryption: given ?? keyringDecryption(values),
        target,
        verb: "Restored",
      });
    } catch (error) {
      const { DecryptionError } = await context.sdk();
      if (given !== undefined || !(error instanceof DecryptionError)) throw error;
      throw new CommandError(
        `No key was given, and your gpg keyring does not open it. ${error.message}`,
        EXIT.integrity,
        {
          hint: "give --private-key FILE, or --passphrase-file FILE",
          cause: error,
        },
      );
    }
  },
};

/** An argument wins over the environment; of one kind there may be only one. */
function restoreTarget(values: OptionValues, env: Context["env"]): Target {
  const line = values.get(OPTIONS.restoreCommand);
  const path = values.get(OPTIONS.output);
  const isFlag = (option: typeof OPTIONS.output) => values.source(option) === "flag";
  if (line !== undefined && path !== undefined && isFlag(OPTIONS.restoreCommand) === isFlag(OPTIONS.output)) {
    throw new UsageError("-c and --output contradict each other.");
  }
  if (line !== undefined && (path === undefined || isFlag(OPTIONS.restoreCommand)))
    return { kind: "command", command: line };
  // Backup Maker read it for both directions. Unread, a restore that was meant for a command would go to standard
  // output.
  if (path === undefined && env.BM_CMD)
    throw new UsageError("BM_CMD is for backup only, so that its command is never fed by a restore.", {
      hint: "give -c COMMAND or STRONGROOM_RESTORE_COMMAND, or --output FILE (- is standard output)",
    });
  return path === undefined || path === "-" ? { kind: "stdout" } : { kind: "file", path };
}

/**
 * Bytes on a terminal help nobody and may do harm.
 * @throws {UsageError}
 */
export function refuseTerminal(target: Target, { context }: Invocation): void {
  if (target.kind === "stdout" && context.stdout.isTTY === true) {
    throw new UsageError("Standard output is a terminal.", {
      hint: 'give --output FILE or -c "COMMAND", or redirect: > FILE',
    });
  }
}

import type { CommandSpec } from "../command.ts";
import { OPTIONS, SECRETS } from "../options.ts";
import { exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";
import { givenPassword } from "../session/password.ts";

/** `strongroom hash-password`. */
export const hashPassword: CommandSpec = {
  name: "hash-password",
  summary: "print the hash of a password, for a BackupUser or a Secret",
  options: [OPTIONS.passwordFile, OPTIONS.passwordStdin],
  secrets: [SECRETS.password],
  examples: [
    ["strongroom hash-password", "asks for the password twice"],
    ["pass show strongroom | strongroom hash-password", "from a password store"],
  ],
  run: async ({ values, context }) => {
    const password = await givenPassword(values, context, { question: "Password: ", twice: true, fromPipe: true });
    const { hashPasswordCommand } = await loadServer("configuration");
    return exitCodeFromServer(await hashPasswordCommand({ password }, context));
  },
};

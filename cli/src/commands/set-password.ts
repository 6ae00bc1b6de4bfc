import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { option } from "@strongroom/command-line/option";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Context } from "../context.ts";
import { readSecretFile, readSecretFromStdin } from "../files/input-files.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { prompt } from "../terminal/prompts.ts";

const newPasswordFile = option({
  name: "new-password-file",
  value: "file",
  help: "file with the new password, - for standard input or to be asked",
  defaultText: "the server makes one",
});

/** `strongroom set-password`. */
export const setPassword: CommandSpec = {
  name: "set-password",
  summary: "set the password of a user or an access key",
  details:
    "The server makes a password, which is printed on standard output, now and never again; or takes one of 12 to 1024 " +
    "characters. It keeps the hash. Sessions that were opened with the password before are refused from then on. Needs " +
    "systemAdmin, or userManager for users without more roles.",
  args: [["<user>", "name of the user, or user$key for an access key"]],
  options: [newPasswordFile, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom set-password alice", "prints a password that the server made"],
    ["strongroom set-password 'alice$nightly'", "of an access key"],
    ["strongroom set-password alice --new-password-file -", "asks for it twice, without showing it"],
    ["pass show backup/alice | strongroom set-password alice --new-password-file -", "for scripts"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [user = ""] = args;
  const file = values.get(newPasswordFile);
  const given = file === undefined ? "" : await passwordFrom(file, user, context);
  if (file !== undefined && given === "") throw new UsageError("The new password is empty.");
  return await withClient(context, values, {}, async ({ client }) => {
    const { username, password } = await client.admin.setPassword({ username: user, password: given }, CALL);
    context.achieved?.();
    if (output.isJson) output.json({ username, password: password === "" ? undefined : password });
    else if (password === "") output.note(`${username} has the new password.`);
    else {
      output.note(`${username} has a new password. It stands nowhere else, keep it:`);
      output.line(password);
    }
    return EXIT.ok;
  });
}

async function passwordFrom(file: string, user: string, context: Context): Promise<string> {
  if (file !== "-") return await readSecretFile(file, "new password");
  if (context.stdin.isTTY !== true) return await readSecretFromStdin(context.stdin, "new password");
  const typed = await prompt(context, `New password of ${user}: `, { hidden: true });
  if (typed !== (await prompt(context, "Once more: ", { hidden: true })))
    throw new UsageError("The two passwords differ.");
  return typed;
}

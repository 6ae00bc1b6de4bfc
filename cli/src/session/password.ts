import { UsageError } from "@strongroom/command-line/errors";
import type { OptionValues } from "@strongroom/command-line/values";
import type { Context } from "../context.ts";
import { secretFromEnv } from "../context.ts";
import { readSecretFile, readSecretFromStdin } from "../files/input-files.ts";
import { OPTIONS, SECRETS } from "../options.ts";
import { prompt } from "../terminal/prompts.ts";

/** How {@link givenPassword} asks. */
export interface Asking {
  readonly question: string;
  /** Typed passwords are asked for twice. */
  readonly twice?: boolean;
  /**
   * Standard input is read without `--password-stdin` when it is no terminal, since there is nothing else it could be
   * for.
   */
  readonly fromPipe?: boolean;
}

/**
 * The password of the user: from `--password-file` or `--password-stdin`, the environment, or typed on the terminal
 * without being shown.
 * @throws {UsageError} when there is none, or two that are typed differ.
 */
export async function givenPassword(values: OptionValues, context: Context, options: Asking): Promise<string> {
  const password = await find(values, context, options);
  if (password === "") throw new UsageError("The password is empty.");
  return password;
}

async function find(values: OptionValues, context: Context, { question, twice, fromPipe }: Asking): Promise<string> {
  const file = values.get(OPTIONS.passwordFile);
  // Commands that read a dump from it do not have the option.
  const hasStdin = values.has(OPTIONS.passwordStdin);
  const fromStdin = hasStdin && values.get(OPTIONS.passwordStdin);
  const secret = secretFromEnv(SECRETS.password, context.env);
  if (file !== undefined && fromStdin && values.source(OPTIONS.passwordFile) === values.source(OPTIONS.passwordStdin)) {
    throw new UsageError("--password-file and --password-stdin contradict each other.");
  }
  // Arguments win over the environment.
  if (fromStdin && values.source(OPTIONS.passwordStdin) === "flag")
    return await readSecretFromStdin(context.stdin, "password");
  if (values.source(OPTIONS.passwordFile) === "flag" && file !== undefined)
    return await readSecretFile(file, "password");
  if (secret !== undefined) return secret.value;
  if (file !== undefined) return await readSecretFile(file, "password");
  const isTerminal = context.stdin.isTTY === true;
  if (fromStdin || (fromPipe && !isTerminal)) return await readSecretFromStdin(context.stdin, "password");
  if (!isTerminal) {
    throw new UsageError("There is no password.", {
      hint: `give --password-file FILE, --password-stdin, or ${SECRETS.password.env} in the environment`,
    });
  }
  const typed = await prompt(context, question, { hidden: true });
  if (twice && typed !== (await prompt(context, "Once more: ", { hidden: true })))
    throw new UsageError("The two passwords differ.");
  return typed;
}

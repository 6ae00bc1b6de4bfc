import { createHash } from "node:crypto";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { readSecretFromStdin } from "../files/input-files.ts";
import { OUTPUT_OPTIONS } from "../options.ts";
import { prompt } from "../terminal/prompts.ts";

/** `strongroom hash-token`. */
export const hashToken: CommandSpec = {
  name: "hash-token",
  summary: "print the session id of a token, without a server",
  details:
    "The id is the SHA-256 of the token, in hexadecimal; it is all that the server keeps of it. The token is read from " +
    "standard input, never from an argument.",
  options: OUTPUT_OPTIONS,
  examples: [
    ["strongroom hash-token <backup-maker.token", "which session the token is of"],
    ['strongroom sessions --revoke "$(strongroom hash-token <lost.token)"', "end the session of a token"],
  ],
  run,
};

async function run({ output, context }: Invocation): Promise<ExitCode> {
  const isTerminal = context.stdin.isTTY === true;
  const given = isTerminal
    ? await prompt(context, "Token: ", { hidden: true })
    : await readSecretFromStdin(context.stdin, "token");
  // As it is in a header, which whoever copies it from a log may have taken along.
  const token = given.trim().replace(/^(?:Authorization: *)?Bearer +/i, "");
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new UsageError("Expected one token on standard input.", { hint: "strongroom hash-token <FILE" });
  const sessionId = createHash("sha256").update(token).digest("hex");
  if (output.isJson) output.json({ sessionId });
  else output.line(sessionId);
  return EXIT.ok;
}

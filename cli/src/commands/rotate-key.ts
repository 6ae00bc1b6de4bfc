import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";

/** `strongroom rotate-key`. */
export const rotateKey: CommandSpec = {
  name: "rotate-key",
  summary: "let another key of the server sign tokens (needs systemAdmin)",
  details:
    "Nobody is logged out: tokens of the keys before it stay valid, and each key goes when no valid session was signed " +
    "with it. The server does the same by itself every 90 days.",
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [["strongroom rotate-key", "after somebody left who could read the database"]],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  return await withClient(context, values, {}, async ({ client }) => {
    const { keyId } = await client.sessions.rotateSigningKey({}, CALL);
    context.achieved?.();
    if (output.isJson) output.json({ keyId });
    else output.note(`Tokens are signed with key ${keyId} from now on.`);
    return EXIT.ok;
  });
}

import type { Session } from "@strongroom/client-sdk";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime } from "../terminal/format.ts";
import { pairs } from "../terminal/output.ts";
import { principal, sessionReport } from "../terminal/reports.ts";

/** `strongroom whoami`. */
export const whoami: CommandSpec = {
  name: "whoami",
  summary: "tell who is logged in, with which rights, and until when",
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: [SECRETS.token],
  examples: [
    ["strongroom whoami", "the current session"],
    ["strongroom whoami --json | jq -r .expiresAt", "when it ends"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  return await withClient(context, values, {}, async ({ client, url }) => {
    const { session, email, roles } = await client.sessions.whoAmI({}, CALL);
    if (output.isJson) {
      output.json({ url, ...(session === undefined ? {} : sessionReport(session)), email: email || undefined, roles });
      return EXIT.ok;
    }
    output.line(
      pairs([
        ["User", session && principal(session.user, session.accessKey)],
        ["E-mail", email],
        ["Server", url],
        ["Roles", roles.join(", ") || "none system-wide"],
        ["Narrowed to", session && scopeText(session)],
        ["Session", session?.sessionId.slice(0, 12)],
        ["Ends", formatTime(session?.expiresAt)],
      ]),
    );
    return EXIT.ok;
  });
}

/** `collection pg-main (backupUploader)`, several after each other. */
export function scopeText(session: Session): string {
  return session.scope.map(({ type, name, roles }) => `${type} ${name} (${roles.join(", ")})`).join("; ");
}

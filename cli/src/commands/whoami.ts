import type { Session } from "@strongroom/client-sdk";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { pairs } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Sdk } from "../context.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime } from "../terminal/format.ts";
import { principal, roleNames, scopeReport, sessionReport } from "../terminal/reports.ts";

/** `strongroom whoami`. */
export const whoami: CommandSpec = {
  name: "whoami",
  summary: "show who is logged in, with which rights, and until when",
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: [SECRETS.token],
  examples: [
    ["strongroom whoami", "the current session"],
    ["strongroom whoami --json | jq -r .expiresAt", "when it ends"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  return await withClient(context, values, {}, async ({ client, sdk, url }) => {
    const { session, email, roles } = await client.sessions.whoAmI({}, CALL);
    const names = roleNames(roles, sdk);
    if (output.isJson) {
      output.json({
        url,
        ...(session === undefined ? {} : sessionReport(session, sdk)),
        email: email || undefined,
        roles: names,
      });
      return EXIT.ok;
    }
    output.line(
      pairs([
        ["User", session && principal(session.user, session.accessKey)],
        ["E-mail", email],
        ["Server", url],
        ["Roles", names.join(", ") || "none system-wide"],
        ["Narrowed to", session && scopeText(session, sdk)],
        ["Session", session?.sessionId.slice(0, 12)],
        ["Ends", formatTime(session?.expiresAt)],
      ]),
    );
    return EXIT.ok;
  });
}

/** `collection pg-main (backupUploader)`, several after each other. */
export function scopeText(session: Session, sdk: Sdk): string {
  return scopeReport(session, sdk)
    .map(({ type, name, roles }) => `${type} ${name} (${roles.join(", ")})`)
    .join("; ");
}

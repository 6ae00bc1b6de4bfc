import type { Session } from "@strongroom/client-sdk";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { pairs } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Sdk } from "../context.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime } from "../terminal/format.ts";
import { principal, rightsReport, roleNames, scopeReport, sessionReport } from "../terminal/reports.ts";

/** `strongroom whoami`. */
export const whoami: CommandSpec = {
  name: "whoami",
  summary: "show who is logged in, with which rights, and until when",
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom whoami", "the current session"],
    ["strongroom whoami --json | jq -r .expiresAt", "when it ends"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  return await withClient(context, values, {}, async ({ client, sdk, url }) => {
    const { session, email, roles, rights } = await client.sessions.whoAmI({}, CALL);
    const names = roleNames(roles, sdk);
    if (output.isJson) {
      output.json({
        url,
        ...(session === undefined ? {} : sessionReport(session, sdk)),
        email: email || undefined,
        roles: names,
        rights: rights.length === 0 ? undefined : rightsReport(rights, sdk),
      });
      return EXIT.ok;
    }
    output.line(
      pairs([
        ["User", session && principal(session.user, session.accessKey)],
        ["E-mail", email],
        ["Server", url],
        ...rolesText(session, names),
        ["Narrowed to", session && scopeText(session, sdk)],
        ...rightsText(rightsReport(rights, sdk)),
        ["Session", session?.sessionId.slice(0, 12)],
        ["Ends", formatTime(session?.expiresAt)],
      ]),
    );
    return EXIT.ok;
  });
}

type Entry = readonly [name: string, value: string];

/** Roles of the user, and that a session of a key or a narrowed one has none of them. */
function rolesText(session: Session | undefined, names: readonly string[]): Entry[] {
  const isNarrow = session !== undefined && (session.accessKey !== "" || session.scope.length > 0);
  if (!isNarrow) return [["Roles", names.join(", ") || "none system-wide"]];
  const what = session.accessKey === "" ? "a narrowed session" : "an access key";
  return [["Roles", `none system-wide: this is ${what}`]];
}

/** One line for each collection: `pg-main: upload, download`. */
function rightsText(rights: ReturnType<typeof rightsReport>): Entry[] {
  return rights.map(({ collection, actions }, index) => [
    index === 0 ? "May" : "",
    `${collection}: ${actions.join(", ") || "nothing (no such collection, or the user may not either)"}`,
  ]);
}

/** `collection pg-main (backupUploader)`, several after each other. */
export function scopeText(session: Session, sdk: Sdk): string {
  return scopeReport(session, sdk)
    .map(({ type, name, roles }) => `${type} ${name} (${roles.join(", ")})`)
    .join("; ");
}

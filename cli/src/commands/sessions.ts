import type { Session, StrongroomClient } from "@strongroom/client-sdk";
import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { table } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatAge, formatTime } from "../terminal/format.ts";
import { principal, sessionReport } from "../terminal/reports.ts";
import { scopeText } from "./whoami.ts";

/** Letters of a session id that are shown, and the fewest that name one. */
const SHOWN = 12;
const FEWEST = 6;

/** `strongroom sessions`. */
export const sessions: CommandSpec = {
  name: "sessions",
  summary: "list valid sessions, or end one",
  details: "The session that this very command uses is marked with *.",
  options: [OPTIONS.user, OPTIONS.revoke, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: [SECRETS.token],
  examples: [
    ["strongroom sessions", "your own"],
    ["strongroom sessions --revoke 3f9c2ab81d04", "end one; the beginning of its id is enough"],
    ["strongroom sessions --user bob --json", "those of another user, for programs"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  const revoke = values.get(OPTIONS.revoke);
  const user = values.get(OPTIONS.user) ?? "";
  return await withClient(context, values, {}, async ({ client, sdk }) => {
    if (revoke !== undefined) {
      const sessionId = await fullId(client, user, revoke);
      await client.sessions.revokeSession({ sessionId }, CALL);
      if (output.isJson) output.json({ revoked: sessionId });
      else output.note(`Ended session ${sessionId.slice(0, SHOWN)}.`);
      return EXIT.ok;
    }
    const found = await listSessions(client, user);
    if (output.isJson) {
      output.json({ sessions: found.map((session) => sessionReport(session, sdk)) });
      return EXIT.ok;
    }
    const own = (await client.sessions.whoAmI({}, CALL)).session?.sessionId;
    const rows = found.map((session) => [
      `${session.sessionId.slice(0, SHOWN)}${session.sessionId === own ? " *" : ""}`,
      principal(session.user, session.accessKey),
      formatAge(session.createdAt, context.now()),
      formatTime(session.expiresAt),
      session.address,
      [session.description, scopeText(session, sdk)].filter((text) => text !== "").join("; "),
    ]);
    const columns = [
      { title: "SESSION" },
      { title: "USER" },
      { title: "AGE", align: "right" as const },
      { title: "ENDS" },
      { title: "ADDRESS" },
      { title: "FOR" },
    ];
    output.line(table(columns, rows));
    return EXIT.ok;
  });
}

async function listSessions(client: StrongroomClient, user: string): Promise<Session[]> {
  return await collectPages(async (pageToken) => {
    const { sessions, nextPageToken } = await client.sessions.listSessions({ user, pageToken }, CALL);
    return { items: sessions, nextPageToken };
  });
}

async function fullId(client: StrongroomClient, user: string, given: string): Promise<string> {
  if (/^[0-9a-f]{64}$/.test(given)) return given;
  if (!/^[0-9a-f]+$/.test(given) || given.length < FEWEST)
    throw new UsageError(`--revoke: expected at least the first ${FEWEST} letters of a session id.`);
  const matches = (await listSessions(client, user)).filter(({ sessionId }) => sessionId.startsWith(given));
  if (matches.length === 1) return matches[0]!.sessionId;
  if (matches.length === 0)
    throw new CommandError(`No valid session has an id that begins with ${given}.`, EXIT.refused, {
      hint: "`strongroom sessions` lists them",
    });
  throw new UsageError(`${matches.length} sessions have ids that begin with ${given}; give more of it.`);
}

import type { Session, StrongroomClient } from "@strongroom/client-sdk";
import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { table } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
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
  summary: "list valid sessions, or end them",
  details:
    "The session that this very command uses is marked with *. Ending one ends what was renewed from it. A name is " +
    "that of a user, or user$key for one of its access keys.",
  options: [
    OPTIONS.user,
    OPTIONS.allUsers,
    OPTIONS.revoke,
    OPTIONS.revokeAll,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  ],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom sessions", "your own"],
    ["strongroom sessions --revoke 3f9c2ab81d04", "end one; the beginning of its id is enough"],
    ["strongroom sessions --user bob --json", "those of another user, for programs"],
    ["strongroom sessions --all", "those of everybody"],
    ["strongroom sessions --revoke-all --user 'bob$laptop'", "lock an access key out that somebody else has"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  const revoke = values.get(OPTIONS.revoke);
  const user = values.get(OPTIONS.user) ?? "";
  const allUsers = values.get(OPTIONS.allUsers);
  const revokesAll = values.get(OPTIONS.revokeAll);
  if (revoke !== undefined && revokesAll) throw new UsageError("--revoke and --revoke-all contradict each other.");
  if (allUsers && user !== "" && values.source(OPTIONS.user) === values.source(OPTIONS.allUsers))
    throw new UsageError("--all and --user contradict each other.");
  if (allUsers && revokesAll)
    throw new UsageError("--revoke-all ends the sessions of one user.", { hint: "give --user NAME instead of --all" });
  const whose = { user: allUsers ? "" : user, allUsers };
  return await withClient(context, values, {}, async ({ client, sdk }) => {
    if (revokesAll) {
      const { sessionCount } = await client.sessions.revokeSessions({ user }, CALL);
      context.achieved?.();
      if (output.isJson) output.json({ revoked: sessionCount, user: user === "" ? undefined : user });
      else output.note(sessionCount === 1 ? "Ended 1 session." : `Ended ${sessionCount} sessions.`);
      return EXIT.ok;
    }
    if (revoke !== undefined) {
      const sessionId = await fullId(client, whose, revoke);
      await client.sessions.revokeSession({ sessionId }, CALL);
      context.achieved?.();
      if (output.isJson) output.json({ revoked: sessionId });
      else output.note(`Ended session ${sessionId.slice(0, SHOWN)}.`);
      return EXIT.ok;
    }
    const found = await listSessions(client, whose);
    if (output.isJson) {
      output.json({ sessions: found.map((session) => sessionReport(session, sdk)) });
      return EXIT.ok;
    }
    if (found.length === 0) {
      output.note(`${whose.user === "" ? "There are" : `${whose.user} has`} no sessions.`);
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

/** One user, or everybody. */
interface Whose {
  readonly user: string;
  readonly allUsers: boolean;
}

async function listSessions(client: StrongroomClient, whose: Whose): Promise<Session[]> {
  return await collectPages(async (pageToken) => {
    const { sessions, nextPageToken } = await client.sessions.listSessions({ ...whose, pageToken }, CALL);
    return { items: sessions, nextPageToken };
  });
}

async function fullId(client: StrongroomClient, whose: Whose, given: string): Promise<string> {
  if (/^[0-9a-f]{64}$/.test(given)) return given;
  if (!/^[0-9a-f]+$/.test(given) || given.length < FEWEST)
    throw new UsageError(`--revoke: expected at least the first ${FEWEST} letters of a session id.`);
  const matches = (await listSessions(client, whose)).filter(({ sessionId }) => sessionId.startsWith(given));
  if (matches.length === 1) return matches[0]!.sessionId;
  if (matches.length === 0)
    throw new CommandError(`No valid session has an id that begins with ${given}.`, EXIT.refused, {
      hint: `\`strongroom sessions${whose.allUsers ? " --all" : whose.user && ` --user '${whose.user}'`}\` lists them`,
    });
  throw new UsageError(`${matches.length} sessions have ids that begin with ${given}; give more of it.`);
}

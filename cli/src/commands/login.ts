import type { RetryEvent } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CredentialStore, writePrivateFile } from "../files/credentials.ts";
import { OPTIONS, OUTPUT_OPTIONS, SECRETS, SERVER_OPTIONS } from "../options.ts";
import { RETRY_FOR_MS } from "../patience.ts";
import { END_MS } from "../session/own-session.ts";
import { givenPassword } from "../session/password.ts";
import { scopeOf } from "../session/scope-argument.ts";
import { isUnprotected, tlsPaths } from "../session/server.ts";
import { sessionDescription, withClient } from "../session/session.ts";
import { formatTime, toIso } from "../terminal/format.ts";
import { Progress } from "../terminal/progress.ts";
import { prompt } from "../terminal/prompts.ts";
import { principal, sessionReport } from "../terminal/reports.ts";

/** `strongroom login`. */
export const login: CommandSpec = {
  name: "login",
  summary: "log in and keep the session",
  details:
    "The session is kept in a file that only you can read (~/.config/strongroom/credentials.json on Linux), one for " +
    "each server and user; the last login is the one that commands without --url and --username use. A session that " +
    "is near its end is renewed by the commands that use it. Files of --tls-ca, --tls-cert and --tls-key are kept " +
    "with it. Jobs need no login: give them --username and --password-file.",
  options: [
    ...SERVER_OPTIONS,
    OPTIONS.username,
    OPTIONS.passwordFile,
    OPTIONS.passwordStdin,
    OPTIONS.description,
    OPTIONS.lifetime,
    OPTIONS.scope,
    OPTIONS.tokenFile,
    OPTIONS.retryFor,
    ...OUTPUT_OPTIONS,
  ],
  secrets: [SECRETS.password],
  examples: [
    ["strongroom login --url https://backup.example.org --username alice", "asks for the password"],
    ["pass show strongroom | strongroom login --username alice --password-stdin", "from a password store"],
    [
      "strongroom login --username 'alice$cron' --password-file /etc/strongroom/password --token-file " +
        "/run/strongroom/token",
      "for a cron job, with an access key",
    ],
    [
      "strongroom login --lifetime 90d --scope pg-main=backupUploader --token-file backup-maker.token",
      "for a program that cannot log in; the server's --session-duration-max allows the time",
    ],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  const username = values.get(OPTIONS.username) ?? (await askUsername(context));
  const progress = new Progress(output, context.now, () => "");
  // Whoever sits there sees the error and decides; a job at night has to wait.
  const isAttended = context.stdin.isTTY === true;
  const connect = {
    anonymous: true,
    giveUpAfterMs: values.get(OPTIONS.retryFor) ?? (isAttended ? undefined : RETRY_FOR_MS),
    onRetry: (event: RetryEvent) => progress.retrying(event),
  };
  return await withClient(context, values, connect, async ({ client, sdk, url }) => {
    // Before the password is typed.
    const scope = scopeOf(values.get(OPTIONS.scope), sdk);
    if (isUnprotected(url)) output.note(`Warning: ${url} is not encrypted; the password can be read on its way.`);
    const password = await givenPassword(values, context, { question: `Password of ${username} at ${url}: ` });
    const description = values.get(OPTIONS.description) ?? sessionDescription(context);
    const { token, session } = await client.login({
      username,
      password,
      description: description.slice(0, 255),
      scope,
      lifetimeMs: values.get(OPTIONS.lifetime),
    });
    const path = values.get(OPTIONS.tokenFile);
    try {
      if (path === undefined) {
        const expiresAt = toIso(session.expiresAt) ?? new Date(context.now()).toISOString();
        const { sessionId } = session;
        const tls = await tlsPaths(context, values, url);
        const kept = { url, token, user: username, expiresAt, sessionId };
        const hasTls = Object.values(tls).some((path) => path !== undefined);
        await new CredentialStore(context).save(hasTls ? { ...kept, tls } : kept);
      } else {
        await writePrivateFile(path, `${token}\n`);
      }
    } catch (error) {
      // A session that could not be kept is nobody's, and each attempt would leave one more.
      const headers = { authorization: `Bearer ${token}` };
      await client.sessions.revokeSession({}, { headers, timeoutMs: END_MS }).catch(() => {});
      throw error;
    }
    context.achieved?.();
    if (output.isJson) output.json({ url, ...sessionReport(session, sdk), tokenFile: path });
    else {
      const where = path === undefined ? "" : `; the token is in ${path}`;
      output.note(
        `Logged in to ${url} as ${principal(session.user, session.accessKey)} until ` +
          `${formatTime(session.expiresAt)}${where}.`,
      );
    }
    return EXIT.ok;
  });
}

async function askUsername(context: Invocation["context"]): Promise<string> {
  if (context.stdin.isTTY !== true)
    throw new UsageError("Which user?", { hint: "give --username NAME, or --username 'NAME$KEY' for an access key" });
  const name = (await prompt(context, "User: ")).trim();
  if (name === "") throw new UsageError("No user was given.");
  return name;
}

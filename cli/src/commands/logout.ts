import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CredentialStore, findSession } from "../files/credentials.ts";
import { OPTIONS, OUTPUT_OPTIONS, SECRETS, SERVER_OPTIONS } from "../options.ts";
import { serverUrl } from "../session/server.ts";
import { CALL, withClient } from "../session/session.ts";
import { tokenPlace } from "../session/token-place.ts";

/** `strongroom logout`. */
export const logout: CommandSpec = {
  name: "logout",
  summary: "end the session and forget it",
  details:
    "Of several users at the server, the last login is meant, or --username; the sessions of the others stay. The " +
    "session is forgotten here in any case; when the server cannot be notified, the exit code says so, and " +
    "the session ends by itself.",
  options: [...SERVER_OPTIONS, OPTIONS.username, OPTIONS.tokenFile, ...OUTPUT_OPTIONS],
  secrets: [SECRETS.token],
  examples: [
    ["strongroom logout", "of the current server"],
    ["strongroom logout --url https://backup.example.org", "of another one"],
    ["strongroom logout --token-file /run/strongroom/token", "end the session of a cron job; the file stays"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  const url = await serverUrl(context, values);
  const store = new CredentialStore(context);
  const place = tokenPlace(context, values);
  const stored = place.kind === "stored" ? findSession(await store.read(), url, place.user) : undefined;
  const done = (revoked: boolean) => {
    context.achieved?.();
    if (output.isJson) output.json({ url, revoked });
    else output.note(revoked ? `Logged out of ${url}.` : `The session at ${url} had ended already.`);
    return EXIT.ok;
  };
  if (stored !== undefined && Date.parse(stored.expiresAt) <= context.now()) {
    await store.forget(stored);
    return done(false);
  }
  // Renewed, the old session would stay valid to its own end.
  return await withClient(context, values, { asIs: true }, async ({ client, sdk }) => {
    try {
      await client.sessions.revokeSession({}, CALL);
      return done(true);
    } catch (error) {
      const reason = sdk.toStrongroomError(error, { url });
      if (reason instanceof sdk.AuthenticationError && stored !== undefined) return done(false);
      throw reason;
    } finally {
      if (stored !== undefined) await store.forget(stored);
    }
  });
}

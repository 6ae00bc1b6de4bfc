import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CredentialStore } from "../files/credentials.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SECRETS } from "../options.ts";
import { CALL, serverUrl, sessionKey, tokenPlace, withClient } from "../session/session.ts";

/** `strongroom logout`. */
export const logout: CommandSpec = {
  name: "logout",
  summary: "end the session and forget it",
  details:
    "The session is forgotten here in any case; when the server cannot be notified, the exit code says so, and " +
    "the session ends by itself.",
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
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
  const isStored = tokenPlace(context, values).kind === "stored";
  const credentials = await store.read();
  const key = sessionKey(credentials, url) ?? url;
  const stored = credentials.servers[key];
  const done = (revoked: boolean) => {
    if (output.isJson) output.json({ url, revoked });
    else output.note(revoked ? `Logged out of ${url}.` : `The session at ${url} had ended already.`);
    return EXIT.ok;
  };
  if (isStored && stored !== undefined && Date.parse(stored.expiresAt) <= context.now()) {
    await store.forget(key);
    return done(false);
  }
  // Renewed, the old session would stay valid to its own end.
  return await withClient(context, values, { renews: false }, async ({ client, sdk }) => {
    try {
      await client.sessions.revokeSession({}, CALL);
      return done(true);
    } catch (error) {
      const reason = sdk.toStrongroomError(error, { url });
      if (reason instanceof sdk.AuthenticationError && isStored) return done(false);
      throw reason;
    } finally {
      if (isStored) await store.forget(key);
    }
  });
}

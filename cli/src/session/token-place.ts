import { UsageError } from "@strongroom/command-line/errors";
import type { OptionValues } from "@strongroom/command-line/values";
import { type Context, secretFromEnv } from "../context.ts";
import { OPTIONS, SECRETS } from "../options.ts";
import { usernameIn } from "./server.ts";

/** Where this run's token comes from. */
export type TokenPlace =
  | { kind: "file"; path: string }
  | { kind: "environment"; token: string }
  /** A session of this run alone, opened with a password. */
  | { kind: "own"; username: string }
  /** The session that login kept, of this user if one is named. */
  | { kind: "stored"; user: string | undefined };

/**
 * The order: --token-file or --username with --password-file; STRONGROOM_TOKEN, STRONGROOM_TOKEN_FILE, a user with a
 * password of which only one came from an argument or none, BM_AUTH_TOKEN, the session that login kept.
 * @throws {UsageError} when arguments contradict each other, or name a password and no user.
 */
export function tokenPlace(context: Context, values: OptionValues): TokenPlace {
  const path = values.get(OPTIONS.tokenFile);
  const secret = secretFromEnv(SECRETS.token, context.env);
  const username = usernameIn(values);
  const isFlag = (option: typeof OPTIONS.username) => values.has(option) && values.source(option) === "flag";
  const hasPassword =
    values.has(OPTIONS.passwordFile) &&
    (values.get(OPTIONS.passwordFile) !== undefined || secretFromEnv(SECRETS.password, context.env) !== undefined);
  if (isFlag(OPTIONS.passwordFile)) {
    if (isFlag(OPTIONS.tokenFile)) throw new UsageError("--token-file and --password-file contradict each other.");
    if (username === undefined) throw new UsageError("--password-file: whose password? Give --username NAME as well.");
  }
  const own = username !== undefined && hasPassword ? ({ kind: "own", username } as const) : undefined;
  if (path !== undefined && isFlag(OPTIONS.tokenFile)) return { kind: "file", path };
  if (own !== undefined && (isFlag(OPTIONS.username) || isFlag(OPTIONS.passwordFile))) return own;
  if (username !== undefined && isFlag(OPTIONS.username)) return { kind: "stored", user: username };
  if (secret?.source === "environment") return { kind: "environment", token: secret.value.trim() };
  if (path !== undefined) return { kind: "file", path };
  if (own !== undefined) return own;
  if (secret !== undefined) return { kind: "environment", token: secret.value.trim() };
  return { kind: "stored", user: username };
}

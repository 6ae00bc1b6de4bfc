import type { ClientOptions, RetryEvent, StrongroomClient } from "@strongroom/client-sdk";
import { interruptible } from "@strongroom/command-line/interruptible";
import type { OptionValues } from "@strongroom/command-line/values";
import type { Context, Sdk } from "../context.ts";
import { NotLoggedInError } from "../errors.ts";
import { addressesIn, CredentialStore, findSession, type StoredSession } from "../files/credentials.ts";
import { untilAborted } from "../processes/until-aborted.ts";
import { toIso } from "../terminal/format.ts";
import { openOwnSession } from "./own-session.ts";
import { givenPassword } from "./password.ts";
import { type Issued, RefreshingToken } from "./refreshing-token.ts";
import { readTls, serverUrl, tlsPaths } from "./server.ts";
import { type TokenPlace, tokenPlace } from "./token-place.ts";

/**
 * For calls outside of transfers, which have their own patience: a server that does not answer must not keep a cron job
 * forever.
 */
export const CALL = { timeoutMs: 30_000 } as const;

/** A client for one server. */
export interface Connection {
  readonly client: StrongroomClient;
  readonly sdk: Sdk;
  /** The addresses, in one text. */
  readonly url: string;
  /** Aborted when a signal comes or the time is over, with {@link ConnectOptions.interruption}; else never. */
  readonly signal: AbortSignal;
}

/** How long the login and the work may take together, and what to do when a signal comes. */
export interface Interruption {
  readonly timeoutMs: number | undefined;
  readonly onInterrupt: () => void;
}

/** What a command wants of its client. */
export interface ConnectOptions {
  /** Without a session, for calls that bring another proof. */
  readonly anonymous?: boolean;
  /** The session that is there already, as it is: none is opened with a password, and none is renewed. */
  readonly asIs?: boolean;
  /**
   * The work ends in order by itself when a signal comes or the time is over, which counts from the login on; without
   * it the work is left where it is.
   */
  readonly interruption?: Interruption;
  readonly giveUpAfterMs?: number | undefined;
  readonly onRetry?: (event: RetryEvent) => void;
}

/**
 * Runs `work` with a client for the server that options, environment or the last login name, and closes the client
 * afterwards. A session that was opened for it is ended then, whatever happened, signals included.
 * @throws {NotLoggedInError} when there is no session for the server.
 */
export async function withClient<T>(
  context: Context,
  values: OptionValues,
  options: ConnectOptions,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const url = await serverUrl(context, values);
  const sdk = await context.sdk();
  const server: Server = {
    urls: addressesIn(url),
    proxyEnvironment: context.env,
    ...(await readTls(await tlsPaths(context, values, url))),
  };
  const patience = {
    ...(options.onRetry === undefined ? {} : { onRetry: options.onRetry }),
    ...(options.giveUpAfterMs === undefined ? {} : { giveUpAfterMs: options.giveUpAfterMs }),
  };
  const workWith = async (token: ClientOptions["token"], signal: AbortSignal) => {
    const client = new sdk.StrongroomClient({ ...server, ...(token === undefined ? {} : { token }), ...patience });
    try {
      return await work({ client, sdk, url, signal });
    } finally {
      client.close();
    }
  };
  const { interruption } = options;
  const place = options.anonymous ? undefined : tokenPlace(context, values);
  if (place?.kind !== "own" || options.asIs) {
    const token = place && (await tokenFor(context, place, url, server, sdk, options.asIs ?? false));
    if (interruption === undefined) return await workWith(token, new AbortController().signal);
    return await interruptible(context, interruption, (signal) => workWith(token, signal));
  }

  const password = await givenPassword(values, context, { question: "" });
  return await interruptible(context, interruption ?? {}, async (signal) => {
    const opening = openOwnSession({
      sdk,
      server: { ...server, ...patience },
      username: place.username,
      password,
      description: sessionDescription(context),
      call: CALL,
      now: context.now,
    });
    // The login may wait for its server.
    const own = await untilAborted(opening, signal);
    try {
      const running = workWith((refused) => own.token(refused), signal);
      return interruption === undefined ? await untilAborted(running, signal) : await running;
    } finally {
      await own.end();
    }
  });
}

/** The addresses of an installation and how to trust them. */
type Server = Pick<ClientOptions, "urls" | "tls" | "proxyEnvironment">;

/** What a session is for, where nothing else is said. */
export function sessionDescription({ hostname }: Pick<Context, "hostname">): string {
  return `strongroom CLI on ${hostname}`.slice(0, 255);
}

async function tokenFor(
  context: Context,
  place: TokenPlace,
  url: string,
  server: Server,
  sdk: Sdk,
  asIs: boolean,
): Promise<() => Promise<string>> {
  if (place.kind === "file") {
    const read = sdk.tokenFromFile(place.path);
    await read(); // a missing file is reported before a dump command is started
    return read;
  }
  const renew = async (token: string): Promise<Issued> => {
    const client = new sdk.StrongroomClient({ ...server, token });
    try {
      return await client.sessions.refreshSession({}, CALL);
    } finally {
      client.close();
    }
  };
  if (place.kind === "environment") {
    let current = place.token;
    const refreshing = new RefreshingToken({
      read: async () => current,
      keep: async ({ token }) => {
        current = token;
      },
      renew,
      now: context.now,
    });
    return () => refreshing.get();
  }
  const store = new CredentialStore(context);
  const user = place.kind === "own" ? place.username : place.user;
  const credentials = await store.read();
  const stored = findSession(credentials, url, user);
  if (stored === undefined) {
    const others = [...new Set(credentials.sessions.map((session) => session.url))].filter((other) => other !== url);
    const elsewhere = others.length === 0 ? "" : ` There is a session at ${others.join(" and ")}; --url means it.`;
    throw new NotLoggedInError(`Not logged in to ${url}${user === undefined ? "" : ` as ${user}`}.${elsewhere}`, url);
  }
  if (Date.parse(stored.expiresAt) <= context.now())
    throw new NotLoggedInError(`The session of ${stored.user} at ${url} has ended.`, url);
  return asIs ? async () => stored.token : pinnedToken(store, stored, renew, context.now);
}

/**
 * The token of a session as it was when the command began: whoever logs in or out meanwhile has a session of its own,
 * and does not change whose backup this is. A renewed one is kept in the file for later commands.
 */
function pinnedToken(
  store: CredentialStore,
  stored: StoredSession,
  renew: (token: string) => Promise<Issued>,
  now: () => number,
): () => Promise<string> {
  let current = stored;
  const refreshing = new RefreshingToken({
    read: async () => current.token,
    keep: async ({ token, session }) => {
      const old = current;
      const { sessionId = old.sessionId, expiresAt } = session ?? {};
      current = { ...old, token, sessionId, expiresAt: toIso(expiresAt) ?? old.expiresAt };
      // On a full disk this command goes on with what it has.
      await store.replace(old, current).catch(() => {});
    },
    renew,
    now,
  });
  return () => refreshing.get();
}

import { readFile } from "node:fs/promises";
import type { ClientOptions, RetryEvent, StrongroomClient } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { flagOf, type Option } from "@strongroom/command-line/option";
import type { OptionValues } from "@strongroom/command-line/values";
import type { Context, Sdk } from "../context.ts";
import { secretFromEnv } from "../context.ts";
import { NotLoggedInError } from "../errors.ts";
import { CredentialStore, type Credentials } from "../files/credentials.ts";
import { OPTIONS, SECRETS } from "../options.ts";
import { toIso } from "../terminal/format.ts";
import { type Issued, RefreshingToken } from "./refreshing-token.ts";

/** Where a server listens when it is started without options. */
const DEFAULT_URL = "http://127.0.0.1:8080";

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
}

/** What a command wants of its client. */
export interface ConnectOptions {
  /** Without a session, for calls that bring another proof. */
  readonly anonymous?: boolean;
  /** Whether a stored session that ends soon is renewed first; default yes. */
  readonly renews?: boolean;
  readonly giveUpAfterMs?: number | undefined;
  readonly onRetry?: (event: RetryEvent) => void;
}

/**
 * Runs `work` with a client for the server that options, environment or the last login name, and closes the client
 * afterwards.
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
  const server = { urls: addressesIn(url), ...(await tlsOf(values)) };
  const token = options.anonymous
    ? undefined
    : await tokenFor(context, values, url, server, sdk, options.renews ?? true);
  const client = new sdk.StrongroomClient({
    ...server,
    ...(token === undefined ? {} : { token }),
    ...(options.onRetry === undefined ? {} : { onRetry: options.onRetry }),
    ...(options.giveUpAfterMs === undefined ? {} : { giveUpAfterMs: options.giveUpAfterMs }),
  });
  try {
    return await work({ client, sdk, url });
  } finally {
    client.close();
  }
}

/** The addresses of an installation and how to trust them. */
type Server = Pick<ClientOptions, "urls" | "tls">;

/**
 * The files of the TLS options. @throws {UsageError} when one cannot be read, or certificate and key are not given
 * together.
 */
async function tlsOf(values: OptionValues): Promise<Pick<ClientOptions, "tls">> {
  const read = async (spec: Option<string | undefined>) => {
    const path = values.get(spec);
    if (path === undefined) return undefined;
    return await readFile(path).catch((cause: Error) => {
      throw new UsageError(`${flagOf(spec)}: the file cannot be read: ${cause.message}.`, { cause });
    });
  };
  const [ca, certificate, key] = [await read(OPTIONS.tlsCa), await read(OPTIONS.tlsCert), await read(OPTIONS.tlsKey)];
  if ((certificate === undefined) !== (key === undefined))
    throw new UsageError("--tls-cert and --tls-key belong together; one of them is missing.");
  if (ca === undefined && certificate === undefined) return {};
  return {
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(certificate === undefined ? {} : { certificate }),
      ...(key === undefined ? {} : { key }),
    },
  };
}

/**
 * The server that is meant: option or environment, else the current one of the credentials, else the default. Several
 * addresses of one installation are one text with commas between them; under it the session is kept.
 */
export async function serverUrl(context: Context, values: OptionValues): Promise<string> {
  const given = values.get(OPTIONS.url).flatMap(addressesIn);
  if (given.length > 0) return [...new Set(given.map(normalizeUrl))].join(",");
  return (await new CredentialStore(context).read()).current ?? DEFAULT_URL;
}

/** The addresses in a text like that of {@link serverUrl}. */
export function addressesIn(text: string): string[] {
  return text
    .split(",")
    .map((address) => address.trim())
    .filter((address) => address !== "");
}

/**
 * Brings an address into one form, so that it finds its session again.
 * @throws {UsageError} when it is no http or https address, or holds a user name, password or query.
 */
export function normalizeUrl(given: string): string {
  let url: URL;
  try {
    url = new URL(given);
  } catch {
    throw new UsageError(
      "--url: expected an address that begins with http:// or https://, such as https://backup.example.org; this " +
        "one does not.",
    );
  }
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw new UsageError(`--url: expected http:// or https://, got ${url.protocol}//`);
  // Not echoed: it may hold the password.
  if (url.username !== "" || url.password !== "")
    throw new UsageError("--url must not hold a user name or password.", { hint: "strongroom login" });
  if (url.search !== "" || url.hash !== "") throw new UsageError("--url must not hold a query or fragment.");
  return `${url.origin}${url.pathname}`.replace(/\/+$/, "");
}

/**
 * Under which addresses a session for these is kept: the very same, else the first that have one in common, since
 * replicas share their sessions.
 */
export function sessionKey({ servers }: Credentials, url: string): string | undefined {
  if (servers[url] !== undefined) return url;
  const wanted = new Set(addressesIn(url));
  return Object.keys(servers).find((key) => addressesIn(key).some((address) => wanted.has(address)));
}

/** Whether what is sent to this address, or to one of these, can be read on its way. */
export function isUnprotected(url: string): boolean {
  return addressesIn(url).some((address) => {
    const { protocol, hostname } = new URL(address);
    return protocol === "http:" && !/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
  });
}

/** Where this run's token comes from. */
export type TokenPlace = { kind: "file"; path: string } | { kind: "environment"; token: string } | { kind: "stored" };

/** The order: --token-file, STRONGROOM_TOKEN, STRONGROOM_TOKEN_FILE, BM_AUTH_TOKEN, the session that login kept. */
export function tokenPlace(context: Context, values: OptionValues): TokenPlace {
  const path = values.get(OPTIONS.tokenFile);
  const secret = secretFromEnv(SECRETS.token, context.env);
  const fileFirst = values.source(OPTIONS.tokenFile) === "flag" || secret?.source !== "environment";
  if (path !== undefined && fileFirst) return { kind: "file", path };
  if (secret !== undefined) return { kind: "environment", token: secret.value.trim() };
  return { kind: "stored" };
}

async function tokenFor(
  context: Context,
  values: OptionValues,
  url: string,
  server: Server,
  sdk: Sdk,
  renews: boolean,
): Promise<() => Promise<string>> {
  const place = tokenPlace(context, values);
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
  const key = sessionKey(await store.read(), url);
  const stored = key === undefined ? undefined : (await store.read()).servers[key];
  if (key === undefined || stored === undefined) throw new NotLoggedInError(`Not logged in to ${url}.`, url);
  if (Date.parse(stored.expiresAt) <= context.now())
    throw new NotLoggedInError(`The session of ${stored.user} at ${url} has ended.`, url);
  if (!renews) return async () => stored.token;
  const refreshing = new RefreshingToken({
    read: async () => (await store.read()).servers[key]?.token ?? stored.token,
    keep: async (issued) => {
      const { sessionId = stored.sessionId, expiresAt } = issued.session ?? {};
      await store.replace(key, {
        token: issued.token,
        user: stored.user,
        sessionId,
        expiresAt: toIso(expiresAt) ?? stored.expiresAt,
      });
    },
    renew,
    now: context.now,
  });
  return () => refreshing.get();
}

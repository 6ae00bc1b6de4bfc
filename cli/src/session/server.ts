import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { ClientOptions } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { flagOf, type Option } from "@strongroom/command-line/option";
import type { OptionValues } from "@strongroom/command-line/values";
import type { Context } from "../context.ts";
import { addressesIn, CredentialStore, type Credentials, findSession, type TlsPaths } from "../files/credentials.ts";
import { OPTIONS } from "../options.ts";

/** Where a server listens when it is started without options. */
const DEFAULT_URL = "http://127.0.0.1:8080";

/**
 * The server that is meant: option or environment, else that of the last login (of the user that is named), also after
 * its logout, else the default. Several addresses of one installation are one text with commas between them; under it the session is kept.
 */
export async function serverUrl(context: Context, values: OptionValues): Promise<string> {
  const given = values.get(OPTIONS.url).flatMap(addressesIn);
  if (given.length > 0) return [...new Set(given.map(normalizeUrl))].join(",");
  const { sessions, left } = await new CredentialStore(context).read();
  if (left !== undefined) return left.url;
  const user = usernameIn(values);
  return (sessions.find((session) => session.user === user) ?? sessions[0])?.url ?? DEFAULT_URL;
}

/** The user that options or environment name, for commands that take one. */
export function usernameIn(values: OptionValues): string | undefined {
  return values.has(OPTIONS.username) ? values.get(OPTIONS.username) : undefined;
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

/** Whether what is sent to this address, or to one of these, can be read on its way. */
export function isUnprotected(url: string): boolean {
  return addressesIn(url).some((address) => {
    const { protocol, hostname } = new URL(address);
    return protocol === "http:" && !/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
  });
}

/**
 * The files of the TLS options: those that are given, else those of the login at this server. A certificate and its key
 * are given together or not at all.
 * @throws {UsageError} when only one of those is given.
 */
export async function tlsPaths(context: Context, values: OptionValues, url: string): Promise<TlsPaths> {
  const given = (spec: Option<string | undefined>) => {
    const path = values.get(spec);
    return path === undefined ? undefined : resolve(path);
  };
  const [ca, certificate, key] = [given(OPTIONS.tlsCa), given(OPTIONS.tlsCert), given(OPTIONS.tlsKey)];
  if ((certificate === undefined) !== (key === undefined))
    throw new UsageError("--tls-cert and --tls-key belong together; one of them is missing.");
  const isEncrypted = addressesIn(url).some((address) => address.startsWith("https:"));
  if (!isEncrypted || (ca !== undefined && certificate !== undefined)) return { ca, certificate, key };
  // A file that cannot be read is told where its session is wanted.
  const credentials: Credentials = await new CredentialStore(context).read().catch(() => ({ sessions: [] }));
  const { left } = credentials;
  const session = findSession(credentials, url, usernameIn(values)) ?? findSession(credentials, url);
  const kept = (session ?? (left?.url === url ? left : undefined))?.tls ?? {};
  const own = certificate === undefined ? kept : { certificate, key };
  return { ca: ca ?? kept.ca, certificate: own.certificate, key: own.key };
}

/** What is in the files. @throws {UsageError} when one cannot be read. */
export async function readTls(paths: TlsPaths): Promise<Pick<ClientOptions, "tls">> {
  const read = async (spec: Option<string | undefined>, path: string | undefined) => {
    if (path === undefined) return undefined;
    return await readFile(path).catch((cause: Error) => {
      throw new UsageError(`${flagOf(spec)}: the file cannot be read: ${cause.message}.`, { cause });
    });
  };
  const ca = await read(OPTIONS.tlsCa, paths.ca);
  const certificate = await read(OPTIONS.tlsCert, paths.certificate);
  const key = await read(OPTIONS.tlsKey, paths.key);
  if (ca === undefined && certificate === undefined) return {};
  return {
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(certificate === undefined ? {} : { certificate }),
      ...(key === undefined ? {} : { key }),
    },
  };
}

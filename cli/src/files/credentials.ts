import { randomUUID } from "node:crypto";
import { chmod, open, readFile, rename, rm } from "node:fs/promises";
import { posix, win32 } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { makeFolder } from "@strongroom/protocol/make-folder";
import type { Context } from "../context.ts";
import { withLock } from "./lock.ts";

/** Paths of the files of the TLS options, absolute. */
export interface TlsPaths {
  readonly ca?: string | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
}

/** A session that `login` keeps. */
export interface StoredSession {
  /** Address of the server; several of one installation with commas. */
  readonly url: string;
  /** As it was given to login: `user` or `user$key`. */
  readonly user: string;
  readonly token: string;
  /** RFC 3339. */
  readonly expiresAt: string;
  readonly sessionId: string;
  /** What login was given to trust the server by; later commands use it as well. */
  readonly tls?: TlsPaths | undefined;
}

/** The file: one session for each address and user, the last login first. */
export interface Credentials {
  readonly sessions: readonly StoredSession[];
  /**
   * The server of the last login, where it was logged out of: commands without `--url` mean it until the next login, and
   * none goes to another server by itself. How it is trusted is kept for that login.
   */
  readonly left?: LeftServer | undefined;
}

/** A server that was logged out of. */
export type LeftServer = Pick<StoredSession, "url" | "tls">;

/** The version of the file that is written; 1, which had one session for each address, is read. */
const FILE_VERSION = 2;
/** A larger file is none of ours. */
const MAX_FILE_LENGTH = 1024 * 1024;

/**
 * The folder for settings of the program: `%APPDATA%\strongroom` on Windows, `~/Library/Application Support/strongroom`
 * on macOS, else `$XDG_CONFIG_HOME/strongroom` or `~/.config/strongroom`. (XDG Base Directory Specification: a relative
 * path there is ignored.)
 */
export function configDirectory({ platform, env, home }: Pick<Context, "platform" | "env" | "home">): string {
  if (platform === "win32") return win32.join(env.APPDATA || win32.join(home, "AppData", "Roaming"), "strongroom");
  if (platform === "darwin") return posix.join(home, "Library", "Application Support", "strongroom");
  const configured = env.XDG_CONFIG_HOME ?? "";
  if (home === "" && !posix.isAbsolute(configured))
    throw new UsageError("HOME is not set to a folder, and the system does not name one for this user.", {
      hint: "set HOME or XDG_CONFIG_HOME, or give --url and --token-file, which need neither",
    });
  return posix.join(posix.isAbsolute(configured) ? configured : posix.join(home, ".config"), "strongroom");
}

/** Keeps session tokens in a file that only its owner can read. */
export class CredentialStore {
  /** Path of the file. */
  readonly file: string;
  readonly #directory: string;

  constructor(context: Pick<Context, "platform" | "env" | "home">) {
    this.#directory = configDirectory(context);
    this.file = (context.platform === "win32" ? win32 : posix).join(this.#directory, "credentials.json");
  }

  /** @throws {UsageError} when the file is there and is not what this program writes. */
  async read(): Promise<Credentials> {
    let text: string;
    try {
      text = await readFile(this.file, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return { sessions: [] };
      throw error;
    }
    const credentials = text.length > MAX_FILE_LENGTH ? undefined : parseCredentials(text);
    if (credentials === undefined)
      throw new UsageError(`${this.file} is damaged, or of a newer version of strongroom.`, {
        hint: "remove it and log in again",
      });
    return credentials;
  }

  /** Keeps a session, in the place of an earlier one of the same address and user, and before all others. */
  async save(session: StoredSession): Promise<void> {
    await this.#change(({ sessions }) => ({
      sessions: [session, ...sessions.filter((other) => !isSameEntry(other, session))],
    }));
  }

  /**
   * Puts a renewed session in the place of the one it was renewed from. Does nothing when that is not there any more:
   * somebody logged out, or in again.
   */
  async replace(old: StoredSession, renewed: StoredSession): Promise<void> {
    await this.#change(({ sessions, left }) => ({
      sessions: sessions.map((session) => (isSameSession(session, old) ? renewed : session)),
      left,
    }));
  }

  /** Forgets this session, and no other of its server or user; its server stays the one that is meant. */
  async forget(session: StoredSession): Promise<void> {
    await this.#change(({ sessions, left }) => {
      const [last] = sessions;
      const others = sessions.filter((other) => !isSameSession(other, session));
      const wasMeant = left === undefined && last !== undefined && isSameSession(last, session);
      const isLeft = wasMeant && !others.some(({ url }) => url === session.url);
      return { sessions: others, left: isLeft ? { url: session.url, tls: session.tls } : left };
    });
  }

  /** Commands of the same user run at the same time; whoever reads without the lock sees the old file or the new. */
  async #change(change: (credentials: Credentials) => Credentials): Promise<void> {
    await makeFolder(this.#directory, 0o700);
    // mkdir leaves an existing folder's mode alone.
    await chmod(this.#directory, 0o700);
    const once = async () =>
      await withLock(`${this.file}.lock`, async (isHeld) => {
        const content = { version: FILE_VERSION, ...change(await this.read()) };
        return await writePrivateFile(this.file, `${JSON.stringify(content, undefined, 2)}\n`, isHeld);
      });
    // Stopped in the middle, and taken for dead: what was read is old now.
    while (!(await once()));
  }
}

function isSameEntry(one: StoredSession, other: StoredSession): boolean {
  return one.url === other.url && one.user === other.user;
}

function isSameSession(one: StoredSession, other: StoredSession): boolean {
  return isSameEntry(one, other) && one.sessionId === other.sessionId;
}

/**
 * The session kept for these addresses: of that user, else of the last login; under the very same addresses, else under
 * some that have one in common, since replicas share their sessions.
 */
export function findSession({ sessions }: Credentials, url: string, user?: string): StoredSession | undefined {
  const candidates = user === undefined ? sessions : sessions.filter((session) => session.user === user);
  const wanted = new Set(addressesIn(url));
  return (
    candidates.find((session) => session.url === url) ??
    candidates.find((session) => addressesIn(session.url).some((address) => wanted.has(address)))
  );
}

/** The addresses in a text that holds several with commas between them. */
export function addressesIn(text: string): string[] {
  return text
    .split(",")
    .map((address) => address.trim())
    .filter((address) => address !== "");
}

/**
 * Writes a file that only its owner can read, whole or not at all: a reader sees the old content or the new.
 * @param mayReplace is asked last, when only the rename is left.
 * @returns whether it was put in place.
 */
export async function writePrivateFile(
  path: string,
  content: string,
  mayReplace: () => Promise<boolean> = async () => true,
): Promise<boolean> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    const isWanted = await mayReplace();
    await (isWanted ? rename(temporary, path) : rm(temporary));
    return isWanted;
  } catch (error) {
    await rm(temporary, { force: true });
    // The system's error of an open file does not say which file it is.
    throw error instanceof Error ? Object.assign(error, { path }) : error;
  }
}

function parseCredentials(text: string): Credentials | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value)) return undefined;
  const found = value.version === FILE_VERSION ? value.sessions : sessionsOfVersion1(value);
  if (!Array.isArray(found) || !found.every(isStoredSession)) return undefined;
  return isLeftServer(value.left) ? { sessions: found, left: value.left } : { sessions: found };
}

/** Sessions by address, and the address of the last login. */
function sessionsOfVersion1({ version = 1, current, servers }: Record<string, unknown>): unknown[] | undefined {
  if (version !== 1 || !isRecord(servers)) return undefined;
  const sessions = Object.entries(servers).map(([url, session]) => (isRecord(session) ? { ...session, url } : session));
  const isCurrent = (session: unknown) => isRecord(session) && session.url === current;
  return [...sessions.filter(isCurrent), ...sessions.filter((session) => !isCurrent(session))];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStoredSession(value: unknown): value is StoredSession {
  if (!isRecord(value)) return false;
  return (
    isTls(value.tls) &&
    ["url", "token", "user", "expiresAt", "sessionId"].every((key) => typeof value[key] === "string")
  );
}

function isLeftServer(value: unknown): value is LeftServer {
  return isRecord(value) && typeof value.url === "string" && isTls(value.tls);
}

function isTls(tls: unknown): boolean {
  const isPath = (path: unknown) => path === undefined || typeof path === "string";
  return tls === undefined || (isRecord(tls) && [tls.ca, tls.certificate, tls.key].every(isPath));
}

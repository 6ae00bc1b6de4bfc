import { randomUUID } from "node:crypto";
import { chmod, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { posix, win32 } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import type { Context } from "../context.ts";

/** A session that `login` keeps. */
export interface StoredSession {
  readonly token: string;
  readonly user: string;
  /** RFC 3339. */
  readonly expiresAt: string;
  readonly sessionId: string;
}

/** The file: sessions by address of the server, and the server that is meant when none is named. */
export interface Credentials {
  readonly current: string | undefined;
  readonly servers: Readonly<Record<string, StoredSession>>;
}

/**
 * The folder for settings of the program: `%APPDATA%\strongroom` on Windows, `~/Library/Application Support/strongroom`
 * on macOS, else `$XDG_CONFIG_HOME/strongroom` or `~/.config/strongroom`. (XDG Base Directory Specification: a relative
 * path there is ignored.)
 */
export function configDirectory({ platform, env, home }: Pick<Context, "platform" | "env" | "home">): string {
  if (platform === "win32") return win32.join(env.APPDATA || win32.join(home, "AppData", "Roaming"), "strongroom");
  if (platform === "darwin") return posix.join(home, "Library", "Application Support", "strongroom");
  const configured = env.XDG_CONFIG_HOME ?? "";
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
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return { current: undefined, servers: {} };
      throw error;
    }
    const credentials = parseCredentials(text);
    if (credentials === undefined)
      throw new UsageError(`${this.file} is damaged.`, { hint: "remove it and log in again" });
    return credentials;
  }

  /** Keeps a session and makes its server the current one. */
  async save(url: string, session: StoredSession): Promise<void> {
    const { servers } = await this.read();
    await this.#write({ current: url, servers: { ...servers, [url]: session } });
  }

  /**
   * Puts a new token in the place of one that is near its end. Does nothing when the server was logged out of
   * meanwhile.
   */
  async replace(url: string, session: StoredSession): Promise<void> {
    const { current, servers } = await this.read();
    if (servers[url] !== undefined) await this.#write({ current, servers: { ...servers, [url]: session } });
  }

  /** Forgets the session of a server; some other server becomes the current one. */
  async forget(url: string): Promise<void> {
    const { current, servers } = await this.read();
    const { [url]: _gone, ...rest } = servers;
    await this.#write({ current: current === url ? Object.keys(rest)[0] : current, servers: rest });
  }

  async #write(credentials: Credentials): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    // mkdir leaves an existing folder's mode alone.
    await chmod(this.#directory, 0o700);
    await writePrivateFile(this.file, `${JSON.stringify({ version: 1, ...credentials }, undefined, 2)}\n`);
  }
}

/** Writes a file that only its owner can read, whole or not at all: a reader sees the old content or the new. */
export async function writePrivateFile(path: string, content: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

function parseCredentials(text: string): Credentials | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || !isRecord(value.servers)) return undefined;
  const servers: Record<string, StoredSession> = {};
  for (const [url, session] of Object.entries(value.servers)) {
    if (!isStoredSession(session)) return undefined;
    servers[url] = session;
  }
  return { current: typeof value.current === "string" ? value.current : undefined, servers };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStoredSession(value: unknown): value is StoredSession {
  return isRecord(value) && ["token", "user", "expiresAt", "sessionId"].every((key) => typeof value[key] === "string");
}

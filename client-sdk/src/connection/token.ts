/**
 * Where session tokens come from. A token goes into the `authorization` header and nowhere else: not into messages,
 * logs or arguments.
 */
import { readFile } from "node:fs/promises";
import { AuthenticationError, InvalidRequestError } from "../errors.ts";

/**
 * A session token, or a function that is asked for it before every call, so that a token may change during a long
 * upload. It is given the token that the server refused last, if it did since the one before was taken: whoever can log
 * in again does so then. A refused call is made again where there is another token by then.
 */
export type TokenSource = string | ((refused?: string) => string | Promise<string>);

/**
 * A token source that reads a file before every call, for files that something else keeps fresh (a mounted Secret, a
 * login job).
 *
 * @param path - the file; blanks around the token are ignored
 * @returns a function for `ClientOptions.token`; it throws {@link AuthenticationError} when the file cannot be read
 */
export function tokenFromFile(path: string): () => Promise<string> {
  return async () => {
    try {
      return await readFile(path, "utf8");
    } catch (cause) {
      throw new AuthenticationError(`Expected a session token in ${path}, but the file cannot be read.`, {
        code: "unauthenticated",
        cause,
      });
    }
  };
}

/**
 * Asks the source and makes the value of the `authorization` header; undefined when there is no token.
 *
 * @throws AuthenticationError when the text cannot be a token; the message does not repeat it, as fetch's own error for
 *   a malformed header would
 */
export async function authorizationValue(
  source: TokenSource | undefined,
  refused?: string,
): Promise<string | undefined> {
  const token = (typeof source === "function" ? await ask(source, refused) : source)?.trim();
  if (!token) return undefined;
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new AuthenticationError(
      `Expected a session token of printable characters without blanks, got ${token.length} characters ` +
        "with others among them; check where the token comes from.",
      { code: "unauthenticated" },
    );
  }
  return `Bearer ${token}`;
}

/** The `authorization` header of calls, asked for once for each: a wrong token is noticed before anything is opened. */
export class Authorization {
  readonly #source: TokenSource | undefined;
  #ahead: string | undefined;
  #refused: string | undefined;

  constructor(source: TokenSource | undefined) {
    this.#source = source;
  }

  /** Asks already now, for the next call. @throws AuthenticationError */
  async ahead(): Promise<void> {
    this.#ahead = await this.#ask();
  }

  /** The server refused a call with this value: the source is told at the next one. */
  refused(value: string): void {
    this.#refused = value.replace(/^Bearer /, "");
  }

  /** The value for a call; undefined without a token. @throws AuthenticationError */
  async value(): Promise<string | undefined> {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    return ahead ?? (await this.#ask());
  }

  async #ask(): Promise<string | undefined> {
    const refused = this.#refused;
    this.#refused = undefined;
    return await authorizationValue(this.#source, refused);
  }
}

async function ask(source: Exclude<TokenSource, string>, refused: string | undefined): Promise<string> {
  try {
    return await source(refused);
  } catch (cause) {
    if (cause instanceof AuthenticationError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new AuthenticationError(`The source of the session token failed: ${message}`, {
      code: "unauthenticated",
      cause,
    });
  }
}

/**
 * Checks the address of a server.
 *
 * @returns the address without a slash at its end
 * @throws InvalidRequestError when it is not http(s), or carries a user name or password, which would end up in
 *   messages
 */
export function checkServerUrl(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol) || parsed.hostname === "") {
    throw new InvalidRequestError(
      "Expected the address of a server like https://backups.example.org or http://127.0.0.1:8080.",
      {
        code: "invalid_argument",
      },
    );
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw new InvalidRequestError(
      "The address of the server must not contain a user name or a password; log in and give the token instead.",
      {
        code: "invalid_argument",
      },
    );
  }
  return `${parsed.origin}${parsed.pathname}`.replace(/\/+$/, "");
}

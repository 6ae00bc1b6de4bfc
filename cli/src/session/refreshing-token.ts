import type { Timestamp } from "../terminal/format.ts";

/** A token and the session it is of, as the server issues them. */
export interface Issued {
  readonly token: string;
  readonly session?: { readonly sessionId: string; readonly expiresAt?: Timestamp | undefined } | undefined;
}

/**
 * A token is renewed when it ends within this time, in milliseconds, or within a quarter of its life if that is
 * shorter.
 */
const MARGIN_MS = 10 * 60_000;
/** After a renewal failed, the next is tried this much later, in milliseconds; the old token still works meanwhile. */
const PAUSE_MS = 30_000;

/**
 * A session token that is renewed shortly before it ends, so that a dump may take longer than a session lasts. The
 * server keeps the old one valid to its own end, so calls under way are not disturbed.
 */
export class RefreshingToken {
  readonly #read: () => Promise<string>;
  readonly #keep: (issued: Issued) => Promise<void>;
  readonly #renew: (token: string) => Promise<Issued>;
  readonly #now: () => number;
  #renewing: Promise<string> | undefined;
  /** A new token that could not be kept (a full disk): this run goes on with it. */
  #unkept: string | undefined;
  #notBefore = 0;

  constructor(parts: {
    read: () => Promise<string>;
    keep: (issued: Issued) => Promise<void>;
    renew: (token: string) => Promise<Issued>;
    now: () => number;
  }) {
    this.#read = parts.read;
    this.#keep = parts.keep;
    this.#renew = parts.renew;
    this.#now = parts.now;
  }

  /**
   * The token to send with the next call. Segments are sent in parallel: they share one renewal.
   * @param mustReplace whether the token is to be renewed whatever its time.
   */
  async get(mustReplace: (token: string) => boolean = () => false): Promise<string> {
    const token = this.#unkept ?? (await this.#read());
    if (this.#renewing !== undefined) return await this.#renewing;
    const isDue = this.#now() >= this.#notBefore && this.#endsSoon(token);
    if (!isDue && !mustReplace(token)) return token;
    this.#renewing = this.#replace(token).finally(() => {
      this.#renewing = undefined;
    });
    return await this.#renewing;
  }

  async #replace(token: string): Promise<string> {
    this.#notBefore = this.#now() + PAUSE_MS;
    try {
      const issued = await this.#renew(token);
      await this.#keep(issued).catch(() => {
        this.#unkept = issued.token;
      });
      return issued.token;
    } catch {
      // The call that wanted the token says what is wrong, if anything is.
      return token;
    }
  }

  #endsSoon(token: string): boolean {
    const life = tokenLife(token);
    if (life === undefined) return false;
    const margin = Math.min(MARGIN_MS, (life.endsAt - life.beganAt) / 4);
    return life.endsAt - this.#now() < margin;
  }
}

/**
 * When a JSON Web Token was issued and when it ends (`iat` and `exp`, RFC 7519), in milliseconds; undefined when it
 * does not say. Its signature is the server's affair.
 */
export function tokenLife(token: string): { beganAt: number; endsAt: number } | undefined {
  try {
    const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8")) as {
      iat?: unknown;
      exp?: unknown;
    };
    if (typeof claims.iat !== "number" || typeof claims.exp !== "number") return undefined;
    return { beganAt: claims.iat * 1000, endsAt: claims.exp * 1000 };
  } catch {
    return undefined;
  }
}

import { cors } from "@connectrpc/connect";
import { HEALTH_SECRET_HEADER, REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import type { RequestHandler } from "./listener.ts";

const METHODS = cors.allowedMethods.join(", ");
const SENT = [...cors.allowedHeaders, "Authorization", REQUEST_ID_HEADER, HEALTH_SECRET_HEADER].join(", ");
const SHOWN = [...cors.exposedHeaders, REQUEST_ID_HEADER].join(", ");

/** How long a browser remembers the answer to a preflight, in seconds; browsers have lower limits of their own. */
const MAX_AGE = "7200";

/**
 * Lets pages of some origins call this server from a browser (https://fetch.spec.whatwg.org/#http-cors-protocol). For
 * all others nothing is said, and browsers refuse.
 */
export class CrossOrigin {
  readonly #origins: ReadonlySet<string>;

  /** @param origins - such as `https://console.example.org`; none for no cross-origin calls. */
  constructor(origins: readonly string[]) {
    this.#origins = new Set(origins);
  }

  /** Adds to an answer that the page which asks may read it. @returns whether it may. */
  allow(...[req, res]: Parameters<RequestHandler>): boolean {
    if (this.#origins.size === 0) return false;
    res.setHeader("vary", "Origin");
    const { origin } = req.headers;
    if (origin === undefined || !this.#origins.has(origin)) return false;
    res.setHeader("access-control-allow-origin", origin);
    res.setHeader("access-control-expose-headers", SHOWN);
    return true;
  }

  /** Adds to the answer of a preflight what the page may send. */
  describe(...[, res]: Parameters<RequestHandler>): void {
    res.setHeader("access-control-allow-methods", METHODS);
    res.setHeader("access-control-allow-headers", SENT);
    res.setHeader("access-control-max-age", MAX_AGE);
  }
}

import type http from "node:http";
import type http2 from "node:http2";
import { normalizeAddress } from "../domain/addresses.ts";
import { budgetHolder } from "../domain/rate-limit.ts";

/** A request of either protocol, as Node.js gives it. */
export type IncomingRequest = http.IncomingMessage | http2.Http2ServerRequest;

/** What an HTTP/2 connection may have unread here, and how many calls at once. */
interface SessionBounds {
  /** Flow-control window of each stream in bytes: what one call can have unread in memory here. */
  readonly streamWindow: number;
  /** Flow-control window of the connection in bytes. Node.js gives it back whether or not anybody reads, so it bounds nothing but the speed. */
  readonly sessionWindow: number;
  readonly streams: number;
}

/** After the first authenticated call. Node's defaults (64 KiB) halve the throughput even on loopback. */
export const KNOWN_CALLER: SessionBounds = {
  streamWindow: 2 * 1024 * 1024,
  sessionWindow: 4 * 1024 * 1024,
  streams: 256,
};

/** A connection from its first byte to its last. It knows who holds it, and whether its caller is known. */
export class Connection {
  /** Who counts as its holder: the IPv4 address at the other end of the socket, or the /64 of its IPv6 address. A proxy's for what comes by a proxy. */
  readonly holder: string;
  #session: http2.ServerHttp2Session | undefined;
  #isKnown = false;

  /** @param address - of the socket, as Node.js gives it. */
  constructor(address: string) {
    this.holder = budgetHolder(normalizeAddress(address));
  }

  /** Whether a call on it was authenticated. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /** Takes note that the connection speaks HTTP/2. */
  speaksHttp2(session: http2.ServerHttp2Session): void {
    this.#session = session;
  }

  /** A call on it was authenticated: whoever calls may send faster, and more at once. For doors, at each such call. */
  authenticated(): void {
    if (this.#isKnown) return;
    this.#isKnown = true;
    const session = this.#session;
    if (session === undefined || session.destroyed) return;
    // Raises the windows of running streams too (RFC 9113, section 6.9.2), so the call that was authenticated gains from it.
    session.settings({ initialWindowSize: KNOWN_CALLER.streamWindow, maxConcurrentStreams: KNOWN_CALLER.streams });
    session.setLocalWindowSize(KNOWN_CALLER.sessionWindow);
  }
}

const byRequest = new WeakMap<IncomingRequest, Connection>();

/** Remembers by which connection a request came. For the listener. */
export function cameBy(req: IncomingRequest, connection: Connection): void {
  byRequest.set(req, connection);
}

/** The connection a request came by. @throws Error for a request that no listener of ours took. */
export function connectionOf(req: IncomingRequest): Connection {
  const connection = byRequest.get(req);
  if (connection === undefined) throw new Error("expected a request that the listener took, got another one");
  return connection;
}

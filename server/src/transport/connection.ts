import type http from "node:http";
import type http2 from "node:http2";
import type { Socket } from "node:net";
import { normalizeAddress } from "../domain/addresses.ts";
import { budgetHolder } from "../domain/rate-limit.ts";

/** A request of either protocol, as Node.js gives it. */
export type IncomingRequest = http.IncomingMessage | http2.Http2ServerRequest;

/** What an HTTP/2 connection may have unread here, and how many calls at once. */
interface SessionBounds {
  /** Flow-control window of each stream in bytes: what one call can have unread in memory here. */
  readonly streamWindow: number;
  /**
   * Flow-control window of the connection in bytes. Node.js gives it back whether or not they are read, so it bounds
   * nothing but the speed.
   */
  readonly sessionWindow: number;
  readonly streams: number;
}

/**
 * Before the first authenticated call. What a stranger sends and nobody reads stays below 2 MiB for a connection:
 * Node.js takes bytes off the socket up to each stream's window.
 */
export const STRANGER: SessionBounds = {
  streamWindow: 65_535,
  sessionWindow: 65_535,
  streams: 32,
};

/** After the first authenticated call. Node's defaults (64 KiB) halve the throughput even on loopback. */
export const KNOWN_CALLER: SessionBounds = {
  streamWindow: 2 * 1024 * 1024,
  sessionWindow: 4 * 1024 * 1024,
  streams: 256,
};

/** Is notified of what happens to a connection. */
interface ConnectionEvents {
  /** A call began or ended. */
  active(connection: Connection): void;
  /** Its first call was authenticated. */
  known(connection: Connection): void;
}

/** A connection from its first byte to its last. It knows who holds it, and whether its caller is known. */
export class Connection {
  /** Address at the other end of the socket; a proxy's for what comes by a proxy. */
  readonly address: string;
  /** Who counts as its holder: the IPv4 address, or the /64 of the IPv6 address. */
  readonly holder: string;
  readonly #socket: Socket;
  readonly #events: ConnectionEvents | undefined;
  #session: http2.ServerHttp2Session | undefined;
  #isKnown = false;
  #latest: IncomingRequest | undefined;

  /** @param socket - the TCP connection itself, below TLS. */
  constructor(socket: Socket, events?: ConnectionEvents) {
    this.address = normalizeAddress(socket.remoteAddress ?? "");
    this.holder = budgetHolder(this.address);
    this.#socket = socket;
    this.#events = events;
  }

  /** Whether a call on it was authenticated. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /** Takes note that the connection speaks HTTP/2. */
  speaksHttp2(session: http2.ServerHttp2Session): void {
    this.#session = session;
  }

  /** Takes note of a request of this connection. */
  carries(req: IncomingRequest, res: http.ServerResponse | http2.Http2ServerResponse): void {
    byRequest.set(req, this);
    this.#latest = req;
    this.#events?.active(this);
    res.once("close", () => {
      // An idle connection keeps nothing of what it carried.
      if (this.#latest === req) this.#latest = undefined;
      this.#events?.active(this);
    });
  }

  /** Whether no request began on it after this one, which is not answered yet. */
  isLatest(req: IncomingRequest): boolean {
    return this.#latest === req;
  }

  /** A call on it was authenticated: whoever calls may send faster, and more at once. For doors, at each such call. */
  authenticated(): void {
    if (this.#isKnown) return;
    this.#isKnown = true;
    this.#events?.known(this);
    const session = this.#session;
    if (session === undefined || session.destroyed) return;
    // First, since Node.js sends it only with the next frame.
    session.setLocalWindowSize(KNOWN_CALLER.sessionWindow);
    // Raises the windows of running streams too (RFC 9113, section 6.9.2), so the call that was authenticated gains
    // from it.
    session.settings({ initialWindowSize: KNOWN_CALLER.streamWindow, maxConcurrentStreams: KNOWN_CALLER.streams });
  }

  /** Cuts it off, so that its file is free at once. */
  cut(): void {
    this.#session?.destroy();
    this.#socket.destroy();
  }
}

const byRequest = new WeakMap<IncomingRequest, Connection>();

/** The connection of a request. @throws Error for a request that no listener of ours took. */
export function connectionOf(req: IncomingRequest): Connection {
  const connection = byRequest.get(req);
  if (connection === undefined) throw new Error("expected a request that the listener took, got another one");
  return connection;
}

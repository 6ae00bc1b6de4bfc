/**
 * The HTTP/2 connection to one address: opened with the first call and again after it broke, watched while it is used.
 *
 * The manager of connect-node opens its sockets by itself (no proxy, nothing but HTTP/2), takes its listeners away from
 * a session whose errors are still to come, and takes a connection for dead by unanswered PINGs alone, which wait
 * behind segments on a slow line. This one hears every byte that arrives.
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  connect as connectHttp2,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { Code, ConnectError } from "@connectrpc/connect";
import { LinkedController, orAborted } from "../abort.ts";
import { closedEarly, type Destination, dial } from "./dial.ts";
import type { Timings } from "./timings.ts";

/**
 * Node's limit (in MB) for what one session holds; the default of 10 refuses streams with ENHANCE_YOUR_CALM when chunks
 * are 1 MiB.
 */
const MAX_SESSION_MEMORY_MB = 1000;

/** A server that ends every new connection at once is not tried more often than this for one call. */
const MOST_SESSIONS_PER_CALL = 3;

/** When to give up on a connection: while it opens, and while nothing is heard on it. */
export type Patience = Pick<Timings, "connectMs" | "pingIntervalMs" | "pingTimeoutMs">;

/** What a manager is made with. */
export interface SessionManagerOptions {
  /** Where it connects to. */
  readonly destination: Destination;
  /** Bytes the server may have under way on one stream; the connection's window is twice that. */
  readonly windowBytes: number;
  /** Asked again and again: with another address to go to, patience is shorter. */
  readonly patience: () => Patience;
}

/**
 * The other end of a new connection speaks HTTP/1.1, not HTTP/2; that is no failure. Not a ConnectError: every one of
 * those is an instance of each of its subclasses.
 */
export class SpeaksHttp1 extends Error {
  constructor(cause?: unknown) {
    super("the other end does not speak HTTP/2", { cause });
  }
}

/** One connection, and what is known about it. */
interface Live {
  readonly session: ClientHttp2Session;
  readonly socket: Socket;
  /** Streams that are open. */
  streams: number;
  /** How many bytes had been received when it was looked at last, and when that changed, on the monotonic clock. */
  received: number;
  heardAt: number;
  /** Since when a PING is unanswered; undefined: none is. */
  askedAt: number | undefined;
  timer: NodeJS.Timeout | undefined;
  error: Error | undefined;
}

/** Opens and watches HTTP/2 sessions to one address, one at a time. Made for the stock transport of connect-node. */
export class SessionManager {
  /** Origin of the address, as the stock transport compares it. */
  readonly authority: string;
  readonly #options: SessionManagerOptions;
  #current: Live | undefined;
  readonly #all = new Set<Live>();
  #opening: { promise: Promise<Live>; ending: LinkedController } | undefined;

  constructor(options: SessionManagerOptions) {
    this.#options = options;
    this.authority = options.destination.url.origin;
  }

  /** Whether there is a connection, as far as anybody knows. */
  get isOpen(): boolean {
    return this.#current !== undefined;
  }

  /**
   * Opens a connection, or makes sure that the one there is still works.
   * @throws SpeaksHttp1, or a ConnectError of code `unavailable`
   */
  async ready(): Promise<void> {
    await this.#live();
  }

  /** Sends the headers of a request. */
  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream> {
    for (let attempt = 1; ; attempt++) {
      const live = await this.#live();
      try {
        const stream = live.session.request({ ...headers, ":method": method, ":path": path }, options);
        this.#track(live, stream);
        return stream;
      } catch (error) {
        // Closed by the server between two lines of ours: nothing was sent.
        const gone = live.session.closed || live.session.destroyed;
        if (gone && attempt < MOST_SESSIONS_PER_CALL) continue;
        throw gone ? unavailable(live.error ?? (error as Error)) : error;
      }
    }
  }

  /** For the stock transport; what arrives is heard without it. */
  notifyResponseByteRead(): void {}

  /** Ends connections and calls under way; the next call opens a new one. */
  abort(reason: Error = new ConnectError("connection aborted", Code.Canceled)): void {
    this.stopConnecting(reason);
    for (const live of [...this.#all]) live.session.destroy(reason, constants.NGHTTP2_CANCEL);
  }

  /** Gives up connecting, so that the next call tries again; an established connection is left alone. */
  stopConnecting(reason: Error = new ConnectError("connection aborted", Code.Canceled)): void {
    this.#opening?.ending.abort(reason);
  }

  async #live(): Promise<Live> {
    const current = this.#current;
    if (current !== undefined && !current.session.closed && !current.session.destroyed) {
      const { pingIntervalMs, pingTimeoutMs } = this.#options.patience();
      if (current.streams > 0 || performance.now() - current.heardAt < pingIntervalMs) return current;
      // Idle for long: a firewall may have forgotten it.
      if (await answersPing(current, pingTimeoutMs)) return current;
      current.session.destroy(silent(pingTimeoutMs), constants.NGHTTP2_CANCEL);
    }
    this.#opening ??= this.#open();
    return await this.#opening.promise;
  }

  #open(): { promise: Promise<Live>; ending: LinkedController } {
    const { connectMs } = this.#options.patience();
    const ending = new LinkedController();
    const timer = setTimeout(() => ending.abort(notConnected(connectMs)), connectMs);
    const promise = this.#connect(ending.signal)
      .catch((error: unknown) => {
        throw error instanceof ConnectError || error instanceof SpeaksHttp1 ? error : unavailable(error as Error);
      })
      .finally(() => {
        clearTimeout(timer);
        this.#opening = undefined;
      });
    // Whoever asked for it may be gone.
    promise.catch(() => undefined);
    return { promise, ending };
  }

  async #connect(signal: AbortSignal): Promise<Live> {
    const { destination, windowBytes } = this.#options;
    const socket = await dial(destination, ["h2", "http/1.1"], signal).catch((error: NodeJS.ErrnoException) => {
      // A TLS end that knows neither name has said so by this alert; what speaks HTTP/1.1 only may know no names.
      if (error.code === "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL") throw new SpeaksHttp1(error);
      throw error;
    });
    if ((socket as TLSSocket).alpnProtocol === "http/1.1") {
      socket.destroy();
      throw new SpeaksHttp1();
    }
    const session = connectHttp2(this.authority, {
      createConnection: () => socket,
      settings: { initialWindowSize: windowBytes, enablePush: false },
      maxSessionMemory: MAX_SESSION_MEMORY_MB,
    });
    const live: Live = {
      session,
      socket,
      streams: 0,
      received: 0,
      heardAt: performance.now(),
      askedAt: undefined,
      timer: undefined,
      error: undefined,
    };
    // For as long as the session lives: it may fail when nobody waits for anything.
    session.on("error", (error: Error) => {
      live.error ??= error;
    });
    // An alert of TLS 1.3 about this client's certificate arrives after the handshake. Node.js tells the socket only,
    // and the session then never says that it has ended.
    socket.once("error", (error: Error) => {
      live.error ??= error;
      this.#forget(live);
      if (!session.destroyed) session.destroy(error);
    });
    session.on("close", () => this.#forget(live));
    session.on("goaway", () => {
      if (this.#current === live) this.#current = undefined;
      // Node.js lets one without streams stand.
      if (live.streams === 0) session.destroy();
    });
    this.#all.add(live);
    try {
      await orAborted(firstSettings(session, socket), signal);
    } catch (error) {
      session.destroy();
      throw error;
    }
    session.setLocalWindowSize(2 * windowBytes);
    session.unref();
    this.#current = live;
    return live;
  }

  #track(live: Live, stream: ClientHttp2Stream): void {
    live.streams += 1;
    if (live.streams === 1) {
      live.session.ref();
      live.heardAt = performance.now();
      this.#watch(live);
    }
    stream.once("close", () => {
      live.streams -= 1;
      if (live.streams > 0) return;
      clearTimeout(live.timer);
      live.askedAt = undefined;
      if (!live.session.destroyed) live.session.unref();
      if (this.#current !== live && !live.session.destroyed) live.session.close();
    });
  }

  /** Asks by a PING when nothing was heard for a while, and ends the connection when nothing follows. */
  #watch(live: Live): void {
    const { pingIntervalMs, pingTimeoutMs } = this.#options.patience();
    const now = performance.now();
    const received = live.socket.bytesRead;
    if (received !== live.received) {
      live.received = received;
      live.heardAt = now;
      live.askedAt = undefined;
    }
    if (live.askedAt !== undefined && now - live.askedAt >= pingTimeoutMs) {
      live.session.destroy(silent(now - live.heardAt), constants.NGHTTP2_CANCEL);
      return;
    }
    if (live.askedAt === undefined && now - live.heardAt >= pingIntervalMs) {
      live.askedAt = now;
      ping(live.session).catch(() => undefined);
    }
    live.timer = setTimeout(() => this.#watch(live), Math.max(10, Math.min(pingIntervalMs, pingTimeoutMs) / 8));
    live.timer.unref();
  }

  #forget(live: Live): void {
    clearTimeout(live.timer);
    this.#all.delete(live);
    if (this.#current === live) this.#current = undefined;
  }
}

/** Waits for the first frame of the other end, which HTTP/2 makes its settings (RFC 9113, section 3.4). */
function firstSettings(session: ClientHttp2Session, socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => {
      // What is no frame at all: most likely the status line of an HTTP/1.1 answer.
      reject(error.code === "ERR_HTTP2_ERROR" ? new SpeaksHttp1(error) : error);
    };
    // The session destroys its socket with its own error, so either may be first.
    socket.once("error", onError);
    session.once("error", onError);
    session.once("remoteSettings", () => resolve());
    session.once("close", () => reject(closedEarly()));
  });
}

function ping(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    session.ping((error) => (error === null ? resolve() : reject(error)));
  });
}

async function answersPing(live: Live, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  live.session.ref();
  try {
    const answered = ping(live.session).then(
      () => true,
      () => false,
    );
    const alive = await Promise.race([answered, late]);
    if (alive) live.heardAt = performance.now();
    return alive;
  } finally {
    clearTimeout(timer);
    if (live.streams === 0 && !live.session.destroyed) live.session.unref();
  }
}

function silent(ms: number): ConnectError {
  return new ConnectError(`nothing was heard from the server for ${Math.round(ms / 1000)} s`, Code.Unavailable);
}

function notConnected(ms: number): ConnectError {
  const cause = Object.assign(new Error("connecting took too long"), { code: "ETIMEDOUT" });
  return new ConnectError(`no connection within ${ms / 1000} s`, Code.Unavailable, undefined, undefined, cause);
}

function unavailable(cause: Error): ConnectError {
  return new ConnectError(cause.message, Code.Unavailable, undefined, undefined, cause);
}

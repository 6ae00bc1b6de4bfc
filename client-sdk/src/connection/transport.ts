/**
 * Connections to the server: the Connect protocol over HTTP/2, tuned for a few large streams.
 *
 * The stock client stops at 64 KiB under way for a connection, and has no hook to change that; {@link SessionManager}
 * sets it. Each upload and each download has a connection of its own, because streams that share one also share its
 * flow control, its memory limit and its end.
 */
import { randomUUID } from "node:crypto";
import type { ClientHttp2Session, ClientHttp2Stream, SecureClientSessionOptions } from "node:http2";
import { createSecureContext } from "node:tls";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { orAborted } from "../abort.ts";
import { InvalidRequestError } from "../errors.ts";
import { Endpoints } from "./endpoints.ts";
import { withFastSegments } from "./segment-transport.ts";
import { DEFAULT_TIMINGS, type Timings } from "./timings.ts";
import { authorizationValue, type TokenSource } from "./token.ts";

const MIB = 1024 * 1024;

/** Bytes the server may send on one stream before this end has read them. */
const STREAM_WINDOW_BYTES = 1 * MIB;

/** Window of a download's stream: with 1 MiB, a round trip of 40 ms would hold it at 25 MiB/s. */
export const DOWNLOAD_WINDOW_BYTES = 4 * MIB;

/**
 * Node's limit (in MB) for what one session holds; the default of 10 refuses streams with ENHANCE_YOUR_CALM when chunks
 * are 1 MiB.
 */
const MAX_SESSION_MEMORY_MB = 1000;

/** Pages of lists end at 1 MiB; those of servers before that bound had 45 MiB at most. */
const READ_MAX_BYTES = 64 * MIB;

/** TLS beyond the authorities that Node.js knows by itself. All are PEM, as text or bytes. */
export interface TlsOptions {
  /** Certificates of the authorities that the server's certificate may come from, instead of the usual ones. */
  ca?: string | Uint8Array;
  /** Certificate of this client, for servers that ask for one; needs `key`. */
  certificate?: string | Uint8Array;
  /** Private key of `certificate`, not encrypted. */
  key?: string | Uint8Array;
}

/** Where to connect, as whom, and when to give up. */
export interface ConnectionOptions {
  /** Addresses of one installation, checked with `checkServerUrl`; at least one. */
  urls: readonly string[];
  /** Session token or its source. */
  token?: TokenSource | undefined;
  /** For `https` addresses. */
  tls?: TlsOptions | undefined;
  /** Bytes the server may have under way on one stream; the connection's window is twice that. Default 1 MiB. */
  windowBytes?: number;
  /** The largest message that is taken, in bytes; default 64 MiB. */
  readMaxBytes?: number;
  /** When to take a connection for dead; default {@link DEFAULT_TIMINGS}. */
  timings?: ConnectionTimings;
  /** Whether a unary call that did not reach its server is made again at the other addresses; default false. */
  repeat?: boolean;
}

/** When a connection is taken for dead. */
export type ConnectionTimings = Pick<Timings, "connectMs" | "pingIntervalMs" | "pingTimeoutMs">;

/** A connection that opens itself with the first call, and again with the next call after it broke. */
export interface Connection {
  /** For `createClient`. */
  readonly transport: Transport;
  /** The addresses, for messages. */
  readonly url: string;
  /** How many addresses there are. */
  readonly addresses: number;
  /** After a failure: whether another address is worth an attempt at once. */
  readonly elsewhere: boolean;
  /** Drops the connection, and with it every call under way; the next call opens a new one. */
  reset(): void;
  /** Gives up connecting, so that the next call tries again; an established connection is left alone. */
  stopConnecting(): void;
}

/** Makes a connection; nothing is sent before the first call. */
export function createConnection(options: ConnectionOptions): Connection {
  const managers = options.urls.map((url) => new SessionManager(url, options));
  const endpoints = new Endpoints(
    options.urls.map((url, index) => ({ url, transport: createTransport(url, managers[index]!, options) })),
    options.repeat ?? false,
  );
  return {
    transport: endpoints.transport,
    url: options.urls.join(", "),
    addresses: options.urls.length,
    get elsewhere() {
      return endpoints.elsewhere;
    },
    reset: () => {
      for (const manager of managers) manager.abort();
    },
    stopConnecting: () => {
      for (const manager of managers) if (manager.state() === "connecting") manager.abort();
    },
  };
}

function createTransport(baseUrl: string, manager: Http2SessionManager, options: ConnectionOptions): Transport {
  const interceptors = [requestIdInterceptor, authInterceptor(options.token)];
  const stock = createConnectTransport({
    baseUrl,
    httpVersion: "2",
    sessionManager: manager,
    readMaxBytes: options.readMaxBytes ?? READ_MAX_BYTES,
    // Ciphertext does not compress; without this the server would be asked to try.
    acceptCompression: [],
    interceptors,
  });
  return withFastSegments(stock, { baseUrl, manager, interceptors });
}

/**
 * The stock manager, with a window for the whole connection on every session it opens, and a limit for the time that
 * opening takes.
 */
class SessionManager extends Http2SessionManager {
  readonly #windowBytes: number;
  readonly #connectMs: number;
  readonly #seen = new WeakSet<ClientHttp2Session>();

  constructor(url: string, options: ConnectionOptions) {
    const { windowBytes = STREAM_WINDOW_BYTES, timings = DEFAULT_TIMINGS } = options;
    const { connectMs, pingIntervalMs, pingTimeoutMs } = timings;
    super(
      url,
      { pingIntervalMs, pingTimeoutMs },
      {
        settings: { initialWindowSize: windowBytes, enablePush: false },
        maxSessionMemory: MAX_SESSION_MEMORY_MB,
        ...secureOptions(options.tls),
      },
    );
    this.#windowBytes = windowBytes;
    this.#connectMs = connectMs;
  }

  override async request(...args: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const limit = setTimeout(() => {
      if (this.state() === "connecting") this.abort(notConnected(this.#connectMs));
    }, this.#connectMs);
    let stream: ClientHttp2Stream;
    try {
      stream = await super.request(...args);
    } finally {
      clearTimeout(limit);
    }
    const session = stream.session as ClientHttp2Session | undefined;
    if (session !== undefined && !session.destroyed && !this.#seen.has(session)) {
      this.#seen.add(session);
      session.setLocalWindowSize(2 * this.#windowBytes);
    }
    return stream;
  }
}

function notConnected(ms: number): ConnectError {
  const cause = Object.assign(new Error("connecting took too long"), { code: "ETIMEDOUT" });
  return new ConnectError(`no connection within ${ms / 1000} s`, Code.Unavailable, undefined, undefined, cause);
}

/**
 * Read once for all connections that are opened. @throws InvalidRequestError for what is no PEM, or a key that does not
 * fit
 */
function secureOptions(tls: TlsOptions | undefined): SecureClientSessionOptions {
  if (tls === undefined) return { minVersion: "TLSv1.2" };
  const pem = (given: string | Uint8Array | undefined) =>
    given === undefined || typeof given === "string" ? given : Buffer.from(given);
  const { ca, certificate, key } = tls;
  try {
    // Node.js skips what is no certificate here, and would then trust nobody.
    if (ca !== undefined && !pem(ca)?.includes("-----BEGIN CERTIFICATE-----")) throw new Error("ca has no certificate");
    const context = { ca: pem(ca), cert: pem(certificate), key: pem(key), minVersion: "TLSv1.2" as const };
    return { secureContext: createSecureContext(context) };
  } catch (cause) {
    throw new InvalidRequestError(
      "The certificates or the key for TLS cannot be used; expected PEM, a key that is not encrypted and fits " +
        `the certificate: ${(cause as Error).message}.`,
      { code: "invalid_argument", cause },
    );
  }
}

/** Gives every call an id, and every error the id of its call, also when the error is not the server's. */
const requestIdInterceptor: Interceptor = (next) => async (request) => {
  const id = randomUUID();
  request.header.set(REQUEST_ID_HEADER, id);
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: withRequestId(response.message, id) } : response;
  } catch (error) {
    throw markRequest(error, id);
  }
};

async function* withRequestId<T>(messages: AsyncIterable<T>, id: string): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw markRequest(error, id);
  }
}

function markRequest(error: unknown, id: string): ConnectError {
  const connectError = ConnectError.from(error);
  if (!connectError.metadata.has(REQUEST_ID_HEADER)) connectError.metadata.set(REQUEST_ID_HEADER, id);
  return connectError;
}

function authInterceptor(token: TokenSource | undefined): Interceptor {
  return (next) => async (request) => {
    // A login with a stale token would be refused for the token.
    if (request.method !== SessionService.method.login) {
      // A token function that hangs must not outlive the call's deadline.
      const value = await orAborted(authorizationValue(token), request.signal);
      if (value !== undefined) request.header.set("authorization", value);
    }
    return next(request);
  };
}

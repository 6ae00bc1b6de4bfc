/**
 * Connections to the server: the Connect protocol over HTTP/2, tuned for a few large streams; over HTTP/1.1 where the
 * server or a proxy before it speaks only that.
 *
 * The stock client stops at 64 KiB under way for a connection, and has no hook to change that; {@link SessionManager}
 * sets it. Each upload and each download has a connection of its own, because streams that share one also share its
 * flow control, its memory limit and its end.
 */
import { randomUUID } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import { ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { orAborted } from "../abort.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Destination } from "./dial.ts";
import { Endpoints } from "./endpoints.ts";
import { serverReason } from "./error-mapping.ts";
import { eitherVersion } from "./http-versions.ts";
import { Http1Agent } from "./http1-agent.ts";
import { type ProxyEnvironment, proxyFor } from "./proxy.ts";
import { withFastReads } from "./read-transport.ts";
import { withFastSegments } from "./segment-transport.ts";
import { type Patience, SessionManager } from "./session-manager.ts";
import { DEFAULT_TIMINGS, type Timings } from "./timings.ts";
import { Authorization, type TokenSource } from "./token.ts";

const MIB = 1024 * 1024;

/** Bytes the server may send on one stream before this end has read them. */
const STREAM_WINDOW_BYTES = 1 * MIB;

/** Window of a download's stream: with 1 MiB, a round trip of 40 ms would hold it at 25 MiB/s. */
export const DOWNLOAD_WINDOW_BYTES = 4 * MIB;

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
  /** Variables that name proxies; undefined: none is used. */
  proxyEnvironment?: ProxyEnvironment | undefined;
  /** Bytes the server may have under way on one stream; the connection's window is twice that. Default 1 MiB. */
  windowBytes?: number;
  /** The largest message that is taken, in bytes; default 64 MiB. */
  readMaxBytes?: number;
  /** When to take a connection for dead; default {@link DEFAULT_TIMINGS}. */
  timings?: ConnectionTimings;
  /** Whether chunks go through the generic layers of the library; default false. */
  genericStreams?: boolean | undefined;
  /** Whether a unary call that did not reach its server is made again at the other addresses; default false. */
  repeat?: boolean;
}

/** When a connection is taken for dead; sooner where another address may do better. */
export type ConnectionTimings = Patience & Pick<Timings, "elsewhere">;

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

/**
 * Makes a connection; nothing is sent before the first call.
 * @throws InvalidRequestError for TLS files or a proxy that cannot be used
 */
export function createConnection(options: ConnectionOptions): Connection {
  const { urls, proxyEnvironment = {}, timings = DEFAULT_TIMINGS } = options;
  const secureContext = secureContextOf(options.tls);
  const ways = urls.map((text, index) => {
    const url = new URL(text);
    const proxy = proxyFor(url, proxyEnvironment);
    const patience = () => (endpoints.mayLeave(index) ? timings.elsewhere : timings);
    return createWay(text, { url, proxy, secureContext }, patience, options);
  });
  const endpoints: Endpoints = new Endpoints(
    ways.map(({ transport }, index) => ({ url: urls[index]!, transport })),
    options.repeat ?? false,
  );
  return {
    transport: endpoints.transport,
    url: urls.join(", "),
    addresses: urls.length,
    get elsewhere() {
      return endpoints.elsewhere;
    },
    reset: () => {
      for (const { manager, agent } of ways) {
        manager.abort();
        agent.destroy();
      }
    },
    stopConnecting: () => {
      for (const { manager } of ways) manager.stopConnecting();
    },
  };
}

/** The way to one address: over HTTP/2 and, where it must be, over HTTP/1.1. */
function createWay(baseUrl: string, destination: Destination, patience: () => Patience, options: ConnectionOptions) {
  const { windowBytes = STREAM_WINDOW_BYTES, readMaxBytes = READ_MAX_BYTES, token } = options;
  const authorization = new Authorization(token);
  const interceptors = [requestIdInterceptor, authInterceptor(authorization)];
  // Ciphertext does not compress; without the empty list the server would be asked to try.
  const common = { baseUrl, readMaxBytes, acceptCompression: [], interceptors };
  const manager = new SessionManager({ destination, windowBytes, patience });
  const agent = new Http1Agent(destination, () => patience().connectMs);
  const stock = createConnectTransport({ ...common, httpVersion: "2", sessionManager: manager });
  const own = { baseUrl, manager, interceptors, readMaxBytes };
  const http2 = options.genericStreams === true ? stock : withFastReads(withFastSegments(stock, own), own);
  const http1 = createConnectTransport({ ...common, httpVersion: "1.1", nodeOptions: { agent } });
  const transport: Transport = eitherVersion({
    http2,
    http1,
    manager,
    // Nothing is opened for a token that cannot be sent.
    beforeConnect: async (method, signal) => {
      if (method === SessionService.method.login) return;
      await orAborted(authorization.ahead(), signal ?? new AbortController().signal);
    },
  });
  return { transport, manager, agent };
}

/**
 * Read once for all connections that are opened.
 * @throws InvalidRequestError for what is no PEM, or a key that does not fit
 */
function secureContextOf(tls: TlsOptions | undefined): SecureContext | undefined {
  if (tls === undefined) return undefined;
  const pem = (given: string | Uint8Array | undefined) =>
    given === undefined || typeof given === "string" ? given : Buffer.from(given);
  const { ca, certificate, key } = tls;
  try {
    // Node.js skips what is no certificate here, and would then trust nobody.
    if (ca !== undefined && !pem(ca)?.includes("-----BEGIN CERTIFICATE-----")) throw new Error("ca has no certificate");
    return createSecureContext({ ca: pem(ca), cert: pem(certificate), key: pem(key), minVersion: "TLSv1.2" });
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

function authInterceptor(authorization: Authorization): Interceptor {
  return (next) => async (request) => {
    // A login with a stale token would be refused for the token.
    if (request.method === SessionService.method.login) return await next(request);
    // A token function that hangs must not outlive the call's deadline.
    const value = await orAborted(authorization.value(), request.signal);
    if (value === undefined) return await next(request);
    request.header.set("authorization", value);
    const isRefused = (error: unknown): boolean => {
      const isSession = serverReason(ConnectError.from(error)) === "SESSION_INVALID";
      if (isSession) authorization.refused(value);
      return isSession;
    };
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: withFailure(response.message, isRefused) } : response;
    } catch (error) {
      // What streams is made again by whoever can begin its source again.
      if (!isRefused(error) || request.stream) throw error;
      const again = await orAborted(authorization.value(), request.signal);
      if (again === undefined || again === value) throw error;
      request.header.set("authorization", again);
      return await next(request);
    }
  };
}

async function* withFailure<T>(messages: AsyncIterable<T>, look: (error: unknown) => void): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    look(error);
    throw error;
  }
}

import http from "node:http";
import http2 from "node:http2";
import { createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";
import { type Connection, STRANGER } from "./connection.ts";
import { ConnectionTable, type ConnectionTableOptions } from "./connection-table.ts";
import { continueWhenRead, endCleanly } from "./end-request.ts";

/** Handles requests of both protocols. */
export type RequestHandler = (
  req: http.IncomingMessage | http2.Http2ServerRequest,
  res: http.ServerResponse | http2.Http2ServerResponse,
) => void;

/** Node ends sessions with ENHANCE_YOUR_CALM above this, in MB; its default of 10 is too little for many streams. */
const MAX_SESSION_MEMORY_MB = 128;

/**
 * Streams that callers may give up on one connection at once, and each second; nghttp2 ends sessions with INTERNAL_ERROR
 * above that (CVE-2023-44487). A stream that is given up costs a third of a millisecond and makes room for the next, so
 * Node's default of 1000 lets 24 connections hold the event loop for seconds. Whoever ends all of a session's calls
 * loses nothing by its end; where a proxy puts many clients on one connection, the others repeat theirs.
 */
const GIVEN_UP = { streamResetBurst: 64, streamResetRate: 33 } as const;

/** Connections that say nothing for this long are closed, in milliseconds. */
const SILENT_CONNECTION_MS = 5 * 60_000;

/**
 * Certificate and key in PEM form, and the authorities of client certificates; with those, every client must have one.
 */
export interface TlsCredentials {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer | undefined;
}

/** How to listen. */
export interface ListenOptions extends ConnectionTableOptions {
  /** Without it the port speaks plain HTTP, with it TLS alone. */
  readonly tls?: TlsCredentials | undefined;
  /**
   * Limits for tests, in milliseconds; by default {@link FIRST_BYTES_MS}, {@link HANDSHAKE_MS} and
   * {@link PING_EVERY_MS}.
   */
  readonly firstBytesMs?: number;
  readonly handshakeMs?: number;
  readonly pingEveryMs?: number;
}

/** A listening server. */
export interface Listener {
  /** As bound, for example 127.0.0.1 and 8080. */
  readonly address: string;
  readonly port: number;
  /** Connections that are open, those that have not said anything yet among them. */
  readonly connections: number;
  /** Uses another certificate for connections that begin from now on. */
  renewTls(credentials: TlsCredentials): void;
  /**
   * Takes no new connections, waits until running calls ended or `graceMs` passed, then calls `beforeCut` and closes
   * everything.
   */
  stop(graceMs: number, beforeCut: () => void): Promise<void>;
}

/** A connection has to say which protocol it speaks within this time, in milliseconds. */
const FIRST_BYTES_MS = 30_000;

/** A TLS handshake has to end within this time, in milliseconds. */
const HANDSHAKE_MS = 15_000;

/**
 * A connection with calls under way is probed this often, in milliseconds; one that has not answered by the next time
 * is dead.
 */
const PING_EVERY_MS = 60_000;

/** What an HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1.1 method begins so. */
const HTTP2_PREFACE = Buffer.from("PRI");

/** What a TLS connection begins with: a handshake record (RFC 8446, section 5.1). No HTTP begins so. */
const TLS_HANDSHAKE = 22;

/**
 * Serves HTTP/1.1 and HTTP/2 on one port, with TLS or without. With TLS the protocol is agreed on in the handshake
 * (ALPN), without it is recognized by the first bytes of a connection. The libraries that do this pass HTTP/2 through a
 * JavaScript stream, which hides the caller's address and copies every byte; handing the socket itself over does
 * neither.
 */
export async function listen(
  handler: RequestHandler,
  host: string,
  port: number,
  options: ListenOptions = {},
): Promise<Listener> {
  const table = new ConnectionTable(options);
  const sessions = new Set<http2.ServerHttp2Session>();
  /** By socket or session, whichever requests lead to. */
  const connections = new WeakMap<object, Connection>();
  let running = 0;
  const counted: RequestHandler = (req, res) => {
    // Given up before it was looked at: Node tells of the requests of one read after it has taken in all of it.
    if ("stream" in req && (req.stream.closed || req.stream.destroyed)) return;
    running++;
    res.once("close", () => running--);
    connections.get("stream" in req ? req.stream.session! : req.socket)?.carries(req, res);
    mendAuthority(req.headers);
    endCleanly(req, res);
    try {
      handler(req, res);
    } catch {
      // A Host or :authority that is none: the adapter throws before there is a call that could be answered.
      if (!res.headersSent) res.statusCode = 400;
      res.end();
    }
  };

  const http1 = http.createServer(
    // An upload over HTTP/1.1 may take as long as it takes; silence in it is watched where its bytes are read.
    { requestTimeout: 0, headersTimeout: 30_000, keepAliveTimeout: 75_000 },
    counted,
  );
  const awaited: RequestHandler = (req, res) => {
    continueWhenRead(req, res);
    counted(req, res);
  };
  http1.on("checkContinue", awaited);
  http1.timeout = SILENT_CONNECTION_MS;
  // It never listens itself, and Node begins to watch the time limit of headers only then.
  http1.emit("listening");
  const http2Server = http2.createServer(
    {
      settings: { initialWindowSize: STRANGER.streamWindow, maxConcurrentStreams: STRANGER.streams },
      maxSessionMemory: MAX_SESSION_MEMORY_MB,
      ...GIVEN_UP,
    },
    counted,
  );
  http2Server.on("checkContinue", awaited);
  /** Whose session begins at this moment. */
  let handed: Connection | undefined;
  http2Server.on("session", (session) => {
    sessions.add(session);
    if (handed !== undefined) connections.set(session, handed);
    handed?.speaksHttp2(session);
    // The socket's own timer sees nothing of a session's traffic. Calls under way are let end; silence in them is
    // watched elsewhere.
    session.setTimeout(SILENT_CONNECTION_MS, () => session.close());
    session.once("close", () => sessions.delete(session));
    session.on("error", () => {});
    probe(session, options.pingEveryMs ?? PING_EVERY_MS);
  });

  const protocols = { http1, http2: http2Server } as const;
  const hand = (socket: Socket, connection: Connection, protocol: keyof typeof protocols) => {
    connections.set(socket, connection);
    handed = connection;
    protocols[protocol].emit("connection", socket);
    handed = undefined;
  };
  const firstBytesMs = options.firstBytesMs ?? FIRST_BYTES_MS;
  /** TLS connections by {@link endsOf}: the socket of a finished handshake does not lead to the one it began on. */
  const shaking = new Map<string, Connection>();
  const tlsServer = options.tls === undefined ? undefined : createTlsServer(options.tls, options.handshakeMs);
  tlsServer?.on("secureConnection", (socket) => {
    socket.on("error", () => {});
    // HTTP/2 over TLS needs ALPN (RFC 9113, section 3.2).
    const connection = shaking.get(endsOf(socket));
    if (connection === undefined) socket.destroy();
    else hand(socket, connection, socket.alpnProtocol === "h2" ? "http2" : "http1");
  });
  const server = createServer((socket) => {
    // Cut connections are reported to whoever reads from them; without a listener they would end the process.
    socket.on("error", () => {});
    const connection = table.admit(socket);
    if (connection === undefined) return;
    look(socket, firstBytesMs, (protocol) => {
      // To TLS on a plain port Node answers in plain text, which clients tell as "wrong version number".
      if (tlsServer === undefined) return hand(socket, connection, protocol === "tls" ? "http1" : protocol);
      if (protocol !== "tls") return sayUseTls(socket, protocol);
      const ends = endsOf(socket);
      shaking.set(ends, connection);
      socket.once("close", () => shaking.delete(ends));
      tlsServer.emit("connection", socket);
    });
  });

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
  const bound = server.address() as { address: string; port: number };

  return {
    address: bound.address,
    port: bound.port,
    get connections() {
      return table.size;
    },
    renewTls: (credentials) => tlsServer?.setSecureContext(contextOf(credentials)),
    async stop(graceMs, beforeCut) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      http1.close();
      // Tells clients by GOAWAY to go elsewhere; streams under way go on.
      for (const session of sessions) session.close();
      for (const deadline = performance.now() + graceMs; running > 0 && performance.now() < deadline; ) await sleep(25);
      beforeCut();
      for (const deadline = performance.now() + 1000; running > 0 && performance.now() < deadline; ) await sleep(25);
      table.cutAll();
      await closed;
    },
  };
}

/** Both ends of a connection; no two open ones have the same. */
function endsOf({ localAddress, localPort, remoteAddress, remotePort }: Socket): string {
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
}

/** The HTTP/2 client of Node.js leaves the brackets of an IPv6 address out: `::1:8080`. Nothing else has that form. */
function mendAuthority(headers: http.IncomingHttpHeaders): void {
  const bare = /^([0-9a-f]*:[0-9a-f:.]*):(\d{1,5})$/i.exec((headers[":authority"] as string | undefined) ?? "");
  if (bare !== null) headers[":authority"] = `[${bare[1]}]:${bare[2]}`;
}

function contextOf({ cert, key, ca }: TlsCredentials): tls.SecureContextOptions {
  return { cert, key, ca, minVersion: "TLSv1.2" };
}

function createTlsServer(credentials: TlsCredentials, handshakeMs: number = HANDSHAKE_MS): tls.Server {
  const asked = credentials.ca !== undefined;
  const server = tls.createServer({
    ...contextOf(credentials),
    ALPNProtocols: ["h2", "http/1.1"],
    handshakeTimeout: handshakeMs,
    requestCert: asked,
    rejectUnauthorized: asked,
  });
  // Strangers knock on every port that is open; each failure in the log would drown it.
  server.on("tlsClientError", (_error, socket) => socket.destroy());
  return server;
}

type Protocol = "http1" | "http2" | "tls";

/** Waits for as many bytes as it takes to recognize what a connection speaks, looks at them, and puts them back. */
function look(socket: Socket, withinMs: number, to: (protocol: Protocol) => void): void {
  const silence = setTimeout(() => socket.destroy(), withinMs);
  socket.once("close", () => clearTimeout(silence));
  let first: Buffer = Buffer.alloc(0);
  const onReadable = () => {
    const more: Buffer | null = socket.read();
    if (more !== null) first = Buffer.concat([first, more]);
    const compared = Math.min(first.length, HTTP2_PREFACE.length);
    const fits = first.subarray(0, compared).equals(HTTP2_PREFACE.subarray(0, compared));
    if (fits && compared < HTTP2_PREFACE.length) {
      socket.once("readable", onReadable);
      return;
    }
    clearTimeout(silence);
    socket.unshift(first);
    to(fits ? "http2" : first[0] === TLS_HANDSHAKE ? "tls" : "http1");
  };
  socket.once("readable", onReadable);
}

const USE_TLS = "this port speaks TLS; the address of this server begins with https://";

/** An error of the Connect protocol, which its clients show; others show the status. */
function useTlsHttp1(): Buffer {
  const body = JSON.stringify({ code: "failed_precondition", message: USE_TLS });
  const head = ["HTTP/1.1 400 Bad Request", "content-type: application/json", `content-length: ${body.length}`];
  return Buffer.from(`${head.join("\r\n")}\r\nconnection: close\r\n\r\n${body}`);
}

/**
 * Empty SETTINGS, and GOAWAY with INADEQUATE_SECURITY and the message for people (RFC 9113, sections 6.5, 6.8 and 7).
 */
function useTlsHttp2(): Buffer {
  const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
  const goaway = Buffer.from([0, 0, 8 + USE_TLS.length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12]);
  return Buffer.concat([settings, goaway, Buffer.from(USE_TLS)]);
}

/**
 * Refuses plain HTTP on a TLS port, in words that the client understands. What it sent is read away, since closing on
 * it would reset the answer.
 */
function sayUseTls(socket: Socket, protocol: "http1" | "http2"): void {
  socket.resume();
  socket.end(protocol === "http2" ? useTlsHttp2() : useTlsHttp1());
  const cut = setTimeout(() => socket.destroy(), 1000);
  socket.once("close", () => clearTimeout(cut));
}

/**
 * Ends a session whose other end is gone without a word while calls wait for it; else a download would hold its
 * connection until TCP gives up.
 */
function probe(session: http2.ServerHttp2Session, everyMs: number): void {
  let calls = 0;
  let unanswered = false;
  session.on("stream", (stream) => {
    calls++;
    stream.once("close", () => calls--);
  });
  const timer = setInterval(() => {
    if (unanswered) session.destroy();
    // Silent sessions without calls have a limit of their own, which probes must not push off.
    else if (calls > 0 && !session.destroyed) unanswered = session.ping(() => (unanswered = false));
  }, everyMs).unref();
  session.once("close", () => clearInterval(timer));
}

import http from "node:http";
import http2 from "node:http2";
import { createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** Handles requests of both protocols. */
export type RequestHandler = (
  req: http.IncomingMessage | http2.Http2ServerRequest,
  res: http.ServerResponse | http2.Http2ServerResponse,
) => void;

/**
 * Flow-control windows in bytes. Node's defaults (64 KiB) halve the throughput even on loopback. The stream window bounds what one call can have
 * unread in memory here, the session window what one connection can.
 */
export const STREAM_WINDOW = 1024 * 1024;
const SESSION_WINDOW = 4 * 1024 * 1024;

/** Node ends sessions with ENHANCE_YOUR_CALM above this, in MB; its default of 10 is too little for many streams. */
const MAX_SESSION_MEMORY_MB = 128;

/** Connections that say nothing for this long are closed, in milliseconds. */
const SILENT_CONNECTION_MS = 5 * 60_000;

/** A listening server. */
export interface Listener {
  /** As bound, for example 127.0.0.1 and 8080. */
  readonly address: string;
  readonly port: number;
  /** Takes no new connections, waits until running calls ended or `graceMs` passed, then calls `beforeCut` and closes everything. */
  stop(graceMs: number, beforeCut: () => void): Promise<void>;
}

/** A connection has to say which protocol it speaks within this time, in milliseconds. */
const FIRST_BYTES_MS = 30_000;

/** What an HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1.1 method begins so. */
const HTTP2_PREFACE = Buffer.from("PRI");

/**
 * Serves HTTP/1.1 and HTTP/2 without TLS on one port, told apart by the first bytes of a connection. The libraries that do this pass HTTP/2 through a
 * JavaScript stream, which hides the caller's address and copies every byte; handing the socket itself over does neither.
 */
export async function listen(handler: RequestHandler, host: string, port: number): Promise<Listener> {
  const sockets = new Set<Socket>();
  const sessions = new Set<http2.ServerHttp2Session>();
  let running = 0;
  const counted: RequestHandler = (req, res) => {
    running++;
    res.once("close", () => running--);
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
  http1.timeout = SILENT_CONNECTION_MS;
  // It never listens itself, and Node begins to watch the time limit of headers only then.
  http1.emit("listening");
  const http2Server = http2.createServer(
    {
      settings: { initialWindowSize: STREAM_WINDOW, maxConcurrentStreams: 256 },
      maxSessionMemory: MAX_SESSION_MEMORY_MB,
    },
    counted,
  );
  http2Server.on("session", (session) => {
    sessions.add(session);
    session.setLocalWindowSize(SESSION_WINDOW);
    // The socket's own timer sees nothing of a session's traffic. Calls under way are let end; silence in them is watched elsewhere.
    session.setTimeout(SILENT_CONNECTION_MS, () => session.close());
    session.once("close", () => sessions.delete(session));
    session.on("error", () => {});
  });
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    // Cut connections are told to whoever reads from them; without a listener they would end the process.
    socket.on("error", () => {});
    const silence = setTimeout(() => socket.destroy(), FIRST_BYTES_MS);
    socket.once("close", () => clearTimeout(silence));
    handOver(socket, (isHttp2) => {
      clearTimeout(silence);
      (isHttp2 ? http2Server : http1).emit("connection", socket);
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
    async stop(graceMs, beforeCut) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      http1.close();
      // Tells clients by GOAWAY to go elsewhere; streams under way go on.
      for (const session of sessions) session.close();
      for (const deadline = performance.now() + graceMs; running > 0 && performance.now() < deadline; ) await sleep(25);
      beforeCut();
      for (const deadline = performance.now() + 1000; running > 0 && performance.now() < deadline; ) await sleep(25);
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Waits for as many bytes as it takes to tell, looks at them, and puts them back. */
function handOver(socket: Socket, to: (isHttp2: boolean) => void): void {
  let first: Buffer = Buffer.alloc(0);
  const look = () => {
    const more: Buffer | null = socket.read();
    if (more !== null) first = Buffer.concat([first, more]);
    const compared = Math.min(first.length, HTTP2_PREFACE.length);
    const fits = first.subarray(0, compared).equals(HTTP2_PREFACE.subarray(0, compared));
    if (fits && compared < HTTP2_PREFACE.length) {
      socket.once("readable", look);
      return;
    }
    socket.unshift(first);
    to(fits);
  };
  socket.once("readable", look);
}

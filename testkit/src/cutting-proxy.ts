import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { tieSockets } from "./tied-sockets.ts";

/** A TCP proxy that does to connections what networks do. */
export interface CuttingProxy {
  readonly url: string;
  /** Connections cut by `cutAfter` and `truncateAfter` so far. */
  readonly cuts: number;
  /** Connections that were ever opened. */
  readonly connections: number;
  /** Resets the connection over which the next `bytes` bytes towards the server have passed, counted over all connections. */
  cutAfter(bytes: number): void;
  /** The same, but both ends see an orderly end of the connection in the middle of what was being sent. */
  truncateAfter(bytes: number): void;
  /** Resets every connection. */
  drop(): void;
  /** From now on nothing passes in either direction, over old connections and new ones, and nobody is told. */
  stall(): void;
  /** From now on answers are lost, though all the client sends arrives: of what the server sends (HTTP/2), frames with headers or data are thrown away. */
  loseAnswers(): void;
  /** Ends `stall` and `loseAnswers` by resetting every connection that suffered from it, since bytes of it are missing. */
  heal(): void;
  /** From now on at most so many bytes a second pass towards the server; 0 lifts the limit. */
  throttle(bytesPerSecond: number): void;
  /** Refuses new connections and resets the open ones, as a dead machine behind a load balancer does; `revive` ends it. */
  die(): void;
  revive(): void;
  close(): Promise<void>;
}

/** Starts a proxy on loopback in front of a server. `target` may move: it is asked for each connection. */
export async function startCuttingProxy(target: string | (() => string)): Promise<CuttingProxy> {
  const open = new Set<Socket>();
  let left = Number.POSITIVE_INFINITY;
  let orderly = false;
  let cuts = 0;
  let connections = 0;
  let mode: "pass" | "stall" | "lose-answers" | "dead" = "pass";
  let rate = 0;
  /** When the line is free again, in milliseconds of the monotonic clock. */
  let freeAt = 0;
  const drop = (): void => {
    for (const socket of open) socket.resetAndDestroy();
  };

  /** Passes one chunk towards the server; returns false when the connection was cut. */
  async function passOn(chunk: Buffer, client: Socket, upstream: Socket): Promise<boolean> {
    if (rate > 0) {
      const now = performance.now();
      freeAt = Math.max(now, freeAt) + (chunk.length * 1000) / rate;
      await sleep(freeAt - now);
    }
    if (chunk.length < left) {
      left -= chunk.length;
      if (!upstream.write(chunk))
        await new Promise<void>((resolve) => upstream.once("drain", resolve).once("close", () => resolve()));
      return true;
    }
    if (left > 0) upstream.write(chunk.subarray(0, left));
    left = Number.POSITIVE_INFINITY;
    cuts++;
    if (orderly) {
      upstream.end();
      client.end();
    } else {
      client.resetAndDestroy();
      upstream.resetAndDestroy();
    }
    return false;
  }

  const server = createServer((client) => {
    connections++;
    client.on("error", () => {});
    if (mode === "dead") {
      client.resetAndDestroy();
      return;
    }
    const { hostname, port } = new URL(typeof target === "string" ? target : target());
    const upstream = connect(Number(port), hostname);
    tieSockets(open, client, upstream);
    let passing = Promise.resolve(true);
    client.on("data", (chunk) => {
      if (mode === "stall") return;
      client.pause();
      passing = passing.then((alive) => (alive ? passOn(chunk, client, upstream) : false));
      void passing.then((alive) => alive && client.resume());
    });
    client.on("end", () => void passing.then(() => upstream.end()));
    const frames = new FrameFilter();
    upstream.on("data", (chunk) => {
      const kept = frames.push(chunk, mode === "lose-answers");
      if (mode === "stall" || mode === "dead" || kept.length === 0) return;
      if (!client.write(kept)) {
        upstream.pause();
        client.once("drain", () => upstream.resume());
      }
    });
    upstream.on("end", () => client.end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port: own } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${own}`,
    get cuts() {
      return cuts;
    },
    get connections() {
      return connections;
    },
    cutAfter(bytes) {
      left = bytes;
      orderly = false;
    },
    truncateAfter(bytes) {
      left = bytes;
      orderly = true;
    },
    drop,
    stall() {
      mode = "stall";
    },
    loseAnswers() {
      mode = "lose-answers";
    },
    heal() {
      mode = "pass";
      drop();
    },
    throttle(bytesPerSecond) {
      rate = bytesPerSecond;
      freeAt = 0;
    },
    die() {
      mode = "dead";
      drop();
    },
    revive() {
      mode = "pass";
    },
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

const FRAME_HEADER_BYTES = 9;
/** DATA, HEADERS and CONTINUATION (RFC 9113, section 6). */
const ANSWER_TYPES = new Set([0, 1, 9]);

/** Follows the frames of one HTTP/2 connection from the server, and leaves out those that carry answers. */
class FrameFilter {
  #header = Buffer.alloc(0);
  /** Bytes of the current frame that are still to come. */
  #left = 0;
  #dropping = false;

  /** The part of the bytes that goes on to the client. */
  push(chunk: Buffer, dropAnswers: boolean): Buffer {
    const kept: Buffer[] = [];
    for (let offset = 0; offset < chunk.length; ) {
      if (this.#left === 0) {
        const part = chunk.subarray(offset, offset + FRAME_HEADER_BYTES - this.#header.length);
        offset += part.length;
        this.#header = Buffer.concat([this.#header, part]);
        if (this.#header.length < FRAME_HEADER_BYTES) break;
        this.#left = this.#header.readUIntBE(0, 3);
        this.#dropping = dropAnswers && ANSWER_TYPES.has(this.#header[3]!);
        if (!this.#dropping) kept.push(this.#header);
        this.#header = Buffer.alloc(0);
        continue;
      }
      const part = chunk.subarray(offset, offset + this.#left);
      offset += part.length;
      this.#left -= part.length;
      if (!this.#dropping) kept.push(part);
    }
    return Buffer.concat(kept);
  }
}

/**
 * What a proxy can do to the connections that pass through it, by name. Each counts from the moment it is put in force,
 * over all connections.
 */
import { setTimeout as sleep } from "node:timers/promises";

/** Towards the server, or back to the client. */
export type Direction = "up" | "down";

/**
 * How a connection ends before its time: by a reset, or so that both ends see an orderly end in the middle of what was
 * being sent.
 */
export type Ending = "reset" | "orderly";

/** Some bytes of one connection, on their way. */
export interface Passage {
  readonly direction: Direction;
  /** When they arrived, in milliseconds of the monotonic clock. */
  readonly arrivedAt: number;
  /** Ends their connection when they have passed. */
  end(how: Ending): void;
}

/** What a line does. */
export interface Behaviour {
  /** Under this name it is counted whenever it takes something or ends a connection. */
  readonly name: string;
  /** What does not pass: any connection, any bytes (in one direction or in both), or only answers of HTTP/2. */
  readonly takes?: "connections" | "bytes" | "answers";
  readonly direction?: Direction;
  /** How long bytes are on their way, in milliseconds; more bytes are read meanwhile. */
  readonly delayMs?: number;
  /** Looks at bytes, and returns those that go on; may take its time, and end the connection. */
  pass?(bytes: Buffer, passage: Passage): Buffer | Promise<Buffer>;
}

/** Resets the connection over which the next `bytes` bytes in this direction have passed, once. */
export function cutAfter(bytes: number, direction: Direction = "up"): Behaviour {
  return { name: "cut", pass: breakAfter(bytes, direction, "reset") };
}

/** The same, but both ends see an orderly end of the connection in the middle of what was being sent. */
export function truncateAfter(bytes: number, direction: Direction = "up"): Behaviour {
  return { name: "truncate", pass: breakAfter(bytes, direction, "orderly") };
}

function breakAfter(bytes: number, direction: Direction, how: Ending): Behaviour["pass"] {
  let left = bytes;
  return (chunk, passage) => {
    if (passage.direction !== direction) return chunk;
    if (chunk.length < left) {
      left -= chunk.length;
      return chunk;
    }
    const last = chunk.subarray(0, left);
    left = Number.POSITIVE_INFINITY;
    passage.end(how);
    return last;
  };
}

/** Nothing passes, and nobody notices: connections stay open. Without a direction in both. */
export function stall(direction?: Direction): Behaviour {
  return { name: "stall", takes: "bytes", ...(direction === undefined ? {} : { direction }) };
}

/**
 * Answers are lost, though all the client sends arrives: of what the server sends (HTTP/2 without TLS), frames with
 * headers or data are thrown away, and those that keep a connection alive pass.
 */
export function loseAnswers(): Behaviour {
  return { name: "lose answers", takes: "answers" };
}

/** Refuses new connections and resets the open ones, as a dead machine behind a load balancer does. */
export function refuse(): Behaviour {
  return { name: "refuse", takes: "connections" };
}

/** At most so many bytes a second pass in this direction, over all connections. */
export function slow(bytesPerSecond: number, direction: Direction = "up"): Behaviour {
  /** When the line is free again, in milliseconds of the monotonic clock. */
  let freeAt = 0;
  return {
    name: "slow",
    async pass(bytes, passage) {
      if (passage.direction !== direction) return bytes;
      const now = performance.now();
      freeAt = Math.max(now, freeAt) + (bytes.length * 1000) / bytesPerSecond;
      await sleep(freeAt - now, undefined, { ref: false });
      return bytes;
    },
  };
}

/**
 * Everything arrives half a round trip (in milliseconds) after it was sent, without a limit of bytes a second. What TCP
 * itself would do on such a line is not shown, since both ends of the proxy are near; HTTP/2's windows are.
 */
export function delay(roundTripMs: number): Behaviour {
  return { name: "delay", delayMs: roundTripMs / 2 };
}

/** Changes nothing: gives the number of bytes that arrived, before they go on. */
export function observe(seen: (bytes: number, direction: Direction) => void): Behaviour {
  return {
    name: "observe",
    pass(bytes, { direction }) {
      seen(bytes.length, direction);
      return bytes;
    },
  };
}

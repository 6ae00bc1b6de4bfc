import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { tieSockets } from "@strongroom/testkit/tied-sockets";

/** A TCP proxy on loopback. */
export interface SlowLine {
  readonly url: string;
  remove(): Promise<void>;
}

/**
 * A line with a delay and without a limit of bytes a second: every chunk arrives half a round trip (in milliseconds) after it was sent. What TCP itself would do on
 * such a line is not shown, since both ends of the proxy are near; HTTP/2's windows are.
 */
export async function startSlowLine(target: URL, roundTripMs: number): Promise<SlowLine> {
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    client.setNoDelay(true);
    upstream.setNoDelay(true);
    tieSockets(open, client, upstream);
    void carry(client, upstream, roundTripMs / 2);
    void carry(upstream, client, roundTripMs / 2);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `${target.protocol}//127.0.0.1:${(server.address() as AddressInfo).port}`,
    async remove() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function carry(from: Socket, to: Socket, delayMs: number): Promise<void> {
  const queue: { chunk: Buffer; due: number }[] = [];
  let wake = () => {};
  from.on("data", (chunk: Buffer) => {
    queue.push({ chunk, due: performance.now() + delayMs });
    wake();
  });
  to.once("close", () => wake());
  while (!to.destroyed) {
    const next = queue.shift();
    if (next === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      continue;
    }
    const wait = next.due - performance.now();
    if (wait > 1) await sleep(wait);
    to.write(next.chunk);
  }
}

import { connect, createServer, type Server, type Socket } from "node:net";
import { tieSockets } from "@strongroom/testkit/tied-sockets";

/** What the proxy does to connections. */
export const PROXY_FAULTS = ["cut", "stall", "throttle", "truncate", "lose answers"] as const;

/** One of {@link PROXY_FAULTS}. */
export type ProxyFault = (typeof PROXY_FAULTS)[number];

/** Those after which a connection is gone. */
export const BREAKING: ReadonlySet<string> = new Set(["cut", "stall", "truncate", "lose answers"]);

/** How long a stalled connection stays so before it is cut, and how long a line is slow, in milliseconds. */
const PAUSE_MS = 1500;
/** Bytes a second on a slow line. */
const SLOW = 4 * 1024 * 1024;

/** Where nobody listens: the place of a server that is gone. */
export const NOWHERE = new URL("http://127.0.0.1:1");

/** A TCP proxy on loopback that treats connections roughly, and counts. */
export class RoughProxy {
  /** Where connections to each of its addresses go; changes when a server comes back elsewhere. */
  readonly targets: URL[] = [];
  /** Which address bytes came to last. */
  last = 0;
  /** Bytes that came from clients. */
  up = 0;
  readonly #servers: Server[] = [];
  readonly #open = new Set<Socket>();
  readonly #upAt: number[] = [];
  readonly #at: { bytes: number; except: number | undefined; strike: () => void }[] = [];
  #losing = false;
  #stalled = false;
  #slowUntil = 0;

  /** Starts it on free ports, one for each server behind it. */
  static async start(addresses: number): Promise<RoughProxy> {
    const proxy = new RoughProxy();
    for (let at = 0; at < addresses; at++) {
      const server = createServer((client) => proxy.#serve(client, at));
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      proxy.#servers.push(server);
      proxy.targets.push(NOWHERE);
    }
    return proxy;
  }

  /** Its addresses, as the client takes them. */
  get url(): string {
    return this.#servers.map((s) => `http://127.0.0.1:${(s.address() as { port: number }).port}`).join(",");
  }

  /** Does something once so many more bytes have come from clients, to any address or to any but one. */
  after(bytes: number, strike: () => void, except?: number): void {
    this.#at.push({ bytes: this.#upWithout(except) + bytes, except, strike });
  }

  #upWithout(address: number | undefined): number {
    return address === undefined ? this.up : this.up - (this.#upAt[address] ?? 0);
  }

  /** Forgets what has not struck, and counts from 0. */
  reset(): void {
    this.#at.length = 0;
    this.#losing = this.#stalled = false;
    this.#slowUntil = 0;
    this.up = 0;
    this.#upAt.length = 0;
  }

  /** Does this to every connection open now. */
  strike(fault: ProxyFault): void {
    if (fault === "cut") this.cut();
    else if (fault === "throttle") this.#slowUntil = performance.now() + PAUSE_MS;
    else {
      if (fault === "lose answers") this.#losing = true;
      else this.#stalled = true;
      // A truncated connection ends at once, in the middle of a message; a stalled one is silent for a while first.
      setTimeout(
        () => {
          this.#losing = this.#stalled = false;
          this.cut();
        },
        fault === "truncate" ? 0 : PAUSE_MS,
      );
    }
  }

  /** Breaks off every connection. */
  cut(): void {
    for (const socket of this.#open) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    for (const server of this.#servers) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #serve(client: Socket, at: number): void {
    const { port, hostname } = this.targets[at]!;
    const upstream = connect(Number(port), hostname);
    tieSockets(this.#open, client, upstream);
    client.on("data", (chunk: Buffer) => {
      this.up += chunk.length;
      this.#upAt[at] = (this.#upAt[at] ?? 0) + chunk.length;
      this.last = at;
      for (const due of this.#at.filter(({ bytes, except }) => bytes <= this.#upWithout(except))) {
        this.#at.splice(this.#at.indexOf(due), 1);
        due.strike();
      }
      if (this.#stalled) return;
      if (!upstream.write(chunk)) {
        client.pause();
        upstream.once("drain", () => client.resume());
      }
      if (performance.now() < this.#slowUntil) {
        client.pause();
        setTimeout(() => client.resume(), (chunk.length / SLOW) * 1000);
      }
    });
    upstream.on("data", (chunk: Buffer) => {
      if (!this.#losing && !this.#stalled) client.write(chunk);
    });
    client.once("end", () => upstream.end());
    upstream.once("end", () => client.end());
  }
}

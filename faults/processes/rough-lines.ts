import { startProxy, type TcpProxy } from "@strongroom/testkit/proxy";
import { loseAnswers, observe, slow, stall } from "@strongroom/testkit/proxy-behaviours";

/** What is done to the lines. */
export const LINE_FAULTS = ["cut", "stall", "throttle", "truncate", "lose answers"] as const;

/** One of {@link LINE_FAULTS}. */
export type LineFault = (typeof LINE_FAULTS)[number];

/** Those after which a connection is gone. */
export const BREAKING: ReadonlySet<string> = new Set(["cut", "stall", "truncate", "lose answers"]);

/** How long a stalled connection stays so before it is cut, and how long a line is slow, in milliseconds. */
const PAUSE_MS = 1500;
/** Bytes a second on a slow line. */
const SLOW = 4 * 1024 * 1024;

/** Where nobody listens: the place of a server that is gone. */
export const NOWHERE = "http://127.0.0.1:1";

/** The lines to the servers of a set-up, an address each, which are treated roughly and counted together. */
export class RoughLines {
  /** Where connections to each address go; changes when a server comes back elsewhere. */
  readonly targets: string[];
  /** Which address was sent bytes last. */
  last = 0;
  readonly #proxies: TcpProxy[] = [];
  /** Bytes that were received from clients, by address. */
  readonly #up: number[];
  readonly #due: { bytes: number; except: number | undefined; strike: () => void }[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();

  private constructor(addresses: number) {
    this.targets = Array(addresses).fill(NOWHERE);
    this.#up = Array(addresses).fill(0);
  }

  /** Opens them on free ports, one for each server behind them. */
  static async open(addresses: number): Promise<RoughLines> {
    const lines = new RoughLines(addresses);
    for (let at = 0; at < addresses; at++) {
      const counting = observe((bytes, direction) => direction === "up" && lines.#arrived(at, bytes));
      lines.#proxies.push(await startProxy(() => lines.targets[at]!, counting));
    }
    return lines;
  }

  /** The addresses, as the client takes them. */
  get url(): string {
    return this.#proxies.map(({ url }) => url).join(",");
  }

  /** Bytes that were received from clients, to any address or to any but one. */
  up(except?: number): number {
    return this.#up.reduce((sum, bytes, at) => (at === except ? sum : sum + bytes), 0);
  }

  /** Does something once so many more bytes have come from clients, to any address or to any but one. */
  after(bytes: number, strike: () => void, except?: number): void {
    this.#due.push({ bytes: this.up(except) + bytes, except, strike });
  }

  /** Forgets what has not struck, ends what lasts, and counts from 0. */
  reset(): void {
    this.#due.length = 0;
    this.#up.fill(0);
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    for (const proxy of this.#proxies) proxy.heal();
  }

  /** Does this to every connection open now. */
  strike(fault: LineFault): void {
    for (const proxy of this.#proxies) {
      if (fault === "cut") proxy.drop();
      else if (fault === "truncate") proxy.drop("orderly");
      else if (fault === "throttle") this.#later(proxy.behave(slow(SLOW)));
      else {
        proxy.behave(fault === "stall" ? stall() : loseAnswers());
        this.#later(() => proxy.heal());
      }
    }
  }

  async close(): Promise<void> {
    this.reset();
    for (const proxy of this.#proxies) await proxy.close();
  }

  #arrived(at: number, bytes: number): void {
    this.#up[at]! += bytes;
    this.last = at;
    for (const due of this.#due.filter(({ bytes, except }) => bytes <= this.up(except))) {
      this.#due.splice(this.#due.indexOf(due), 1);
      due.strike();
    }
  }

  #later(end: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      end();
    }, PAUSE_MS);
    this.#timers.add(timer);
  }
}

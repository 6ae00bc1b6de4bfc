import type { Socket } from "node:net";
import type { AddressSet } from "../domain/addresses.ts";
import type { ConnectionLimits } from "../domain/connection-limits.ts";
import { Connection } from "./connection.ts";

/** What happened at a limit since the last notice. */
export interface ConnectionPressure {
  /** Idle connections of strangers that were closed to make room. */
  readonly closed: number;
  /** New connections that were refused, since there were none of those. */
  readonly refused: number;
  /** Connections that are open. */
  readonly open: number;
}

/** What a table of connections takes. */
export interface ConnectionTableOptions {
  /** None when left out, for tests. */
  readonly limits?: ConnectionLimits | undefined;
  /** Proxies, which are not limited for each holder: many callers come by their addresses. */
  readonly trustedProxies?: AddressSet | undefined;
  /** Given what happened at the limits, at most once each {@link NOTICE_EVERY_MS}. */
  readonly onPressure?: ((pressure: ConnectionPressure) => void) | undefined;
}

/** How often pressure is noted at most, in milliseconds: a flood must not fill the log. */
const NOTICE_EVERY_MS = 60_000;

/** The connections of one holder. */
interface Holding {
  count: number;
  /** Those that never carried an authenticated call, in the order of their last sign of life. */
  readonly strangers: Set<Connection>;
}

/**
 * The connections that are open, in all and by holder. When there are too many, the one on which no call began or ended
 * for the longest time, and that never carried an authenticated call, makes room, so that strangers cannot lock anyone
 * out, whatever they open; a new one is refused only when there is none such.
 */
export class ConnectionTable {
  readonly #limits: ConnectionLimits | undefined;
  readonly #proxies: AddressSet | undefined;
  readonly #onPressure: ((pressure: ConnectionPressure) => void) | undefined;
  readonly #open = new Map<Connection, Holding>();
  readonly #holdings = new Map<string, Holding>();
  /** As {@link Holding.strangers}, of all holders. */
  readonly #strangers = new Set<Connection>();
  #closed = 0;
  #refused = 0;
  #notice: NodeJS.Timeout | undefined;

  constructor({ limits, trustedProxies, onPressure }: ConnectionTableOptions = {}) {
    this.#limits = limits;
    this.#proxies = trustedProxies;
    this.#onPressure = onPressure;
  }

  /** Takes a new connection in, or cuts it off where there is no room: undefined then. */
  admit(socket: Socket): Connection | undefined {
    const connection = new Connection(socket, {
      active: (one) => this.#touch(one),
      known: (one) => this.#know(one),
    });
    const holding = this.#holdings.get(connection.holder) ?? { count: 0, strangers: new Set() };
    if (!this.#makeRoom(connection, holding)) {
      this.#note(() => this.#refused++);
      socket.destroy();
      return undefined;
    }
    this.#holdings.set(connection.holder, holding);
    this.#open.set(connection, holding);
    holding.count++;
    this.#touch(connection);
    socket.once("close", () => this.#remove(connection));
    return connection;
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size;
  }

  /** Cuts off every connection. */
  cutAll(): void {
    for (const connection of this.#open.keys()) connection.cut();
    clearTimeout(this.#notice);
  }

  #makeRoom({ address }: Connection, holding: Holding): boolean {
    if (this.#limits === undefined) return true;
    const { total, perHolder } = this.#limits;
    const isProxy = this.#proxies?.has(address) === true;
    // Where the holder has too many, none of anyone else has to make room for it.
    if (!isProxy && holding.count >= perHolder) return this.#closeIdlest(holding.strangers);
    return this.#open.size < total || this.#closeIdlest(this.#strangers);
  }

  #closeIdlest(strangers: ReadonlySet<Connection>): boolean {
    // A call under way is no reason to stay: strangers can have calls that never end, and one who has just connected,
    // and has not said anything yet, would have to go for them.
    const [idlest] = strangers;
    if (idlest === undefined) return false;
    // At once, since its socket says so only later.
    this.#remove(idlest);
    idlest.cut();
    this.#note(() => this.#closed++);
    return true;
  }

  #touch(connection: Connection): void {
    const holding = this.#open.get(connection);
    if (holding === undefined || connection.isKnown) return;
    for (const strangers of [holding.strangers, this.#strangers]) {
      strangers.delete(connection);
      strangers.add(connection);
    }
  }

  #know(connection: Connection): void {
    this.#strangers.delete(connection);
    this.#open.get(connection)?.strangers.delete(connection);
  }

  #remove(connection: Connection): void {
    const holding = this.#open.get(connection);
    if (holding === undefined) return;
    this.#know(connection);
    this.#open.delete(connection);
    if (--holding.count === 0) this.#holdings.delete(connection.holder);
  }

  #note(count: () => void): void {
    count();
    if (this.#notice !== undefined) return;
    const tell = () => {
      this.#notice = undefined;
      if (this.#closed + this.#refused === 0) return;
      this.#onPressure?.({ closed: this.#closed, refused: this.#refused, open: this.#open.size });
      this.#closed = 0;
      this.#refused = 0;
      this.#notice = setTimeout(tell, NOTICE_EVERY_MS).unref();
    };
    tell();
  }
}

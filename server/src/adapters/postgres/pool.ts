import { DomainError } from "../../domain/errors.ts";
import type { PgConnection } from "./connection.ts";

/**
 * A session is replaced by a new one after this time, in milliseconds, so that a change of the server's address or
 * limits is taken up.
 */
const LIFETIME_MS = 30 * 60_000;

/** How long work waits for a free session, in milliseconds. */
const WAIT_MS = 10_000;

interface Waiter {
  /** Ends its wait with a refusal. */
  readonly timer: NodeJS.Timeout;
  readonly give: (connection: PgConnection) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * Sessions that are kept for the next work; at most `max` at a time. Opened when they are needed.
 *
 * Not the driver's own pool: postgres.js (3.4.9) opens a lost connection again without notice to the transaction that
 * was on it, whose later queries then run outside any transaction, or writes to the socket that is gone, which ends the
 * process. Here a session is one connection, lent to one piece of work, and never used again once it is lost.
 * `server/test/postgres-lost-connection.test.ts` holds it.
 */
export class ConnectionPool {
  readonly #open: () => Promise<PgConnection>;
  readonly #max: number;
  readonly #waitMs: number;
  readonly #idle: PgConnection[] = [];
  readonly #waiting: Waiter[] = [];
  /** Opened, being opened and in use. */
  #count = 0;
  #closed = false;

  /** @param waitMs how long work waits for a free session, in milliseconds. */
  constructor(open: () => Promise<PgConnection>, max: number, waitMs: number = WAIT_MS) {
    this.#open = open;
    this.#max = max;
    this.#waitMs = waitMs;
  }

  /**
   * Lends a session for some work. @throws DatabaseUnreachableError, DomainError DATABASE_UNAVAILABLE when all are busy
   * for too long
   */
  async use<T>(work: (connection: PgConnection) => Promise<T>): Promise<T> {
    const connection = await this.#acquire();
    try {
      return await work(connection);
    } finally {
      this.#release(connection);
    }
  }

  /** Closes what is idle, and what is in use as soon as it is given back. */
  async close(): Promise<void> {
    this.#closed = true;
    for (let waiter = this.#nextWaiter(); waiter !== undefined; waiter = this.#nextWaiter()) waiter.fail(closed());
    await Promise.all(this.#idle.splice(0).map(async (connection) => await connection.close()));
  }

  async #acquire(): Promise<PgConnection> {
    if (this.#closed) throw closed();
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      if (!idle.lost) return idle;
      this.#count--;
    }
    if (this.#count >= this.#max) return await this.#wait();
    this.#count++;
    try {
      return await this.#open();
    } catch (error) {
      this.#count--;
      // Those who wait for a session would wait in vain.
      this.#nextWaiter()?.fail(error);
      throw error;
    }
  }

  async #wait(): Promise<PgConnection> {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(
          new DomainError(
            "DATABASE_UNAVAILABLE",
            "all connections to the database are busy; repeat the call in a moment",
            { retryAfterMs: 2000 },
          ),
        );
      }, this.#waitMs);
      const waiter: Waiter = { timer, give: resolve, fail: reject };
      this.#waiting.push(waiter);
    });
  }

  /**
   * Whose turn it is. From now on it is given a session or an error, never both: a session given to one that gave up
   * would be lost.
   */
  #nextWaiter(): Waiter | undefined {
    const waiter = this.#waiting.shift();
    clearTimeout(waiter?.timer);
    return waiter;
  }

  #release(connection: PgConnection): void {
    const old = performance.now() - connection.openedAt > LIFETIME_MS;
    const waiter = this.#nextWaiter();
    if (!connection.lost && !old && !this.#closed) {
      if (waiter === undefined) this.#idle.push(connection);
      else waiter.give(connection);
      return;
    }
    this.#count--;
    connection.close().catch(() => {});
    if (waiter !== undefined) this.#acquire().then(waiter.give, waiter.fail);
  }
}

function closed(): Error {
  return new Error("the database is closed");
}

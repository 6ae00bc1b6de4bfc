import {
  budgetHolder,
  type RateLimit,
  RecentTimes,
  rateLimited,
  type Taken,
  TokenBuckets,
} from "../../domain/rate-limit.ts";
import type { Database } from "../ports/database.ts";
import { LoginFlood } from "./login-flood.ts";

/**
 * The budget of failed logins, which all servers over one database share. A login takes from it before its body is
 * read, and gives back when it was no failure. This process keeps a bucket of its own in front of the shared one, so
 * that a flood never has more logins waiting for the database than the limit allows.
 */
export class LoginBudget {
  readonly #database: Database;
  readonly #limit: RateLimit | undefined;
  readonly #clock: () => number;
  readonly #own: TokenBuckets;
  /** Until when the database need not be asked again: a flood from one address costs it one query for each token. */
  readonly #refused = new RecentTimes();
  /** Whether many fail, over all addresses. */
  readonly flood: LoginFlood;

  /** @param clock milliseconds that only go forward. */
  constructor(database: Database, limit: RateLimit | undefined, clock: () => number) {
    this.#database = database;
    this.#limit = limit;
    this.#clock = clock;
    this.#own = new TokenBuckets(clock);
    this.flood = new LoginFlood(clock);
  }

  /** Takes from the budget of the address. @throws DomainError RATE_LIMITED */
  async take(address: string): Promise<void> {
    if (this.#limit === undefined) return;
    this.flood.count();
    const limit = this.#limit;
    const holder = budgetHolder(address);
    const waitMs = (this.#refused.get(holder) ?? 0) - this.#clock();
    if (waitMs > 0) throw rateLimited("login", limit, Math.ceil(waitMs));
    const own = this.#own.take(address, limit);
    if ("retryAfterMs" in own) throw rateLimited("login", limit, own.retryAfterMs);
    let taken: Taken | undefined;
    try {
      taken = await this.#database.transaction(async (tx) => await tx.budgets.take(holder, limit, tx.now));
    } finally {
      if (taken === undefined || "retryAfterMs" in taken) this.#own.giveBack(address, limit);
    }
    if (!("retryAfterMs" in taken)) return;
    this.#refused.set(holder, this.#clock() + taken.retryAfterMs);
    throw rateLimited("login", limit, taken.retryAfterMs);
  }

  /** Gives one back. */
  async giveBack(address: string): Promise<void> {
    if (this.#limit === undefined) return;
    const limit = this.#limit;
    const holder = budgetHolder(address);
    this.flood.forgive();
    this.#own.giveBack(address, limit);
    await this.#database.transaction(async (tx) => await tx.budgets.giveBack(holder, limit));
    this.#refused.delete(holder);
  }
}

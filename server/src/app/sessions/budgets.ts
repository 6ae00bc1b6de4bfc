import { DomainError } from "../../domain/errors.ts";
import { type Budget, budgetHolder, formatRateLimit, type RateLimit, takeToken } from "../../domain/rate-limit.ts";
import type { Database } from "../ports/database.ts";

/** Addresses remembered in a process, of each budget; those that came longest ago are forgotten. About 100 bytes each. */
const MOST_HOLDERS = 20_000;

/** The budget is used up. */
export function rateLimited(budget: Budget, limit: RateLimit, retryAfterMs: number): DomainError {
  const what = { login: "failed logins", health: "health checks", requests: "requests" }[budget];
  return new DomainError("RATE_LIMITED", `too many ${what} from this address; wait as long as RetryInfo says`, {
    metadata: { budget, limit: formatRateLimit(limit) },
    retryAfterMs,
  });
}

/** A time for each of the holders heard of last, in bounded number. */
class RecentTimes {
  readonly #times = new Map<string, number>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get(holder: string): number | undefined {
    return this.#times.get(holder);
  }

  set(holder: string, time: number): void {
    // A Map gives its keys in the order they were set, so the first is the one longest unheard of.
    this.#times.delete(holder);
    if (this.#times.size >= this.#most) this.#times.delete(this.#times.keys().next().value!);
    this.#times.set(holder, time);
  }

  delete(holder: string): void {
    this.#times.delete(holder);
  }

  get size(): number {
    return this.#times.size;
  }
}

/** A budget for each address, kept in this process. */
export class ProcessBudget {
  readonly #budget: Budget;
  readonly #limit: RateLimit | undefined;
  readonly #clock: () => number;
  readonly #full: RecentTimes;

  /** @param clock milliseconds that only go forward. */
  constructor(budget: Budget, limit: RateLimit | undefined, clock: () => number, most = MOST_HOLDERS) {
    this.#budget = budget;
    this.#limit = limit;
    this.#clock = clock;
    this.#full = new RecentTimes(most);
  }

  /** Addresses remembered at this moment. */
  get size(): number {
    return this.#full.size;
  }

  /** Takes from the budget of the address. @throws DomainError RATE_LIMITED */
  take(address: string): void {
    if (this.#limit === undefined) return;
    const holder = budgetHolder(address);
    const taken = takeToken(this.#limit, this.#full.get(holder), this.#clock());
    if ("retryAfterMs" in taken) throw rateLimited(this.#budget, this.#limit, taken.retryAfterMs);
    this.#full.set(holder, taken.fullAt);
  }
}

/**
 * The budget of failed logins, which all servers over one database share. A login takes from it before its password is looked at, and gives back when
 * it was no failure.
 */
export class LoginBudget {
  readonly #database: Database;
  readonly #limit: RateLimit | undefined;
  readonly #clock: () => number;
  /** Until when the database need not be asked again: a flood from one address costs it one query for each token. */
  readonly #refused = new RecentTimes(MOST_HOLDERS);

  /** @param clock milliseconds that only go forward. */
  constructor(database: Database, limit: RateLimit | undefined, clock: () => number) {
    this.#database = database;
    this.#limit = limit;
    this.#clock = clock;
  }

  /** Takes from the budget of the address. @throws DomainError RATE_LIMITED */
  async take(address: string): Promise<void> {
    if (this.#limit === undefined) return;
    const limit = this.#limit;
    const holder = budgetHolder(address);
    const waitMs = (this.#refused.get(holder) ?? 0) - this.#clock();
    if (waitMs > 0) throw rateLimited("login", limit, Math.ceil(waitMs));
    const taken = await this.#database.transaction(async (tx) => await tx.budgets.take(holder, limit, tx.now));
    if (!("retryAfterMs" in taken)) return;
    this.#refused.set(holder, this.#clock() + taken.retryAfterMs);
    throw rateLimited("login", limit, taken.retryAfterMs);
  }

  /** Gives one back. */
  async giveBack(address: string): Promise<void> {
    if (this.#limit === undefined) return;
    const limit = this.#limit;
    const holder = budgetHolder(address);
    await this.#database.transaction(async (tx) => await tx.budgets.giveBack(holder, limit));
    this.#refused.delete(holder);
  }
}

import { type Budget, type RateLimit, type RateLimits, rateLimited, TokenBuckets } from "../domain/rate-limit.ts";

/** A budget for each address, kept in this process. */
export class ProcessBudget {
  readonly #budget: Budget;
  readonly #limit: RateLimit | undefined;
  readonly #buckets: TokenBuckets;

  /** @param clock milliseconds that only go forward. */
  constructor(budget: Budget, limit: RateLimit | undefined, clock: () => number, most?: number) {
    this.#budget = budget;
    this.#limit = limit;
    this.#buckets = new TokenBuckets(clock, most);
  }

  /** Addresses remembered at this moment. */
  get size(): number {
    return this.#buckets.size;
  }

  /** Takes from the budget of the address. @throws DomainError RATE_LIMITED */
  take(address: string): void {
    if (this.#limit === undefined) return;
    const taken = this.#buckets.take(address, this.#limit);
    if ("retryAfterMs" in taken) throw rateLimited(this.#budget, this.#limit, taken.retryAfterMs);
  }
}

/** Budgets of this process that every call draws from, whatever its door. */
export interface ProcessBudgets {
  readonly health: ProcessBudget;
  readonly requests: ProcessBudget;
}

/** Makes the budgets of this process. */
export function processBudgets(limits: RateLimits): ProcessBudgets {
  const clock = () => performance.now();
  return {
    health: new ProcessBudget("health", limits.health, clock),
    requests: new ProcessBudget("requests", limits.requests, clock),
  };
}

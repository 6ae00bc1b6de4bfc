import { isIP } from "node:net";
import { formatDuration, parseDuration, quoted, ValueError } from "@strongroom/protocol/sizes";
import { DomainError } from "./errors.ts";

/** A token bucket: at most `count` at once, and `count` again over each `perMs`. */
export interface RateLimit {
  readonly count: number;
  /** Milliseconds. */
  readonly perMs: number;
}

/** What a limit is for. Each address has one budget of each. */
export type Budget = "login" | "health" | "requests";

/** The limits of a server; undefined is no limit. */
export type RateLimits = Readonly<Record<Budget, RateLimit | undefined>>;

/** No limits. */
export const NO_LIMITS: RateLimits = { login: undefined, health: undefined, requests: undefined };

/** How long one token takes to come back, in milliseconds. */
export function tokenMs(limit: RateLimit): number {
  return limit.perMs / limit.count;
}

/** A token was taken, or there is none. */
export type Taken = { readonly fullAt: number } | { readonly retryAfterMs: number };

/**
 * Takes one token. A bucket is kept as one number: when it will be full again; one that is full needs none. (The
 * generic cell rate algorithm, ITU-T I.371.)
 * @param fullAt when the bucket is full again; undefined or past for one that is.
 */
export function takeToken(limit: RateLimit, fullAt: number | undefined, now: number): Taken {
  const next = Math.max(fullAt ?? now, now) + tokenMs(limit);
  // A thousandth of slack, since tokens need not be whole milliseconds.
  const over = next - now - limit.perMs;
  return over > 0.001 ? { retryAfterMs: Math.ceil(over) } : { fullAt: next };
}

/**
 * Who shares a budget: an IPv4 address, or the /64 an IPv6 address is in, since one customer usually has at least that.
 * What is no address is its own.
 */
export function budgetHolder(address: string): string {
  if (isIP(address) !== 6) return address;
  const [head = "", tail] = address.replace(/%.*$/, "").split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  // A dotted end stands for two groups; only how many there are matters here.
  const groups = left.length + right.length + (address.includes(".") ? 1 : 0);
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - groups }, () => "0");
  const first = [...left, ...zeros, ...right].slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${first.join(":")}::/64`;
}

/** Holders remembered at a time; those that were heard of longest ago are forgotten. About 100 bytes each. */
const MOST_HOLDERS = 20_000;

/** A time for each of the holders heard of last, in bounded number. */
export class RecentTimes {
  readonly #times = new Map<string, number>();
  readonly #most: number;

  constructor(most: number = MOST_HOLDERS) {
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

/** Token buckets of the holders heard of last. */
export class TokenBuckets {
  readonly #clock: () => number;
  readonly #full: RecentTimes;

  /** @param clock milliseconds that only go forward. */
  constructor(clock: () => number, most?: number) {
    this.#clock = clock;
    this.#full = new RecentTimes(most);
  }

  /** Holders remembered at this moment. */
  get size(): number {
    return this.#full.size;
  }

  /** Takes one token of the address' holder. */
  take(address: string, limit: RateLimit): Taken {
    const holder = budgetHolder(address);
    const taken = takeToken(limit, this.#full.get(holder), this.#clock());
    if ("fullAt" in taken) this.#full.set(holder, taken.fullAt);
    return taken;
  }

  /** Gives one token back. */
  giveBack(address: string, limit: RateLimit): void {
    const holder = budgetHolder(address);
    const fullAt = this.#full.get(holder);
    if (fullAt !== undefined) this.#full.set(holder, fullAt - tokenMs(limit));
  }
}

/** The refusal of a call whose budget is used up. */
export function rateLimited(budget: Budget, limit: RateLimit, retryAfterMs: number): DomainError {
  const what = { login: "failed logins", health: "health checks", requests: "requests" }[budget];
  return new DomainError("RATE_LIMITED", `too many ${what} from this address; wait as long as RetryInfo says`, {
    metadata: { budget, limit: formatRateLimit(limit) },
    retryAfterMs,
  });
}

const MAX_COUNT = 1_000_000;

/** The longest period of a limit, in milliseconds. */
export const MAX_PER_MS = 24 * 3_600_000;

/**
 * Reads `20/2m`: 20 at once, and 20 again over each two minutes. `off` is no limit.
 * @throws {ValueError}
 */
export function parseRateLimit(text: string): RateLimit | undefined {
  if (text === "off") return undefined;
  const [, count, per] = /^(\d{1,7})\/(.+)$/.exec(text.trim()) ?? [];
  if (count === undefined || per === undefined)
    throw new ValueError(`expected COUNT/TIME, for example 20/1m, or off, got ${quoted(text)}`);
  const limit = { count: Number(count), perMs: parseDuration(per) };
  if (limit.count < 1 || limit.count > MAX_COUNT)
    throw new ValueError(`expected 1 to ${MAX_COUNT} before the "/", got ${quoted(text)}`);
  if (limit.perMs < 1000 || limit.perMs > MAX_PER_MS)
    throw new ValueError(`expected 1s to ${formatDuration(MAX_PER_MS)} after the "/", got ${quoted(text)}`);
  return limit;
}

/** Writes a limit as {@link parseRateLimit} reads it. */
export function formatRateLimit(limit: RateLimit): string {
  return `${limit.count}/${formatDuration(limit.perMs)}`;
}

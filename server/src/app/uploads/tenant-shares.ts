import type { OrganizationSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";

/** The time of {@link TenantShares}. */
export interface ShareClock {
  /** Milliseconds that only go forward. */
  readonly monotonic: () => number;
  /** Resolves after so many milliseconds, and rejects with the reason of `signal` when that is aborted before. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** What one organization may take of this server. */
export type ShareLimits = Pick<OrganizationSpec, "name" | "maxUploadRate" | "maxParallelSegments">;

/** How long a segment waits for a place before its client is asked to come again, in milliseconds. */
export const PLACE_WAIT_MS = 10_000;
/** The longest that a timer waits, in milliseconds: longer than any upload lasts. */
export const LONGEST_WAIT_MS = 2 ** 31 - 1;
/** Bytes that were not used are saved up for so long, in milliseconds. */
const BURST_MS = 1000;

interface Waiter {
  readonly admit: () => void;
}

/**
 * Shares of the organizations in this process: how many of their segments are taken in at once, and how fast. Each
 * server counts by itself. Nothing is kept of an organization that takes nothing.
 */
export class TenantShares {
  readonly #clock: ShareClock;
  /** Segments under way of organizations that have a limit, and those that wait, the first first. */
  readonly #places = new Map<string, { taken: number; readonly waiting: Waiter[] }>();
  /** When what was let through so far will have passed at the organization's rate. */
  readonly #freeAt = new Map<string, number>();

  constructor(clock: ShareClock) {
    this.#clock = clock;
  }

  /**
   * Takes a place for one segment, in the order of asking.
   * @param waitMs how long it waits for one, in milliseconds.
   * @returns gives the place back.
   * @throws DomainError RATE_LIMITED when none was free in time; what `signal` was aborted with
   */
  async enter(
    { name, maxParallelSegments }: ShareLimits,
    signal: AbortSignal,
    waitMs: number = PLACE_WAIT_MS,
  ): Promise<() => void> {
    if (maxParallelSegments === undefined) return () => {};
    const places = this.#places.get(name) ?? { taken: 0, waiting: [] };
    this.#places.set(name, places);
    if (places.taken < maxParallelSegments) places.taken++;
    else await this.#wait(places.waiting, { name, maxParallelSegments }, signal, waitMs);
    return () => {
      const next = places.waiting.shift();
      // The place goes from one to the next; it is never free in between.
      if (next !== undefined) next.admit();
      else if (--places.taken === 0) this.#places.delete(name);
    };
  }

  async #wait(waiting: Waiter[], limits: ShareLimits, signal: AbortSignal, waitMs: number): Promise<void> {
    const over = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter = { admit: resolve };
    waiting.push(waiter);
    try {
      const timeout = this.#clock.sleep(waitMs, AbortSignal.any([signal, over.signal]));
      await Promise.race([promise, timeout.then(() => Promise.reject(noPlace(limits)))]);
    } catch (error) {
      const at = waiting.indexOf(waiter);
      // It was admitted in the same moment: the place is its own, and goes on to the next.
      if (at < 0) return;
      waiting.splice(at, 1);
      throw error;
    } finally {
      over.abort();
    }
  }

  /**
   * Waits until so many bytes more keep to the organization's rate.
   * @throws what `signal` was aborted with
   */
  async pace({ name, maxUploadRate }: ShareLimits, bytes: number, signal: AbortSignal): Promise<void> {
    if (maxUploadRate === undefined) return;
    const now = this.#clock.monotonic();
    const from = Math.max(this.#freeAt.get(name) ?? 0, now - BURST_MS);
    const freeAt = from + (bytes * 1000) / Number(maxUploadRate);
    this.#freeAt.set(name, freeAt);
    if (freeAt > now) await this.#clock.sleep(freeAt - now, signal);
  }
}

function noPlace({ name, maxParallelSegments }: ShareLimits): DomainError {
  const limit = String(maxParallelSegments);
  return new DomainError(
    "RATE_LIMITED",
    `organization "${name}" sends ${limit} segments at once to this server, as many as it may (maxParallelSegments); ` +
      "send the segment again in a moment",
    { metadata: { budget: "organization", limit }, retryAfterMs: 1000 },
  );
}

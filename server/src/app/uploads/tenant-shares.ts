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

/**
 * After it was refused a place, an upload counts as waiting for so long, in milliseconds: it comes again. Longer than
 * the longest that a client waits before.
 */
export const COMES_AGAIN_MS = 20_000;

interface Waiter {
  readonly upload: string;
  /** Since when it has waited, the tries before this one among it. */
  readonly since: number;
  readonly admit: () => void;
}

interface Places {
  taken: number;
  /** How many there are, by the configuration of who asked last. */
  limit: number;
  /** The first first. */
  readonly waiting: Waiter[];
  /** Uploads that were refused and will come again, by id, the first refused first. */
  readonly refused: Map<string, { readonly since: number; readonly until: number }>;
}

/**
 * Shares of the organizations in this process: how many of their segments are taken in at once, and how fast. Each
 * server counts by itself. Nothing is kept of an organization that takes nothing.
 */
export class TenantShares {
  readonly #clock: ShareClock;
  /** Segments under way of organizations that have a limit, and those that wait, the first first. */
  readonly #places = new Map<string, Places>();
  /** When what was let through so far will have passed at the organization's rate. */
  readonly #freeAt = new Map<string, number>();

  constructor(clock: ShareClock) {
    this.#clock = clock;
  }

  /**
   * Takes a place for one segment, in the order of asking.
   * @param upload its id.
   * @param waitMs how long it waits for one, in milliseconds.
   * @returns gives the place back.
   * @throws DomainError RATE_LIMITED when none was free in time; what `signal` was aborted with
   */
  async enter(
    { name, maxParallelSegments }: ShareLimits,
    signal: AbortSignal,
    { upload = "", waitMs = PLACE_WAIT_MS }: { readonly upload?: string; readonly waitMs?: number } = {},
  ): Promise<() => void> {
    if (maxParallelSegments === undefined) return () => {};
    const places = this.#places.get(name) ?? { taken: 0, limit: 0, waiting: [], refused: new Map() };
    places.limit = maxParallelSegments;
    this.#places.set(name, places);
    const since = this.#refusedSince(places, upload) ?? this.#clock.monotonic();
    places.refused.delete(upload);
    if (places.taken < maxParallelSegments) places.taken++;
    else await this.#wait(places, { upload, since }, { name, maxParallelSegments }, signal, waitMs);
    return () => {
      const next = places.waiting.shift();
      // The place goes from one to the next; it is never free in between.
      if (next !== undefined) next.admit();
      else if (--places.taken === 0) this.#places.delete(name);
    };
  }

  /** Milliseconds that only go forward, by which it is counted how long somebody has waited. */
  now(): number {
    return this.#clock.monotonic();
  }

  /**
   * For how long another upload of the organization has waited for a place that this one could give, in milliseconds;
   * undefined while none does. One that was asked to come again waits meanwhile, unless a place is free for it.
   */
  pressedMs(organization: string, upload: string): number | undefined {
    const places = this.#places.get(organization);
    if (places === undefined) return undefined;
    const now = this.#clock.monotonic();
    const waiting = places.waiting.find((waiter) => waiter.upload !== upload);
    if (waiting !== undefined) return now - waiting.since;
    if (places.taken < places.limit) return undefined;
    for (const [id, { since }] of places.refused)
      if (this.#refusedSince(places, id) === undefined) places.refused.delete(id);
      else if (id !== upload) return now - since;
    return undefined;
  }

  #refusedSince(places: Places, upload: string): number | undefined {
    const refused = places.refused.get(upload);
    return refused !== undefined && refused.until > this.#clock.monotonic() ? refused.since : undefined;
  }

  async #wait(
    { waiting, refused }: Places,
    { upload, since }: Pick<Waiter, "upload" | "since">,
    limits: ShareLimits,
    signal: AbortSignal,
    waitMs: number,
  ): Promise<void> {
    const over = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter = { upload, since, admit: resolve };
    waiting.push(waiter);
    try {
      const timeout = this.#clock.sleep(waitMs, AbortSignal.any([signal, over.signal]));
      await Promise.race([promise, timeout.then(() => Promise.reject(noPlace(limits)))]);
    } catch (error) {
      const at = waiting.indexOf(waiter);
      // It was admitted in the same moment: the place is its own, and goes on to the next.
      if (at < 0) return;
      waiting.splice(at, 1);
      if (!signal.aborted) refused.set(upload, { since, until: this.#clock.monotonic() + COMES_AGAIN_MS });
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

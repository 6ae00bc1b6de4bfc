import { EventEmitter, once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { DomainError } from "../domain/errors.ts";

/** How often a watched server is looked at, in milliseconds. */
const LOOK_EVERY_MS = 5000;

/**
 * An answer of the database is taken as still true for this long, in milliseconds, so that health checks are no load.
 */
const FRESH_MS = 1000;

/** The answer of a server that is on its way out. */
export function shuttingDown(): DomainError {
  return new DomainError(
    "SHUTTING_DOWN",
    "this server is stopping; repeat the call on another one, or here in a moment",
    {
      retryAfterMs: 2000,
    },
  );
}

/** Whether the server takes calls: its database answers and it is not stopping. */
export class ServingState {
  readonly #ping: () => Promise<void>;
  readonly #events = new EventEmitter();
  #stopping = false;
  #last: { at: number; answer: Promise<boolean> } | undefined;

  constructor(ping: () => Promise<void>) {
    this.#ping = ping;
    this.#events.setMaxListeners(0);
  }

  /** Whether the server is on its way out. */
  get stopping(): boolean {
    return this.#stopping;
  }

  /** From now on nothing new begins. */
  stop(): void {
    this.#stopping = true;
    this.#events.emit("change");
  }

  /** Throws SHUTTING_DOWN when the server is stopping. */
  readonly refuseWhileStopping = (): void => {
    if (this.#stopping) throw shuttingDown();
  };

  /** Asks the database, at most once a second. */
  async isServing(): Promise<boolean> {
    if (this.#stopping) return false;
    const now = performance.now();
    if (this.#last === undefined || now - this.#last.at > FRESH_MS) {
      this.#last = {
        at: now,
        answer: this.#ping().then(
          () => true,
          () => false,
        ),
      };
    }
    return await this.#last.answer;
  }

  /** Waits until the state may have changed. */
  async change(signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const either = AbortSignal.any([signal, ended.signal]);
    try {
      await Promise.race([
        once(this.#events, "change", { signal: either }),
        sleep(LOOK_EVERY_MS, undefined, { signal: either, ref: false }),
      ]).catch(() => {});
    } finally {
      ended.abort();
    }
  }
}

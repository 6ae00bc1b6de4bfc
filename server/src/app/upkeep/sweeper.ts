import { setTimeout as sleep } from "node:timers/promises";
import { LOOK_MS } from "../../domain/clock.ts";
import { isServerOutdated } from "../../domain/errors.ts";
import type { ClockWatch } from "./clock-watch.ts";
import { type SweepDeps, type SweepReport, sweep } from "./sweep.ts";

/** The whole list of the store is compared with the database this often, in milliseconds. */
const WHOLE_STORE_MS = 24 * 3_600_000;

/** When that could not be done it is tried again after this, in milliseconds. */
const WHOLE_STORE_RETRY_MS = 10 * 60_000;

/** That this server does not sweep since it is older than the database is said again this often, in milliseconds. */
const SAID_AGAIN_MS = 3_600_000;

/** What sweeping needs, and the watch of the clock, which looks before each sweep. */
export interface SweeperDeps extends SweepDeps {
  readonly clockWatch: ClockWatch;
}

/** Runs {@link sweep} every so often and on request, one at a time. */
export class Sweeper {
  readonly #deps: SweeperDeps;
  readonly #everyMs: number;
  readonly #onSwept: ((report: SweepReport | undefined) => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;
  #running: Promise<SweepReport | undefined> | undefined;
  #again = false;
  #stopped = false;
  readonly #monotonic: () => number;
  #wholeStoreAt = 0;
  #outdatedSaidAt = Number.NEGATIVE_INFINITY;

  /**
   * @param onSwept called after each sweep; undefined for one that failed as a whole.
   * @param monotonic milliseconds that only go forward.
   */
  constructor(
    deps: SweeperDeps,
    everyMs: number,
    onSwept?: (report: SweepReport | undefined) => void,
    monotonic: () => number = () => performance.now(),
  ) {
    this.#deps = deps;
    this.#everyMs = everyMs;
    this.#onSwept = onSwept;
    this.#monotonic = monotonic;
  }

  /** Sweeps now and from then on. */
  start(): void {
    // Also while a sweep takes hours, or they are far apart: a clock that nobody looks at is in doubt.
    this.#looking = setInterval(() => this.#deps.clockWatch.look().catch(() => {}), LOOK_MS);
    this.#looking.unref();
    this.request();
  }

  /** Asks for a sweep soon: something ended. */
  request(): void {
    if (this.#stopped) return;
    if (this.#running !== undefined) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.runOnce()
      .catch((error: unknown) => this.#warn(error))
      .finally(() => {
        if (this.#stopped) return;
        const delay = this.#again ? 0 : this.#everyMs;
        this.#again = false;
        this.#timer = setTimeout(() => this.request(), delay);
        this.#timer.unref();
      });
  }

  #warn(error: unknown): void {
    if (!isServerOutdated(error)) {
      this.#deps.log.warn({ err: error }, "sweeper: failed; the next sweep tries again");
      return;
    }
    const now = this.#monotonic();
    if (now - this.#outdatedSaidAt < SAID_AGAIN_MS) return;
    this.#outdatedSaidAt = now;
    this.#deps.log.warn({}, `this server is outdated: ${error.message}`);
  }

  /**
   * Sweeps once, after a sweep that is under way. Undefined when another server is sweeping: it does the same work.
   * @throws DomainError SERVER_OUTDATED
   */
  async runOnce(): Promise<SweepReport | undefined> {
    const before: Promise<unknown> = this.#running ?? Promise.resolve();
    const run = before.catch(() => {}).then(async () => await this.#sweep());
    this.#running = run;
    try {
      const report = await run;
      if (report !== undefined) this.#onSwept?.(report);
      return report;
    } catch (error) {
      // One that does not sweep says nothing of the sweeps of others.
      if (!isServerOutdated(error)) this.#onSwept?.(undefined);
      throw error;
    } finally {
      if (this.#running === run) this.#running = undefined;
    }
  }

  async #sweep(): Promise<SweepReport | undefined> {
    const wholeStore = this.#monotonic() >= this.#wholeStoreAt;
    const { status } = await this.#deps.clockWatch.look();
    const work = async () => await sweep(this.#deps, status === "right", { wholeStore });
    const report = (await this.#deps.database.exclusively("sweep", work))?.result;
    if (wholeStore && report !== undefined)
      this.#wholeStoreAt = this.#monotonic() + (report.compared ? WHOLE_STORE_MS : WHOLE_STORE_RETRY_MS);
    return report;
  }

  /**
   * No further sweeps; waits for the one under way, but not longer than `withinMs`. It may be broken off at any step.
   */
  async stop(withinMs: number): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#looking);
    if (this.#running === undefined) return;
    const waited = new AbortController();
    const limit = sleep(withinMs, undefined, { signal: waited.signal }).catch(() => {});
    await Promise.race([this.#running.catch(() => {}), limit]);
    waited.abort();
  }
}

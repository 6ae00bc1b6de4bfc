import { type ClockReading, type ClockState, clockState, watchClock } from "../../domain/clock.ts";
import type { Database } from "../ports/database.ts";
import type { Log } from "../settings.ts";

/** What the watch of the clock needs. */
export interface ClockWatchDeps {
  readonly database: Database;
  readonly log: Log;
}

/**
 * Watches the database's clock: whether it goes on like this process's own, and is not before what was stored. What it
 * finds is kept in the database, so that it holds for every server over it, and after a restart.
 */
export class ClockWatch {
  readonly #deps: ClockWatchDeps;
  readonly #monotonic: () => number;
  #before: ClockReading | undefined;
  #state: ClockState = { status: "right", message: "the database's clock was not looked at yet" };

  /** @param monotonic milliseconds that only go forward, at the pace of time. */
  constructor(deps: ClockWatchDeps, monotonic: () => number = () => performance.now()) {
    this.#deps = deps;
    this.#monotonic = monotonic;
  }

  /** What the last look found. */
  get state(): ClockState {
    return this.#state;
  }

  /** Looks at the clock, remembers what it says, and logs what changed. */
  async look(): Promise<ClockState> {
    const { reading, state } = await this.#deps.database.transaction(async (tx) => {
      const reading = { database: tx.now.getTime(), process: this.#monotonic() };
      const record = await tx.clock.lock();
      const next = watchClock(record, reading, this.#before);
      await tx.clock.write(next);
      return { reading, state: clockState(next, tx.now) };
    });
    this.#before = reading;
    this.#tell(state);
    this.#state = state;
    return state;
  }

  #tell({ status, message }: ClockState): void {
    if (status === this.#state.status) return;
    if (status === "right") this.#deps.log.info({}, `clock: ${message}; what is overdue is purged and expires again`);
    else this.#deps.log.error({ clock: status }, `clock: ${message}`);
  }
}

/** What speaks against the clock at this moment, for a process that looks once and remembers nothing. */
export async function peekAtClock(database: Database): Promise<ClockState> {
  return await database.read(async (tx) => {
    const reading = { database: tx.now.getTime(), process: 0 };
    return clockState(watchClock(await tx.clock.read(), reading, undefined), tx.now);
  });
}

/** Ends every doubt in the clock: an operator looked at it, and it is right. */
export async function confirmClock(database: Database): Promise<void> {
  await database.transaction(async (tx) => {
    const { newestAt, pauseReason } = await tx.clock.lock();
    await tx.clock.write({ newestAt: tx.now, pausedUntil: null, pauseReason: "" });
    const details = { newest_stored: newestAt?.toISOString() ?? "", reason: pauseReason };
    await tx.audit({ kind: "clock.confirmed", actor: "operator", collectionName: "", details });
  });
}

/** Keeps an upload's place and space while nothing is acknowledged: the source is silent, or a segment takes long. */
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";

/**
 * How often a lease has to be renewed, in milliseconds: a third of its length, but never less often than `atMost`.
 *
 * The length is the difference of two times of the server, so that a wrong clock here does not matter.
 */
export function renewalInterval(begun: Timestamp | undefined, expires: Timestamp | undefined, atMost: number): number {
  if (begun === undefined || expires === undefined) return atMost;
  const lengthMs = timestampMs(expires) - timestampMs(begun);
  return lengthMs > 0 ? Math.min(atMost, lengthMs / 3) : atMost;
}

/** Calls `renew` whenever nothing extended the lease for a while. */
export class LeaseKeeper {
  readonly #everyMs: number;
  readonly #renew: () => Promise<void>;
  readonly #fail: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /**
   * Starts to count.
   *
   * @param everyMs - how long nothing may extend the lease
   * @param renew - extends it; retries by itself
   * @param fail - called when it cannot be extended
   */
  constructor(everyMs: number, renew: () => Promise<void>, fail: (error: unknown) => void) {
    this.#everyMs = everyMs;
    this.#renew = renew;
    this.#fail = fail;
    this.extended();
  }

  /** The server extended the lease: the time counts again. */
  extended(): void {
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#run(), this.#everyMs);
  }

  /** Ends it; a renewal under way is not waited for. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    try {
      await this.#renew();
      this.extended();
    } catch (error) {
      if (!this.#stopped) this.#fail(error);
    }
  }
}

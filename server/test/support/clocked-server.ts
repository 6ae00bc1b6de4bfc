import { ClockWatch } from "../../src/app/upkeep/clock-watch.ts";
import { sweep } from "../../src/app/upkeep/sweep.ts";
import type { Harness } from "./harness.ts";

/** A server's sweeper, with the process's own clock. */
export class ClockedServer {
  readonly #h: Harness;
  #own = 0;
  #watch: ClockWatch;

  /** @param h what it serves. */
  constructor(h: Harness) {
    this.#h = h;
    this.#watch = new ClockWatch(h.deps, () => this.#own);
  }

  /** Time goes by, for every clock. */
  pass(ms: number): void {
    this.#own += ms;
    this.#h.clock.advance(ms);
  }

  /** Only the database's clock moves. */
  jump(ms: number): void {
    this.#h.clock.advance(ms);
  }

  /** The process is another one: it has read no clock. */
  restart(): void {
    this.#watch = new ClockWatch(this.#h.deps, () => this.#own);
  }

  /** What the sweeper does: looks at the clock, and sweeps. */
  async sweep() {
    const { status } = await this.#watch.look();
    return { status, ...(await sweep(this.#h.deps, status === "right")) };
  }
}

import { setImmediate as nextTurn } from "node:timers/promises";

/** One call to a use case, on a server that may die. */
export interface Operation {
  /** Unique in the scenario, in the order of beginning. */
  readonly id: number;
  /** For the trace. */
  readonly name: string;
  readonly replica: number;
  /** Its server died: it does nothing more and gives no answer. */
  dead: boolean;
}

/** Thrown into the store when the process that called it has died, so that an unfinished call lets go of its files. */
export class ProcessDied extends Error {
  override name = "ProcessDied";
}

interface Parked {
  readonly operation: Operation;
  readonly where: string;
  readonly go: () => void;
}

/** A promise that never settles: what a dead process answers. */
export const NEVER: Promise<never> = new Promise(() => {});

/**
 * Lets operations of several servers run one step at a time. An operation stops at every gate (each call of the store
 * and the database, before and after, and each chunk); the scenario chooses which one goes on. So its interleaving is
 * that of the seed, whatever the machine does.
 */
export class Scheduler {
  readonly #parked: Parked[] = [];
  #working = 0;
  #idle: (() => void) | undefined;

  /** What waits at gates now, the oldest operation first. */
  get parked(): readonly Parked[] {
    return this.#parked.toSorted((a, b) => a.operation.id - b.operation.id);
  }

  /**
   * Waits until the scenario lets the operation go on. When its signal aborts it goes on at once: nobody waits for what
   * was given up.
   * @throws ProcessDied when its server died meanwhile.
   */
  async gate(operation: Operation, where: string, signal?: AbortSignal): Promise<void> {
    if (operation.dead) throw new ProcessDied();
    if (signal?.aborted === true) return;
    await new Promise<void>((resolve) => {
      const entry = { operation, where, go: () => leave() };
      const leave = () => {
        signal?.removeEventListener("abort", leave);
        const at = this.#parked.indexOf(entry);
        if (at >= 0) this.#parked.splice(at, 1);
        resolve();
      };
      signal?.addEventListener("abort", leave, { once: true });
      this.#parked.push(entry);
    });
    if (operation.dead) throw new ProcessDied();
  }

  /** Runs something that ends by itself, so that {@link settle} waits for it. */
  async working<T>(work: () => Promise<T>): Promise<T> {
    this.#working++;
    try {
      return await work();
    } finally {
      this.#working--;
      if (this.#working === 0) this.#idle?.();
    }
  }

  /** Marks work as waiting for the scenario, inside {@link working}. */
  async waiting<T>(work: () => Promise<T>): Promise<T> {
    this.#working--;
    if (this.#working === 0) this.#idle?.();
    try {
      return await work();
    } finally {
      this.#working++;
    }
  }

  /** Waits until every operation has ended or stands at a gate. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; ) {
      if (this.#working > 0) {
        quiet = 0;
        await new Promise<void>((resolve) => {
          this.#idle = resolve;
        });
        this.#idle = undefined;
      }
      await nextTurn();
      quiet = this.#working > 0 ? 0 : quiet + 1;
    }
  }

  /** Lets one operation go on to its next gate. */
  async step(parked: Parked): Promise<void> {
    parked.go();
    await this.settle();
  }

  /** Ends the operations that this names, wherever they stand. */
  async kill(which: (operation: Operation) => boolean, running: Iterable<Operation>): Promise<void> {
    for (const operation of running) if (which(operation)) operation.dead = true;
    for (const parked of this.parked) if (parked.operation.dead) parked.go();
    await this.settle();
  }
}

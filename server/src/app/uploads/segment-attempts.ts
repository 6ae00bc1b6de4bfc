import { DomainError } from "../../domain/errors.ts";

interface Running {
  readonly controller: AbortController;
  readonly done: Promise<void>;
}

/**
 * The segment writes under way in this process. A newer attempt at the same segment ends the older one and waits for
 * it, so that two never write to the store at once from here. Across processes the attempt number in the database
 * decides; nothing depends on this being complete.
 */
export class SegmentAttempts {
  readonly #running = new Map<string, Running>();

  /**
   * Runs one attempt after ending the one before it. `work` gets a signal that ends with `signal`, or when a newer
   * attempt comes.
   */
  async run<T>(key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    for (let older = this.#running.get(key); older !== undefined; older = this.#running.get(key)) {
      older.controller.abort(new DomainError("SEGMENT_SUPERSEDED", "a newer attempt at this segment took over"));
      await older.done;
    }
    const controller = new AbortController();
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const entry = { controller, done };
    this.#running.set(key, entry);
    try {
      return await work(AbortSignal.any([signal, controller.signal]));
    } finally {
      this.#running.delete(key);
      resolve();
    }
  }

  /** Ends every attempt at a segment of this upload, and waits for them. */
  async end(uploadId: string, reason: DomainError): Promise<void> {
    const mine = [...this.#running].filter(([key]) => key.startsWith(`${uploadId}/`)).map(([, entry]) => entry);
    for (const entry of mine) entry.controller.abort(reason);
    await Promise.all(mine.map((entry) => entry.done));
  }
}

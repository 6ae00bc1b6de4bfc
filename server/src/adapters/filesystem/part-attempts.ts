import { BlobNotFoundError, BlobStoreError } from "../../app/ports/blob-store.ts";

/**
 * One attempt to write a part into the common data file. It may touch the file only in {@link step}s, so that whoever
 * takes over can wait until the last of them is done, without waiting for a body that may never end.
 */
export class PartAttempt {
  readonly #controller = new AbortController();
  #step: Promise<unknown>;

  /** @param predecessors settles when those whose place this attempt takes no longer touch the file. */
  constructor(predecessors: Promise<unknown>) {
    this.#step = predecessors;
  }

  /** Aborts when the attempt must end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * Runs one step on the file after the step before, unless the attempt was stopped.
   * @throws the reason it was stopped for.
   */
  async step<T>(step: () => Promise<T>): Promise<T> {
    const earlier = this.#step;
    const running = (async () => {
      await earlier;
      this.signal.throwIfAborted();
      return await step();
    })();
    // What a step failed with concerns only the one who ran it.
    this.#step = running.catch(() => {});
    return await running;
  }

  /** Lets no further step begin; resolves when the current one has ended. */
  async stop(reason: unknown): Promise<void> {
    this.#controller.abort(reason);
    await this.#step;
  }
}

/**
 * The attempts under way, so that at most one writes at a time to one part's place in the data file, and none while the
 * file is being published: an attempt that was given up elsewhere may still have bytes to write, and nobody has checked
 * those.
 */
export class PartAttempts {
  /** The latest attempt by index, by token. */
  readonly #uploads = new Map<string, Map<number, PartAttempt>>();
  readonly #sealed = new Set<string>();

  /**
   * Starts an attempt, which takes the place of an earlier one at the same part: that one fails with a
   * {@link BlobStoreError}.
   */
  start(token: string, index: number): PartAttempt {
    if (this.#sealed.has(token)) {
      throw new BlobStoreError(
        `Part ${index} was sent while its object was being completed or aborted. Ask for the upload's state.`,
      );
    }
    let attempts = this.#uploads.get(token);
    if (attempts === undefined) {
      attempts = new Map();
      this.#uploads.set(token, attempts);
    }
    const earlier = attempts.get(index);
    const overtaken = new BlobStoreError(
      `A later attempt at part ${index} took the place of this one; the later one counts.`,
    );
    const attempt = new PartAttempt(earlier?.stop(overtaken) ?? Promise.resolve());
    attempts.set(index, attempt);
    return attempt;
  }

  /**
   * Ends an attempt: waits for its last step, and for those whose place it took even if it never began a step, then
   * forgets it.
   */
  async end(token: string, index: number, attempt: PartAttempt): Promise<void> {
    await attempt.stop(new BlobStoreError(`The attempt at part ${index} is over.`));
    const attempts = this.#uploads.get(token);
    if (attempts?.get(index) !== attempt) return;
    attempts.delete(index);
    if (attempts.size === 0) this.#uploads.delete(token);
  }

  /** Runs an operation while nobody writes to the upload: attempts under way are broken off, new ones refused. */
  async withoutWriters<T>(token: string, operation: () => Promise<T>): Promise<T> {
    this.#sealed.add(token);
    try {
      await this.#stop(
        token,
        new BlobNotFoundError("The object was completed or aborted while this part was being written."),
      );
      return await operation();
    } finally {
      this.#sealed.delete(token);
    }
  }

  /** Breaks off every attempt. */
  async stopAll(reason: unknown): Promise<void> {
    await Promise.all([...this.#uploads.keys()].map((token) => this.#stop(token, reason)));
  }

  async #stop(token: string, reason: unknown): Promise<void> {
    const attempts = [...(this.#uploads.get(token)?.values() ?? [])];
    await Promise.all(attempts.map((attempt) => attempt.stop(reason)));
  }
}

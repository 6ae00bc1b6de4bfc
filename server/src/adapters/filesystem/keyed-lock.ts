/**
 * Runs operations on one key one after the other, and those on different keys side by side. Within this process; the
 * store's file lock keeps others out.
 */
export class KeyedLock {
  readonly #last = new Map<string, Promise<void>>();

  /** Runs the operation when all earlier ones on this key have ended, in whatever way. */
  async run<T>(key: string, operation: () => Promise<T>): Promise<T> {
    const earlier = this.#last.get(key);
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    this.#last.set(key, ended);
    try {
      await earlier;
      return await operation();
    } finally {
      // The map holds only keys in use.
      if (this.#last.get(key) === ended) this.#last.delete(key);
      end();
    }
  }
}

/** A buffer was asked for that the whole pool could not give. */
export class BufferTooLargeError extends Error {
  override name = "BufferTooLargeError";
}

interface Waiting {
  readonly size: number;
  readonly give: (buffer: Buffer) => void;
}

/**
 * Memory of this process for bodies whose size and digest nobody announced, so that each segment is collected before it
 * is stored. What is given out never comes to more than the pool has; who comes when it is empty waits in line, and
 * reads nothing meanwhile. Buffers are used again, so that memory does not depend on when the garbage is collected.
 */
export class BufferPool {
  readonly #capacity: number;
  readonly #idle: Buffer[] = [];
  readonly #line: Waiting[] = [];
  #allocated = 0;
  #most = 0;

  /** @param capacity bytes. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Bytes of all buffers, those that wait to be used again among them. */
  get allocated(): number {
    return this.#allocated;
  }

  /** The most bytes there ever were at once. */
  get mostAllocated(): number {
    return this.#most;
  }

  /** How many wait for a buffer. */
  get waiting(): number {
    return this.#line.length;
  }

  /** Refuses a size that the whole pool does not have. @throws BufferTooLargeError which names the option */
  requireFits(size: bigint, what: string): void {
    if (size <= BigInt(this.#capacity)) return;
    throw new BufferTooLargeError(
      `${what} takes a buffer of ${size} bytes, and the server has ${this.#capacity} bytes for all; raise its option ` +
        "--http-buffer, or lower maxCollectionSize",
    );
  }

  /**
   * Takes a buffer of at least this many bytes, and waits in line until there is one.
   * @throws BufferTooLargeError, or what the signal was aborted with
   */
  async take(size: number, signal: AbortSignal): Promise<Buffer> {
    this.requireFits(BigInt(size), "this body");
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const waiting: Waiting = { size, give: resolve };
    this.#line.push(waiting);
    const leave = () => {
      const at = this.#line.indexOf(waiting);
      // Given already: then its owner gives it back.
      if (at < 0) return;
      this.#line.splice(at, 1);
      reject(signal.reason);
      this.#serve();
    };
    signal.addEventListener("abort", leave, { once: true });
    try {
      this.#serve();
      return await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /**
   * Gives a buffer back.
   * @param reusable false when somebody may still read from it, such as a store whose write failed: then nobody else
   *   gets its memory.
   */
  giveBack(buffer: Buffer, reusable: boolean): void {
    if (reusable) this.#idle.push(buffer);
    else this.#allocated -= buffer.length;
    this.#serve();
  }

  #serve(): void {
    for (let next = this.#line[0]; next !== undefined; next = this.#line[0]) {
      const buffer = this.#reused(next.size) ?? this.#made(next.size);
      if (buffer === undefined) return;
      this.#line.shift();
      next.give(buffer);
    }
  }

  /** The smallest idle buffer that is large enough, but not one of which most would lie idle. */
  #reused(size: number): Buffer | undefined {
    const fitting = this.#idle.filter(({ length }) => length >= size && length <= 2 * size);
    const smallest = fitting.reduce<Buffer | undefined>(
      (best, one) => (best === undefined || one.length < best.length ? one : best),
      undefined,
    );
    if (smallest !== undefined) this.#idle.splice(this.#idle.indexOf(smallest), 1);
    return smallest;
  }

  #made(size: number): Buffer | undefined {
    const idle = this.#idle.reduce((sum, { length }) => sum + length, 0);
    if (this.#allocated - idle + size > this.#capacity) return undefined;
    while (this.#allocated + size > this.#capacity) {
      const dropped = this.#idle.shift()!;
      this.#allocated -= dropped.length;
      // Frees it now: the collector would count it among the living for a while.
      (dropped.buffer as ArrayBuffer).transfer(0);
    }
    this.#allocated += size;
    this.#most = Math.max(this.#most, this.#allocated);
    return Buffer.allocUnsafeSlow(size);
  }
}

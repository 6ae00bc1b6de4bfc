/** A buffer was asked for that the whole pool could not give. */
export class BufferTooLargeError extends Error {
  override name = "BufferTooLargeError";
}

interface Waiting {
  readonly size: number;
  readonly owner: string;
  /** Since when, as the pool's clock has it. */
  readonly since: number;
  readonly give: (buffer: Buffer) => void;
}

/** What part of the pool one owner may hold; one buffer always, however large. */
const OWNER_SHARE = 1 / 4;

/**
 * Memory of this process for bodies whose size and digest nobody announced, so that each segment is collected before it
 * is stored. What is given out never comes to more than the pool has; who comes when it is empty waits in line, and
 * reads nothing meanwhile. No owner holds more than a quarter, so that slow or limited uploads of one do not keep those of
 * others waiting. Buffers are used again, so that memory does not depend on when the garbage is collected.
 */
export class BufferPool {
  readonly #capacity: number;
  readonly #idle: Buffer[] = [];
  readonly #line: Waiting[] = [];
  readonly #monotonic: () => number;
  /** Whose the buffers are that were given out. */
  readonly #owners = new Map<Buffer, string>();
  /** Bytes of them, by owner. */
  readonly #held = new Map<string, number>();
  #allocated = 0;
  #most = 0;

  /**
   * @param capacity bytes.
   * @param monotonic milliseconds that only go forward.
   */
  constructor(capacity: number, monotonic: () => number = () => performance.now()) {
    this.#capacity = capacity;
    this.#monotonic = monotonic;
  }

  /** Milliseconds that only go forward, by which the pool counts how long somebody has waited. */
  now(): number {
    return this.#monotonic();
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
   * Takes a buffer of at least this many bytes, and waits in line until there is one and its owner holds no more than
   * its share.
   * @param owner whose share it is taken from.
   * @throws BufferTooLargeError, or what the signal was aborted with
   */
  async take(size: number, owner: string, signal: AbortSignal): Promise<Buffer> {
    this.requireFits(BigInt(size), "this body");
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const waiting: Waiting = { size, owner, since: this.#monotonic(), give: resolve };
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
   * For how long somebody has waited whom a buffer of this owner would help, in milliseconds; undefined while nobody
   * does.
   */
  pressedMs(owner: string): number | undefined {
    const first = this.#line.find((waiting) => waiting.owner === owner || this.#isWithinShare(waiting));
    return first && this.#monotonic() - first.since;
  }

  /**
   * Gives a buffer back.
   * @param reusable false when somebody may still read from it, such as a store whose write failed: then nobody else
   *   gets its memory.
   */
  giveBack(buffer: Buffer, reusable: boolean): void {
    const owner = this.#owners.get(buffer)!;
    this.#owners.delete(buffer);
    const held = this.#held.get(owner)! - buffer.length;
    if (held === 0) this.#held.delete(owner);
    else this.#held.set(owner, held);
    if (reusable) this.#idle.push(buffer);
    else this.#allocated -= buffer.length;
    this.#serve();
  }

  #serve(): void {
    for (;;) {
      // Who has its share is passed over; nobody else is, so that large buffers have their turn.
      const at = this.#line.findIndex((waiting) => this.#isWithinShare(waiting));
      if (at < 0) return;
      const next = this.#line[at]!;
      const buffer = this.#reused(next.size) ?? this.#made(next.size);
      if (buffer === undefined) return;
      this.#line.splice(at, 1);
      this.#owners.set(buffer, next.owner);
      this.#held.set(next.owner, (this.#held.get(next.owner) ?? 0) + buffer.length);
      next.give(buffer);
    }
  }

  #isWithinShare({ owner, size }: Waiting): boolean {
    const held = this.#held.get(owner) ?? 0;
    return held === 0 || held + size <= this.#capacity * OWNER_SHARE;
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

/** Reads a stream of bytes by counts, as the formats of packets ask for. */
export class ByteReader {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #pending: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /** Takes exactly `count` bytes; undefined when the stream ends before. */
  async take(count: number): Promise<Uint8Array | undefined> {
    if (!(await this.#fill(count))) return undefined;
    const taken = this.#pending.subarray(0, count);
    this.#pending = this.#pending.subarray(count);
    return taken;
  }

  /** Takes one byte; undefined at the end. */
  async byte(): Promise<number | undefined> {
    return (await this.take(1))?.[0];
  }

  /** The next bytes, up to `count`, without taking them. */
  async peek(count: number): Promise<Uint8Array> {
    await this.#fill(count);
    return this.#pending.subarray(0, count);
  }

  /** Takes what is there, at most `count` bytes and at least one; undefined at the end. */
  async some(count = Number.POSITIVE_INFINITY): Promise<Uint8Array | undefined> {
    if (!(await this.#fill(1))) return undefined;
    const taken = this.#pending.subarray(0, Math.min(count, this.#pending.length));
    this.#pending = this.#pending.subarray(taken.length);
    return taken;
  }

  /** Everything from here on; leaving it ends the stream. */
  async *rest(): AsyncGenerator<Uint8Array> {
    try {
      for (let chunk = await this.some(); chunk !== undefined; chunk = await this.some()) yield chunk;
    } finally {
      await this.#iterator.return?.();
    }
  }

  /** Ends the stream. It is not waited for: a read that is under way may wait for the network. */
  close(): void {
    void Promise.resolve(this.#iterator.return?.()).catch(() => undefined);
  }

  async #fill(count: number): Promise<boolean> {
    if (this.#pending.length >= count) return true;
    const chunks = [this.#pending];
    let size = this.#pending.length;
    let ended = false;
    while (size < count && !ended) {
      const result = await this.#iterator.next();
      if (result.done === true) ended = true;
      else {
        chunks.push(result.value);
        size += result.value.length;
      }
    }
    this.#pending = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    return size >= count;
  }
}

import {
  BlobNotFoundError,
  type BlobPart,
  type BlobStat,
  type BlobStore,
  type BlobStoreCapabilities,
  type ForeignBlob,
  type ListedBlob,
  type PartPlacement,
  type PendingBlob,
  type StreamInput,
} from "../../app/ports/blob-store.ts";

/**
 * How a call of a store ended: `missing` for an object that is not there, `canceled` when the caller or its body ended
 * it.
 */
export type StoreOutcome = "ok" | "missing" | "canceled" | "error";

/**
 * Called after each call: its name, the seconds the store took, without what it waited for the caller, and the outcome.
 */
export type StoreObserver = (operation: string, seconds: number, outcome: StoreOutcome) => void;

/** Seconds spent waiting for somebody else. */
interface Waited {
  seconds: number;
  failed: boolean;
}

/** Passes everything on to another store and reports to an observer how long it took and how it ended. */
export class MeasuredBlobStore implements BlobStore {
  readonly #inner: BlobStore;
  readonly #observe: StoreObserver;

  constructor(inner: BlobStore, observe: StoreObserver) {
    this.#inner = inner;
    this.#observe = observe;
  }

  get capabilities(): BlobStoreCapabilities {
    return this.#inner.capabilities;
  }

  begin(key: string, uploadId: string): Promise<string> {
    return this.#timed("begin", () => this.#inner.begin(key, uploadId));
  }

  writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    return this.#timedBody("writePart", body, signal, (passed) =>
      this.#inner.writePart(blob, part, placement, passed, signal),
    );
  }

  complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void> {
    return this.#timed("complete", () => this.#inner.complete(blob, uploadId, parts));
  }

  /**
   * The time includes that of parts that were sent while the next was waited for, less all waiting, so it is a lower
   * bound.
   */
  putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint> {
    return this.#timedBody("putStream", body, input.signal, (passed) => this.#inner.putStream(input, passed));
  }

  abort(blob: PendingBlob): Promise<void> {
    return this.#timed("abort", () => this.#inner.abort(blob));
  }

  listPending(): AsyncIterable<PendingBlob> {
    return this.#timedItems("listPending", () => this.#inner.listPending());
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#timed("put", () => this.#inner.put(key, bytes));
  }

  get(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    return this.#timed("get", () => this.#inner.get(key, maxBytes));
  }

  stat(key: string): Promise<BlobStat | undefined> {
    return this.#timed("stat", () => this.#inner.stat(key));
  }

  read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#timedItems("read", () => this.#inner.read(key, offset, length, signal), signal);
  }

  delete(key: string): Promise<void> {
    return this.#timed("delete", () => this.#inner.delete(key));
  }

  list(prefix: string): AsyncIterable<ListedBlob> {
    return this.#timedItems("list", () => this.#inner.list(prefix));
  }

  listForeign(): AsyncIterable<ForeignBlob> {
    return this.#timedItems("listForeign", () => this.#inner.listForeign());
  }

  adopt(key: string): Promise<void> {
    return this.#timed("adopt", () => this.#inner.adopt(key));
  }

  forgetForeign(key: string): Promise<void> {
    return this.#timed("forgetForeign", () => this.#inner.forgetForeign(key));
  }

  async close(): Promise<void> {
    await this.#inner.close();
  }

  async #timed<T>(operation: string, work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      const result = await work();
      this.#observe(operation, since(started), "ok");
      return result;
    } catch (error) {
      this.#observe(operation, since(started), outcomeOf(error));
      throw error;
    }
  }

  /** Takes the time waited for the body out. */
  async #timedBody<T>(
    operation: string,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    work: (body: AsyncIterable<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    const waited: Waited = { seconds: 0, failed: false };
    const started = performance.now();
    try {
      const result = await work(awaited(body, waited));
      this.#report(operation, started, waited, "ok");
      return result;
    } catch (error) {
      this.#report(operation, started, waited, waited.failed || signal.aborted ? "canceled" : outcomeOf(error));
      throw error;
    }
  }

  /** Counts the time until each item only: between them the consumer works. */
  async *#timedItems<T>(operation: string, open: () => AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
    const spent: Waited = { seconds: 0, failed: false };
    let outcome: StoreOutcome = "canceled";
    try {
      yield* awaited(open(), spent);
      outcome = "ok";
    } catch (error) {
      if (spent.failed && signal?.aborted !== true) outcome = outcomeOf(error);
      throw error;
    } finally {
      this.#observe(operation, spent.seconds, outcome);
    }
  }

  #report(operation: string, started: number, waited: Waited, outcome: StoreOutcome): void {
    this.#observe(operation, Math.max(0, since(started) - waited.seconds), outcome);
  }
}

/**
 * Passes items on, noting how long each was waited for and whether that failed. No generator: one would let a stop wait
 * for an item that may never come.
 */
function awaited<T>(items: AsyncIterable<T>, waited: Waited): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = items[Symbol.asyncIterator]();
      return {
        async next() {
          const started = performance.now();
          try {
            return await iterator.next();
          } catch (error) {
            waited.failed = true;
            throw error;
          } finally {
            waited.seconds += since(started);
          }
        },
        return: async () => (await iterator.return?.()) ?? { done: true, value: undefined },
      };
    },
  };
}

function since(started: number): number {
  return (performance.now() - started) / 1000;
}

function outcomeOf(error: unknown): StoreOutcome {
  return error instanceof BlobNotFoundError ? "missing" : "error";
}

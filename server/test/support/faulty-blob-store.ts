import type { ExecutionContext } from "ava";
import type { PartLister, StoredPart } from "../../src/adapters/blob-store/part-lister.ts";
import type {
  BlobPart,
  BlobStat,
  BlobStore,
  BlobStoreCapabilities,
  ForeignBlob,
  ListedBlob,
  PartPlacement,
  PendingBlob,
  StreamInput,
} from "../../src/app/ports/blob-store.ts";
import { BlobStoreError } from "../../src/app/ports/blob-store.ts";

/** The calls that faults can be set on. */
export type FaultyOperation = Exclude<keyof BlobStore, "capabilities" | "close">;

/**
 * Where a fault strikes: `before` there is any effect; `during`, for calls that stream, when the first chunk or item
 * has passed; `after` the whole effect, so that only the answer is lost.
 */
export type FaultMoment = "before" | "during" | "after";

/** Where and when a fault strikes. */
export interface FaultPlace {
  /** Which call from now on, from 1, which is the default. */
  readonly nth?: number;
  /** `before` by default. */
  readonly when?: FaultMoment;
}

/** A call that hangs. */
export interface Stall {
  /** Resolves when the call has come and hangs. */
  readonly reached: Promise<void>;
  /** Lets the call go on. */
  release(): void;
}

const STREAMING: ReadonlySet<FaultyOperation> = new Set([
  "writePart",
  "putStream",
  "read",
  "list",
  "listPending",
  "listForeign",
]);
const REPEATABLE: ReadonlySet<FaultyOperation> = new Set(["begin", "complete", "abort", "put", "delete"]);

interface Fault {
  readonly operation: FaultyOperation;
  readonly when: FaultMoment;
  readonly description: string;
  /** Calls until it strikes; it does so when this reaches 0. */
  callsLeft: number;
  fired: boolean;
  /** What it does; `again` performs the call once more, `signal` is the call's. */
  strike(again: () => Promise<unknown>, signal: AbortSignal | undefined): Promise<void>;
}

/**
 * Passes calls on to another store and makes chosen ones fail, hang or happen twice. Without faults it behaves as that
 * store does. A test ends with {@link FaultyBlobStore.assertAllFired}, so that no scenario passes because its fault
 * never struck.
 */
export class FaultyBlobStore implements BlobStore, PartLister {
  readonly #inner: BlobStore;
  readonly #faults: Fault[] = [];

  constructor(inner: BlobStore) {
    this.#inner = inner;
  }

  get capabilities(): BlobStoreCapabilities {
    return this.#inner.capabilities;
  }

  /** Makes a call throw, by default a {@link BlobStoreError}. */
  fail(operation: FaultyOperation, { error, ...place }: FaultPlace & { readonly error?: unknown } = {}): void {
    const description = this.#describe("fail", operation, place);
    this.#add(operation, place, description, async () => {
      throw error ?? new BlobStoreError(`Injected: ${description}.`);
    });
  }

  /** Makes a call hang until it is released, or until its own signal aborts. */
  stall(operation: FaultyOperation, place: FaultPlace = {}): Stall {
    const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    this.#add(operation, place, this.#describe("stall", operation, place), async (_again, signal) => {
      reach();
      if (signal === undefined) return await released;
      const { promise: aborted, reject } = Promise.withResolvers<never>();
      const onAbort = () => reject(signal.reason);
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        await Promise.race([released, aborted]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    });
    return { reached, release };
  }

  /**
   * Makes a call happen twice, as when something on the way repeats a request whose answer was lost. Not for calls that
   * stream.
   */
  twice(operation: FaultyOperation, { nth }: Pick<FaultPlace, "nth"> = {}): void {
    if (!REPEATABLE.has(operation)) {
      throw new TypeError(`${operation} cannot happen twice: expected one of ${[...REPEATABLE].join(", ")}.`);
    }
    const place: FaultPlace = { nth, when: "after" };
    this.#add(operation, place, this.#describe("repeat", operation, place), async (again) => void (await again()));
  }

  /** The faults that struck, in the order they were set, in words. */
  get fired(): string[] {
    return this.#faults.filter(({ fired }) => fired).map(({ description }) => description);
  }

  /** Fails the test when a fault that was set never struck. */
  assertAllFired(t: ExecutionContext): void {
    const silent = this.#faults.filter(({ fired }) => !fired).map(({ description }) => description);
    t.deepEqual(silent, [], "these faults were set but never struck");
  }

  begin(key: string, uploadId: string): Promise<string> {
    return this.#call("begin", () => this.#inner.begin(key, uploadId));
  }

  writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    return this.#withBody("writePart", body, signal, (passed) =>
      this.#inner.writePart(blob, part, placement, passed, signal),
    );
  }

  /** Of the store inside, which must be one of the server's own; no faults strike here. */
  listParts(blob: PendingBlob): Promise<StoredPart[]> {
    return (this.#inner as BlobStore & PartLister).listParts(blob);
  }

  complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void> {
    return this.#call("complete", () => this.#inner.complete(blob, uploadId, parts));
  }

  putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint> {
    return this.#withBody("putStream", body, input.signal, (passed) => this.#inner.putStream(input, passed));
  }

  abort(blob: PendingBlob): Promise<void> {
    return this.#call("abort", () => this.#inner.abort(blob));
  }

  listPending(): AsyncIterable<PendingBlob> {
    return this.#stream(this.#due("listPending"), this.#inner.listPending());
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#call("put", () => this.#inner.put(key, bytes));
  }

  get(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    return this.#call("get", () => this.#inner.get(key, maxBytes));
  }

  stat(key: string): Promise<BlobStat | undefined> {
    return this.#call("stat", () => this.#inner.stat(key));
  }

  read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#stream(this.#due("read"), this.#inner.read(key, offset, length, signal), signal);
  }

  delete(key: string): Promise<void> {
    return this.#call("delete", () => this.#inner.delete(key));
  }

  list(prefix: string): AsyncIterable<ListedBlob> {
    return this.#stream(this.#due("list"), this.#inner.list(prefix));
  }

  listForeign(): AsyncIterable<ForeignBlob> {
    return this.#stream(this.#due("listForeign"), this.#inner.listForeign());
  }

  adopt(key: string): Promise<void> {
    return this.#call("adopt", () => this.#inner.adopt(key));
  }

  forgetForeign(key: string): Promise<void> {
    return this.#call("forgetForeign", () => this.#inner.forgetForeign(key));
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  #describe(what: string, operation: FaultyOperation, { nth = 1, when = "before" }: FaultPlace): string {
    return `${what} ${when} ${operation} number ${nth}`;
  }

  #add(
    operation: FaultyOperation,
    { nth = 1, when = "before" }: FaultPlace,
    description: string,
    strike: Fault["strike"],
  ): void {
    if (!Number.isInteger(nth) || nth < 1) throw new RangeError(`Expected a call number from 1, got ${nth}.`);
    if (when === "during" && !STREAMING.has(operation)) {
      throw new TypeError(
        `${operation} does not stream: expected "before" or "after", or one of ${[...STREAMING].join(", ")}.`,
      );
    }
    this.#faults.push({ operation, when, description, callsLeft: nth, fired: false, strike });
  }

  /** Counts a call, and gives the faults that strike it. */
  #due(operation: FaultyOperation): Fault[] {
    const waiting = this.#faults.filter((fault) => fault.operation === operation && fault.callsLeft > 0);
    for (const fault of waiting) fault.callsLeft -= 1;
    return waiting.filter(({ callsLeft }) => callsLeft === 0);
  }

  #call<T>(operation: FaultyOperation, perform: () => Promise<T>): Promise<T> {
    return this.#around(this.#due(operation), perform);
  }

  #withBody<T>(
    operation: FaultyOperation,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    perform: (body: AsyncIterable<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    const faults = this.#due(operation);
    const inMiddle = faults.filter(({ when }) => when === "during");
    // A fault in the middle reaches the inner store as its body breaking off, and so is cleaned up there as a broken
    // connection would be.
    const passed = inMiddle.length > 0 ? this.#stream(inMiddle, body, signal) : body;
    return this.#around(faults, () => perform(passed), signal);
  }

  async #around<T>(faults: readonly Fault[], perform: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await strike(faults, "before", perform, signal);
    const result = await perform();
    await strike(faults, "after", perform, signal);
    return result;
  }

  async *#stream<T>(
    faults: readonly Fault[],
    items: AsyncIterable<T>,
    signal?: AbortSignal,
  ): AsyncGenerator<T, void, undefined> {
    const at = (moment: FaultMoment) => strike(faults, moment, async () => {}, signal);
    await at("before");
    let first = true;
    for await (const item of items) {
      yield item;
      if (first) await at("during");
      first = false;
    }
    await at("after");
  }
}

async function strike(
  faults: readonly Fault[],
  moment: FaultMoment,
  again: () => Promise<unknown>,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const fault of faults) {
    if (fault.when !== moment) continue;
    fault.fired = true;
    await fault.strike(again, signal);
  }
}

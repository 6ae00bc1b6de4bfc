import { setTimeout as sleep } from "node:timers/promises";
import type {
  BlobPart,
  BlobStat,
  BlobStore,
  BlobStoreCapabilities,
  ListedBlob,
  PartPlacement,
  PendingBlob,
  StoredPart,
} from "../../app/ports.ts";
import { BlobStoreUnavailableError } from "../../app/ports.ts";

/** Waits before the second, third and fourth try, in milliseconds; each is shortened at random by up to half. */
const WAITS_MS = [100, 400, 1600];

/**
 * Repeats small calls of another store that fail in passing, as the port allows for all of them. Calls that stream are not repeated here: a part's bytes are
 * with the client, which sends them again, and readers and listings go on by themselves.
 */
export class RetryingBlobStore implements BlobStore {
  readonly #inner: BlobStore;

  constructor(inner: BlobStore) {
    this.#inner = inner;
  }

  get capabilities(): BlobStoreCapabilities {
    return this.#inner.capabilities;
  }

  begin(key: string, uploadId: string): Promise<string> {
    return retried(() => this.#inner.begin(key, uploadId));
  }

  writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    return this.#inner.writePart(blob, part, placement, body, signal);
  }

  listParts(blob: PendingBlob): Promise<StoredPart[]> {
    return retried(() => this.#inner.listParts(blob));
  }

  complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void> {
    return retried(() => this.#inner.complete(blob, uploadId, parts));
  }

  abort(blob: PendingBlob): Promise<void> {
    return retried(() => this.#inner.abort(blob));
  }

  listPending(): AsyncIterable<PendingBlob> {
    return this.#inner.listPending();
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return retried(() => this.#inner.put(key, bytes));
  }

  get(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    return retried(() => this.#inner.get(key, maxBytes));
  }

  stat(key: string): Promise<BlobStat | undefined> {
    return retried(() => this.#inner.stat(key));
  }

  read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#inner.read(key, offset, length, signal);
  }

  delete(key: string): Promise<void> {
    return retried(() => this.#inner.delete(key));
  }

  list(prefix: string): AsyncIterable<ListedBlob> {
    return this.#inner.list(prefix);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (const wait of WAITS_MS) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof BlobStoreUnavailableError)) throw error;
    }
    await sleep(wait * (1 - Math.random() / 2));
  }
  return await call();
}

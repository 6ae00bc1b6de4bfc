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
} from "../../app/ports/blob-store.ts";
import type { PartLister, StoredPart } from "./part-lister.ts";
import { retried } from "./retried.ts";

/**
 * Repeats small calls of another store that fail in passing, as the port allows for all of them. Calls that stream are
 * not repeated here: a part's bytes are with the client, which sends them again, a body of unknown length is the
 * adapter's, which has its parts, and readers and listings go on by themselves.
 */
export class RetryingBlobStore implements BlobStore, PartLister {
  readonly #inner: BlobStore & PartLister;

  constructor(inner: BlobStore & PartLister) {
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

  putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint> {
    return this.#inner.putStream(input, body);
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

  listForeign(): AsyncIterable<ForeignBlob> {
    return this.#inner.listForeign();
  }

  adopt(key: string): Promise<void> {
    return retried(() => this.#inner.adopt(key));
  }

  forgetForeign(key: string): Promise<void> {
    return retried(() => this.#inner.forgetForeign(key));
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

import { FULL_CHUNK_BYTES } from "@strongroom/protocol/limits";
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
import { BlobNotFoundError, BlobStoreError } from "../../app/ports/blob-store.ts";
import { meaningOf } from "../../domain/object-keys.ts";
import {
  assertAtMost,
  assertBlobKey,
  assertKeyPrefix,
  assertPartsStored,
  assertRange,
  assertReadableKey,
  contiguousSize,
  isSamePart,
  partOffset,
} from "../blob-store/blob-checks.ts";
import { declaredBody } from "../blob-store/declared-body.ts";
import type { PartLister, StoredPart } from "../blob-store/part-lister.ts";
import { storeStream } from "../blob-store/store-stream.ts";

/** Options of {@link MemoryBlobStore}. */
export interface MemoryBlobStoreOptions {
  /**
   * Keep only the sizes of parts, for measurements of everything else: objects made of parts are then read as zeros.
   * Small objects that are put are kept.
   */
  readonly discard?: boolean;
}

/** Bytes in pieces, or only their number when they were discarded. */
interface Content {
  readonly size: bigint;
  readonly chunks: readonly Uint8Array[] | undefined;
}

interface PendingObject {
  readonly key: string;
  readonly uploadId: string;
  readonly parts: Map<number, BlobPart & Content>;
}

interface FinishedObject extends Content {
  readonly uploadId: string | undefined;
}

/**
 * A {@link BlobStore} in memory: for tests, demonstrations (`mem://`) and measurements. "Survives the process" is the
 * one guarantee it cannot give.
 */
export class MemoryBlobStore implements BlobStore, PartLister {
  readonly capabilities: BlobStoreCapabilities = {
    name: "memory",
    verifiesPartDigests: false,
    minPartSize: 1n,
    maxParts: 1_000_000,
    keepsRefusedBytes: false,
  };
  readonly #discard: boolean;
  readonly #pending = new Map<string, PendingObject>();
  readonly #objects = new Map<string, FinishedObject>();
  #lastToken = 0;

  constructor({ discard = false }: MemoryBlobStoreOptions = {}) {
    this.#discard = discard;
  }

  async begin(key: string, uploadId: string): Promise<string> {
    assertBlobKey(key);
    this.#lastToken += 1;
    const token = `memory-${this.#lastToken}`;
    this.#pending.set(token, { key, uploadId, parts: new Map() });
    return token;
  }

  async writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    partOffset(part, placement, this.capabilities);
    this.#find(blob);
    const chunks: Uint8Array[] = [];
    for await (const chunk of declaredBody(body, part.size, signal)) {
      // A copy, since the caller may use its buffer again.
      if (!this.#discard) chunks.push(new Uint8Array(chunk));
    }
    const { index, size } = part;
    // Looked up again: the object may have been completed or aborted meanwhile.
    const { parts } = this.#find(blob);
    const earlier = parts.get(index);
    if (earlier !== undefined && !isSamePart(earlier, part)) {
      throw new BlobStoreError(`Part ${index} of ${blob.key} exists with another size or digest and is not replaced.`);
    }
    parts.set(index, { index, size, sha256: Uint8Array.from(part.sha256), chunks: this.#discard ? undefined : chunks });
  }

  async listParts(blob: PendingBlob): Promise<StoredPart[]> {
    const parts = [...this.#find(blob).parts.values()].sort((a, b) => a.index - b.index);
    return parts.map(({ index, size, sha256 }) => ({ index, size, sha256 }));
  }

  async complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void> {
    assertBlobKey(blob.key);
    const size = contiguousSize(blob.key, parts);
    const finished = this.#objects.get(blob.key);
    if (finished !== undefined) {
      if (finished.uploadId !== uploadId || finished.size !== size) {
        throw new BlobStoreError(`${blob.key} exists already and belongs to another upload; it is not replaced.`);
      }
      this.#drop(blob);
      return;
    }
    const pending = this.#find(blob);
    if (pending.uploadId !== uploadId) {
      throw new BlobStoreError(`${blob.key} was begun for the upload ${pending.uploadId}, not for ${uploadId}.`);
    }
    assertPartsStored(blob.key, parts, pending.parts);
    const chunks = this.#discard ? undefined : parts.flatMap(({ index }) => pending.parts.get(index)?.chunks ?? []);
    this.#objects.set(blob.key, { uploadId, size, chunks });
    this.#drop(blob);
  }

  putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint> {
    return storeStream(this, input, body);
  }

  async abort(blob: PendingBlob): Promise<void> {
    assertBlobKey(blob.key);
    this.#drop(blob);
  }

  async *listPending(): AsyncIterable<PendingBlob> {
    for (const [token, { key }] of this.#pending) yield { key, token };
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    assertBlobKey(key);
    if (this.#objects.get(key)?.uploadId !== undefined) {
      throw new BlobStoreError(`${key} exists already and belongs to an upload; it is not replaced.`);
    }
    this.#objects.set(key, { uploadId: undefined, size: BigInt(bytes.length), chunks: [new Uint8Array(bytes)] });
  }

  async get(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    assertReadableKey(key);
    const object = this.#objects.get(key);
    if (object === undefined) return undefined;
    assertAtMost(key, object.size, maxBytes);
    return object.chunks === undefined ? new Uint8Array(Number(object.size)) : Buffer.concat(object.chunks);
  }

  async stat(key: string): Promise<BlobStat | undefined> {
    assertReadableKey(key);
    const object = this.#objects.get(key);
    return object && { key, size: object.size, uploadId: object.uploadId };
  }

  async *read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array> {
    signal.throwIfAborted();
    assertReadableKey(key);
    const object = this.#objects.get(key);
    if (object === undefined) throw new BlobNotFoundError(`There is no object ${key}.`);
    assertRange(key, offset, length, object.size);
    for (const chunk of range(object, offset, length)) {
      yield chunk;
      signal.throwIfAborted();
    }
  }

  async delete(key: string): Promise<void> {
    assertReadableKey(key);
    this.#objects.delete(key);
  }

  async *list(prefix: string): AsyncIterable<ListedBlob> {
    assertKeyPrefix(prefix);
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix)).sort();
    for (const key of keys) {
      const object = this.#objects.get(key);
      if (object !== undefined) yield { key, size: object.size };
    }
  }

  async *listForeign(): AsyncIterable<ForeignBlob> {
    for await (const blob of this.list(""))
      if (meaningOf(blob.key).kind === "foreign") yield { ...blob, modifiedAt: new Date(0) };
  }

  async adopt(key: string): Promise<void> {
    if ((await this.stat(key)) === undefined) throw new BlobNotFoundError(`There is no object ${key}.`);
  }

  /** Both have one name. */
  async forgetForeign(key: string): Promise<void> {
    assertReadableKey(key);
  }

  async close(): Promise<void> {}

  #find(blob: PendingBlob): PendingObject {
    assertBlobKey(blob.key);
    const pending = this.#pending.get(blob.token);
    if (pending === undefined || pending.key !== blob.key) {
      throw new BlobNotFoundError(`There is no unfinished object ${blob.key} with the token ${blob.token}.`);
    }
    return pending;
  }

  #drop(blob: PendingBlob): void {
    if (this.#pending.get(blob.token)?.key === blob.key) this.#pending.delete(blob.token);
  }
}

/** The bytes of a range, which must lie within the content, in pieces of at most {@link FULL_CHUNK_BYTES}. */
function* range({ chunks }: Content, offset: bigint, length: bigint): Generator<Uint8Array> {
  let left = length;
  const next = (available: number): number => Math.min(available, FULL_CHUNK_BYTES, Number(left));
  if (chunks === undefined) {
    const zeros = new Uint8Array(next(FULL_CHUNK_BYTES));
    for (; left > 0n; left -= BigInt(next(zeros.length))) yield zeros.subarray(0, next(zeros.length));
    return;
  }
  let skip = offset;
  for (const chunk of chunks) {
    const size = BigInt(chunk.length);
    let start = Number(skip < size ? skip : size);
    skip -= BigInt(start);
    while (start < chunk.length && left > 0n) {
      // A copy, so that a reader that changes what it got does not change the object.
      const piece = chunk.slice(start, start + next(chunk.length - start));
      yield piece;
      start += piece.length;
      left -= BigInt(piece.length);
    }
  }
}

import { createCipheriv, createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { ExecutionContext } from "ava";
import type { PartLister } from "../../src/adapters/blob-store/part-lister.ts";
import type { BlobPart, BlobStore, PartPlacement, PendingBlob } from "../../src/app/ports/blob-store.ts";

/** A store for one test, which begins empty. */
export interface OpenedStore {
  readonly store: BlobStore & PartLister;
  /**
   * Closes the store and opens another on the same data, as after a restart; undefined for stores that keep nothing.
   */
  readonly reopen?: () => Promise<BlobStore & PartLister>;
}

/** Declares one test of the suite, which gets a store of its own. */
export type DeclareTest = (title: string, run: (t: ExecutionContext, opened: OpenedStore) => Promise<void>) => void;

/** A part with its bytes. */
export interface Piece {
  readonly part: BlobPart;
  readonly bytes: Uint8Array;
}

/** A signal that never aborts. */
export const never: AbortSignal = new AbortController().signal;

/** Bytes that look random, do not repeat, and are the same for the same seed. */
export function bytesOf(seed: string, size: number): Uint8Array {
  const key = createHash("sha256").update(seed).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

/** The size to cut objects into: as small as the store allows, but odd and larger than a few chunks. */
export function placementFor(store: BlobStore): PartPlacement {
  const { minPartSize } = store.capabilities;
  return { segmentSize: minPartSize > 100_003n ? minPartSize : 100_003n };
}

/** An object of three parts for this store, the last one shorter. */
export function threeParts(
  store: BlobStore,
  seed: string,
): { data: Uint8Array; pieces: readonly [Piece, Piece, Piece] } {
  const { segmentSize } = placementFor(store);
  const data = bytesOf(seed, Number(segmentSize) * 2 + 12_345);
  const [first, second, third] = cut(data, segmentSize);
  if (first === undefined || second === undefined || third === undefined) throw new Error("three parts were expected");
  return { data, pieces: [first, second, third] };
}

/** An object of one to five parts, the same for the same seed and store. */
export function objectOf(store: BlobStore, seed: string): { data: Uint8Array; pieces: Piece[] } {
  const { segmentSize } = placementFor(store);
  const size = 1 + Math.floor(numbersFrom(seed)() * 5 * Number(segmentSize));
  const data = bytesOf(seed, size);
  return { data, pieces: cut(data, segmentSize) };
}

/** Numbers from 0 up to 1 that look random and are the same for the same seed. */
export function numbersFrom(seed: string): () => number {
  let count = 0;
  return () => {
    count += 1;
    return createHash("sha256").update(`${seed}/${count}`).digest().readUInt32BE() / 2 ** 32;
  };
}

/** Cuts an object into its parts. @param segmentSize in bytes. */
export function cut(data: Uint8Array, segmentSize: bigint): Piece[] {
  const step = Number(segmentSize);
  return Array.from({ length: Math.ceil(data.length / step) }, (_, index) => {
    const bytes = data.subarray(index * step, (index + 1) * step);
    return { part: { index, size: BigInt(bytes.length), sha256: sha256(bytes) }, bytes };
  });
}

/** SHA-256 of bytes in memory. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}

/** The parts of pieces. */
export function partsOf(pieces: readonly Piece[]): BlobPart[] {
  return pieces.map(({ part }) => part);
}

/** A body in about seven chunks of odd sizes, whose buffer is used again for every chunk, as the port allows. */
export async function* body(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  const size = Math.floor(bytes.length / 7) + 1;
  const buffer = Buffer.alloc(size);
  for (let start = 0; start < bytes.length; start += size) {
    const chunk = bytes.subarray(start, start + size);
    buffer.set(chunk);
    yield buffer.subarray(0, chunk.length);
  }
}

/** A body that gives its first bytes and then throws. */
export async function* brokenBody(bytes: Uint8Array, length: number, error: unknown): AsyncGenerator<Uint8Array> {
  yield* body(bytes.subarray(0, length));
  throw error;
}

/** A body that gives its first bytes and then hangs until it is shown how to go on, or is let go. */
export class HangingBody implements AsyncIterable<Uint8Array> {
  readonly #first: AsyncGenerator<Uint8Array>;
  readonly #hanging = Promise.withResolvers<void>();
  readonly #rest = Promise.withResolvers<IteratorResult<Uint8Array>>();
  /** Resolves when the first bytes are taken and the reader waits for more. */
  readonly hangs: Promise<void> = this.#hanging.promise;
  /** Whether the reader said that it wants no more. */
  released = false;

  constructor(first: Uint8Array) {
    this.#first = body(first);
  }

  /** Gives one more chunk; after that the body ends. */
  finish(chunk: Uint8Array): void {
    this.#rest.resolve({ done: false, value: chunk });
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    let finished = false;
    return {
      next: async () => {
        if (finished) return { done: true, value: undefined };
        const step = await this.#first.next();
        if (step.done !== true) return step;
        this.#hanging.resolve();
        finished = true;
        return await this.#rest.promise;
      },
      return: async () => {
        this.released = true;
        return { done: true, value: undefined };
      },
    };
  }
}

/** Writes one part as its own bytes, or as another body. */
export async function write(
  store: BlobStore,
  blob: PendingBlob,
  { part, bytes }: Piece,
  { from = body(bytes), signal = never }: { from?: AsyncIterable<Uint8Array>; signal?: AbortSignal } = {},
): Promise<void> {
  await store.writePart(blob, part, placementFor(store), from, signal);
}

/** Begins an object and gives what names it. */
export async function begin(store: BlobStore, key: string, uploadId: string): Promise<PendingBlob> {
  return { key, token: await store.begin(key, uploadId) };
}

/** Stores an object made of parts. */
export async function upload(
  store: BlobStore,
  key: string,
  uploadId: string,
  pieces: readonly Piece[],
): Promise<PendingBlob> {
  const blob = await begin(store, key, uploadId);
  for (const piece of pieces) await write(store, blob, piece);
  await store.complete(blob, uploadId, partsOf(pieces));
  return blob;
}

/** Reads an object, or a range of it; checks the size of every chunk. */
export async function read(
  store: BlobStore,
  key: string,
  { offset = 0, length }: { offset?: number; length?: number } = {},
): Promise<Buffer> {
  const wanted = length ?? Number((await store.stat(key))?.size ?? 1n) - offset;
  const chunks: Uint8Array[] = [];
  for await (const chunk of store.read(key, BigInt(offset), BigInt(wanted), never)) {
    if (chunk.length === 0 || chunk.length > 1024 * 1024)
      throw new Error(`a chunk of ${chunk.length} bytes was received`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Everything an iteration gives. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** The indexes of the parts that exist. */
export async function storedIndexes(store: PartLister, blob: PendingBlob): Promise<number[]> {
  return (await store.listParts(blob)).map(({ index }) => index);
}

/** Waits until something is so; fails after ten seconds. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let waited = 0; waited < 10_000; waited += 10) {
    if (await condition()) return;
    await delay(10);
  }
  throw new Error("it did not become so within 10 seconds");
}

/** Facts about a store that the upload protocol depends on. */
export interface BlobStoreCapabilities {
  /** For messages and logs: `memory`, `directory`, `s3`. */
  readonly name: string;
  /** Whether `writePart` itself refuses bytes that do not have the given SHA-256; if not, the caller hashes. */
  readonly verifiesPartDigests: boolean;
  /** Least size in bytes of every part but the last. */
  readonly minPartSize: bigint;
  /** Most parts of one object. */
  readonly maxParts: number;
  /** Whether bytes of a part that was refused stay in the store until its object is finished or aborted. */
  readonly keepsRefusedBytes: boolean;
}

/** Names an unfinished object: its final key and the store's own name for the unfinished state. */
export interface PendingBlob {
  readonly key: string;
  /** Given by {@link BlobBuilder.begin}; opaque. */
  readonly token: string;
}

/** A part as it must be in the finished object. */
export interface BlobPart {
  /** From 0. */
  readonly index: number;
  /** Bytes. */
  readonly size: bigint;
  /** 32 bytes. */
  readonly sha256: Uint8Array;
}

/** What a listing returns for a finished object. */
export interface ListedBlob {
  readonly key: string;
  /** Bytes. */
  readonly size: bigint;
}

/** What a store knows of a finished object. */
export interface BlobStat extends ListedBlob {
  /** The upload id given to {@link BlobBuilder.begin}; undefined for objects made by {@link BlobStore.put}. */
  readonly uploadId: string | undefined;
}

/** Where the parts of an unfinished object begin in it. */
export interface PartPlacement {
  /** Size in bytes of every part but the last; part `i` begins at `i * segmentSize`. */
  readonly segmentSize: bigint;
}

/** A body of unknown length that becomes an object. */
export interface StreamInput {
  readonly key: string;
  /** Kept with the object, as by {@link BlobBuilder.begin}. */
  readonly uploadId: string;
  /** Size in bytes of every part but the last; at least the store's least part. A few parts are in memory at once. */
  readonly partSize: bigint;
  readonly signal: AbortSignal;
}

/** Reads finished objects. */
export interface BlobReader {
  /** Reads a small object whole; undefined when there is none. At most `maxBytes`, else {@link BlobStoreError}. */
  get(key: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /** Describes a finished object; undefined when there is none. */
  stat(key: string): Promise<BlobStat | undefined>;
  /**
   * Streams `length` bytes from `offset`, in chunks of at most 1 MiB. Throws {@link BlobNotFoundError} when there is no
   * such object, and {@link BlobStoreError} when it ends before `offset + length`. Stopping the iteration or aborting
   * the signal frees everything.
   */
  read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** Says what there is. */
export interface BlobLister {
  /** Every finished object whose key begins with `prefix`, by key. */
  list(prefix: string): AsyncIterable<ListedBlob>;
  /**
   * Every unfinished object of this installation, as far as the store lists them: some forget, or list none. The token
   * of each still works.
   */
  listPending(): AsyncIterable<PendingBlob>;
}

/** An object that is not Strongroom's. */
export interface ForeignBlob extends ListedBlob {
  /** When it was last changed, by the clock of the store. */
  readonly modifiedAt: Date;
}

/** Takes over objects that another program stored in the same place, without copying them. */
export interface BlobAdopter {
  /** Every object there that is none of Strongroom's, by key; files that only describe others are left out. */
  listForeign(): AsyncIterable<ForeignBlob>;
  /**
   * From then on the object is one of this store's, under its key. What the other program knows it by stays. May be
   * repeated; when the other program has replaced the object, the new one is taken.
   * @throws BlobNotFoundError when there is none. BlobStoreError when the store cannot keep it, with what to do.
   */
  adopt(key: string): Promise<void>;
  /**
   * Takes away what only the other program needs to find an adopted object: names beside the store's own. The object
   * stays. May be repeated.
   */
  forgetForeign(key: string): Promise<void>;
}

/** Makes objects of parts. */
export interface BlobBuilder {
  /**
   * Starts an object that is made of parts.
   * @returns the store's token for the unfinished object, to be kept with the upload.
   */
  begin(key: string, uploadId: string): Promise<string>;
  /**
   * Stores one part. Reads `body` to its end; when that throws, or gives fewer or more than `part.size` bytes, no part
   * is stored and the error is passed on. Throws {@link BlobDigestError} when a store that verifies found other bytes
   * than declared. A part that exists already under this index is replaced by the same bytes (the caller pins size and
   * digest).
   */
  writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void>;
  /**
   * Publishes the object of exactly these parts, after comparing them with what is stored (size, and digest where the
   * store keeps one). Repeating it after success succeeds. Throws {@link BlobNotFoundError} when neither the unfinished
   * nor the finished object exists.
   */
  complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void>;
  /** Deletes an unfinished object; one that is finished or unknown is left alone. */
  abort(blob: PendingBlob): Promise<void>;
}

/**
 * Keeps objects. One suite (`server/test/support/blob-store-suite.ts`) is the specification that every adapter and
 * decorator passes.
 *
 * Guarantees: no partial result is ever observable: an object is absent or whole, a part is absent or exactly the bytes
 * declared. What a call acknowledged survives the death of the process. `begin`, `writePart`, `complete`, `abort`,
 * `put` and `delete` may be repeated after an unknown outcome. Keys are never reused, so nothing is ever overwritten by
 * other bytes. Failures are {@link BlobStoreError} or errors of the body.
 */
export interface BlobStore extends BlobReader, BlobLister, BlobBuilder, BlobAdopter {
  readonly capabilities: BlobStoreCapabilities;
  /** Stores a small object whole, replacing an earlier one atomically. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  /**
   * Stores a body of unknown length as one object. Holds a few parts in memory, and copies what it takes from the body.
   * A body that breaks off and a signal that aborts leave neither an object nor an unfinished one, as far as the store
   * can still be reached. When the answer to the last step is lost, the store is asked how it ended; only while it
   * cannot say does everything stay, and the call may be repeated. An object of another upload, or of another size, is
   * never replaced; storing the same again succeeds. From the moment the last step has begun the signal has no effect.
   * @returns the size in bytes.
   * @throws the body's own error, the signal's reason, BlobStoreError.
   */
  putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint>;
  /** Deletes a finished object; a missing one is no error. */
  delete(key: string): Promise<void>;
  /** Releases locks and connections. */
  close(): Promise<void>;
}

/** The store failed or gave an answer that cannot be right; the call may be repeated. */
export class BlobStoreError extends Error {
  override name = "BlobStoreError";
}

/** The store is out of reach, overloaded or failing at the moment: the same call may well succeed a little later. */
export class BlobStoreUnavailableError extends BlobStoreError {
  override name = "BlobStoreUnavailableError";
}

/** The store has no space left, or the quota it gives is used up. */
export class BlobStoreFullError extends BlobStoreError {
  override name = "BlobStoreFullError";
}

/** The store itself found that the bytes of a part do not have the declared digest. */
export class BlobDigestError extends BlobStoreError {
  override name = "BlobDigestError";
}

/** There is no such object, finished or unfinished as the call says. */
export class BlobNotFoundError extends BlobStoreError {
  override name = "BlobNotFoundError";
}

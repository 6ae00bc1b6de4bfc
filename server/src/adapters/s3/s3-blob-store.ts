import { createHash } from "node:crypto";
import { CompleteMultipartUploadCommand, DeleteObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
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
import { BlobNotFoundError, BlobStoreError, BlobStoreUnavailableError } from "../../app/ports/blob-store.ts";
import { meaningOf } from "../../domain/object-keys.ts";
import { abortable } from "../blob-store/abortable.ts";
import {
  assertAtMost,
  assertBlobKey,
  assertKeyPrefix,
  assertPartsStored,
  assertRange,
  assertReadableKey,
  contiguousSize,
  isBlobKey,
  isReadableKey,
  partOffset,
} from "../blob-store/blob-checks.ts";
import type { PartLister, StoredPart } from "../blob-store/part-lister.ts";
import { retried } from "../blob-store/retried.ts";
import { storeStream } from "../blob-store/store-stream.ts";
import {
  type Bucket,
  COMPLETE_MS,
  callOptions,
  createMultipartUpload,
  listParts,
  listUploads,
  type MultipartUpload,
  removeUpload,
  sendPart,
  UPLOAD_ID_METADATA,
} from "./bucket.ts";
import { getObject, headObject, listObjects, type ObjectBody } from "./objects.ts";
import { PartBody } from "./part-request.ts";
import type { S3Abilities } from "./probe.ts";
import { readBody } from "./read-body.ts";
import { isNoSuchKey, storeError } from "./s3-error.ts";
import { LEAST_STREAM_PART, StreamUpload } from "./stream-upload.ts";

/** What {@link S3BlobStore} is made of. */
export interface S3BlobStoreOptions {
  readonly bucket: Bucket;
  /** Empty, or the beginning of every key; ends in a slash. */
  readonly prefix: string;
  readonly abilities: S3Abilities;
  /** Bytes. */
  readonly minPartSize: bigint;
  readonly maxParts: number;
}

/**
 * A {@link BlobStore} in a bucket of S3 or what speaks it. An unfinished object is a multipart upload, its token the
 * store's upload id; which upload an object belongs to is in its metadata. Repeats nothing but what a promise of the
 * port takes; a decorator does the rest.
 */
export class S3BlobStore implements BlobStore, PartLister {
  readonly capabilities: BlobStoreCapabilities;
  readonly #bucket: Bucket;
  readonly #prefix: string;
  readonly #abilities: S3Abilities;

  constructor({ bucket, prefix, abilities, minPartSize, maxParts }: S3BlobStoreOptions) {
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#abilities = abilities;
    this.capabilities = {
      name: "s3",
      verifiesPartDigests: abilities.verifiesPayloadHash || abilities.verifiesChecksums,
      minPartSize,
      maxParts,
      keepsRefusedBytes: false,
    };
  }

  async begin(key: string, uploadId: string): Promise<string> {
    assertBlobKey(key);
    const metadata = { [UPLOAD_ID_METADATA]: uploadId };
    return await this.#call(`begin ${key}`, () =>
      createMultipartUpload(this.#bucket, this.#prefix + key, {
        checksums: this.#abilities.verifiesChecksums,
        metadata,
      }),
    );
  }

  async writePart(
    blob: PendingBlob,
    part: BlobPart,
    placement: PartPlacement,
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    assertBlobKey(blob.key);
    partOffset(part, placement, this.capabilities);
    signal.throwIfAborted();
    const outgoing = {
      number: part.index + 1,
      size: part.size,
      payloadSha256: part.sha256,
      checksumSha256: this.#abilities.verifiesChecksums ? part.sha256 : undefined,
    };
    const passing = new PartBody(body, part.size, signal);
    try {
      await sendPart(this.#bucket, this.#upload(blob), outgoing, passing);
    } catch (error) {
      if (passing.failure !== undefined) throw passing.failure.error;
      throw storeError(`store part ${part.index} of ${blob.key}`, error);
    }
  }

  async listParts(blob: PendingBlob): Promise<StoredPart[]> {
    assertBlobKey(blob.key);
    const parts = await this.#call(`list the parts of ${blob.key}`, () => listParts(this.#bucket, this.#upload(blob)));
    return parts.map(({ index, size, sha256 }) => ({ index, size, sha256 }));
  }

  async complete(blob: PendingBlob, uploadId: string, parts: readonly BlobPart[]): Promise<void> {
    const { key } = blob;
    assertBlobKey(key);
    const wanted = { key, uploadId, size: contiguousSize(key, parts) };
    if (await this.#isFinished(wanted)) return;
    try {
      await this.#publish(blob, parts);
    } catch (error) {
      // Whatever went wrong, the object may be there: the answer was lost, or another call completed it meanwhile.
      if (await this.#isFinished(wanted)) return;
      throw storeError(`complete ${key}`, error);
    }
  }

  /** Through lib-storage, see {@link StreamUpload}; parts smaller than it takes go through the code of other stores. */
  async putStream(input: StreamInput, body: AsyncIterable<Uint8Array>): Promise<bigint> {
    const { key, uploadId, partSize } = input;
    assertBlobKey(key);
    if (partSize < LEAST_STREAM_PART) return await storeStream(this, input, body);
    const options = {
      bucket: this.#bucket,
      abilities: this.#abilities,
      capabilities: this.capabilities,
      key: this.#prefix + key,
      name: key,
      isFinished: (size: bigint) => this.#isFinished({ key, uploadId, size }),
    };
    const found = await retried(() => this.stat(key), input.signal);
    if (found === undefined) return await new StreamUpload(options, input).run(body);
    // Nothing is sent for what is there; whether it is the same shows at the end of the body.
    let size = 0n;
    for await (const chunk of abortable(body, input.signal)) size += BigInt(chunk.length);
    await this.#isFinished({ key, uploadId, size });
    return size;
  }

  async abort(blob: PendingBlob): Promise<void> {
    assertBlobKey(blob.key);
    await this.#call(`abort ${blob.key}`, () => removeUpload(this.#bucket, this.#upload(blob)));
  }

  async *listPending(): AsyncIterable<PendingBlob> {
    const { listsUploads } = this.#abilities;
    if (listsUploads === "no") return;
    try {
      for await (const { key, uploadId } of listUploads(
        this.#bucket,
        listsUploads === "by-prefix" ? this.#prefix : undefined,
      )) {
        const own = this.#ownKey(key);
        if (own !== undefined && isBlobKey(own) && meaningOf(own).kind !== "probe") yield { key: own, token: uploadId };
      }
    } catch (error) {
      throw storeError("list the unfinished objects", error);
    }
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    assertBlobKey(key);
    const earlier = await this.stat(key);
    if (earlier?.uploadId !== undefined) {
      throw new BlobStoreError(`${key} exists already and belongs to an upload; it is not replaced.`);
    }
    // The SDK signs what it sends, and the caller may use its buffer again only after this call, so no copy is needed.
    const command = new PutObjectCommand({
      Bucket: this.#bucket.name,
      Key: this.#prefix + key,
      Body: bytes,
      ContentLength: bytes.length,
      ...(this.#abilities.verifiesChecksums
        ? { ChecksumSHA256: createHash("sha256").update(bytes).digest("base64") }
        : {}),
    });
    await this.#call(`put ${key}`, () => this.#bucket.client.send(command, callOptions()));
  }

  async get(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    assertReadableKey(key);
    const { abortSignal } = callOptions();
    try {
      const { body, length } = await getObject(this.#bucket, this.#prefix + key, undefined, abortSignal);
      if (length > BigInt(maxBytes)) {
        body.destroy();
        assertAtMost(key, length, maxBytes);
      }
      const chunks: Uint8Array[] = [];
      for await (const chunk of readBody(body, key, length, abortSignal)) chunks.push(chunk);
      return Buffer.concat(chunks);
    } catch (error) {
      if (isNoSuchKey(error)) return undefined;
      throw storeError(`read ${key}`, error);
    }
  }

  async stat(key: string): Promise<BlobStat | undefined> {
    assertReadableKey(key);
    const head = await this.#call(`look up ${key}`, () => headObject(this.#bucket, this.#prefix + key));
    return head && { key, ...head };
  }

  async *read(key: string, offset: bigint, length: bigint, signal: AbortSignal): AsyncIterable<Uint8Array> {
    assertReadableKey(key);
    signal.throwIfAborted();
    if (offset < 0n || length <= 0n) {
      // No range of HTTP says this.
      const found = await this.stat(key);
      if (found === undefined) throw new BlobNotFoundError(`There is no object ${key}.`);
      assertRange(key, offset, length, found.size);
      return;
    }
    let found: ObjectBody;
    try {
      found = await getObject(this.#bucket, this.#prefix + key, `bytes=${offset}-${offset + length - 1n}`, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw storeError(`read ${length} bytes from ${offset} of ${key}`, error);
    }
    // A range that goes beyond the end is answered with what there is.
    if (found.length !== length) {
      found.body.destroy();
      assertRange(key, offset, length, found.total ?? 0n);
      throw new BlobStoreError(`Cannot read ${key}: the store did not answer with the range that was asked for.`);
    }
    yield* readBody(found.body, key, length, signal);
  }

  async delete(key: string): Promise<void> {
    assertReadableKey(key);
    await this.#call(`delete ${key}`, () =>
      this.#bucket.client.send(
        new DeleteObjectCommand({ Bucket: this.#bucket.name, Key: this.#prefix + key }),
        callOptions(),
      ),
    );
  }

  async *list(prefix: string): AsyncIterable<ListedBlob> {
    assertKeyPrefix(prefix);
    try {
      for await (const { key, size } of listObjects(this.#bucket, this.#prefix + prefix)) {
        const own = this.#ownKey(key);
        if (own !== undefined) yield { key: own, size };
      }
    } catch (error) {
      throw storeError("list the objects", error);
    }
  }

  async *listForeign(): AsyncIterable<ForeignBlob> {
    try {
      for await (const { key, ...found } of listObjects(this.#bucket, this.#prefix)) {
        const own = this.#ownKey(key);
        if (own !== undefined && meaningOf(own).kind === "foreign") yield { key: own, ...found };
      }
    } catch (error) {
      throw storeError("list the objects", error);
    }
  }

  async adopt(key: string): Promise<void> {
    if ((await this.stat(key)) === undefined) throw new BlobNotFoundError(`There is no object ${key}.`);
  }

  /** A bucket has one name for an object. */
  async forgetForeign(key: string): Promise<void> {
    assertReadableKey(key);
  }

  async close(): Promise<void> {
    this.#bucket.client.destroy();
  }

  async #publish(blob: PendingBlob, parts: readonly BlobPart[]): Promise<void> {
    const upload = this.#upload(blob);
    const listed = await listParts(this.#bucket, upload);
    const stored = new Map(listed.map((part) => [part.index, part]));
    assertPartsStored(blob.key, parts, stored);
    const answer = await this.#bucket.client.send(
      new CompleteMultipartUploadCommand({
        Bucket: this.#bucket.name,
        Key: upload.key,
        UploadId: upload.uploadId,
        MultipartUpload: {
          Parts: parts.map(({ index, sha256 }) => ({
            PartNumber: index + 1,
            ETag: stored.get(index)!.etag,
            ...(this.#abilities.verifiesChecksums ? { ChecksumSHA256: Buffer.from(sha256).toString("base64") } : {}),
          })),
        },
      }),
      callOptions(COMPLETE_MS),
    );
    // S3 says 200 before it knows the outcome, so what follows may be cut off.
    if (!answer.ETag)
      throw new BlobStoreUnavailableError("The store answered without saying that the object is complete.");
  }

  /**
   * Whether the object is there.
   * @throws BlobStoreError when it belongs to another upload.
   */
  async #isFinished(wanted: BlobStat): Promise<boolean> {
    const found = await this.stat(wanted.key);
    if (found === undefined) return false;
    if (found.uploadId === wanted.uploadId && found.size === wanted.size) return true;
    throw new BlobStoreError(`${wanted.key} exists already and belongs to another upload; it is not replaced.`);
  }

  #upload({ key, token }: PendingBlob): MultipartUpload {
    return { key: this.#prefix + key, uploadId: token };
  }

  /** The key below the prefix; undefined for what somebody else put into the bucket. */
  #ownKey(key: string): string | undefined {
    const own = key.startsWith(this.#prefix) ? key.slice(this.#prefix.length) : "";
    return isReadableKey(own) ? own : undefined;
  }

  async #call<T>(doing: string, call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw storeError(doing, error);
    }
  }
}

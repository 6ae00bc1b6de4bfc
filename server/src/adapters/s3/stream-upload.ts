import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import {
  type BlobStoreCapabilities,
  BlobStoreError,
  BlobStoreUnavailableError,
  type StreamInput,
} from "../../app/ports/blob-store.ts";
import { abortable } from "../blob-store/abortable.ts";
import { partOffset } from "../blob-store/blob-checks.ts";
import { retried } from "../blob-store/retried.ts";
import { chunks } from "../blob-store/store-stream.ts";
import {
  type Bucket,
  COMPLETE_MS,
  callOptions,
  createMultipartUpload,
  listUploads,
  removeUpload,
  sendPart,
  signPayload,
  UPLOAD_ID_METADATA,
} from "./bucket.ts";
import { PartBody } from "./part-request.ts";
import type { S3Abilities } from "./probe.ts";
import { storeError } from "./s3-error.ts";

/** Least size in bytes of a part that lib-storage takes. */
export const LEAST_STREAM_PART = 5n * 1024n * 1024n;

/** Parts on their way or being filled at once. Each is in memory. */
const PARALLEL = 3;
/** Small chunks are put together into pieces of this many bytes, so that a part is not made of a million of them. */
const PIECE_BYTES = 1024 * 1024;

/** What {@link StreamUpload} works with. */
export interface StreamUploadOptions {
  readonly bucket: Bucket;
  readonly abilities: S3Abilities;
  readonly capabilities: BlobStoreCapabilities;
  /** In the bucket, with the prefix. */
  readonly key: string;
  /** The key without the prefix, for messages. */
  readonly name: string;
  /** Whether the object is there with this size in bytes. @throws BlobStoreError when it belongs to another upload. */
  readonly isFinished: (size: bigint) => Promise<boolean>;
}

/**
 * One body of unknown length on its way into a bucket. lib-storage's `Upload` cuts it, keeps parts under way and
 * completes them. Its requests go through {@link StreamUpload.#send}: they end when anything fails or the caller
 * aborts, are repeated when they fail in passing, and carry digests. `Upload.abort` is never called, since `done` would
 * then return while requests are under way; what is left over is removed here, after the last of them.
 */
export class StreamUpload {
  readonly #options: StreamUploadOptions;
  readonly #input: StreamInput;
  /** The first failure; it ends the body and every part. */
  readonly #failing = new AbortController();
  readonly #signal: AbortSignal;
  #size = 0n;
  /** The store's ids of what was begun. */
  readonly #begun = new Set<string>();
  /** Whether an upload may have been begun whose id did not come back. */
  #lostBegin = false;
  /** Whether a request was sent that makes the object. */
  #publishing = false;

  constructor(options: StreamUploadOptions, input: StreamInput) {
    this.#options = options;
    this.#input = input;
    this.#signal = AbortSignal.any([input.signal, this.#failing.signal]);
  }

  /** See `BlobStore.putStream`. To be called once. */
  async run(body: AsyncIterable<Uint8Array>): Promise<bigint> {
    this.#input.signal.throwIfAborted();
    const source = Readable.from(this.#pieces(body));
    // Its errors are those of the body, which are kept.
    source.on("error", () => {});
    const client: S3Client = Object.create(this.#options.bucket.client);
    client.send = ((command: unknown) => this.#send(command)) as S3Client["send"];
    const { bucket, key } = this.#options;
    try {
      await new Upload({
        client,
        params: { Bucket: bucket.name, Key: key, Body: source, ...this.#description() },
        partSize: Number(this.#input.partSize),
        queueSize: PARALLEL,
        leavePartsOnError: true,
      }).done();
    } catch (error) {
      this.#failing.abort(storeError(`store ${this.#options.name}`, error));
      await this.#settle();
      return this.#size;
    } finally {
      source.destroy();
    }
    // Of two that were begun because the first answer was lost, one is left.
    if (this.#lostBegin) await this.#removeLeft().catch(() => {});
    return this.#size;
  }

  #description() {
    return { ContentType: "application/octet-stream", Metadata: { [UPLOAD_ID_METADATA]: this.#input.uploadId } };
  }

  /**
   * After a failure. What was published in spite of it is done; while the store cannot say, nothing is removed.
   * @throws the first failure, unless the object is there.
   */
  async #settle(): Promise<void> {
    const reason: unknown = this.#signal.reason;
    const isThere = async () => this.#publishing && (await retried(() => this.#options.isFinished(this.#size)));
    try {
      if (await isThere()) return;
    } catch (error) {
      if (error instanceof BlobStoreUnavailableError) throw reason;
    }
    // What counts is why it broke off. Where this fails too, the store has a lifecycle rule or a sweep.
    await this.#removeLeft().catch(() => {});
    // A completion whose answer was lost may have come before the removal.
    if (await isThere().catch(() => false)) return;
    throw reason;
  }

  /**
   * Removes unfinished objects of this key. Without the id of one, whatever the store lists under exactly this key;
   * keys are never reused.
   */
  async #removeLeft(): Promise<void> {
    const { bucket, key, abilities } = this.#options;
    if (this.#lostBegin) {
      const scope = abilities.listsUploads === "whole-bucket" ? undefined : key;
      for await (const each of listUploads(bucket, scope)) if (each.key === key) this.#begun.add(each.uploadId);
    }
    for (const uploadId of this.#begun) await retriedCall("remove", () => removeUpload(bucket, { key, uploadId }));
  }

  /** The body in copies, since its buffers may be used again; counts it. */
  async *#pieces(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      let piece = Buffer.allocUnsafe(PIECE_BYTES);
      let filled = 0;
      for await (const chunk of abortable(body, this.#signal)) {
        this.#size += BigInt(chunk.length);
        for (let start = 0; start < chunk.length; ) {
          const taken = Math.min(chunk.length - start, PIECE_BYTES - filled);
          piece.set(chunk.subarray(start, start + taken), filled);
          filled += taken;
          start += taken;
          if (filled < PIECE_BYTES) continue;
          yield piece;
          piece = Buffer.allocUnsafe(PIECE_BYTES);
          filled = 0;
        }
      }
      if (filled > 0) yield piece.subarray(0, filled);
    } catch (error) {
      this.#failing.abort(error);
      throw error;
    }
  }

  /** Performs a request of the library. */
  async #send(command: unknown): Promise<object> {
    try {
      this.#signal.throwIfAborted();
      if (command instanceof CreateMultipartUploadCommand) return await this.#begin();
      if (command instanceof UploadPartCommand) {
        return await this.#sendPart(command.input.PartNumber!, command.input.Body as Uint8Array);
      }
      if (command instanceof PutObjectCommand) {
        const bytes = command.input.Body as Uint8Array;
        return await this.#publish(() => this.#putObject(bytes));
      }
      if (command instanceof CompleteMultipartUploadCommand) {
        return await this.#publish(() => this.#options.bucket.client.send(command, callOptions(COMPLETE_MS)));
      }
      throw new BlobStoreError("lib-storage sent a request that is not expected.");
    } catch (error) {
      this.#failing.abort(error);
      throw error;
    }
  }

  async #begin(): Promise<object> {
    const { bucket, key, name, abilities } = this.#options;
    const { Metadata: metadata } = this.#description();
    const begin = async () => {
      try {
        return await createMultipartUpload(bucket, key, { checksums: abilities.verifiesChecksums, metadata });
      } catch (error) {
        this.#lostBegin = true;
        throw storeError(`begin ${name}`, error);
      }
    };
    const uploadId = await retried(begin, this.#signal);
    this.#begun.add(uploadId);
    return { UploadId: uploadId };
  }

  async #sendPart(number: number, bytes: Uint8Array): Promise<object> {
    const { bucket, key, name, abilities, capabilities } = this.#options;
    const sha256 = createHash("sha256").update(bytes).digest();
    const size = BigInt(bytes.length);
    partOffset({ index: number - 1, size, sha256 }, { segmentSize: this.#input.partSize }, capabilities);
    const checksum = abilities.verifiesChecksums ? sha256 : undefined;
    const [uploadId = ""] = this.#begun;
    const send = async () => {
      const passing = new PartBody(chunks(bytes), size, this.#signal);
      try {
        const part = { number, size, payloadSha256: sha256, checksumSha256: checksum };
        return await sendPart(bucket, { key, uploadId }, part, passing);
      } catch (error) {
        throw passing.failure?.error ?? storeError(`store part ${number - 1} of ${name}`, error);
      }
    };
    const { etag } = await retried(send, this.#signal);
    return { ETag: etag, ...(checksum && { ChecksumSHA256: checksum.toString("base64") }) };
  }

  /** A body that fits one part. Goes out like a part, but nothing interrupts it. */
  async #putObject(bytes: Uint8Array): Promise<{ readonly ETag?: string | undefined }> {
    const { bucket, key, abilities } = this.#options;
    const sha256 = createHash("sha256").update(bytes).digest();
    const command = new PutObjectCommand({
      Bucket: bucket.name,
      Key: key,
      ...this.#description(),
      ContentLength: bytes.length,
      Body: new PartBody(chunks(bytes), BigInt(bytes.length), new AbortController().signal) as never,
      ...(abilities.verifiesChecksums ? { ChecksumSHA256: sha256.toString("base64") } : {}),
    });
    signPayload(command, sha256);
    return await bucket.client.send(command);
  }

  /** Makes the object, once the whole body is there. */
  async #publish(send: () => Promise<{ readonly ETag?: string | undefined }>): Promise<object> {
    const { name, isFinished } = this.#options;
    return await retried(async () => {
      if (await isFinished(this.#size)) return {};
      this.#publishing = true;
      try {
        const { ETag } = await send();
        // S3 says 200 before it knows the outcome, so what follows may be cut off.
        if (ETag) return {};
        throw new BlobStoreUnavailableError("The store answered without saying that the object is complete.");
      } catch (error) {
        // Whatever went wrong, the object may be there.
        if (await isFinished(this.#size)) return {};
        throw storeError(`complete ${name}`, error);
      }
    });
  }
}

async function retriedCall(doing: string, call: () => Promise<void>): Promise<void> {
  await retried(async () => {
    try {
      await call();
    } catch (error) {
      throw storeError(doing, error);
    }
  });
}

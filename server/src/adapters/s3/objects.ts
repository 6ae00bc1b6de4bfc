import type { Readable } from "node:stream";
import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command } from "@aws-sdk/client-s3";
import { BlobStoreError, BlobStoreUnavailableError, type ForeignBlob } from "../../app/ports/blob-store.ts";
import { type Bucket, CALL_MS, callOptions, UPLOAD_ID_METADATA } from "./bucket.ts";
import { isNoSuchKey, statusOf } from "./s3-error.ts";

/** A finished object as the store describes it. */
export interface ObjectHead {
  /** Bytes. */
  readonly size: bigint;
  /** The upload that made it; undefined for objects that were put. */
  readonly uploadId: string | undefined;
}

/** An answer with bytes. */
export interface ObjectBody {
  readonly body: Readable;
  /** Bytes that follow; -1 when the store does not say. */
  readonly length: bigint;
  /** Bytes of the whole object; undefined when the store does not say. */
  readonly total: bigint | undefined;
}

/** Describes an object; undefined when there is none. @param key in the bucket. */
export async function headObject({ client, name }: Bucket, key: string): Promise<ObjectHead | undefined> {
  try {
    const head = new HeadObjectCommand({ Bucket: name, Key: key });
    const { ContentLength, Metadata } = await client.send(head, callOptions());
    return { size: BigInt(ContentLength ?? 0), uploadId: Metadata?.[UPLOAD_ID_METADATA] };
  } catch (error) {
    // An answer to HEAD has no body, so a missing bucket looks the same; that one was there when the store was opened.
    if (isNoSuchKey(error) || statusOf(error) === 404) return undefined;
    throw error;
  }
}

/**
 * Begins to read an object. Only the wait for the answer is limited here, see `readBody` for the rest.
 * @param key in the bucket. @param range of HTTP, as `bytes=0-9`; undefined for all.
 */
export async function getObject(
  { client, name }: Bucket,
  key: string,
  range: string | undefined,
  signal: AbortSignal,
): Promise<ObjectBody> {
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(), CALL_MS);
  try {
    const { Body, ContentLength, ContentRange } = await client.send(
      new GetObjectCommand({ Bucket: name, Key: key, Range: range }),
      { abortSignal: AbortSignal.any([signal, waiting.signal]) },
    );
    const total = range === undefined ? ContentLength : /\/(\d+)$/.exec(ContentRange ?? "")?.[1];
    return {
      body: Body as Readable,
      length: BigInt(ContentLength ?? -1),
      total: total === undefined ? undefined : BigInt(total),
    };
  } catch (error) {
    if (waiting.signal.aborted) throw new BlobStoreUnavailableError(`The store was silent for ${CALL_MS / 1000} s.`);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Every object whose key begins with a prefix, by key, with its time; keys are those in the bucket. */
export async function* listObjects({ client, name }: Bucket, prefix: string): AsyncGenerator<ForeignBlob> {
  let token: string | undefined;
  do {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: name, Prefix: prefix, ContinuationToken: token }),
      callOptions(),
    );
    for (const { Key, Size, LastModified } of page.Contents ?? []) {
      if (Key !== undefined) yield { key: Key, size: BigInt(Size ?? 0), modifiedAt: LastModified ?? new Date(0) };
    }
    token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    if (page.IsTruncated === true && token === undefined) {
      throw new BlobStoreError("The store says that a listing goes on, but not where.");
    }
  } while (token !== undefined);
}

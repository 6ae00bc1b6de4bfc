import type { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { BlobStoreError } from "../../app/ports/blob-store.ts";
import type { StoredPart } from "../blob-store/part-lister.ts";
import { PartBody } from "./part-request.ts";
import { isNoSuchUpload } from "./s3-error.ts";

/** Small calls are given up after this long, in milliseconds. */
export const CALL_MS = 60_000;

/** Completing may take a store minutes: some copy all parts together. In milliseconds. */
export const COMPLETE_MS = 30 * 60_000;

/** Key of the metadata that says which upload made an object. */
export const UPLOAD_ID_METADATA = "strongroom-upload-id";

/** A bucket through a client. */
export interface Bucket {
  readonly client: S3Client;
  readonly name: string;
}

/** An unfinished object as S3 names it. */
export interface MultipartUpload {
  /** In the bucket, with the prefix. */
  readonly key: string;
  readonly uploadId: string;
  /** When it was begun, by the store's clock. */
  readonly initiated?: Date | undefined;
}

/** A part with what completing it takes. */
export interface ListedPart extends StoredPart {
  readonly etag: string;
}

/** A part to be sent. */
export interface OutgoingPart {
  /** From 1. */
  readonly number: number;
  /** Bytes. */
  readonly size: bigint;
  /** The request's payload hash, covered by its signature. */
  readonly payloadSha256: Uint8Array;
  /** The part's checksum for the store to compare; undefined for none. */
  readonly checksumSha256: Uint8Array | undefined;
}

/** The time limit of a small call. */
export function callOptions(ms: number = CALL_MS): { abortSignal: AbortSignal } {
  return { abortSignal: AbortSignal.timeout(ms) };
}

/** Begins an unfinished object. @param checksums whether the store is to keep and compare SHA-256 of its parts. */
export async function createMultipartUpload(
  { client, name }: Bucket,
  key: string,
  { checksums, metadata }: { readonly checksums: boolean; readonly metadata?: Record<string, string> },
): Promise<string> {
  const answer = await client.send(
    new CreateMultipartUploadCommand({
      Bucket: name,
      Key: key,
      ContentType: "application/octet-stream",
      ...(checksums ? { ChecksumAlgorithm: "SHA256" as const, ChecksumType: "COMPOSITE" as const } : {}),
      ...(metadata === undefined ? {} : { Metadata: metadata }),
    }),
    callOptions(),
  );
  if (!answer.UploadId) throw new BlobStoreError("The store began an upload without giving its id.");
  return answer.UploadId;
}

/**
 * Sends one part. Its failure is in `body.failure` when the body or its signal caused it.
 * @param body whose size is the part's.
 */
export async function sendPart(
  { client, name }: Bucket,
  { key, uploadId }: MultipartUpload,
  part: OutgoingPart,
  body: PartBody,
): Promise<{ readonly etag: string | undefined }> {
  const command = new UploadPartCommand({
    Bucket: name,
    Key: key,
    UploadId: uploadId,
    PartNumber: part.number,
    ContentLength: Number(part.size),
    // The request handler of s3-client.ts takes it; the SDK itself does not look into it.
    Body: body as never,
    ...(part.checksumSha256 === undefined
      ? {}
      : { ChecksumSHA256: Buffer.from(part.checksumSha256).toString("base64") }),
  });
  signPayload(command, part.payloadSha256);
  const { ETag } = await client.send(command);
  return { etag: ETag };
}

/**
 * Has a request signed with this payload hash. The signer takes the hash it finds, instead of computing one or leaving
 * the payload unsigned.
 */
export function signPayload(command: UploadPartCommand | PutObjectCommand, sha256: Uint8Array): void {
  const payloadHash = Buffer.from(sha256).toString("hex");
  const { middlewareStack } = command as UploadPartCommand;
  middlewareStack.add(
    (next) => async (args) => {
      (args.request as { headers: Record<string, string> }).headers["x-amz-content-sha256"] = payloadHash;
      return await next(args);
    },
    { step: "build", name: "payloadHash" },
  );
}

/** Every part, by number; pages of any size. */
export async function listParts({ client, name }: Bucket, { key, uploadId }: MultipartUpload): Promise<ListedPart[]> {
  const parts: ListedPart[] = [];
  let marker: string | undefined;
  for (;;) {
    const page = await client.send(
      new ListPartsCommand({ Bucket: name, Key: key, UploadId: uploadId, PartNumberMarker: marker }),
      callOptions(),
    );
    for (const { PartNumber, Size, ETag, ChecksumSHA256 } of page.Parts ?? []) {
      if (PartNumber === undefined || Size === undefined || ETag === undefined) {
        throw new BlobStoreError("The store lists a part without number, size or ETag.");
      }
      const sha256 = ChecksumSHA256 === undefined ? undefined : Buffer.from(ChecksumSHA256, "base64");
      parts.push({ index: PartNumber - 1, size: BigInt(Size), sha256, etag: ETag });
    }
    if (page.IsTruncated !== true) return parts.sort((a, b) => a.index - b.index);
    marker = advanced(marker, page.NextPartNumberMarker);
  }
}

/** Unfinished objects whose key begins with a prefix, as far as the store lists them. */
export async function* listUploads(
  { client, name }: Bucket,
  prefix: string | undefined,
): AsyncGenerator<MultipartUpload> {
  let keyMarker: string | undefined;
  let uploadMarker: string | undefined;
  for (;;) {
    const page = await client.send(
      new ListMultipartUploadsCommand({
        Bucket: name,
        ...(prefix ? { Prefix: prefix } : {}),
        KeyMarker: keyMarker,
        UploadIdMarker: uploadMarker,
      }),
      callOptions(),
    );
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Key !== undefined && UploadId !== undefined) yield { key: Key, uploadId: UploadId, initiated: Initiated };
    }
    if (page.IsTruncated !== true) return;
    const next = `${page.NextKeyMarker ?? ""}\n${page.NextUploadIdMarker ?? ""}`;
    advanced(keyMarker === undefined ? undefined : `${keyMarker}\n${uploadMarker ?? ""}`, next);
    keyMarker = page.NextKeyMarker;
    uploadMarker = page.NextUploadIdMarker;
  }
}

/** A page that says it is not the last must lead on, or the listing would never end. */
function advanced(marker: string | undefined, next: string | undefined): string {
  if (next === undefined || next === "\n" || next === marker) {
    throw new BlobStoreError("The store says that a listing goes on, but not where.");
  }
  return next;
}

/** Most times an abort is repeated: parts that were under way may come to be after it. */
const MOST_ABORTS = 5;

/**
 * Removes an unfinished object, if there is one, until the store says that it is gone. @throws BlobStoreError when it
 * does not go.
 */
export async function removeUpload(bucket: Bucket, upload: MultipartUpload): Promise<void> {
  const { client, name } = bucket;
  const input = { Bucket: name, Key: upload.key, UploadId: upload.uploadId };
  for (let count = 1; ; count++) {
    try {
      await client.send(new AbortMultipartUploadCommand(input), callOptions());
      await client.send(new ListPartsCommand({ ...input, MaxParts: 1 }), callOptions());
    } catch (error) {
      if (isNoSuchUpload(error)) return;
      throw error;
    }
    if (count === MOST_ABORTS) {
      throw new BlobStoreError(`The store still has the unfinished object after ${MOST_ABORTS} aborts.`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** count));
  }
}

/** A body of bytes in memory. */
export function bytesBody(bytes: Uint8Array): PartBody {
  async function* once(): AsyncGenerator<Uint8Array> {
    if (bytes.length > 0) yield bytes;
  }
  return new PartBody(once(), BigInt(bytes.length), new AbortController().signal);
}

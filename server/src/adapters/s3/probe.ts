import { createHash, randomUUID } from "node:crypto";
import { ListObjectsV2Command } from "@aws-sdk/client-s3";
import { BlobStoreError, BlobStoreUnavailableError } from "../../app/ports/blob-store.ts";
import { OPENING_PROBES, openingProbeKey } from "../../domain/object-keys.ts";
import {
  type Bucket,
  bytesBody,
  callOptions,
  createMultipartUpload,
  listParts,
  listUploads,
  type MultipartUpload,
  removeUpload,
  sendPart,
} from "./bucket.ts";
import { statusOf, storeError } from "./s3-error.ts";

/** What a store that speaks S3 can do, as it showed. */
export interface S3Abilities {
  /**
   * Whether it refuses a part whose bytes do not have the SHA-256 that the request was signed with
   * (`x-amz-content-sha256`).
   */
  readonly verifiesPayloadHash: boolean;
  /** Whether it keeps SHA-256 checksums of parts, refuses wrong ones, and lists them. */
  readonly verifiesChecksums: boolean;
  /** How unfinished uploads can be found: by any prefix, only all of the bucket, or not at all. */
  readonly listsUploads: "by-prefix" | "whole-bucket" | "no";
}

/** A probe this old, in milliseconds, comes from a server that died while probing. */
const STALE_PROBE_MS = 3_600_000;

const BYTES = Buffer.from("Strongroom asks what this store can do.");
const OTHER = Buffer.from("These are other bytes of the same size!");

/**
 * Finds out what a store can do, by unfinished uploads that are removed again: nothing is left behind, and nothing
 * becomes an object.
 * @param prefix of the storage URL.
 * @throws BlobStoreError with what to do, when the bucket cannot be used or the store lacks what is needed.
 */
export async function probe(bucket: Bucket, prefix: string): Promise<S3Abilities> {
  const place = `open the bucket ${bucket.name}`;
  await explained(`${place} for listing (s3:ListBucket)`, () =>
    bucket.client.send(
      new ListObjectsV2Command({ Bucket: bucket.name, Prefix: `${prefix}${OPENING_PROBES}`, MaxKeys: 1 }),
      callOptions(),
    ),
  );
  const checksums = await verifiesChecksums(bucket, prefix, place);
  return await withUpload(bucket, prefix, place, false, async (upload) => {
    const part = { number: 1, size: BigInt(BYTES.length), checksumSha256: undefined };
    const verifiesPayloadHash = await refuses(() =>
      sendPart(bucket, upload, { ...part, payloadSha256: sha256(OTHER) }, bytesBody(BYTES)),
    );
    await explained(`${place} for writing (s3:PutObject)`, () =>
      sendPart(bucket, upload, { ...part, payloadSha256: sha256(BYTES) }, bytesBody(BYTES)),
    );
    await assertListsParts(bucket, upload);
    return {
      verifiesPayloadHash,
      verifiesChecksums: checksums,
      listsUploads: await listsUploads(bucket, prefix, upload),
    };
  });
}

async function verifiesChecksums(bucket: Bucket, prefix: string, place: string): Promise<boolean> {
  try {
    return await withUpload(bucket, prefix, place, true, async (upload) => {
      const part = { number: 1, size: BigInt(BYTES.length), payloadSha256: sha256(BYTES) };
      const wrong = () => sendPart(bucket, upload, { ...part, checksumSha256: sha256(OTHER) }, bytesBody(BYTES));
      if (!(await refuses(wrong))) return false;
      await sendPart(bucket, upload, { ...part, checksumSha256: sha256(BYTES) }, bytesBody(BYTES));
      const [listed] = await listParts(bucket, upload);
      return listed?.sha256 !== undefined && Buffer.compare(listed.sha256, sha256(BYTES)) === 0;
    });
  } catch (error) {
    // Stores without checksums refuse the request for them in different words; what is wrong for good shows without
    // them too.
    const status = statusOf(error);
    if (status === 400 || status === 501) return false;
    throw error instanceof BlobStoreError ? error : storeError(place, error);
  }
}

/** Whether the store refuses a part; other failures than a refusal are passed on. */
async function refuses(send: () => Promise<unknown>): Promise<boolean> {
  try {
    await send();
    return false;
  } catch (error) {
    const status = statusOf(error);
    if (status !== undefined && status >= 400 && status < 500) return true;
    throw storeError("try what the store verifies", error);
  }
}

async function assertListsParts(bucket: Bucket, upload: MultipartUpload): Promise<void> {
  const needed =
    "An upload is completed only after what is stored was compared with what was acknowledged. Use another " +
    "store, or allow s3:ListMultipartUploadParts";
  let listed: { readonly index: number; readonly size: bigint }[];
  try {
    listed = await listParts(bucket, upload);
  } catch (error) {
    const cannot = storeError("list the parts of an unfinished upload", error);
    if (cannot instanceof BlobStoreUnavailableError) throw cannot;
    throw new BlobStoreError(`${cannot.message} ${needed}.`, { cause: cannot });
  }
  if (listed.length === 1 && listed[0]?.index === 0 && listed[0].size === BigInt(BYTES.length)) return;
  throw new BlobStoreError(`The store does not list the parts of an unfinished upload (ListParts). ${needed}.`);
}

async function listsUploads(
  bucket: Bucket,
  prefix: string,
  upload: MultipartUpload,
): Promise<S3Abilities["listsUploads"]> {
  const scopes = [
    ["by-prefix", `${prefix}${OPENING_PROBES}`],
    ["whole-bucket", undefined],
  ] as const;
  for (const [name, scope] of scopes) {
    try {
      let found = false;
      for await (const each of listUploads(bucket, scope)) {
        if (each.uploadId === upload.uploadId) found = true;
        else if (isStaleProbe(each, prefix)) await removeUpload(bucket, each);
      }
      if (found) return name;
    } catch (error) {
      const status = statusOf(error);
      if (status === undefined || (status >= 500 && status !== 501)) throw storeError("list unfinished uploads", error);
    }
  }
  return "no";
}

function isStaleProbe({ key, initiated }: MultipartUpload, prefix: string): boolean {
  return (
    key.startsWith(`${prefix}${OPENING_PROBES}`) &&
    initiated !== undefined &&
    Date.now() - initiated.getTime() > STALE_PROBE_MS
  );
}

/** Runs an operation with an unfinished upload that is removed afterwards in any case. */
async function withUpload<T>(
  bucket: Bucket,
  prefix: string,
  place: string,
  checksums: boolean,
  operation: (upload: MultipartUpload) => Promise<T>,
): Promise<T> {
  const key = prefix + openingProbeKey(randomUUID());
  const begin = () => createMultipartUpload(bucket, key, { checksums });
  // With checksums the caller looks at the error itself.
  const uploadId = checksums ? await begin() : await explained(`${place} for writing (s3:PutObject)`, begin);
  const upload = { key, uploadId };
  let failed = true;
  try {
    const result = await operation(upload);
    failed = false;
    return result;
  } finally {
    const removing = explained("remove an unfinished upload (s3:AbortMultipartUpload)", () =>
      removeUpload(bucket, upload),
    );
    // The first error is the one to show.
    if (failed) await removing.catch(() => {});
    else await removing;
  }
}

async function explained<T>(doing: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw storeError(doing, error);
  }
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}

/** What was found, in words for the log. */
export function describeAbilities(abilities: S3Abilities): string {
  const { verifiesPayloadHash, verifiesChecksums, listsUploads: lists } = abilities;
  const verified = [verifiesPayloadHash ? "payload hashes" : "", verifiesChecksums ? "SHA-256 checksums" : ""].filter(
    Boolean,
  );
  const listing = {
    "by-prefix": "lists unfinished uploads by prefix",
    "whole-bucket": "lists unfinished uploads only of the whole bucket",
    no: "does not list unfinished uploads; add a lifecycle rule that aborts them",
  };
  const verifying =
    verified.length === 0
      ? "does not verify parts, so this server hashes them"
      : `verifies ${verified.join(" and ")} of parts`;
  return `the store ${verifying}, and ${listing[lists]}`;
}

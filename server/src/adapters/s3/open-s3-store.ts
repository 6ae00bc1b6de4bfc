import type { BlobStore } from "../../app/ports/blob-store.ts";
import type { PartLister } from "../blob-store/part-lister.ts";
import { RetryingBlobStore } from "../blob-store/retrying-blob-store.ts";
import type { Bucket } from "./bucket.ts";
import { describeAbilities, probe, type S3Abilities } from "./probe.ts";
import { S3BlobStore } from "./s3-blob-store.ts";
import { createS3Client } from "./s3-client.ts";
import type { S3Location } from "./s3-location.ts";

/** Where the bucket is, and how patient to be. */
export interface S3StoreOptions extends S3Location {
  /** Give up a part when the store takes and says nothing for this long, in milliseconds; a minute by default. */
  readonly silenceMs?: number;
}

/** Takes a line for the log. */
export type Note = (fields: Record<string, unknown>, message: string) => void;

/**
 * Opens a store in a bucket: asks it what it can do, says so, and repeats small calls that fail in passing.
 * @throws BlobStoreError with what to do, when the bucket cannot be used.
 */
export async function openS3Store(options: S3StoreOptions, note: Note): Promise<BlobStore & PartLister> {
  const client = await createS3Client({ ...options, silenceMs: options.silenceMs ?? 60_000 });
  const bucket: Bucket = { client, name: options.bucket };
  let abilities: S3Abilities;
  try {
    abilities = await probe(bucket, options.prefix);
  } catch (error) {
    client.destroy();
    throw error;
  }
  const { endpoint, minPartSize, maxParts } = options;
  note(
    {
      bucket: bucket.name,
      endpoint: endpoint ?? "AWS",
      verifies_payload_hash: abilities.verifiesPayloadHash,
      verifies_checksums: abilities.verifiesChecksums,
      lists_uploads: abilities.listsUploads,
      min_part_bytes: String(minPartSize),
      max_parts: maxParts,
    },
    `s3: ${describeAbilities(abilities)}`,
  );
  const { prefix } = options;
  return new RetryingBlobStore(new S3BlobStore({ bucket, prefix, abilities, minPartSize, maxParts }));
}

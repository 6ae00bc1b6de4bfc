import { createHash } from "node:crypto";

/** Bytes of a SHA-256 digest. */
export const SHA256_BYTES = 32;

/**
 * The digest of a version: SHA-256 over the SHA-256 digests of its segments in order, which is what S3 keeps as the
 * composite checksum of a multipart object (Amazon S3 User Guide, "Checking object integrity").
 * @param digests 32 bytes each; they may also come joined, several in one piece.
 */
export function compositeSha256(digests: Iterable<Uint8Array>): Uint8Array {
  const hash = createHash("sha256");
  for (const digest of digests) hash.update(digest);
  return new Uint8Array(hash.digest());
}

/**
 * Cuts digests that come joined into single ones, without a copy. What is left over at the end, shorter than a digest,
 * is dropped.
 */
export function splitDigests(joined: Uint8Array): Uint8Array[] {
  const digests: Uint8Array[] = [];
  for (let at = 0; at + SHA256_BYTES <= joined.length; at += SHA256_BYTES)
    digests.push(joined.subarray(at, at + SHA256_BYTES));
  return digests;
}

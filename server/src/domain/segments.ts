import { createHash } from "node:crypto";

/** One MiB in bytes. */
export const MIB = 1024n * 1024n;

/**
 * The size of an upload's segments: the smallest multiple of 1 MiB, at least `least` and the store's least part, with which `maxSize` bytes fit
 * into `maxParts` parts.
 */
export function chooseSegmentSize(
  maxSize: bigint,
  least: bigint,
  store: { minPartSize: bigint; maxParts: number },
): bigint {
  const parts = BigInt(store.maxParts);
  const needed = (maxSize + parts - 1n) / parts;
  const floor = [least, store.minPartSize, needed].reduce((a, b) => (a > b ? a : b));
  return ((floor + MIB - 1n) / MIB) * MIB;
}

/**
 * The digest of a version: SHA-256 over the SHA-256 digests of its segments in order, which is what S3 keeps as the composite checksum of a multipart
 * object (Amazon S3 User Guide, "Checking object integrity").
 */
export function compositeSha256(digests: Iterable<Uint8Array>): Uint8Array {
  const hash = createHash("sha256");
  for (const digest of digests) hash.update(digest);
  return new Uint8Array(hash.digest());
}

/** Whether two byte strings are equal. Not constant-time: digests and states are no secrets. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

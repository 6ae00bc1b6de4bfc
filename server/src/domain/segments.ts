/** One MiB in bytes. */
export const MIB = 1024n * 1024n;

/**
 * The size of an upload's segments: the smallest multiple of 1 MiB, at least `least` and the store's least part, with
 * which `maxSize` bytes fit into `maxParts` parts.
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

/** Whether two byte strings are equal. Not constant-time: digests and states are no secrets. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

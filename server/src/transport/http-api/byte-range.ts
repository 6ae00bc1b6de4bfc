/** A part of a version, in bytes; at least one. */
export interface ByteRange {
  readonly offset: bigint;
  readonly length: bigint;
}

/**
 * What a `Range` header means for so many bytes (RFC 9110, section 14.1.2): a part; "none" when there is no such byte;
 * "whole" without one, for several ranges, and for what is none, which a server ignores.
 */
export function parseRange(header: string | undefined, size: bigint): ByteRange | "whole" | "none" {
  const [, from, to] = /^bytes=\s*(\d{0,18})-(\d{0,18})\s*$/i.exec(header ?? "") ?? [];
  if (from === undefined || to === undefined || (from === "" && to === "")) return "whole";
  if (from === "") {
    const length = BigInt(to) < size ? BigInt(to) : size;
    return length === 0n ? "none" : { offset: size - length, length };
  }
  const offset = BigInt(from);
  const end = to === "" || BigInt(to) >= size ? size : BigInt(to) + 1n;
  if (to !== "" && BigInt(to) < offset) return "whole";
  return offset >= size ? "none" : { offset, length: end - offset };
}

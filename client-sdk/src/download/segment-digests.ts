/** What the bytes of a version must hash to, segment by segment. */

import { createHash, type Hash } from "node:crypto";
import type { Client } from "@connectrpc/connect";
import type { Version } from "@strongroom/gen/strongroom/v1/resources_pb";
import type { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { compositeSha256, SHA256_BYTES } from "@strongroom/protocol/digests";
import type { Retrier } from "../connection/retry.ts";
import type { Timings } from "../connection/timings.ts";
import { IntegrityError } from "../errors.ts";

/** Names a version in messages. */
export function nameOf(version: Version): string {
  return `Version ${version.number} of ${version.collection}`;
}

/**
 * Loads the digests of all segments, 32 bytes each, and checks them against the composite digest of the version; so,
 * from the first byte on, every segment is held against a digest that belongs to this version.
 *
 * @returns the digests in one piece: 320 KB for 10,000 segments
 * @throws IntegrityError when they do not fit the version
 */
export async function loadDigests(
  client: Client<typeof VersionService>,
  version: Version,
  retrier: Retrier,
  timings: Timings,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { collection, number, segmentCount } = version;
  const pages: Uint8Array[] = [];
  let count = 0;
  let pageToken = "";
  do {
    const request = { collection, which: { case: "number" as const, value: number }, pageToken };
    const page = await retrier.run("ListSegmentDigests", signal, () =>
      client.listSegmentDigests(request, { signal, timeoutMs: timings.unaryTimeoutMs }),
    );
    const tooMany = count + page.sha256.length > segmentCount;
    if (page.firstIndex !== count || tooMany || page.sha256.some((digest) => digest.length !== SHA256_BYTES)) {
      throw new IntegrityError(
        `${nameOf(version)} has ${segmentCount} segments, but the server's list of their digests does not fit: ` +
          `${page.sha256.length} digests from index ${page.firstIndex}, expected from index ${count}.`,
      );
    }
    pages.push(Buffer.concat(page.sha256));
    count += page.sha256.length;
    // A page without a digest would never end the list.
    pageToken = page.sha256.length === 0 ? "" : page.nextPageToken;
  } while (pageToken !== "");
  if (count !== segmentCount) {
    throw new IntegrityError(`${nameOf(version)} has ${segmentCount} segments, but the server lists ${count} digests.`);
  }
  const digests = Buffer.concat(pages);
  const composite = Buffer.from(compositeSha256([digests]));
  if (!composite.equals(version.compositeSha256)) {
    throw new IntegrityError(
      `${nameOf(version)} has the digest ${hex(version.compositeSha256)}, but the digests of its segments make ` +
        `${composite.toString("hex")}. Do not use it; tell the operator of the server.`,
    );
  }
  return digests;
}

/** Checks the bytes of a version as they come, from the first to the last. */
export class SegmentVerifier {
  readonly #version: Version;
  readonly #digests: Uint8Array;
  readonly #segmentSize: number;
  #index = 0;
  #hash: Hash = createHash("sha256");
  /** Bytes that the current segment still lacks. */
  #missing: number;
  #offset = 0;

  /**
   * @param version - as the server described it
   * @param digests - as {@link loadDigests} gave them
   * @throws IntegrityError when size, segment size and number of segments contradict each other
   */
  constructor(version: Version, digests: Uint8Array) {
    this.#version = version;
    this.#digests = digests;
    this.#segmentSize = Number(version.segmentSizeBytes);
    const { sizeBytes: size, segmentSizeBytes: segmentSize, segmentCount } = version;
    if (size <= 0n || segmentSize <= 0n || (size + segmentSize - 1n) / segmentSize !== BigInt(segmentCount)) {
      throw new IntegrityError(
        `${nameOf(version)} is described as ${size} bytes in ${segmentCount} segments of ${segmentSize}, which ` +
          "cannot be.",
      );
    }
    this.#missing = this.#sizeOf(0);
  }

  /** Bytes taken so far; a broken download goes on from here, with the hash of the segment begun. */
  get offset(): bigint {
    return BigInt(this.#offset);
  }

  /** Whether every byte was received and every segment was right. */
  get complete(): boolean {
    return this.offset === this.#version.sizeBytes;
  }

  /** Bytes from here to the end of the segment; 0 at a boundary. */
  get leftOfSegment(): number {
    return this.#missing === this.#sizeOf(this.#index) ? 0 : this.#missing;
  }

  /**
   * Takes the next bytes.
   * @throws IntegrityError when a segment is wrong, or there are more bytes than the version has
   */
  push(chunk: Uint8Array): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.complete) {
        throw new IntegrityError(
          `${nameOf(this.#version)} has ${this.#version.sizeBytes} bytes, but the server sent more.`,
        );
      }
      const part = rest.subarray(0, this.#missing);
      this.#hash.update(part);
      this.#missing -= part.length;
      this.#offset += part.length;
      rest = rest.subarray(part.length);
      if (this.#missing === 0) this.#endSegment();
    }
  }

  #endSegment(): void {
    const actual = this.#hash.digest();
    const expected = this.#digests.subarray(this.#index * SHA256_BYTES, (this.#index + 1) * SHA256_BYTES);
    if (!actual.equals(expected)) {
      const first = this.#index * this.#segmentSize;
      throw new IntegrityError(
        `${nameOf(this.#version)} is damaged: bytes ${first} to ${this.#offset - 1} have the SHA-256 ` +
          `${actual.toString("hex")}, expected ${hex(expected)}. Nothing that was put out may be used. Download ` +
          "it again; if that fails, too, tell the operator of the server.",
        { metadata: { segment: String(this.#index), first_byte: String(first), last_byte: String(this.#offset - 1) } },
      );
    }
    this.#index += 1;
    this.#hash = createHash("sha256");
    this.#missing = this.#sizeOf(this.#index);
  }

  #sizeOf(index: number): number {
    return Math.min(this.#segmentSize, Number(this.#version.sizeBytes) - index * this.#segmentSize);
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

import { SHA256_BYTES } from "@strongroom/protocol/digests";
import type { BlobPart, BlobStoreCapabilities, PartPlacement } from "../../app/ports/blob-store.ts";
import { BlobStoreError } from "../../app/ports/blob-store.ts";
import type { StoredPart } from "./part-lister.ts";

/** S3 takes keys of at most 1,024 bytes; file systems take names of at most 255. */
const MAX_KEY_LENGTH = 1024;
const MAX_SEGMENT_LENGTH = 255;
/** A segment that begins with a dot could be `..`, a hidden file or a store's own file. */
const SEGMENT = /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/;

/**
 * Refuses a key that some store could not keep, or that could name something outside of it.
 * @throws BlobStoreError
 */
export function assertBlobKey(key: string): void {
  if (isBlobKey(key)) return;
  throw new BlobStoreError(
    `The key ${quote(key)} cannot be used: expected at most ${MAX_KEY_LENGTH} characters in segments separated ` +
      `by "/", each of at most ` +
      `${MAX_SEGMENT_LENGTH} letters, digits, ".", "_" and "-", not beginning with ".".`,
  );
}

/** Whether every store could keep this key; a bucket may hold others that somebody else put there. */
export function isBlobKey(key: string): boolean {
  return key.length <= MAX_KEY_LENGTH && key.split("/").every(isSegment);
}

/** Names that a directory or a protocol takes for another, or that are no text. */
const FOREIGN_SEGMENT = /^(?!\.{1,2}$)[^\\\p{Cc}\p{Cs}]+$/u;

/**
 * Refuses a key under which neither this nor another program can have stored an object, or that could name something
 * outside of the store. Others are less strict with their keys, and their objects can be adopted.
 * @throws BlobStoreError
 */
export function assertReadableKey(key: string): void {
  if (isReadableKey(key)) return;
  throw new BlobStoreError(
    `The key ${quote(key)} cannot be used: expected at most ${MAX_KEY_LENGTH} bytes in segments separated by "/", each ` +
      `of at most ${MAX_SEGMENT_LENGTH}, without control characters, and none of them "." or "..".`,
  );
}

/** Whether an object of another program can have this key; see {@link assertReadableKey}. */
export function isReadableKey(key: string): boolean {
  const fits = (segment: string) => Buffer.byteLength(segment) <= MAX_SEGMENT_LENGTH && FOREIGN_SEGMENT.test(segment);
  return Buffer.byteLength(key) <= MAX_KEY_LENGTH && key.split("/").every(fits);
}

/**
 * Refuses a prefix with which no key can begin because of its form; the last segment may be incomplete or empty.
 * @throws BlobStoreError
 */
export function assertKeyPrefix(prefix: string): void {
  const segments = prefix.split("/");
  const last = segments.pop() ?? "";
  if (prefix.length <= MAX_KEY_LENGTH && segments.every(isSegment) && (last === "" || isSegment(last))) return;
  throw new BlobStoreError(
    `The prefix ${quote(prefix)} cannot be used: expected the beginning of a key, like "a/b" or "a/".`,
  );
}

function isSegment(segment: string): boolean {
  return segment.length <= MAX_SEGMENT_LENGTH && SEGMENT.test(segment);
}

/** Keys in messages are cut, since a refused one may have any length. */
function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text);
}

/**
 * Checks a part that is to be written.
 * @returns where it begins in the object, in bytes.
 * @throws BlobStoreError
 */
export function partOffset(part: BlobPart, placement: PartPlacement, { maxParts }: BlobStoreCapabilities): bigint {
  if (!Number.isInteger(part.index) || part.index < 0 || part.index >= maxParts) {
    throw new BlobStoreError(`Part ${part.index} cannot be stored: expected an index from 0 to ${maxParts - 1}.`);
  }
  if (part.size < 0n || part.size > placement.segmentSize) {
    throw new BlobStoreError(
      `Part ${part.index} cannot be stored: it has ${part.size} bytes, but parts of this object have at most ` +
        `${placement.segmentSize}.`,
    );
  }
  if (part.sha256.length !== SHA256_BYTES) {
    throw new BlobStoreError(
      `Part ${part.index} cannot be stored: its SHA-256 has ${part.sha256.length} bytes instead of ${SHA256_BYTES}.`,
    );
  }
  return BigInt(part.index) * placement.segmentSize;
}

/**
 * Checks that the parts an object is to be made of are numbered 0, 1, 2, ... without a hole.
 * @returns their size together, in bytes.
 * @throws BlobStoreError
 */
export function contiguousSize(key: string, parts: readonly BlobPart[]): bigint {
  if (parts.length === 0) throw new BlobStoreError(`${key} cannot be completed without parts: expected at least one.`);
  let size = 0n;
  for (const [position, part] of parts.entries()) {
    if (part.index !== position) {
      throw new BlobStoreError(`${key} cannot be completed: expected part ${position} next, got part ${part.index}.`);
    }
    size += part.size;
  }
  return size;
}

/**
 * Compares the parts an object is to be made of with those that are stored. Stored parts that are not asked for do not
 * matter: they come from attempts that were never acknowledged.
 * @throws BlobStoreError
 */
export function assertPartsStored(
  key: string,
  wanted: readonly BlobPart[],
  stored: ReadonlyMap<number, StoredPart>,
): void {
  for (const part of wanted) {
    const found = stored.get(part.index);
    if (found === undefined) {
      throw new BlobStoreError(`${key} cannot be completed: part ${part.index} is not stored. Send it again first.`);
    }
    if (!isSamePart(found, part)) {
      throw new BlobStoreError(
        `${key} cannot be completed: part ${part.index} should have ${describe(part)}, but what is stored has ` +
          `${describe(found)}.`,
      );
    }
  }
}

/** Whether a stored part is the one that is wanted, by index, size and, where the store keeps one, digest. */
export function isSamePart(stored: StoredPart, wanted: BlobPart): boolean {
  if (stored.index !== wanted.index || stored.size !== wanted.size) return false;
  return stored.sha256 === undefined || Buffer.compare(stored.sha256, wanted.sha256) === 0;
}

function describe(part: StoredPart): string {
  const digest = part.sha256 === undefined ? "" : ` with SHA-256 ${Buffer.from(part.sha256).toString("hex")}`;
  return `${part.size} bytes${digest}`;
}

/**
 * Checks a range against the size of the object it is read from; all in bytes.
 * @throws BlobStoreError
 */
export function assertRange(key: string, offset: bigint, length: bigint, size: bigint): void {
  if (offset >= 0n && length >= 0n && offset + length <= size) return;
  throw new BlobStoreError(`${length} bytes from ${offset} of ${key} cannot be read: it has ${size} bytes.`);
}

/**
 * Refuses an object that is larger than its reader expects.
 * @throws BlobStoreError
 */
export function assertAtMost(key: string, size: bigint, maxBytes: number): void {
  if (size <= BigInt(maxBytes)) return;
  throw new BlobStoreError(`${key} has ${size} bytes, but at most ${maxBytes} were expected. Read it in pieces.`);
}

import { compositeSha256 } from "@strongroom/protocol/digests";
import { digest, type JsonCodec, listOf } from "../../domain/json-codecs.ts";
import { bytesEqual } from "../../domain/segments.ts";
import { STATED_FIELDS, type StatedField, VERSION_FIELDS, type Version } from "../../domain/version.ts";

/**
 * The manifest's form; a reader refuses numbers it does not know. 2 added `state` and `removed_by`, 3 `revision`,
 * `damage` and `damaged_segment`, 4 `protected_for_ms`, 5 `usual_size` and `confirmed_at`, 6 who holds it since when,
 * `damaged_at` and `recipients`, 7 `adopted_key`, `kept_for_return` and `unchecked`.
 */
export const MANIFEST_FORMAT = 7;

/**
 * More bytes than the manifest of the largest version has: 1,000,000 segments of 70 bytes each, and what a client may
 * say.
 */
export const MANIFEST_MAX_BYTES = 128 * 1024 * 1024;

/** A manifest cannot be read, or contradicts itself. */
export class ManifestError extends Error {
  override name = "ManifestError";
}

const SEGMENT_DIGESTS = { name: "segment_sha256", codec: listOf(digest()) };

/** What a manifest says of an object's bytes. */
export interface ManifestDigests {
  /** Bytes. */
  readonly size: bigint;
  /** Bytes of every segment but the last. */
  readonly segmentSize: bigint;
  /** SHA-256 of each segment. */
  readonly segments: readonly Uint8Array[];
}

/** Reads from a manifest of any format what an object's bytes can be verified by. @throws ManifestError */
export function decodeDigests(manifest: Uint8Array): ManifestDigests {
  const { json } = opened(manifest);
  return {
    size: taken(json, VERSION_FIELDS.size),
    segmentSize: taken(json, VERSION_FIELDS.segmentSize),
    segments: taken(json, SEGMENT_DIGESTS),
  };
}

/**
 * Reads from a manifest of any format which object of another program it describes; undefined for one of an object of
 * its own, and for what is no manifest.
 */
export function decodeAdopted(manifest: Uint8Array): { readonly id: string; readonly adoptedKey: string } | undefined {
  try {
    const { json, format } = opened(manifest);
    if (format < VERSION_FIELDS.adoptedKey.since) return undefined;
    const adoptedKey = taken(json, VERSION_FIELDS.adoptedKey);
    return adoptedKey === null ? undefined : { id: taken(json, VERSION_FIELDS.id), adoptedKey };
  } catch (error) {
    if (error instanceof ManifestError) return undefined;
    throw error;
  }
}

/**
 * The manifest of a version: JSON, UTF-8, readable by a person, from which a lost database can be rebuilt. Byte counts
 * and numbers are decimal strings, times ISO 8601, digests hexadecimal. It has nothing secret: no key, no token, no
 * password.
 */
export function encodeManifest(version: Version, segmentDigests: readonly Uint8Array[]): Uint8Array {
  const manifest: Record<string, unknown> = { format: MANIFEST_FORMAT };
  for (const [field, { name, codec }] of STATED_FIELDS) manifest[name] = codec.write(version[field]);
  manifest[SEGMENT_DIGESTS.name] = SEGMENT_DIGESTS.codec.write(segmentDigests);
  return new TextEncoder().encode(`${JSON.stringify(manifest, null, 1)}\n`);
}

/** What a manifest says: the version, and the digests of its segments, 32 bytes each. */
export interface Manifest {
  readonly version: Version;
  readonly segmentDigests: Uint8Array;
}

/**
 * Reads a manifest of any format that was ever written, and checks it against itself.
 * @param storage name of the storage it was found in.
 * @throws ManifestError
 */
export function parseManifest(bytes: Uint8Array, storage: string): Manifest {
  const { json, format } = opened(bytes);
  const said: Partial<Record<StatedField, unknown>> = {};
  for (const [name, field] of STATED_FIELDS) said[name] = format < field.since ? field.before : taken(json, field);
  const fields = said as Pick<Version, StatedField>;
  const state = format < VERSION_FIELDS.state.since && fields.removedAt !== null ? "removed" : fields.state;
  // Before revisions were counted, a removal was the only change.
  const revision = format < VERSION_FIELDS.revision.since && state !== "live" ? 2 : fields.revision;
  // Before it was written down, protection was counted from the publication only.
  const protectedForMs =
    format < VERSION_FIELDS.protectedForMs.since && fields.protectedUntil !== null
      ? Math.max(0, fields.protectedUntil.getTime() - fields.committedAt.getTime())
      : fields.protectedForMs;
  const digests = taken(json, SEGMENT_DIGESTS);
  const recorded = { storage, segmentCount: digests.length, manifestRevision: revision, verifiedAt: null };
  const version: Version = { ...fields, ...recorded, state, revision, protectedForMs };
  requireConsistent(version, digests);
  return { version, segmentDigests: Buffer.concat(digests) };
}

function requireConsistent(version: Version, digests: readonly Uint8Array[]): void {
  const { state, removedAt, purgeAfter, size, segmentSize } = version;
  if (state === "purged") throw wrong("state", '"live" or "removed"', state);
  if ((state === "live") !== (removedAt === null) || (state === "live") !== (purgeAfter === null)) {
    throw new ManifestError(`state is "${state}", which contradicts removed_at or purge_after`);
  }
  if (!bytesEqual(version.compositeSha256, compositeSha256(digests))) {
    throw new ManifestError("composite_sha256 is not the digest of segment_sha256");
  }
  const segments = BigInt(digests.length);
  if (size <= (segments - 1n) * segmentSize || size > segments * segmentSize) {
    throw new ManifestError(`${size} bytes are not ${segments} segments of ${segmentSize} bytes`);
  }
}

/** The JSON object of a manifest, and its format. */
function opened(bytes: Uint8Array): { json: Readonly<Record<string, unknown>>; format: number } {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new ManifestError("it is not JSON");
  }
  if (typeof value !== "object" || value === null) throw new ManifestError("it is not a JSON object");
  const json = value as Record<string, unknown>;
  const { format } = json;
  if (typeof format !== "number" || !Number.isInteger(format)) throw wrong("format", "a whole number", format);
  if (format >= 1 && format <= MANIFEST_FORMAT) return { json, format };
  throw new ManifestError(
    `format: expected 1 to ${MANIFEST_FORMAT}, got ${format}; a newer Strongroom wrote it, use that one`,
  );
}

function taken<T>(
  json: Readonly<Record<string, unknown>>,
  field: { readonly name: string; readonly codec: JsonCodec<T> },
): T {
  const value = field.codec.read(json[field.name]);
  if (value === undefined) throw wrong(field.name, field.codec.expected, json[field.name]);
  return value;
}

function wrong(name: string, expected: string, value: unknown): ManifestError {
  const got = value === undefined ? "nothing" : JSON.stringify(value).slice(0, 60);
  return new ManifestError(`${name}: expected ${expected}, got ${got}`);
}

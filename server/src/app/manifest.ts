import type { VersionRow } from "./repositories.ts";

/** The manifest's form; a reader refuses numbers it does not know. */
export const MANIFEST_FORMAT = 1;

const MANIFEST_SUFFIX = ".manifest.json";

/** Key of the manifest that lies beside a version's object. */
export function manifestKey(key: string): string {
  return `${key}${MANIFEST_SUFFIX}`;
}

/** Whether a key is a manifest's. */
export function isManifestKey(key: string): boolean {
  return key.endsWith(MANIFEST_SUFFIX);
}

/** What a manifest says of an object's bytes. */
export interface ManifestDigests {
  /** Bytes. */
  readonly size: bigint;
  /** Bytes of every segment but the last. */
  readonly segmentSize: bigint;
  /** SHA-256 of each segment. */
  readonly segments: readonly Uint8Array[];
}

/**
 * Reads from a manifest what an object's bytes can be verified by.
 * @throws Error when it is not a manifest of a known form.
 */
export function decodeDigests(manifest: Uint8Array): ManifestDigests {
  const parsed = JSON.parse(new TextDecoder().decode(manifest)) as Record<string, unknown>;
  const { format, size, segment_size: segmentSize, segment_sha256: digests } = parsed;
  const number = /^\d{1,18}$/;
  const isDigest = (digest: unknown) => typeof digest === "string" && /^[0-9a-f]{64}$/.test(digest);
  if (
    format !== MANIFEST_FORMAT ||
    !number.test(String(size)) ||
    !number.test(String(segmentSize)) ||
    BigInt(String(segmentSize)) === 0n ||
    !Array.isArray(digests) ||
    !digests.every(isDigest)
  ) {
    throw new Error(`the manifest cannot be read: expected format ${MANIFEST_FORMAT} with sizes and segment digests`);
  }
  return {
    size: BigInt(String(size)),
    segmentSize: BigInt(String(segmentSize)),
    segments: digests.map((digest: string) => new Uint8Array(Buffer.from(digest, "hex"))),
  };
}

/**
 * The manifest of a version: JSON, UTF-8, readable by a person, from which a lost database can be rebuilt. Byte counts and numbers are decimal strings,
 * times ISO 8601, digests hexadecimal. It has nothing secret: no key, no token, no password.
 */
export function encodeManifest(version: VersionRow, segmentDigests: readonly Uint8Array[]): Uint8Array {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const time = (date: Date | null) => date?.toISOString() ?? null;
  const manifest = {
    format: MANIFEST_FORMAT,
    version_id: version.id,
    collection: version.collectionName,
    collection_id: version.collectionId,
    organization: version.organization,
    number: String(version.number),
    key: version.key,
    filename: version.filename,
    size: String(version.size),
    composite_sha256: hex(version.compositeSha256),
    segment_size: String(version.segmentSize),
    segment_sha256: segmentDigests.map(hex),
    content_encoding: version.contentEncoding,
    encryption_format: version.encryptionFormat,
    armored: version.armored,
    begun_at: time(version.begunAt),
    committed_at: time(version.committedAt),
    uploaded_by: version.userName,
    access_key: version.accessKey,
    session_id: version.sessionId,
    labels: version.labels,
    client_metadata: version.clientMetadata,
    above_soft_limit: version.aboveSoftLimit,
    held: version.held,
    hold_reason: version.holdReason,
    protected_until: time(version.protectedUntil),
    removed_at: time(version.removedAt),
    purge_after: time(version.purgeAfter),
  };
  return new TextEncoder().encode(`${JSON.stringify(manifest, null, 1)}\n`);
}

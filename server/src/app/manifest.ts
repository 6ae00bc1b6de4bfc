import type { VersionRow } from "./repositories.ts";

/** The manifest's form; a reader refuses numbers it does not know. */
export const MANIFEST_FORMAT = 1;

/** Key of the manifest that lies beside a version's object. */
export function manifestKey(key: string): string {
  return `${key}.manifest.json`;
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

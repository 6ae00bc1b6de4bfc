import { compositeSha256 } from "@strongroom/protocol/digests";
import { bytesEqual } from "../../domain/segments.ts";
import type { VersionRow } from "../ports/database.ts";

/** The manifest's form. 2 added `state` and `removed_by`; a reader refuses numbers it does not know. */
export const MANIFEST_FORMAT = 2;

/** More bytes than the manifest of the largest version has: 1,000,000 segments of 70 bytes each, and what a client may say. */
export const MANIFEST_MAX_BYTES = 128 * 1024 * 1024;

/** A manifest cannot be read, or contradicts itself. */
export class ManifestError extends Error {
  override name = "ManifestError";
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

/** Reads from a manifest of any format what an object's bytes can be verified by. @throws ManifestError */
export function decodeDigests(manifest: Uint8Array): ManifestDigests {
  const fields = new Fields(manifest);
  fields.format();
  return {
    size: fields.count("size"),
    segmentSize: fields.count("segment_size"),
    segments: fields.digests("segment_sha256"),
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
    state: version.state,
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
    removed_by: version.removedBy,
    purge_after: time(version.purgeAfter),
  };
  return new TextEncoder().encode(`${JSON.stringify(manifest, null, 1)}\n`);
}

/** What a manifest says: the version, and the digests of its segments, 32 bytes each. */
export interface Manifest {
  readonly version: VersionRow;
  readonly segmentDigests: Uint8Array;
}

/**
 * Reads a manifest of any format that was ever written, and checks it against itself.
 * @param storage name of the storage it was found in.
 * @throws ManifestError
 */
export function parseManifest(bytes: Uint8Array, storage: string): Manifest {
  const fields = new Fields(bytes);
  const format = fields.format();
  const digests = fields.digests("segment_sha256");
  const removedAt = fields.time("removed_at", true);
  const version: VersionRow = {
    id: fields.text("version_id", /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
    collectionId: fields.text("collection_id", /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
    collectionName: fields.text("collection", /./),
    organization: fields.text("organization"),
    storage,
    key: fields.text("key", /./),
    number: fields.count("number"),
    filename: fields.text("filename", /./),
    size: fields.count("size"),
    segmentSize: fields.count("segment_size"),
    segmentCount: digests.length,
    compositeSha256: Buffer.from(fields.text("composite_sha256", /^[0-9a-f]{64}$/), "hex"),
    contentEncoding: fields.oneOf("content_encoding", ["none", "zstd"]),
    encryptionFormat: fields.oneOf("encryption_format", ["openpgp", "age"]),
    armored: fields.flag("armored"),
    begunAt: fields.time("begun_at"),
    committedAt: fields.time("committed_at"),
    userName: fields.text("uploaded_by"),
    accessKey: fields.text("access_key"),
    sessionId: fields.text("session_id"),
    labels: fields.texts("labels"),
    clientMetadata: fields.texts("client_metadata"),
    aboveSoftLimit: fields.flag("above_soft_limit"),
    state: removedAt === null ? "live" : "removed",
    held: fields.flag("held"),
    holdReason: fields.text("hold_reason"),
    protectedUntil: fields.time("protected_until", true),
    removedAt,
    removedBy: format === 1 ? "" : fields.text("removed_by"),
    purgeAfter: fields.time("purge_after", removedAt === null),
    manifestState: removedAt === null ? "live" : "removed",
    verifiedAt: null,
    damage: "",
    damagedSegment: null,
  };
  if (!bytesEqual(version.compositeSha256, compositeSha256(digests))) {
    throw new ManifestError("composite_sha256 is not the digest of segment_sha256");
  }
  const segments = BigInt(digests.length);
  if (version.size <= (segments - 1n) * version.segmentSize || version.size > segments * version.segmentSize) {
    throw new ManifestError(`${version.size} bytes are not ${segments} segments of ${version.segmentSize} bytes`);
  }
  return { version, segmentDigests: Buffer.concat(digests) };
}

/** The members of the JSON object, each checked when it is taken. */
class Fields {
  readonly #object: Record<string, unknown>;

  constructor(bytes: Uint8Array) {
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch {
      throw new ManifestError("it is not JSON");
    }
    if (typeof value !== "object" || value === null) throw new ManifestError("it is not a JSON object");
    this.#object = value as Record<string, unknown>;
  }

  text(name: string, form?: RegExp): string {
    const value = this.#object[name];
    if (typeof value !== "string" || form?.test(value) === false) throw wrong(name, form ?? "a text", value);
    return value;
  }

  oneOf<const W extends string>(name: string, words: readonly W[]): W {
    const word = words.find((w) => w === this.#object[name]);
    if (word === undefined) throw wrong(name, words.join(" or "), this.#object[name]);
    return word;
  }

  format(): number {
    const format = this.#object.format;
    if (typeof format !== "number" || !Number.isInteger(format)) throw wrong("format", "a whole number", format);
    if (format >= 1 && format <= MANIFEST_FORMAT) return format;
    throw new ManifestError(
      `format: expected 1 to ${MANIFEST_FORMAT}, got ${format}; a newer Strongroom wrote it, use that one`,
    );
  }

  count(name: string): bigint {
    return BigInt(this.text(name, /^[1-9]\d{0,17}$/));
  }

  flag(name: string): boolean {
    const value = this.#object[name];
    if (typeof value !== "boolean") throw wrong(name, "true or false", value);
    return value;
  }

  time(name: string): Date;
  time(name: string, orNull: boolean): Date | null;
  time(name: string, orNull = false): Date | null {
    const value = this.#object[name];
    if (value === null && orNull) return null;
    const date = new Date(typeof value === "string" ? value : Number.NaN);
    if (Number.isNaN(date.getTime())) throw wrong(name, "a time", value);
    return date;
  }

  texts(name: string): Record<string, string> {
    const value = this.#object[name];
    const isMap = typeof value === "object" && value !== null && !Array.isArray(value);
    if (!isMap || Object.values(value).some((v) => typeof v !== "string")) throw wrong(name, "names and texts", value);
    return value as Record<string, string>;
  }

  digests(name: string): Uint8Array[] {
    const value = this.#object[name];
    if (!Array.isArray(value) || value.length === 0 || value.some((d) => !/^[0-9a-f]{64}$/.test(String(d)))) {
      throw wrong(name, "a list of SHA-256 digests", undefined);
    }
    return value.map((digest: string) => Buffer.from(digest, "hex"));
  }
}

function wrong(name: string, expected: string | RegExp, value: unknown): ManifestError {
  const got = value === undefined ? "" : `, got ${JSON.stringify(value).slice(0, 60)}`;
  return new ManifestError(`${name}: expected ${String(expected)}${got}`);
}

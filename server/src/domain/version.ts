import type { CiphertextFormat } from "@strongroom/framing";
import type { CollectionSpec } from "./configuration.ts";
import { count, digest, flag, type JsonCodec, oneOf, orNull, tally, text, texts, time, whole } from "./json-codecs.ts";

/** How the client transformed a dump before encryption. */
export type ContentEncoding = "none" | "zstd";

/**
 * Kinds of damage, as the contract explains them; empty for none, and for damage that was found before reasons were
 * kept.
 */
export const DAMAGE_REASONS = [
  "",
  "object-missing",
  "size-differs",
  "bytes-differ",
  "record-inconsistent",
  "unreadable",
] as const;

/** One of {@link DAMAGE_REASONS}. */
export type DamageReason = (typeof DAMAGE_REASONS)[number];

/** A field that the manifest says: a change of it raises the version's revision, and reaches the manifest. */
interface Stated<T> {
  /** Its name in the manifest. */
  readonly name: string;
  readonly codec: JsonCodec<T>;
  /** The format of manifests that has it first, and what older ones mean by being silent. */
  readonly since: number;
  readonly before: T | undefined;
}

/** A field that only the row has. */
interface Recorded<T> {
  readonly name: undefined;
  /** Keeps the type. */
  readonly sample?: T;
}

const stated = <T>(name: string, codec: JsonCodec<T>): Stated<T> => ({ name, codec, since: 1, before: undefined });
const statedSince = <T>(since: number, name: string, codec: JsonCodec<T>, before: T): Stated<T> => ({
  name,
  codec,
  since,
  before,
});
const recorded = <T>(): Recorded<T> => ({ name: undefined });

const uuid = text("a UUID", /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
const notEmpty = text("a text that is not empty", /./);

/**
 * The fields of a version, in the order in which its manifest has them. Its type, its manifest and what raises its
 * revision follow from this table. A new field is written here; the compiler then asks for its column
 * (`adapters/postgres/schema.ts`) and where it comes from (`app/uploads/commit-upload.ts`), and a test whether clients
 * see it (`transport/messages.ts`). A field of an old manifest is never removed from it.
 */
export const VERSION_FIELDS = {
  /** The id of the upload it was. */
  id: stated("version_id", uuid),
  /** How often what the manifest says has changed, from 1. */
  revision: statedSince(3, "revision", whole(1), 1),
  collectionName: stated("collection", notEmpty),
  collectionId: stated("collection_id", uuid),
  organization: stated("organization", text()),
  number: stated("number", count()),
  /** A purged one has no object any more, and no manifest. */
  state: statedSince(2, "state", oneOf("live", "removed", "purged"), "live"),
  /** Key in the store: the manifest lies beside it, and so does the object, unless it was adopted. */
  key: stated("key", notEmpty),
  /**
   * Key of the object that another program stored and `strongroom import` adopted where it lies; null for one under
   * `key`. See {@link objectOf}.
   */
  adoptedKey: statedSince(7, "adopted_key", orNull(notEmpty), null),
  /** Its object is not deleted, even when it is removed: the program that stored it may be put to use again. */
  keptForReturn: statedSince(7, "kept_for_return", flag(), false),
  /** Why its ciphertext is not known to be what is accepted, for an imported one; empty for one that passed the check. */
  unchecked: statedSince(7, "unchecked", text(), ""),
  filename: stated("filename", notEmpty),
  /** Bytes. */
  size: stated("size", count()),
  compositeSha256: stated("composite_sha256", digest()),
  /** Bytes of every segment but the last. */
  segmentSize: stated("segment_size", count()),
  contentEncoding: stated("content_encoding", oneOf("none", "zstd") satisfies JsonCodec<ContentEncoding>),
  encryptionFormat: stated("encryption_format", oneOf("openpgp", "age") satisfies JsonCodec<CiphertextFormat>),
  armored: stated("armored", flag()),
  begunAt: stated("begun_at", time()),
  committedAt: stated("committed_at", time()),
  userName: stated("uploaded_by", text()),
  accessKey: stated("access_key", text()),
  sessionId: stated("session_id", text()),
  labels: stated("labels", texts()),
  clientMetadata: stated("client_metadata", texts()),
  aboveSoftLimit: stated("above_soft_limit", flag()),
  held: stated("held", flag()),
  holdReason: stated("hold_reason", text()),
  /** `user:<name>` of who holds it; empty for nobody. */
  heldBy: statedSince(6, "held_by", text(), ""),
  /** Whether that was systemAdmin, who alone releases it then. */
  heldByAdmin: statedSince(6, "held_by_admin", flag(), false),
  /** Since when it is held; null while it is not. */
  heldAt: statedSince(6, "held_at", orNull(time()), null),
  protectedUntil: stated("protected_until", orNull(time())),
  /**
   * How long it is protected, in milliseconds, up to `protectedUntil`: an end further ahead than this was written by a
   * wrong clock. Null together with `protectedUntil`.
   */
  protectedForMs: statedSince(4, "protected_for_ms", orNull(whole(0)), null),
  removedAt: stated("removed_at", orNull(time())),
  /** The version id it was rotated out for, or `user:<name>`; empty while it is live. */
  removedBy: statedSince(2, "removed_by", text(), ""),
  purgeAfter: stated("purge_after", orNull(time())),
  /** What was wrong at the last verification; empty for nothing. */
  damage: statedSince(3, "damage", text(), ""),
  /** Why it is damaged. */
  damageReason: statedSince(3, "damage_reason", oneOf(...DAMAGE_REASONS) satisfies JsonCodec<DamageReason>, ""),
  /** The first segment that differed; null when there is none, or when the object is missing or has another size. */
  damagedSegment: statedSince(3, "damaged_segment", orNull(whole(0)), null),
  /** When that was found; null for nothing, and for damage from before this was kept. */
  damagedAt: statedSince(6, "damaged_at", orNull(time()), null),
  /** The median of the versions before it when it was committed; null for none. See `shrunk.ts`. */
  usualSize: statedSince(5, "usual_size", orNull(count()), null),
  /** When somebody said that its size is right; null for never. */
  confirmedAt: statedSince(5, "confirmed_at", orNull(time()), null),
  /** What it is encrypted to, as its header says, and how often; null for not known. See `key-inventory.ts`. */
  recipients: statedSince(6, "recipients", orNull(tally()), null),
  /** Name of the storage the object is in. */
  storage: recorded<string>(),
  /** How many digests of segments the manifest lists. */
  segmentCount: recorded<number>(),
  /**
   * The revision that the manifest in the store says; the sweeper writes it again when it is another one. 0 when it may
   * say anything.
   */
  manifestRevision: recorded<number>(),
  /** When its object was last read back and compared; null while that was only done on arrival. */
  verifiedAt: recorded<Date | null>(),
};

type Fields = typeof VERSION_FIELDS;

/** A stored backup. */
export type Version = {
  readonly [F in keyof Fields]: Fields[F] extends Stated<infer T> ? T : Fields[F] extends Recorded<infer T> ? T : never;
};

/** Names of the fields that a manifest says. */
export type StatedField = {
  [F in keyof Fields]: Fields[F] extends { readonly name: string } ? F : never;
}[keyof Fields];

/** The fields that a manifest says, with how it says them. */
export const STATED_FIELDS = Object.entries(VERSION_FIELDS).filter(
  ([, { name }]) => name !== undefined,
) as unknown as readonly (readonly [StatedField, Stated<unknown>])[];

/** Key of the object with a version's bytes. */
export function objectOf({ key, adoptedKey }: Pick<Version, "key" | "adoptedKey">): string {
  return adoptedKey ?? key;
}

/** The state of a version that has just been published. */
export const PUBLISHED = {
  revision: 1,
  manifestRevision: 1,
  state: "live",
  held: false,
  holdReason: "",
  heldBy: "",
  heldByAdmin: false,
  heldAt: null,
  removedAt: null,
  removedBy: "",
  purgeAfter: null,
  verifiedAt: null,
  damage: "",
  damageReason: "",
  damagedSegment: null,
  damagedAt: null,
  confirmedAt: null,
  adoptedKey: null,
  keptForReturn: false,
  unchecked: "",
} as const satisfies Partial<Version>;

type Protected = Pick<Version, "committedAt" | "protectedUntil" | "protectedForMs">;

/**
 * A version with the protection in force: what it was published with, or longer where the configuration has become
 * longer since.
 */
export function withProtection<V extends Protected>(
  version: V,
  spec: Pick<CollectionSpec, "minRetentionMs"> | undefined,
): V {
  if (spec?.minRetentionMs === undefined) return version;
  const protectedForMs = Math.max(version.protectedForMs ?? 0, spec.minRetentionMs);
  const protectedUntil = new Date(protectedSince(version).getTime() + protectedForMs);
  return { ...version, protectedUntil, protectedForMs };
}

/** The protection of a version up to this time, however long that makes it; null for none. */
export function protectionUntil(
  version: Protected,
  protectedUntil: Date | null,
): Pick<Version, "protectedUntil" | "protectedForMs"> {
  if (protectedUntil === null) return { protectedUntil, protectedForMs: null };
  return { protectedUntil, protectedForMs: Math.max(0, protectedUntil.getTime() - protectedSince(version).getTime()) };
}

/**
 * What the protection of a version counts from: its publication, or the moment when that was found to have been dated
 * by a clock that was ahead.
 */
function protectedSince({ protectedUntil, protectedForMs, committedAt }: Protected): Date {
  return protectedUntil === null ? committedAt : new Date(protectedUntil.getTime() - (protectedForMs ?? 0));
}

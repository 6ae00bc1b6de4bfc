import type { CiphertextFormat } from "@strongroom/framing";
import type { NotifierSpec } from "./notifications.ts";
import type { RotationPolicy } from "./rotation.ts";
import type { UploadWindow } from "./window.ts";

/**
 * Roles a user can have system-wide, on a collection, for an access key or in a session's scope (behaviour of each in
 * `access.ts`).
 */
export const ROLES = [
  "systemAdmin",
  "userManager",
  "collectionManager",
  "backupUploader",
  "backupDownloader",
  "uploadsAnytime",
] as const;

/** One of {@link ROLES}. */
export type Role = (typeof ROLES)[number];

/** Roles for one configuration object, as in access keys and session scopes. */
export interface ObjectGrant {
  /** Kind of configuration object; only `collection` is known so far. */
  readonly type: string;
  /** Its name. */
  readonly name: string;
  readonly roles: readonly Role[];
}

/** An extra name and password of a user (`user$key`) with fewer rights. */
export interface AccessKey {
  readonly name: string;
  /** PHC-encoded argon2id hash; undefined when none is configured, so nobody can log in with it. */
  readonly passwordHash: string | undefined;
  /** As {@link User.restrictByIp}, beside that of the user: an address must be allowed by both. */
  readonly restrictByIp?: readonly string[];
  readonly objects: readonly ObjectGrant[];
}

/** A person or program that logs in. */
export interface User {
  readonly name: string;
  readonly email: string;
  readonly organization: string;
  readonly about: string;
  readonly deactivated: boolean;
  /** PHC-encoded argon2id hash; undefined when none is configured, so nobody can log in with it. */
  readonly passwordHash: string | undefined;
  /** Addresses and CIDR ranges logins and requests must come from; empty for anywhere. */
  readonly restrictByIp: readonly string[];
  readonly roles: readonly Role[];
  readonly accessKeys: readonly AccessKey[];
}

/** Who may do what in a collection. */
export interface AccessEntry {
  readonly userName: string;
  readonly roles: readonly Role[];
}

/** The configuration of a collection. Byte counts are bigint, durations are milliseconds. */
export interface CollectionSpec {
  readonly name: string;
  readonly description: string;
  /** Tenant; empty for none. */
  readonly organization: string;
  /** File name of a version; `${version}` stands for its number. */
  readonly filenameTemplate: string;
  readonly maxBackupsCount: number;
  /** Soft limit of one version. */
  readonly maxOneVersionSize: bigint;
  /** Hard limit of the collection. */
  readonly maxCollectionSize: bigint;
  readonly maxParallelUploads: number;
  /** A smaller version is refused at its commit; 0 for none. */
  readonly minVersionSize: bigint;
  /** Time from the publication of one version to that of the next; undefined for none. */
  readonly minIntervalMs: number | undefined;
  /** How many of the uploads begun in one window may become versions; undefined for any number. */
  readonly maxVersionsPerWindow: number | undefined;
  /** An upload must become a version within this time of its creation; undefined for the server's own. */
  readonly maxUploadAgeMs: number | undefined;
  readonly windows: readonly UploadWindow[];
  /** IANA time zone of the windows, and of the periods that rotation by `gfs` counts. */
  readonly timezone: string;
  readonly rotation: RotationPolicy;
  /**
   * The newest version is shrunk when it is smaller than the median of the last ones by more than this factor;
   * undefined for no such check.
   */
  readonly shrunkFactor: number | undefined;
  /** What keeps rotation from removing: a shrunk version that nobody confirmed; undefined for nothing. */
  readonly rotationGuard: "shrunk" | undefined;
  /** Where a change of rules would remove more than this share (0 to 1) at once, rotation waits; see `policy-guard.ts`. */
  readonly removalShare: number;
  /** The age check of health fails above this; undefined for no age check. */
  readonly maxAgeMs: number | undefined;
  /** A published version is protected from removal for this long; undefined for none. */
  readonly minRetentionMs: number | undefined;
  /** A removed version can be brought back for at least this long; undefined for the server's own time. */
  readonly trashRetentionMs: number | undefined;
  readonly encryptionFormats: readonly CiphertextFormat[];
  /** OpenPGP key ids (16 lower-case hexadecimal digits) a dump may be encrypted to; undefined for any. */
  readonly recipientKeyIds: readonly string[] | undefined;
  /** age recipients a dump may be encrypted to, by their names, and how often each; undefined for any. */
  readonly ageRecipients?: Readonly<Record<string, number>>;
  /** SHA-256 of the health secret in hexadecimal; undefined when health is for sessions only. */
  readonly healthSecretSha256: string | undefined;
  readonly accessControl: readonly AccessEntry[];
}

/** A tenant over several collections. */
export interface OrganizationSpec {
  readonly name: string;
  /** Hard limit over all physical bytes of its collections: stored, reserved, removed and not yet purged. */
  readonly maxTotalSize: bigint | undefined;
  /** Bytes a second that one server takes in from uploads of its collections; undefined for any. */
  readonly maxUploadRate?: bigint | undefined;
  /** Segments of its collections that one server takes in at once; undefined for any. */
  readonly maxParallelSegments?: number | undefined;
}

/** One consistent state of the whole configuration. */
export interface Configuration {
  readonly users: ReadonlyMap<string, User>;
  readonly collections: ReadonlyMap<string, CollectionSpec>;
  readonly organizations: ReadonlyMap<string, OrganizationSpec>;
  /** Who is told of what is not as it should be; absent for nobody. */
  readonly notifiers?: ReadonlyMap<string, NotifierSpec>;
}

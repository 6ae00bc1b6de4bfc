import { type HealthFacts, type HealthVersion, NO_VERSIONS, type SomeVersions } from "../../domain/health.ts";
import type { QuotaLimits } from "../../domain/quota.ts";
import type { StoredFacts } from "../../domain/store-health.ts";
import type { Version } from "../../domain/version.ts";

/**
 * What rotation, quota and health need of a live version. No texts of clients and no digests: a collection can have
 * thousands.
 */
export type LiveVersion = Pick<Version, (typeof LIVE_VERSION_FIELDS)[number]>;

/** The fields of {@link LiveVersion}. */
export const LIVE_VERSION_FIELDS = [
  "id",
  "collectionId",
  "organization",
  "number",
  "size",
  "begunAt",
  "committedAt",
  "held",
  "protectedUntil",
  "protectedForMs",
  "damage",
  "damageReason",
  "damagedAt",
  "manifestRevision",
  "usualSize",
  "confirmedAt",
] as const satisfies readonly (keyof Version)[];

/** Where a version stands among the others of its collection: how many have numbers beyond its own on one side. */
export interface Place {
  readonly place: number;
  readonly from: "lowest" | "highest";
}

/** A collection whose facts are asked for, with what its configuration says of sizes. */
export interface WantedFacts {
  readonly name: string;
  /** In bytes; left out for a collection without a configuration, as the others. */
  readonly maxOneVersionSize?: bigint | undefined;
  readonly maxCollectionSize?: bigint | undefined;
  readonly shrunkFactor?: number | undefined;
}

/** Whoever is told of versions is told so many of them, however many there are. */
export const TOLD_OF = 20;

/** The live versions that somebody is told of, as far as they are read. */
export interface NotableVersions {
  readonly newest: LiveVersion | undefined;
  /** Those above maxOneVersionSize, since when the first of them was published. */
  readonly above: SomeVersions<LiveVersion>;
  /** Size of the largest of these, in bytes; 0 for none. */
  readonly largest: bigint;
  /** Those that failed their last verification, but for the unreadable ones. */
  readonly damaged: SomeVersions<LiveVersion>;
  /** Those that the store does not give. */
  readonly unreadable: SomeVersions<LiveVersion>;
  /** Those dated beyond now. */
  readonly beyond: SomeVersions<LiveVersion>;
  /** The earliest time that one of these was begun; undefined for none. */
  readonly beyondFrom: Date | undefined;
}

/** None, of a collection that was never uploaded to. */
export const NOTHING_NOTABLE: NotableVersions = {
  newest: undefined,
  above: NO_VERSIONS,
  largest: 0n,
  damaged: NO_VERSIONS,
  unreadable: NO_VERSIONS,
  beyond: NO_VERSIONS,
  beyondFrom: undefined,
};

/** What rotation by time asks of a version. */
export type NumberedTime = Pick<LiveVersion, "number" | "begunAt">;

/** Live versions of an organization in a collection, summed up. */
export interface LiveSums {
  readonly versions: bigint;
  readonly bytes: bigint;
  readonly lastNumber: bigint;
}

/**
 * What is asked of the live versions of a collection without reading all of them. Nothing here takes longer because a
 * collection has many versions, unless the versions asked for are many themselves.
 */
export interface LiveVersionRepository {
  /** Those with the highest numbers, the highest first. */
  newest(collectionId: string, limit: number): Promise<LiveVersion[]>;
  /** As {@link newest}, without those that are shrunk by this factor. */
  newestNotShrunk(collectionId: string, shrunkFactor: number, limit: number): Promise<LiveVersion[]>;
  /**
   * What is not as usual: what sizes have beyond the limits, in bytes, above maxOneVersionSize and below `least`, each
   * version by itself; and damaged versions, with a factor those too that are shrunk by it.
   */
  unusual(
    collectionId: string,
    limits: Pick<QuotaLimits, "maxOneVersionSize">,
    least: bigint,
    shrunkFactor: number | undefined,
  ): Promise<{ readonly above: bigint; readonly below: bigint; readonly odd: readonly LiveVersion[] }>;
  /**
   * How many rotation removed since then together with others, for one version: all but one of each of those. Looks at
   * what went for the newest thousand numbers.
   */
  rotatedTogether(collectionId: string, since: Date): Promise<number>;
  /**
   * Those that somebody is told of, each kind with its number and the {@link TOLD_OF} of the highest numbers.
   * @param beyond those begun after it are dated beyond now.
   */
  notable(collectionId: string, limits: Pick<QuotaLimits, "maxOneVersionSize">, beyond: Date): Promise<NotableVersions>;
  /**
   * The number of the one that has `place` others on its side, counting from the lowest or the highest number; without
   * the excepted ones. Undefined where there are not so many.
   */
  numberAt(collectionId: string, at: Place, exceptIds: readonly string[]): Promise<bigint | undefined>;
  /** Numbers and times of those up to the number (undefined: of all), but the excepted ones; the highest first. */
  dated(collectionId: string, upTo: bigint | undefined, exceptIds: readonly string[]): Promise<NumberedTime[]>;
  /** The one above the number that is nearest to it and was not begun after now, but the excepted ones. */
  datedAbove(
    collectionId: string,
    above: bigint,
    now: Date,
    exceptIds: readonly string[],
  ): Promise<NumberedTime | undefined>;
  /** Those with these numbers. */
  byNumbers(collectionId: string, numbers: readonly bigint[]): Promise<LiveVersion[]>;
  /**
   * Those below the number (undefined: all; or the one at a place, as {@link numberAt} says it) that are neither held nor
   * protected by their rows, but the excepted ones. None where nothing is at that place.
   */
  free(
    collectionId: string,
    below: bigint | Place | undefined,
    now: Date,
    exceptIds: readonly string[],
  ): Promise<LiveVersion[]>;
  /** How many belong to an organization, their bytes, and their highest number; 0 for none. */
  sumOf(collectionId: string, organization: string): Promise<LiveSums>;
  /** One of an organization that is held or protected. @param minRetentionMs as the configuration says now */
  blockedOf(
    collectionId: string,
    organization: string,
    now: Date,
    minRetentionMs: number | undefined,
  ): Promise<LiveVersion | undefined>;
  /** Those of an organization up to a number, the highest first, at most `limit`. */
  listOf(collectionId: string, organization: string, upTo: bigint, limit: number): Promise<LiveVersion[]>;
  /** Whether any is held or protected. @param minRetentionMs as the configuration says now; undefined for none. */
  anyBlocked(collectionId: string, now: Date, minRetentionMs: number | undefined): Promise<boolean>;
  /** What health is computed from, by the collection's name, in one query; none for collections never uploaded to. */
  facts(wanted: readonly WantedFacts[], now: Date): Promise<Map<string, CollectionFacts>>;
}

/** A collection with what health is computed from, and what an overview shows beside. */
export interface CollectionFacts extends HealthFacts, StoredFacts {
  readonly id: string;
  readonly name: string;
  readonly newest: NewestVersion | undefined;
  /** Bytes. */
  readonly storedBytes: bigint;
  readonly reservedBytes: bigint;
  readonly trashBytes: bigint;
  readonly liveVersions: number;
  readonly countedBytes: bigint;
  readonly confirmedPolicy: string | null;
  readonly policyHeldSince: Date | null;
  /** Open uploads that hold a place. */
  readonly openUploads: number;
  readonly rolledBackAt: Date | null;
  readonly addedVersions: number;
  /** Since when its configuration object is gone; null while it is there, or nobody has noticed. */
  readonly frozenSince: Date | null;
  /** Commits of which the store has neither the object nor the parts. */
  readonly lost: readonly LostUpload[];
}

/** The live version with the highest number. */
export interface NewestVersion extends HealthVersion {
  readonly committedAt: Date;
  readonly userName: string;
  readonly accessKey: string;
}

/** A commit that the store lost. */
export interface LostUpload {
  readonly id: string;
  readonly versionNumber: bigint | null;
  /** Bytes. */
  readonly reservedBytes: bigint;
  readonly lostSince: Date;
}

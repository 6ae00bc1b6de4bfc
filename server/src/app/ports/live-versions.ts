import type { HealthFacts, HealthVersion } from "../../domain/health.ts";
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
   * Those that somebody is told of: the newest, damaged ones, those above the soft limit, and those that were begun
   * after `beyond`. The highest number first.
   */
  notable(collectionId: string, limits: Pick<QuotaLimits, "maxOneVersionSize">, beyond: Date): Promise<LiveVersion[]>;
  /**
   * The number of the one that has `place` others on its side, counting from the lowest or the highest number; without
   * the excepted ones. Undefined where there are not so many.
   */
  numberAt(collectionId: string, at: Place, exceptIds: readonly string[]): Promise<bigint | undefined>;
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

import { clockState, isBeyond } from "../../domain/clock.ts";
import { type HealthStatus, healthOfSummary, type VersionSummary, worst } from "../../domain/health.ts";
import { isLost, type StoredVersion, storeCheck } from "../../domain/store-health.ts";
import { type ConfigSource, pinned } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";

/** What monitoring shows of one configured collection. Sizes are bytes. */
export interface CollectionFigures {
  readonly name: string;
  readonly storedBytes: bigint;
  readonly reservedBytes: bigint;
  readonly trashBytes: bigint;
  /** maxCollectionSize. */
  readonly limitBytes: bigint;
  readonly versions: number;
  readonly openUploads: number;
  /** When the newest version was begun; undefined for none, and for a time beyond now, which says nothing. */
  readonly newestAt: Date | undefined;
  /** Size of the newest version, in bytes; undefined for none. */
  readonly newestSize: bigint | undefined;
  /** Live versions that failed their last verification. */
  readonly damaged: number;
  /** Commits that the store can not finish. */
  readonly lostCommits: number;
  /** Whether the store showed that the database was rolled back, and nobody has confirmed it. */
  readonly rolledBack: boolean;
  readonly health: HealthStatus;
}

/** Every configured collection, and how many are frozen. */
export interface AllFigures {
  readonly collections: readonly CollectionFigures[];
  readonly frozen: number;
}

/** Reads the figures of all collections in four queries that lock nothing. */
export async function collectionFigures(deps: {
  readonly database: Database;
  readonly config: ConfigSource;
}): Promise<AllFigures> {
  const configured = pinned(deps).config.current().collections;
  const { now, clock, rows, summaries, open, lost } = await deps.database.read(async (tx) => ({
    now: tx.now,
    clock: clockState(await tx.clock.read(), tx.now),
    rows: new Map((await tx.collections.all()).map((row) => [row.name, row])),
    summaries: await tx.versions.summaries(),
    open: await tx.uploads.openCounts(),
    lost: (await tx.uploads.lost()).filter((upload) => isLost(upload, tx.now)),
  }));
  const collections = [...configured.values()].map((spec): CollectionFigures => {
    const row = rows.get(spec.name);
    const summary = row === undefined ? undefined : summaries.get(row.id);
    const lostHere = lost.filter(({ collectionId }) => collectionId === row?.id);
    return {
      name: spec.name,
      storedBytes: row?.storedBytes ?? 0n,
      reservedBytes: row?.reservedBytes ?? 0n,
      trashBytes: row?.trashBytes ?? 0n,
      limitBytes: spec.maxCollectionSize,
      versions: summary?.count ?? 0,
      openUploads: row === undefined ? 0 : (open.get(row.id) ?? 0),
      newestAt: summary === undefined || isBeyond(summary.newestAt, now) ? undefined : summary.newestAt,
      newestSize: summary?.newestSize,
      damaged: summary?.damaged ?? 0,
      lostCommits: lostHere.length,
      rolledBack: row !== undefined && row.rolledBackAt !== null,
      health: worst([
        healthOfSummary(spec, summary, row?.storedBytes ?? 0n, clock, now),
        storeCheck(row, lostHere, withoutManifest(summary), now).status,
      ]),
    };
  });
  const frozen = [...rows.values()].filter((row) => row.storedBytes > 0n && !configured.has(row.name)).length;
  return { collections, frozen };
}

/** A version whose manifest is missing, where there is one; damage counts in the check `integrity`. */
function withoutManifest(summary: VersionSummary | undefined): StoredVersion[] {
  if (summary === undefined || summary.withoutManifest === 0) return [];
  return [{ number: summary.newestNumber, damageReason: "", damagedAt: null, manifestRevision: 0 }];
}

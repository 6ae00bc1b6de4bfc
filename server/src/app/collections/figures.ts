import { clockState, isBeyond } from "../../domain/clock.ts";
import { type HealthStatus, worst } from "../../domain/health.ts";
import { isLost } from "../../domain/store-health.ts";
import { type ConfigSource, pinned } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import { healthChecks } from "./collections.ts";

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

/** Reads the figures of all collections in three queries that lock nothing. */
export async function collectionFigures(deps: {
  readonly database: Database;
  readonly config: ConfigSource;
}): Promise<AllFigures> {
  const { config } = pinned(deps);
  const configured = config.current().collections;
  const { now, health, facts, frozen } = await deps.database.read(async (tx) => {
    const clock = clockState(await tx.clock.read(), tx.now);
    const facts = await tx.live.facts([...configured.values()], tx.now);
    const health = new Map<string, HealthStatus>();
    for (const spec of configured.values()) {
      const checks = await healthChecks(tx, config, spec, facts.get(spec.name), clock);
      health.set(spec.name, worst(checks.map(({ status }) => status)));
    }
    return { now: tx.now, facts, health, frozen: await tx.collections.countStoredExcept([...configured.keys()]) };
  });
  const collections = [...configured.values()].map((spec): CollectionFigures => {
    const of = facts.get(spec.name);
    return {
      name: spec.name,
      storedBytes: of?.storedBytes ?? 0n,
      reservedBytes: of?.reservedBytes ?? 0n,
      trashBytes: of?.trashBytes ?? 0n,
      limitBytes: spec.maxCollectionSize,
      versions: of?.liveVersions ?? 0,
      openUploads: of?.openUploads ?? 0,
      newestAt: of?.newest === undefined || isBeyond(of.newest.begunAt, now) ? undefined : of.newest.begunAt,
      newestSize: of?.newest?.size,
      damaged: of?.damaged.count ?? 0,
      lostCommits: of?.lost.filter((upload) => isLost(upload, now)).length ?? 0,
      rolledBack: of !== undefined && of.rolledBackAt !== null,
      health: health.get(spec.name)!,
    };
  });
  return { collections, frozen };
}

import { clockState, isBeyond } from "../../domain/clock.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { type HealthStatus, worst } from "../../domain/health.ts";
import { isLost } from "../../domain/store-health.ts";
import { type ConfigSource, pinned } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { CollectionFacts } from "../ports/live-versions.ts";
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

/** Collections whose facts are in memory at once. */
const READ_AT_ONCE = 500;

/** Reads the figures of all collections in a few queries that lock nothing. */
export async function collectionFigures(deps: {
  readonly database: Database;
  readonly config: ConfigSource;
}): Promise<AllFigures> {
  const { config } = pinned(deps);
  const configured = [...config.current().collections.values()];
  return await deps.database.read(async (tx) => {
    const clock = clockState(await tx.clock.read(), tx.now);
    const collections: CollectionFigures[] = [];
    for (let at = 0; at < configured.length; at += READ_AT_ONCE) {
      const some = configured.slice(at, at + READ_AT_ONCE);
      const facts = await tx.live.facts(some, tx.now);
      for (const spec of some) {
        const of = facts.get(spec.name);
        const checks = await healthChecks(tx, config, { name: spec.name, spec }, of, clock);
        const health = worst(checks.map(({ status }) => status));
        collections.push(figuresOf(spec, of, health, tx.now));
      }
    }
    return { collections, frozen: await tx.collections.countStoredExcept(configured.map(({ name }) => name)) };
  });
}

function figuresOf(
  spec: CollectionSpec,
  of: CollectionFacts | undefined,
  health: HealthStatus,
  now: Date,
): CollectionFigures {
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
    health,
  };
}

import type { ServerStatus } from "../app/upkeep/server-status.ts";
import { time } from "./messages.ts";

/** The status of a server as a message. */
export function statusMessage({ replicas, runs, database, clock, ...status }: ServerStatus) {
  const lastOf = (kind: ServerStatus["runs"][number]["kind"]) => {
    const run = runs.find((each) => each.kind === kind);
    if (run === undefined) return undefined;
    const { startedAt, finishedAt, counts, actor, error, underWay } = run;
    return {
      startedAt: time(startedAt),
      finishedAt: time(finishedAt ?? undefined),
      counts: Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, BigInt(count)])),
      actor,
      error,
      underWay,
    };
  };
  return {
    version: status.version,
    commit: status.commit,
    database: {
      kind: database.kind,
      version: database.version,
      schema: database.migrations,
      oldestVerification: time(database.oldestVerification ?? undefined),
      damagedVersions: database.damaged,
    },
    storage: { kind: status.storage.kind, abilities: [...status.storage.abilities] },
    replicas: replicas.map(({ id, host, version, startedAt, seenAt, isAlive, isThis }) => ({
      replicaId: id,
      host,
      version,
      startedAt: time(startedAt),
      seenAt: time(seenAt),
      alive: isAlive,
      answers: isThis,
    })),
    clock: { status: clock.status, message: clock.message, until: time(clock.until) },
    lastSweep: lastOf("sweep"),
    lastVerification: lastOf("verification"),
    configuration: status.configuration,
    problems: [...status.problems],
  };
}

import type { GetServerStatusResponse } from "@strongroom/client-sdk";
import { pairs, table } from "@strongroom/command-line/table";
import { quantity } from "@strongroom/protocol/quantity";
import { formatAge, formatTime, type Timestamp, toIso } from "../terminal/format.ts";

/** What `strongroom status --server` shows. */
export function serverStatusText(status: GetServerStatusResponse, now: number): string {
  const { database, storage, replicas, clock, configuration, problems } = status;
  const head = pairs([
    ["Version", `${status.version}${status.commit === "" ? "" : ` (${status.commit.slice(0, 12)})`}`],
    ["Database", `${database?.kind} ${database?.version}, schema ${database?.schema}`],
    ["Storage", `${storage?.kind}: ${storage?.abilities.join(", ")}`],
    ["Clock", `${clock?.status}: ${clock?.message}`],
    ["Configuration", configuration?.problem || quantity(configuration?.collections ?? 0, "collection")],
    ["Last sweep", runText(status.lastSweep, now)],
    ["Last verification asked for", runText(status.lastVerification, now)],
    ["Longest not verified", longestText(status)],
  ]);
  const rows = replicas.map(({ host, version, startedAt, seenAt, alive, answers }) => [
    `${host}${answers ? " *" : ""}`,
    version,
    alive ? "alive" : "silent",
    formatAge(seenAt, now),
    formatTime(startedAt),
  ]);
  const titles = ["REPLICA", "VERSION", "STATE", "LAST SIGN", "STARTED"].map((title) => ({ title }));
  const found = problems.map(({ name, message, advice }) => `${name}: ${message}\n  ${advice}`);
  return [head, table(titles, rows), found.length === 0 ? "No problems." : `Problems:\n${found.join("\n")}`].join(
    "\n\n",
  );
}

function runText(run: GetServerStatusResponse["lastSweep"], now: number): string {
  if (run === undefined) return "never";
  const counts = Object.entries(run.counts).filter(([, count]) => count > 0n);
  const done = counts.map(([name, count]) => `${name} ${count}`).join(", ") || "nothing to do";
  const state = run.underWay ? "under way" : run.finishedAt === undefined ? "broken off" : agoText(run.finishedAt, now);
  return `${state}, by ${run.actor}: ${run.error || done}`;
}

/** `now`, `5 min ago`, `in the future`. */
function agoText(time: Timestamp | undefined, now: number): string {
  const age = formatAge(time, now);
  return /^\d/.test(age) ? `${age} ago` : age;
}

/** A version that was never verified counts from its commit on. */
function longestText({ database }: GetServerStatusResponse): string {
  const time = database?.oldestVerification;
  return time === undefined ? "no versions" : `a version since ${formatTime(time)}`;
}

/** What `--json` prints of it. */
export function serverStatusReport(status: GetServerStatusResponse) {
  const { database, storage, replicas, clock, configuration } = status;
  const run = (of: GetServerStatusResponse["lastSweep"]) =>
    of && {
      startedAt: toIso(of.startedAt),
      finishedAt: toIso(of.finishedAt),
      underWay: of.underWay,
      actor: of.actor,
      counts: of.counts,
      error: of.error || undefined,
    };
  return {
    version: status.version,
    commit: status.commit || undefined,
    database: database && {
      kind: database.kind,
      version: database.version,
      schema: database.schema,
      oldestVerification: toIso(database.oldestVerification),
      damagedVersions: database.damagedVersions,
    },
    storage: storage && { kind: storage.kind, abilities: storage.abilities },
    replicas: replicas.map(({ replicaId, host, version, startedAt, seenAt, alive, answers }) => ({
      replicaId,
      host,
      version,
      startedAt: toIso(startedAt),
      seenAt: toIso(seenAt),
      alive,
      answers,
    })),
    clock: clock && { status: clock.status, message: clock.message, until: toIso(clock.until) },
    lastSweep: run(status.lastSweep),
    lastVerification: run(status.lastVerification),
    configuration: configuration && {
      problem: configuration.problem || undefined,
      collections: configuration.collections,
      refusals: configuration.refusals,
    },
    problems: status.problems.map(({ name, message, advice }) => ({ name, message, advice })),
  };
}

import type { GetServerStatusResponse } from "@strongroom/client-sdk";
import { pairs, table } from "@strongroom/command-line/table";
import { formatAge, formatTime, toIso } from "../terminal/format.ts";

/** What `strongroom status --server` shows. */
export function serverStatusText(status: GetServerStatusResponse, now: number): string {
  const { database, storage, replicas, clock, configuration, problems } = status;
  const head = pairs([
    ["Version", `${status.version}${status.commit === "" ? "" : ` (${status.commit.slice(0, 12)})`}`],
    ["Database", `${database?.kind} ${database?.version}, schema ${database?.schema}`],
    ["Storage", `${storage?.kind}: ${storage?.abilities.join(", ")}`],
    ["Clock", `${clock?.status}: ${clock?.message}`],
    ["Configuration", configuration?.problem || `${configuration?.collections} collections`],
    ["Last sweep", runText(status.lastSweep, now)],
    ["Last verification asked for", runText(status.lastVerification, now)],
    ["Oldest verification", formatTime(database?.oldestVerification)],
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
  const done = counts.map(([name, count]) => `${count} ${name}`).join(", ") || "nothing to do";
  const state = run.underWay
    ? "under way"
    : run.finishedAt === undefined
      ? "broken off"
      : `${formatAge(run.finishedAt, now)} ago`;
  return `${state}, by ${run.actor}: ${run.error || done}`;
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

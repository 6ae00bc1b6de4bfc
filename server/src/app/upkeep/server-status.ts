import { quantity } from "@strongroom/protocol/quantity";
import type { Principal } from "../../domain/access.ts";
import { type ClockState, clockState, isBeyond } from "../../domain/clock.ts";
import { serverOutdated } from "../../domain/errors.ts";
import type { Auditor } from "../audit/auditor.ts";
import type { BlobStoreCapabilities } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { DatabaseFacts, ReplicaRow, UpkeepRun } from "../ports/upkeep-records.ts";
import type { ReadinessCheck } from "./readiness.ts";
import { SIGN_MS } from "./replica-sign.ts";
import { isUnderWay, requireOperator } from "./upkeep-runs.ts";

/** Most replicas that are shown. */
const MAX_REPLICAS = 100;

/** A replica that was silent for so many signs is not there any more. */
const MISSED_SIGNS = 4;

/** A server whose last sweep ended so long ago has a problem, in milliseconds. */
const LATE_SWEEP_MS = 3_600_000;

/** What the status of a server is made of. */
export interface StatusDeps {
  readonly database: Database;
  readonly store: { readonly capabilities: BlobStoreCapabilities };
  readonly config: ConfigSource;
  readonly readiness: { check(): Promise<readonly ReadinessCheck[]> };
  readonly replica: Pick<ReplicaRow, "id" | "version">;
  /** Why this server does not chain, sign or prune the audit log, and whether that contradicts what was signed. */
  readonly auditor: Pick<Auditor, "problem" | "contradiction">;
  /** Kind of database: `pglite` or `postgres`. */
  readonly databaseKind: string;
  /** Id of the commit it was made from; empty where that is not known. */
  readonly commit: string;
}

/** Something that is wrong, and what to do. */
export interface ServerProblem {
  /** A stable name of what it is about. */
  readonly name: string;
  readonly message: string;
  readonly advice: string;
}

/** A replica that was seen. */
export interface SeenReplica extends ReplicaRow {
  readonly isThis: boolean;
  /** Whether it said so a short time ago. */
  readonly isAlive: boolean;
}

/** How a server is. */
export interface ServerStatus {
  readonly version: string;
  readonly commit: string;
  readonly database: DatabaseFacts & { readonly kind: string };
  readonly storage: { readonly kind: string; readonly abilities: readonly string[] };
  readonly replicas: readonly SeenReplica[];
  readonly clock: ClockState;
  readonly runs: readonly (UpkeepRun & { readonly underWay: boolean })[];
  readonly configuration: { readonly problem: string; readonly collections: number; readonly refusals: number };
  readonly problems: readonly ServerProblem[];
}

/** Describes the server, its database, storage and replicas, and what is wrong. For systemAdmin only. */
export async function getServerStatus(deps: StatusDeps, principal: Principal): Promise<ServerStatus> {
  requireOperator(principal);
  const checks = await deps.readiness.check();
  const { now, facts, rows, runs, clock } = await deps.database.read(async (tx) => ({
    now: tx.now,
    facts: await tx.records.facts(),
    rows: await tx.records.replicas(MAX_REPLICAS),
    runs: await tx.records.runs(),
    clock: clockState(await tx.clock.read(), tx.now),
  }));
  const replicas = rows.map((row) => ({
    ...row,
    isThis: row.id === deps.replica.id,
    isAlive: !isBeyond(row.seenAt, now) && now.getTime() - row.seenAt.getTime() < MISSED_SIGNS * SIGN_MS,
  }));
  const { capabilities } = deps.store;
  const config = deps.config.status?.();
  const status = {
    version: deps.replica.version,
    commit: deps.commit,
    database: { ...facts, kind: deps.databaseKind },
    storage: { kind: capabilities.name, abilities: abilitiesOf(capabilities) },
    replicas,
    clock,
    runs: runs.map((run) => ({ ...run, underWay: isUnderWay(run, now) })),
    configuration: {
      problem: config?.problem ?? "",
      collections: deps.config.current().collections.size,
      refusals: config?.refusals ?? 0,
    },
  };
  return { ...status, problems: problemsOf({ ...status, auditor: deps.auditor }, checks, now) };
}

function abilitiesOf({ verifiesPartDigests, minPartSize, maxParts, keepsRefusedBytes }: BlobStoreCapabilities) {
  return [
    verifiesPartDigests ? "verifies the digests of parts itself" : "leaves the digests of parts to the server",
    `parts of at least ${minPartSize} bytes`,
    `at most ${maxParts} parts in an object`,
    ...(keepsRefusedBytes ? ["keeps the bytes of refused parts until the upload ends"] : []),
  ];
}

function problemsOf(
  {
    database,
    replicas,
    version,
    clock,
    runs,
    configuration,
    auditor,
  }: Omit<ServerStatus, "problems"> & Pick<StatusDeps, "auditor">,
  checks: readonly ReadinessCheck[],
  now: Date,
): ServerProblem[] {
  const problems: ServerProblem[] = [];
  const add = (name: string, message: string, advice: string) => problems.push({ name, message, advice });
  for (const { name, message } of checks.filter((check) => !check.ok && !check.isRemark))
    add(
      name,
      message,
      "Until this is mended the server is not ready for calls; docs/operations.md explains each check.",
    );
  if (configuration.problem !== "" && checks.every(({ name, ok }) => name !== "configuration" || ok))
    add("configuration", configuration.problem, "Correct the file; until then the state before it stays in force.");
  if (clock.status !== "right")
    add("clock", clock.message, "Correct the database's clock; if it is right: `strongroom sweep --clock-is-right`.");
  if (auditor.problem !== undefined)
    add(
      "audit",
      auditor.problem,
      // A store or database that failed once is no sign of a changed log.
      auditor.contradiction === undefined
        ? "It is tried again, at the latest after a minute."
        : "`strongroom audit verify` says what was changed; docs/audit.md says how the log goes on.",
    );
  if (database.damaged > 0)
    add(
      "integrity",
      `${quantity(database.damaged, "live version")} failed their last verification`,
      "`strongroom status --health failed` shows the collections; make new backups, and look at the store.",
    );
  const others = new Set(replicas.filter((each) => each.isAlive).map((each) => each.version));
  others.delete(version);
  if (others.size > 0)
    add(
      "versions",
      `replicas of other versions run beside ${version}: ${[...others].join(", ")}`,
      "Finish the upgrade, or wait until it is.",
    );
  if (database.isNewer) {
    const { message } = serverOutdated();
    add("outdated", message, "Upgrade this server. While no server of the newer version runs, nobody does its upkeep.");
  }
  const sweep = runs.find(({ kind }) => kind === "sweep");
  if (sweep !== undefined && sweep.error !== "") add("sweep", sweep.error, "The next sweep tries again.");
  const sweptAt = sweep?.finishedAt ?? null;
  // One that a clock ahead dated says nothing of how long ago it was.
  if (sweptAt !== null && (isBeyond(sweptAt, now) || now.getTime() - sweptAt.getTime() > LATE_SWEEP_MS))
    add(
      "sweep",
      `the last sweep ended ${sweptAt.toISOString()}`,
      "Look at the logs of the servers; nothing is purged or expires meanwhile.",
    );
  return problems;
}

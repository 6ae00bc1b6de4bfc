import { Auditor } from "../../src/app/audit/auditor.ts";
import { AuditTrail } from "../../src/app/audit/trail.ts";
import type { BlobStore } from "../../src/app/ports/blob-store.ts";
import { getServerStatus, type ServerProblem } from "../../src/app/upkeep/server-status.ts";
import { DAY, type Log } from "./audit-log.ts";

/** A server that signs the log, by a clock that the test moves. */
export function auditing(
  log: Log,
  { store = log.store, timesHold = () => true }: { store?: BlobStore; timesHold?: () => boolean } = {},
) {
  const said: string[] = [];
  let now = 0;
  const note = (_: unknown, text: string) => void said.push(text);
  const { database } = log.deps;
  const auditor = new Auditor({
    ...log.deps,
    store,
    config: log.h.deps.config,
    trail: new AuditTrail({ database, log: log.h.deps.log }),
    log: { ...log.h.deps.log, info: note, warn: note, error: note },
    retentionMs: 400 * DAY,
    timesHold,
    monotonic: () => now,
  });
  const told = async (): Promise<readonly ServerProblem[]> => {
    const readiness = { check: async () => [] };
    const replica = { id: "00000000-0000-4000-8000-000000000001", version: "1.0.0" };
    const deps = { ...log.h.deps, readiness, replica, auditor, databaseKind: "test", commit: "" };
    return (await getServerStatus(deps, log.h.admin)).problems;
  };
  return {
    auditor,
    said: () => said.splice(0),
    async tick(ms: number) {
      now += ms;
      await auditor.tick();
    },
    told,
    async problems() {
      return (await told()).map(({ name, message }) => `${name}: ${message}`);
    },
  };
}

/**
 * A server whose database was migrated by a newer version while it ran: what it leaves undone, and how it says so. On
 * both kinds of database.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { Auditor } from "../src/app/audit/auditor.ts";
import { AuditTrail } from "../src/app/audit/trail.ts";
import { applyObjects } from "../src/app/objects/change-objects.ts";
import { ClockWatch } from "../src/app/upkeep/clock-watch.ts";
import { getServerStatus } from "../src/app/upkeep/server-status.ts";
import { Sweeper } from "../src/app/upkeep/sweeper.ts";
import { UpkeepRuns } from "../src/app/upkeep/upkeep-runs.ts";
import { signer } from "./support/audit-log.ts";
import { type Harness, harnessTest, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const HOUR = 3_600_000;

/** Runs `work` while the database has a migration that this version does not know. */
async function whileNewer(h: Harness, work: () => Promise<void>): Promise<void> {
  const database = h.deps.database as SqlDatabase;
  await database.query(
    sql`insert into drizzle.__drizzle_migrations (hash, created_at)
        select 'newer', max(created_at) + 1 from drizzle.__drizzle_migrations`,
  );
  try {
    await work();
  } finally {
    await database.query(sql`delete from drizzle.__drizzle_migrations where hash = 'newer'`);
  }
}

const problemsOf = async (h: Harness) => {
  const replica = { id: "00000000-0000-4000-8000-000000000001", version: "1.0.0" };
  const deps = {
    ...h.deps,
    readiness: { check: async () => [] },
    replica,
    auditor: { problem: undefined, contradiction: undefined },
  };
  return (await getServerStatus({ ...deps, databaseKind: "test", commit: "" }, h.admin)).problems;
};

test("nothing that is done by one server at a time is done by an outdated one", async (t) => {
  const { h } = t.context;
  const { database } = h.deps;
  t.deepEqual(await database.exclusively("sweep", async () => 1), { result: 1 });
  await whileNewer(h, async () => {
    await refused(
      t,
      "SERVER_OUTDATED",
      database.exclusively("sweep", async () => t.fail("it ran")),
    );
    // Backups go on.
    const { name } = h.add();
    t.is((await h.upload(name, openpgpMessage(2000))).version.number, 1n);
  });
  t.deepEqual(await database.exclusively("sweep", async () => 2), { result: 2 });
});

test("an outdated server says that it does not sweep, at once and every hour, and refuses to be asked", async (t) => {
  const { h } = t.context;
  const said: string[] = [];
  const swept: unknown[] = [];
  let now = 0;
  const deps = {
    ...h.deps,
    clockWatch: new ClockWatch(h.deps),
    log: { ...h.deps.log, warn: (_: unknown, text: string) => void said.push(text) },
  };
  const sweeper = new Sweeper(
    deps,
    24 * HOUR,
    (report) => void swept.push(report),
    () => now,
  );
  t.teardown(async () => await sweeper.stop(1000));
  /** One look of the sweeper itself. */
  const look = async () => {
    const before = said.length;
    sweeper.request();
    // After it: one at a time.
    await sweeper.runOnce().catch(() => {});
    return said.slice(before);
  };
  const runs = new UpkeepRuns(h.deps, sweeper, 1n);
  await whileNewer(h, async () => {
    t.deepEqual(
      (await look()).map((text) => /^this server is outdated: a newer version of Strongroom/.test(text)),
      [true],
    );
    now += HOUR - 1;
    t.deepEqual(await look(), []);
    now += 1;
    t.is((await look()).length, 1);
    t.deepEqual(swept, [], "it says nothing of sweeps, which a newer server may do well");
    await refused(t, "SERVER_OUTDATED", runs.sweep(h.admin));
    const problems = await problemsOf(h);
    t.deepEqual(
      problems.map(({ name }) => name),
      ["outdated"],
    );
    t.regex(problems[0]!.message, /a newer version of Strongroom has migrated the database/);
  });
  t.true(await runs.sweep(h.admin));
  t.is(swept.length, 1);
  t.deepEqual(await problemsOf(h), []);
});

test("a sweep that is asked for while another server sweeps has not ended", async (t) => {
  const { h } = t.context;
  const sweeper = new Sweeper({ ...h.deps, clockWatch: new ClockWatch(h.deps) }, HOUR);
  const runs = new UpkeepRuns(h.deps, sweeper, 1n);
  await h.deps.database.exclusively("sweep", async () => t.false(await runs.sweep(h.admin)));
  t.true(await runs.sweep(h.admin));
});

test("an outdated server leaves the audit log to others, which is no trouble of the log", async (t) => {
  const { h } = t.context;
  const { database } = h.deps;
  const said: unknown[] = [];
  let now = 0;
  const auditor = new Auditor({
    ...h.deps,
    signer,
    trail: new AuditTrail({ database, log: h.deps.log }),
    log: { ...h.deps.log, error: (_: unknown, text: string) => void said.push(text) },
    retentionMs: 1000 * HOUR,
    timesHold: () => true,
    monotonic: () => now,
  });
  const head = async () => (await database.read(async (tx) => await tx.auditLog.chain())).headSequence;
  await whileNewer(h, async () => {
    h.add();
    for (let tick = 0; tick < 3; tick++) {
      now += 60_000;
      await auditor.tick();
    }
    t.is(await head(), 0n);
    t.is(auditor.problem, undefined);
    t.deepEqual(said, []);
  });
  await auditor.tick();
  t.is(await head(), 1n);
});

test("a change of the configuration is refused for what it is, and not as somebody else's", async (t) => {
  const { h } = t.context;
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "site"), { recursive: true });
  const document = `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: {name: db}
spec: {maxBackupsCount: 2, maxOneVersionSize: 1M, maxCollectionSize: 10M}
`;
  await writeFile(join(dir, "site/c.yaml"), document);
  const config = await ConfigFilesSource.open(dir, { settle: async () => {} });
  t.teardown(async () => await config.close());
  const deps = { config, database: h.deps.database, log: h.deps.log, sha256: String };
  const options = {
    dryRun: false,
    expectedRevision: "",
    allowNoAdmin: true,
    confirmRemovals: 0n,
    answerFindings: false,
  };
  const change = async (count: number) =>
    await applyObjects(deps, h.admin, { documents: document.replace("Count: 2", `Count: ${count}`), ...options });
  await whileNewer(h, async () => {
    await refused(t, "SERVER_OUTDATED", change(3));
  });
  await change(3);
  t.is(config.current().collections.get("db")?.maxBackupsCount, 3);
});

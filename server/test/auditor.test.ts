/** How often a server signs and prunes the audit log, and what it says while that fails. */
import anyTest, { type TestFn } from "ava";
import { AUDIT_HEADS } from "../src/domain/object-keys.ts";
import { DAY, filled, Log } from "./support/audit-log.ts";
import { auditing } from "./support/auditing.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const headsOf = async ({ store }: Log) => (await Array.fromAsync(store.list(AUDIT_HEADS))).length;

for (const holds of [true, false])
  test(`a head is signed every minute while times ${holds ? "hold" : "do not hold"}`, async (t) => {
    const { h } = t.context;
    const log = new Log(h);
    const server = auditing(log, { timesHold: () => holds });
    const added = { kind: "version.added", actor: h.admin, collectionName: "c", details: {} } as const;
    for (let tick = 0; tick < 120; tick++) {
      await h.deps.database.transaction(async (tx) => await tx.audit(added));
      await server.tick(5000);
    }
    const heads = await headsOf(log);
    t.true(heads >= 10 && heads <= 11, `${heads} heads in 10 minutes`);
  });

test("what a clock in doubt kept from being pruned goes a minute after it is right", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(500 * DAY);
  let holds = false;
  const server = auditing(log, { timesHold: () => holds });
  const first = async () => (await log.sql.read(async (tx) => await tx.auditLog.chained(0n, 1)))[0]?.place;
  await server.tick(0);
  t.is(await first(), 1n);
  holds = true;
  await server.tick(60_000);
  t.not(await first(), 1n);
});

test("a pruning that failed once is tried again within a minute, and is told as no changed log", async (t) => {
  const log = await filled(t.context.h);
  const store = new FaultyBlobStore(log.store);
  const server = auditing(log, { store });
  await server.tick(0);
  t.deepEqual(await server.told(), []);
  store.fail("list", { when: "before" });
  await server.tick(3_600_000);
  t.truthy(server.auditor.problem);
  t.is(server.auditor.contradiction, undefined);
  const [problem, ...others] = await server.told();
  t.deepEqual(others, []);
  t.is(problem?.name, "audit");
  t.regex(problem?.advice ?? "", /^It is tried again/);
  await server.tick(5000);
  t.truthy(server.auditor.problem, "not every few seconds");
  await server.tick(55_000);
  t.deepEqual(await server.told(), []);
  t.is(server.said().at(-1), "audit: the log is pruned again");

  for await (const { key } of log.store.list(AUDIT_HEADS)) await log.store.delete(key);
  await server.tick(3_600_000);
  t.regex((await server.told())[0]?.advice ?? "", /audit verify/);
});

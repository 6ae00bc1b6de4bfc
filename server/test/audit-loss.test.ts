/**
 * Heads of the audit log that are not in the store any more, and losses that an operator accepts: on both kinds of
 * database. And who is told, by the server that signs.
 */
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { acceptLoss, NoAuditLossError } from "../src/app/audit/accept-loss.ts";
import { chainEvents } from "../src/app/audit/chain.ts";
import { AuditContradictionError, writeHead } from "../src/app/audit/heads.ts";
import { pruneLog } from "../src/app/audit/prune.ts";
import { AUDIT_HEADS, auditHeadKey } from "../src/domain/object-keys.ts";
import { DAY, filled, Log, signer } from "./support/audit-log.ts";
import { auditing } from "./support/auditing.ts";
import { type Harness, harnessTest } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

/** Everything under the heads of a store, as a copy that is put back later. */
async function copiedHeads({ store }: Log): Promise<{ putBack(): Promise<void> }> {
  const heads = new Map<string, Uint8Array>();
  for await (const { key } of store.list(AUDIT_HEADS)) heads.set(key, (await store.get(key, 99_999))!);
  return {
    async putBack() {
      for (const key of await keysOf(store)) if (!heads.has(key)) await store.delete(key);
      for (const [key, bytes] of heads) await store.put(key, bytes);
    },
  };
}

async function keysOf(store: Log["store"]): Promise<string[]> {
  return (await Array.fromAsync(store.list(AUDIT_HEADS))).map(({ key }) => key);
}

/** The log goes on as it should: rows are signed, and a verification finds nothing. */
async function goesOn(t: ExecutionContext, log: Log): Promise<void> {
  await log.add(2);
  await log.sign();
  t.deepEqual((await log.verify()).problems, []);
  await t.throwsAsync(acceptLoss(log.deps), { instanceOf: NoAuditLossError, message: /agrees with its newest head/ });
}

test("after newest heads were removed nothing is signed, and an accepted loss goes on", async (t) => {
  const log = await filled(t.context.h);
  await log.store.delete(auditHeadKey(2n));
  await t.throwsAsync(log.sign(), {
    instanceOf: AuditContradictionError,
    message: /head 2 is missing in the store, whose newest is 1/,
  });
  t.regex((await log.verify()).problems.join(), /head 2, which the database knows of, is not in the store/);
  const head = await acceptLoss(log.deps);
  t.is(head.sequence, 3n);
  t.like(head.lost, [{ fromPlace: 11n, throughSequence: 2n }]);
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.regex(report.notes.join(), /rows from 11 on, which heads up to 2 had signed, are lost, or those heads/);
  await goesOn(t, log);
});

test("after all heads were removed nothing is signed silently, and an accepted loss goes on", async (t) => {
  const log = await filled(t.context.h);
  for (const key of await keysOf(log.store)) await log.store.delete(key);
  await t.throwsAsync(log.sign(), {
    instanceOf: AuditContradictionError,
    message: /head 2 is missing in the store, which has none/,
  });
  t.deepEqual(await keysOf(log.store), []);
  const { problems } = await log.verify();
  t.regex(
    problems.join("\n"),
    /there is no signed head[\s\S]*head 2, which the database knows of, is not in the store/,
  );
  const head = await acceptLoss(log.deps);
  t.is(head.sequence, 3n);
  t.like(head.lost, [{ fromPlace: 1n, throughSequence: 2n }]);
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.regex(report.notes.join(), /rows from 1 on, which heads up to 2 had signed/);
  await goesOn(t, log);
});

test("a log that was pruned goes on after all heads were removed, from where it begins", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(400 * DAY);
  await log.sign();
  t.is(await pruneLog(log.deps, 300 * DAY), 20);
  for (const key of await keysOf(log.store)) await log.store.delete(key);
  await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError });
  const head = await acceptLoss(log.deps);
  t.is(head.cut.place, 20n);
  t.deepEqual((await log.verify()).problems, []);
  await goesOn(t, log);
});

test("a log of which no head was ever signed has lost nothing", async (t) => {
  const log = new Log(t.context.h);
  await log.add(3);
  await chainEvents(log.deps.database);
  await t.throwsAsync(acceptLoss(log.deps), { instanceOf: NoAuditLossError, message: /neither store nor database/ });
});

test("a storage that was put back from an older copy goes on, though the log was pruned since", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(400 * DAY);
  await log.add(5);
  await log.sign();
  const copy = await copiedHeads(log);
  t.is(await pruneLog(log.deps, 300 * DAY), 20);
  await log.add(3);
  await log.sign();
  await copy.putBack();
  await log.add(1);
  await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError });
  await acceptLoss(log.deps);
  // The head that said so is gone, so this is not known as a pruning until the next one.
  t.deepEqual((await log.verify()).problems, ["rows 1 to 20 are missing"]);
  await log.add(1);
  await log.sign();
  t.is(await pruneLog(log.deps, 300 * DAY), 0);
  t.deepEqual((await log.verify()).problems, []);
  await goesOn(t, log);
});

test("rows that a thief removed beyond those are no pruning", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(400 * DAY);
  await log.add(5);
  await log.sign();
  await log.sql.query(sql`delete from audit_events where place <= 21`);
  await t.throwsAsync(pruneLog(log.deps, 300 * DAY), { instanceOf: AuditContradictionError });
  t.regex((await log.verify()).problems.join(), /rows 1 to 21 are missing/);
});

test("heads that an accepted loss made void do not say that rows which were removed since were pruned", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(400 * DAY);
  await log.sign();
  // A head that says that 20 rows were pruned.
  t.is(await pruneLog(log.deps, 300 * DAY), 20);
  // The database is rebuilt, and its log begins with row 1.
  await log.sql.query(sql`truncate audit_events, audit_chain`);
  await log.add(30);
  await chainEvents(log.deps.database);
  t.is((await acceptLoss(log.deps)).cut.place, 0n);
  t.deepEqual((await log.verify()).problems, []);
  // A thief removes the first rows, and something at the end that makes an operator accept a loss.
  await log.sql.query(sql`delete from audit_events where place <= 15 or place >= 31`);
  const head = await acceptLoss(log.deps);
  t.is(head.cut.place, 0n);
  t.regex((await log.verify()).problems.join(), /rows 1 to 15 are missing/);
});

test("a second loss by the storage keeps what the first one made void", async (t) => {
  const log = await filled(t.context.h);
  await log.sql.query(sql`truncate audit_events, audit_chain`);
  await log.add(12);
  await chainEvents(log.deps.database);
  const copy = await copiedHeads(log);
  await acceptLoss(log.deps);
  await goesOn(t, log);
  // Back to where no head knew of the first loss.
  await copy.putBack();
  await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError });
  const head = await acceptLoss(log.deps);
  t.like(head.lost, [{ fromPlace: 1n, throughSequence: 4n }]);
  t.deepEqual((await log.verify()).problems, []);
  await goesOn(t, log);
});

test("objects that somebody put among the heads keep nobody from signing and verifying", async (t) => {
  const log = await filled(t.context.h);
  await log.store.put(auditHeadKey(9n), new Uint8Array(70_000));
  await log.store.put(`${AUDIT_HEADS}zzz`, new Uint8Array(10));
  await log.sign();
  const { problems, head } = await log.verify();
  t.is(head?.sequence, 3n);
  t.regex(problems.join("\n"), /0000000000000009: it has 70000 bytes[\s\S]*zzz: its name is not that of a head/);
});

test("a head of another installation, signed by the same key, counts for nothing", async (t) => {
  const log = await filled(t.context.h);
  const { id } = await log.deps.database.installation();
  const text = new TextDecoder().decode((await log.store.get(auditHeadKey(2n), 9999))!).split("\n")[0]!;
  const other = text
    .replace(id, "00000000-0000-4000-8000-000000000000")
    .replace('"sequence":"2"', '"sequence":"9"')
    .replace('"lost":[]', '"lost":[{"fromPlace":"1","throughSequence":"9","at":"2026-01-01T00:00:00.000Z"}]');
  await log.store.put(auditHeadKey(9n), new TextEncoder().encode(`${other}\n${signer.sign(other)}\n`));
  await log.sign();
  const { problems, head } = await log.verify();
  t.is(head?.sequence, 3n);
  t.deepEqual(problems.length, 1);
  t.regex(problems.join(), /0000000000000009: it is of installation 00000000/);
  await t.throwsAsync(acceptLoss(log.deps), { instanceOf: NoAuditLossError, message: /its newest head, 3/ });
});

test("a server says that heads are gone, also while nothing happens, until an operator has accepted it", async (t) => {
  const log = await filled(t.context.h);
  const server = auditing(log);
  await server.tick(60_000);
  t.is(server.auditor.problem, undefined);
  t.deepEqual(await server.problems(), []);
  server.said();
  for (const key of await keysOf(log.store)) await log.store.delete(key);
  await server.tick(60_000);
  t.is(server.auditor.problem, undefined, "nobody has looked");
  await server.tick(3_600_000);
  t.regex(server.auditor.contradiction ?? "", /which has none/);
  t.regex((await server.problems()).join(), /^audit: the audit log was changed or lost: head \d+ is missing/);
  t.is(server.said().length, 1);
  for (let tick = 0; tick < 10; tick++) await server.tick(5000);
  t.deepEqual(server.said(), [], "not every few seconds");
  await server.tick(3_600_000);
  t.is(server.said().length, 1, "but now and then again");
  t.deepEqual(await keysOf(log.store), []);

  await acceptLoss(log.deps);
  await server.tick(5000);
  t.is(server.auditor.problem, undefined);
  t.deepEqual(server.said(), ["audit: the log is chained and signed again"]);
  t.deepEqual((await log.verify()).problems, []);
});

test("a server that does not get to sign since another does says nothing new of the log", async (t) => {
  const log = await filled(t.context.h);
  const server = auditing(log);
  await log.store.delete(auditHeadKey(2n));
  await server.tick(60_000);
  t.truthy(server.auditor.contradiction);
  server.said();
  await log.deps.database.exclusively("audit", async () => {
    await log.add(1);
    await server.tick(5000);
  });
  t.truthy(server.auditor.contradiction);
  t.deepEqual(server.said(), []);
});

test("what keeps the log from being pruned is a problem until it was pruned", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(500 * DAY);
  const server = auditing(log);
  await writeHead(log.deps, { always: true });
  await log.sql.query(sql`update audit_events set hash = decode('00', 'hex') where place = 20`);
  await server.tick(60_000);
  t.regex(server.auditor.contradiction ?? "", /row 20 is not what was signed/);
  await log.add(1);
  await server.tick(5000);
  t.regex(server.auditor.contradiction ?? "", /row 20 is not what was signed/, "though the log is signed");
});

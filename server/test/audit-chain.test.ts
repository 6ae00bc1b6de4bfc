/**
 * The audit log against a thief who owns the database, and who knows how rows are hashed: every kind of change, by real
 * SQL, on both kinds of database. And what may happen to a chain that nobody attacks.
 */
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { AuditKeyError, makeAuditKey, openAuditKey, openAuditPublicKeys } from "../src/adapters/audit-key/audit-key.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { acceptLoss, NoAuditLossError } from "../src/app/audit/accept-loss.ts";
import { chainEvents } from "../src/app/audit/chain.ts";
import { noteConfiguration } from "../src/app/audit/configuration-events.ts";
import { AuditContradictionError, storedHeads, writeHead } from "../src/app/audit/heads.ts";
import { pruneLog } from "../src/app/audit/prune.ts";
import { allEntries, entryOf, exportedEntry, verifyDatabase } from "../src/app/audit/read-log.ts";
import { AuditTrail, MOST_NOTED } from "../src/app/audit/trail.ts";
import { verifyLog } from "../src/app/audit/verify-log.ts";
import { copyStorage } from "../src/app/upkeep/copy-storage.ts";
import { takeInventory } from "../src/app/upkeep/inventory.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { AUDIT_KINDS } from "../src/domain/audit.ts";
import { auditHeadKey } from "../src/domain/object-keys.ts";
import { filled, Log, prunedWhole, signer } from "./support/audit-log.ts";
import { type Harness, harnessTest, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const DAY = 24 * 3_600_000;
let folder: string;
anyTest.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "strongroom-audit-"));
});
anyTest.after.always(async () => await rm(folder, { recursive: true }));

test("a log that nobody touched is whole, and says which rows are at risk", async (t) => {
  const log = await filled(t.context.h);
  await chainEvents(log.deps.database);
  await log.add(1);
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.rows, 20);
  t.is(report.head?.place, 20n);
  t.deepEqual({ rows: report.tail.rows, seconds: report.tail.seconds }, { rows: 3, seconds: 60 });
});

/** What a thief does with the database, and what is said of it. */
const THEFTS: ReadonlyArray<readonly [title: string, said: RegExp, theft: (log: Log) => Promise<unknown>]> = [
  ...[
    "actor = 'user:bob'",
    "kind = 'version.read'",
    "at = at + interval '1 hour'",
    "reason = ''",
    "address = '::1'",
  ].map(
    (change) =>
      [
        `a row altered: ${change}`,
        /row 5 .* was altered/,
        (log: Log) => log.sql.query(sql`update audit_events set ${sql.raw(change)} where place = 5`),
      ] as const,
  ),
  [
    "details altered",
    /row 5 .* was altered/,
    (log) => log.sql.query(sql`update audit_events set details = '{"number":"7"}' where place = 5`),
  ],
  ["a row removed", /row 5 is missing/, (log) => log.sql.query(sql`delete from audit_events where place = 5`)],
  [
    "the first rows removed",
    /rows 1 to 3 are missing/,
    (log) => log.sql.query(sql`delete from audit_events where place <= 3`),
  ],
  [
    "two rows exchanged",
    /row 5 does not follow|row 5 .* was altered/,
    async (log) => {
      await log.sql.query(sql`update audit_events set place = -5 where place = 5`);
      await log.sql.query(sql`update audit_events set place = 5 where place = 6`);
      await log.sql.query(sql`update audit_events set place = 6 where place = -5`);
    },
  ],
  [
    "a row inserted, and the others moved",
    /row 5 does not follow|row 5 .* was altered/,
    async (log) => {
      await log.sql.query(sql`update audit_events set place = -place where place >= 5`);
      await log.sql.query(sql`update audit_events set place = 1 - place where place < 0`);
      await log.sql.query(
        sql`insert into audit_events (id, at, kind, actor, collection_name, details, place, previous_hash, hash)
            select gen_random_uuid(), at, kind, actor, collection_name, details, 5, previous_hash, hash
            from audit_events where place = 4`,
      );
    },
  ],
  ...["-1", "0", "-9223372036854775808"].map(
    (place) =>
      [
        `a row inserted at the place ${place}`,
        new RegExp(`row ${place} \\(.*it was inserted`),
        (log: Log) =>
          log.sql.query(
            sql`insert into audit_events (id, at, kind, actor, collection_name, details, place, previous_hash, hash)
                select gen_random_uuid(), at, 'version.removed', 'user:alice', 'main', details, ${sql.raw(place)}, hash, hash
                from audit_events where place = 4`,
          ),
      ] as const,
  ),
  [
    "a row altered, and everything hashed again",
    /row 10 is not the one that head 1 signed/,
    async (log) => {
      await log.sql.query(sql`update audit_events set actor = 'user:bob' where place = 5`);
      await log.rehash();
    },
  ],
  [
    "a row altered, hashed again, and signed by the server, which was shown older heads only",
    /row 10 is not the one that head 1 signed/,
    async (log) => {
      const heads = await Promise.all([1n, 2n].map(async (n) => (await log.store.get(auditHeadKey(n), 9999))!));
      await log.sql.query(sql`update audit_events set actor = 'user:bob' where place = 5`);
      await log.rehash();
      await log.sql.query(sql`update audit_chain set head_sequence = 0, head_place = 0`);
      for (const n of [1n, 2n]) await log.store.delete(auditHeadKey(n));
      await writeHead(log.deps);
      for (const [i, bytes] of heads.entries()) await log.store.put(auditHeadKey(BigInt(i) + 1n), bytes);
    },
  ],
  [
    "a row removed, and everything hashed again",
    /head 1 signed|missing at the end/,
    async (log) => {
      await log.sql.query(sql`delete from audit_events where place = 5`);
      await log.rehash();
    },
  ],
  [
    "the tail cut off, with the state of the chain",
    /rows 16 to 20 are missing at the end/,
    async (log) => {
      await log.sql.query(sql`delete from audit_events where place > 15`);
      await log.sql.query(sql`update audit_chain set place = 15, head_sequence = 1, head_place = 10`);
    },
  ],
  [
    "the tail taken out of the chain",
    /rows 16 to 20 are missing at the end/,
    (log) =>
      log.sql.query(sql`update audit_events set place = null, hash = null, previous_hash = null where place > 15`),
  ],
  ["everything removed", /rows 1 to 20 are missing/, (log) => log.sql.query(sql`truncate audit_events, audit_chain`)],
  [
    "an older head in the place of the newest",
    /audit\/heads\/0000000000000002: it is head 1, which somebody put there/,
    async (log) => await log.store.put(auditHeadKey(2n), (await log.store.get(auditHeadKey(1n), 9999))!),
  ],
  [
    "the newest head removed",
    /head 2, which the database knows of, is not in the store/,
    async (log) => await log.store.delete(auditHeadKey(2n)),
  ],
  [
    "a head of another key",
    /0000000000000003: it is not signed by the audit key/,
    async (log) => {
      const other = join(folder, `thief-${Math.random()}`);
      await makeAuditKey(other);
      await log.sql.query(sql`update audit_chain set reserved_sequence = 2`);
      await chainEvents(log.deps.database);
      await writeHead({ ...log.deps, signer: { ...(await openAuditKey(other)), verify: signer.verify } });
    },
  ],
  [
    "a head that was edited",
    /0000000000000002: it is not signed by the audit key/,
    async (log) => {
      const text = new TextDecoder().decode((await log.store.get(auditHeadKey(2n), 9999))!);
      await log.store.put(auditHeadKey(2n), new TextEncoder().encode(text.replace('"place":"20"', '"place":"10"')));
    },
  ],
];

for (const [title, said, theft] of THEFTS)
  test(`a thief is found out: ${title}`, async (t) => {
    const log = await filled(t.context.h);
    t.deepEqual((await log.verify()).problems, []);
    await theft(log);
    const { problems } = await log.verify();
    t.regex(problems.join("\n"), said);
  });

test("what was changed before the last head is not signed again, and the log says so", async (t) => {
  const log = await filled(t.context.h);
  await log.sql.query(sql`update audit_events set actor = 'user:bob' where place = 18`);
  await log.rehash();
  await log.add(1);
  await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError, message: /row 20 is not what was signed/ });
  const before = await countHeads(log);
  await log.sql.query(sql`update audit_events set details = '{}' where place = 22`);
  t.is(await countHeads(log), before);
});

test("a head that was kept elsewhere finds out who owns the database and the store", async (t) => {
  const log = await filled(t.context.h);
  const kept = await keptHead(log, 2n);
  // Back to the first head, in both.
  await log.store.delete(auditHeadKey(2n));
  await log.sql.query(sql`delete from audit_events where place is null or place > 10`);
  await log.sql.query(sql`update audit_chain set place = 10, head_sequence = 1, head_place = 10`);
  t.deepEqual((await log.verify()).problems, [], "nothing is left that could tell");
  t.regex((await log.verify(kept)).problems.join(), /no head as new as 2, which was kept elsewhere/);
});

test("a head that was kept elsewhere finds out who has the key too, and writes another history", async (t) => {
  const log = await filled(t.context.h);
  const kept = await keptHead(log, 2n);
  for (const sequence of [1n, 2n]) await log.store.delete(auditHeadKey(sequence));
  await log.sql.query(sql`update audit_events set actor = 'user:bob' where place = 5`);
  await log.rehash();
  await log.sql.query(sql`update audit_chain set head_sequence = 0, head_place = 0, reserved_sequence = 0`);
  for (let heads = 0; heads < 3; heads++) {
    await log.add(1);
    await log.sign();
  }
  t.deepEqual((await log.verify()).problems, [], "nothing is left that could tell");
  t.regex((await log.verify(kept)).problems.join(), /not the one that head 2 signed/);
});

test("events beyond their time are pruned up to a signed head, and the log stays whole", async (t) => {
  const { h } = t.context;
  const log = await filled(h);
  h.clock.advance(400 * DAY);
  await log.sign();
  await log.add(3);
  await log.sign();
  t.is(await pruneLog(log.deps, 401 * DAY), 0);
  t.is(await pruneLog(log.deps, 300 * DAY), 20);
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.rows, 5);
  t.is(report.head?.cut.place, 20n);
  await log.add(1);
  await log.sign();
  t.is(await pruneLog(log.deps, 300 * DAY), 0);
  t.deepEqual((await log.verify()).problems, []);
  // A thief cannot say that more was pruned.
  await log.sql.query(sql`delete from audit_events where place <= 22`);
  t.regex((await log.verify()).problems.join(), /rows 21 to 22 are missing/);
});

test("a row put among those that were pruned is found out; what an interrupted pruning left is none", async (t) => {
  const { h } = t.context;
  const log = await filled(h);
  h.clock.advance(400 * DAY);
  await log.sign();
  await log.add(3);
  await log.sign();
  await log.sql.query(
    sql`create temporary table last_rows as select * from audit_events where place between 18 and 20`,
  );
  t.is(await pruneLog(log.deps, 300 * DAY), 20);
  const put = (what: string) =>
    log.sql.query(sql`insert into audit_events overriding system value select * from last_rows where ${sql.raw(what)}`);
  await put("true");
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.rows, 5);
  await log.sql.query(sql`update audit_events set actor = 'user:bob' where place = 19`);
  t.regex((await log.verify()).problems.join(), /row 19 .* was altered/);
  await log.sql.query(sql`delete from audit_events where place <= 20`);
  await put("place = 18");
  t.regex((await log.verify()).problems.join(), /rows 19 to 20 are missing/);
  await log.sql.query(sql`delete from audit_events where place <= 20`);
  t.deepEqual((await log.verify()).problems, []);
});

test("all events can be pruned, and the log goes on", async (t) => {
  const { h } = t.context;
  const log = await filled(h);
  await log.sign();
  await writeHead(log.deps, { always: true });
  h.clock.advance(500 * DAY);
  await writeHead(log.deps, { always: true });
  t.is(await pruneLog(log.deps, 400 * DAY), 22);
  await log.add(1);
  await log.sign();
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.rows, 1);
});

test("times of rows do not decide what is pruned, nor a clock that was set back what follows", async (t) => {
  const { h } = t.context;
  const log = await filled(h);
  await log.sql.query(sql`update audit_events set at = '2020-01-01' where place <= 5`);
  t.is(await pruneLog(log.deps, 300 * DAY), 0);
  t.regex((await log.verify()).problems.join("\n"), /row 5 .* was altered/);
  await log.sql.query(sql`truncate audit_events, audit_chain`);
  for await (const { key } of log.store.list("audit/")) await log.store.delete(key);
  for (const jump of [0, -400 * DAY, 30 * DAY, -DAY]) {
    h.clock.advance(jump);
    await log.add(3);
    await log.sign();
  }
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.rows, 12);
});

test("a restored copy of the database needs an operator's word, which is signed", async (t) => {
  const log = await filled(t.context.h);
  await log.sql.query(sql`delete from audit_events where place is null or place > 12`);
  await log.sql.query(sql`
    update audit_chain set place = 12, reserved_sequence = 1, head_sequence = 1, head_place = 10,
      hash = (select hash from audit_events where place = 12)`);
  await log.add(12);
  await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError });
  t.true((await log.verify()).problems.length > 0);
  const head = await acceptLoss(log.deps);
  t.like(head.lost[0], { fromPlace: 11n, throughSequence: 2n });
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.regex(report.notes.join(), /an operator accepted at .* that the rows from 11 on/);
  await log.add(1);
  await log.sign();
  t.deepEqual((await log.verify()).problems, []);
  await t.throwsAsync(acceptLoss(log.deps), { message: /agrees with its newest head/ });
});

test("rows that an export holds verify without the database", async (t) => {
  const log = await filled(t.context.h);
  const { id: installation } = await log.deps.database.installation();
  const lines = (await Array.fromAsync(allEntries(log.deps.database))).map((row) => JSON.stringify(exportedEntry(row)));
  const verified = async (text: readonly string[]) =>
    await verifyLog({
      rows: (async function* () {
        for (const line of text) yield entryOf(JSON.parse(line));
      })(),
      heads: storedHeads(log.store, signer),
      installation,
      now: log.h.clock.now,
    });
  t.deepEqual((await verified(lines)).problems, []);
  t.regex(
    (await verified(lines.map((l) => l.replaceAll("user:admin", "user:bob")))).problems.join(),
    /row 1 .* altered/,
  );
  t.regex((await verified(lines.toSpliced(3, 1))).problems.join(), /row 4 is missing/);
});

test("heads are no unknown objects, are copied with a store, and stay when a database is rebuilt from it", async (t) => {
  const log = await filled(t.context.h);
  const found = await takeInventory({ ...log.deps, log: log.h.deps.log }, { finished: true, record: false });
  t.deepEqual(found, { unknown: [], leftovers: [], unfinished: [] });
  const to = new MemoryBlobStore();
  const done: string[] = [];
  const copied = await copyStorage({
    from: log.store,
    to,
    signal: new AbortController().signal,
    onObject: ({ key }) => void done.push(key),
  });
  t.is(copied.failed, 0);
  t.deepEqual(done, [auditHeadKey(1n), auditHeadKey(2n)]);
  t.deepEqual((await verifyDatabase({ ...log.deps, store: to, keys: signer })).problems, []);
  const report = await recover({ store: log.store, database: undefined });
  t.deepEqual([report.unknown, report.skipped], [[], []]);
});

test("a rebuilt database begins a log of its own, after an operator's word", async (t) => {
  const log = await filled(t.context.h);
  await log.sql.query(sql`truncate audit_events, audit_chain`);
  await log.add(30);
  await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError });
  const head = await acceptLoss(log.deps);
  t.is(head.sequence, 3n, "no head of before is replaced");
  t.deepEqual((await log.verify()).problems, []);
});

test("a log that was pruned whole has lost nothing that could be accepted", async (t) => {
  const log = await filled(t.context.h);
  await prunedWhole(log);
  await t.throwsAsync(acceptLoss(log.deps), { instanceOf: NoAuditLossError });
  await log.add(3);
  await log.sign();
  t.deepEqual((await log.verify()).problems, []);
});

for (const keeps of ["some of its rows", "none"])
  test(`a copy of the database that was itself pruned, and has ${keeps}, goes on from where it begins`, async (t) => {
    const log = await filled(t.context.h);
    if (keeps === "none") await prunedWhole(log);
    else {
      await log.sign();
      log.h.clock.advance(100 * DAY);
      await log.add(10);
      await log.sign();
      t.is(await pruneLog(log.deps, 50 * DAY), 22);
    }
    await log.sql.query(sql`create table copied_events as select * from audit_events`);
    await log.sql.query(sql`create table copied_chain as select * from audit_chain`);
    // What the database went on with; by now the heads that the copy knew are pruned.
    for (let n = 0; n < 2; n++) {
      await log.add(10);
      await log.sign();
      log.h.clock.advance(100 * DAY);
    }
    await log.add(10);
    await log.sign();
    t.true((await pruneLog(log.deps, 50 * DAY)) > 0);
    // The copy is put back.
    await log.sql.query(sql`truncate audit_events, audit_chain`);
    await log.sql.query(sql`insert into audit_events select * from copied_events`);
    await log.sql.query(sql`insert into audit_chain select * from copied_chain`);
    await log.sql.query(sql`drop table copied_events, copied_chain`);
    await log.add(2);
    await t.throwsAsync(log.sign(), { instanceOf: AuditContradictionError });
    const head = await acceptLoss(log.deps);
    t.is(head.cut.place, 22n);
    t.deepEqual((await log.verify()).problems, []);
    await log.add(2);
    await log.sign();
    t.deepEqual((await log.verify()).problems, []);
    await log.sql.query(sql`delete from audit_events where place <= ${String(head.cut.place + 1n)}::bigint`);
    t.true((await log.verify()).problems.length > 0);
  });

test("rows that were removed from the beginning are no pruned copy", async (t) => {
  const log = await filled(t.context.h);
  await log.sql.query(sql`delete from audit_events where place <= 10 or place = 20`);
  const head = await acceptLoss(log.deps);
  t.is(head.cut.place, 0n);
  t.regex((await log.verify()).problems.join(), /rows 1 to 10 are missing/);
});

test("heads of a lost log do not say what is pruned of the one that follows", async (t) => {
  const log = await filled(t.context.h);
  await log.sql.query(sql`truncate audit_events, audit_chain`);
  await log.add(30);
  await chainEvents(log.deps.database);
  await acceptLoss(log.deps);
  log.h.clock.advance(10 * DAY);
  await log.add(1);
  await log.sign();
  // Older than the heads of before, younger than none of after.
  const age = log.h.clock.now.getTime() - Date.parse("2026-01-01T00:01:30Z");
  t.is(await pruneLog(log.deps, age), 0);
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.head?.cut.place, 0n);
});

test("a cut of before does not delete rows of a log that was put back, while nobody has accepted it", async (t) => {
  const log = await filled(t.context.h);
  log.h.clock.advance(400 * DAY);
  await log.sign();
  t.is(await pruneLog(log.deps, 300 * DAY), 20);
  await log.sql.query(sql`truncate audit_events, audit_chain`);
  await log.add(30);
  await chainEvents(log.deps.database);
  await t.throwsAsync(pruneLog(log.deps, 300 * DAY), { instanceOf: AuditContradictionError });
  t.is((await log.sql.query(sql`select from audit_events`)).length, 30);
});

test("a log that was pruned while it had no key can be signed", async (t) => {
  const log = new Log(t.context.h);
  await log.add(10);
  await chainEvents(log.deps.database);
  log.h.clock.advance(400 * DAY);
  await log.add(5);
  await chainEvents(log.deps.database);
  t.is(await pruneLog({ ...log.deps, signer: undefined }, 300 * DAY), 10);
  await log.sign();
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.deepEqual([report.rows, report.head?.cut.place], [5, 10n]);
});

test("what was pruned before a failure stays pruned", async (t) => {
  const log = new Log(t.context.h);
  await log.sql.query(sql`insert into audit_events (id, at, kind, actor, collection_name, details, place)
    select gen_random_uuid(), '2020-01-01', 'version.removed', 'server', '', '{}', n
    from generate_series(1, 12000) as n`);
  await log.sql.query(sql`create function refuse_delete() returns trigger language plpgsql as
    $$ begin raise exception 'refused'; end $$`);
  await log.sql.query(sql`create trigger refuse before delete on audit_events for each row
    when (old.place = 11000) execute function refuse_delete()`);
  const deps = { ...log.deps, signer: undefined };
  await t.throwsAsync(pruneLog(deps, DAY));
  const left = async () => (await log.sql.query(sql`select from audit_events`)).length;
  t.is(await left(), 2000);
  await log.sql.query(sql`drop function refuse_delete cascade`);
  t.is(await pruneLog(deps, DAY), 2000);
  t.is(await left(), 0);
});

test("a change of the configuration is told once, with what differs, without secrets, also after a stop", async (t) => {
  const { h } = t.context;
  const { database } = h.deps;
  const ann = user("ann", { passwordHash: "$argon2id$first" });
  h.users.set("ann", ann);
  const spec = h.add({ name: "a", healthSecretSha256: "aa" });
  const told = async () => {
    const rows = await database.read(async (tx) => await tx.auditLog.list({}, undefined, 100));
    return rows.map(({ kind, object, reason, details }) => ({ kind, object, reason, details }));
  };
  await noteConfiguration(database, h.deps.config.current());
  t.deepEqual(
    (await told()).map(({ kind }) => kind),
    ["audit.began"],
  );
  h.users.set("ann", { ...ann, passwordHash: "$argon2id$second", email: "a@b.c", roles: ["systemAdmin"] });
  h.collections.set("a", { ...spec, maxBackupsCount: 9, healthSecretSha256: "bb" });
  // Two servers notice it at the same time.
  const now = { ...h.deps.config.current() };
  await Promise.all([noteConfiguration(database, now), noteConfiguration(database, now)]);
  const changes = (await told()).filter(({ kind }) => kind === "configuration.changed");
  t.deepEqual(changes, [
    {
      kind: "configuration.changed",
      object: "BackupUser/ann",
      reason: "changed",
      details: {
        passwordHash: "(changed)",
        email: '"ann@example.org" -> "a@b.c"',
        roles: '[] -> ["systemAdmin"]',
      },
    },
    {
      kind: "configuration.changed",
      object: "BackupCollection/a",
      reason: "changed",
      details: { maxBackupsCount: "3 -> 9", healthSecretSha256: "(changed)" },
    },
  ]);
  h.users.clear();
  h.collections.delete("a");
  await noteConfiguration(database, h.deps.config.current());
  const removed = (await told()).slice(0, 2);
  t.deepEqual(
    removed.map(({ reason }) => reason),
    ["removed", "removed"],
  );
  t.notRegex(JSON.stringify(await told()), /argon2id|"aa"|"bb"/);
});

test("what comes as often as somebody likes is counted: a flood adds as many rows a minute as it has names", async (t) => {
  const { database } = t.context.h.deps;
  const trail = new AuditTrail({ database, log: t.context.h.deps.log });
  const failed = (address: string) =>
    trail.note({
      kind: "login.failed",
      actor: "server",
      collectionName: "",
      outcome: "refused",
      reason: "no such user, key or password",
      address,
      details: {},
    });
  for (let nth = 0; nth < 5000; nth++) failed("192.0.2.1");
  for (let nth = 0; nth < 5000; nth++) failed(`2001:db8::${nth.toString(16)}`);
  await trail.flush();
  const rows = await database.read(async (tx) => await tx.auditLog.list({ kind: "login.failed" }, undefined, 1000));
  t.is(rows.length, MOST_NOTED.anonymous + 2);
  const again = rows.map(({ details }) => Number(details.again ?? 0)).reduce((sum, n) => sum + n, 0);
  t.is(again + MOST_NOTED.anonymous, 10_000, "none is lost");
  failed("192.0.2.1");
  await trail.flush();
  const next = await database.read(async (tx) => await tx.auditLog.list({ kind: "login.failed" }, undefined, 1000));
  t.is(next.length, rows.length + 1, "and is written as it is in the next minute");
});

anyTest("the documentation lists every kind of event", async (t) => {
  const text = await readFile(new URL("../../docs/audit.md", import.meta.url), "utf8");
  const listed = [...text.matchAll(/^\| `([a-z.-]+)` \| (.*?) \|(.*)\|$/gm)].map(([, kind, what, head]) => [
    kind,
    { what, ...(head!.trim() === "at once" ? { administrative: true } : {}) },
  ]);
  t.deepEqual(Object.fromEntries(listed), AUDIT_KINDS);
});

test("two that chain at once make one chain", async (t) => {
  const log = new Log(t.context.h);
  await log.add(40);
  await Promise.all(Array.from({ length: 6 }, async () => await chainEvents(log.deps.database)));
  await Promise.all([writeHead(log.deps), writeHead(log.deps)]);
  const report = await log.verify();
  t.deepEqual(report.problems, []);
  t.is(report.rows, 40);
});

anyTest("the audit key is a file for its owner only, and is not overwritten", async (t) => {
  const file = join(folder, "own.key");
  await makeAuditKey(file);
  t.is((await stat(file)).mode & 0o777, 0o600);
  await t.throwsAsync(makeAuditKey(file), { instanceOf: AuditKeyError, message: /is not overwritten/ });
  t.notRegex(await readFile(`${file}.pub`, "utf8"), /PRIVATE/);
  const own = await openAuditKey(file);
  const keys = await openAuditPublicKeys(`${file}.pub`);
  t.true(keys.verify(own.key, "text", own.sign("text")));
  t.false(keys.verify(own.key, "other", own.sign("text")));
  t.false(keys.verify(signer.key, "text", signer.sign("text")), "a key that is not known");
  await t.throwsAsync(openAuditKey(`${file}.pub`), { message: /has no private key/ });
});

async function countHeads(log: Log): Promise<number> {
  return (await Array.fromAsync(storedHeads(log.store, signer))).length;
}

async function keptHead(log: Log, sequence: bigint) {
  for await (const head of storedHeads(log.store, signer)) if (head.head?.sequence === sequence) return head;
  throw new Error(`no head ${sequence}`);
}

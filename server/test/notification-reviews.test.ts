/** Who is told what, and when: on PGlite and on a PostgreSQL server, by a clock that the test moves. */
import { randomUUID } from "node:crypto";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import test, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { Notifications, type WatchedSignal } from "../src/app/notifications/notifications.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { confirmVersion } from "../src/app/versions/confirm-version.ts";
import { recordVerification } from "../src/app/versions/verify-version.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import type { Configuration } from "../src/domain/configuration.ts";
import type { Notification, NotifierSpec } from "../src/domain/notifications.ts";
import { type Harness, harnessTest, MIB } from "./support/harness.ts";
import { notifier } from "./support/notifications.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const onEach = harnessTest(test as TestFn<{ h: Harness }>, { fresh: true });

/** Notifications over a harness, whose sender keeps what it is given. */
function over(h: Harness, notifiers: readonly NotifierSpec[], signals: readonly WatchedSignal[] = []) {
  const sent: string[] = [];
  const bodies: Notification[] = [];
  let problem: string | undefined;
  let current: Configuration = { ...h.deps.config.current(), notifiers: new Map(notifiers.map((n) => [n.name, n])) };
  const notifications = new Notifications({
    ...h.deps,
    config: {
      current: () => current,
      status: () => ({ problem, loadedAt: new Date(), reloads: 0, refusals: 0 }),
    },
    newId: randomUUID,
    random: () => 0.5,
    serverId: randomUUID(),
    signals,
    sender: {
      async send({ name }, { body }) {
        sent.push(`${name}: ${body.collection || body.organization || "-"} ${body.event} ${body.status}`);
        bodies.push(body);
        return { ok: true, answer: "" };
      },
    },
  });
  return {
    bodies,
    notifications,
    /** What is told now. */
    async told(): Promise<string[]> {
      await notifications.review();
      await notifications.deliver();
      return sent.splice(0);
    },
    /** What this server reads from now on is refused; undefined ends that. */
    refuse(text: string | undefined) {
      problem = text;
    },
    change(change: Partial<Configuration>) {
      current = { ...current, ...change };
    },
    changeNotifiers(...of: NotifierSpec[]) {
      current = { ...current, notifiers: new Map(of.map((n) => [n.name, n])) };
    },
  };
}

const message = (size = 200_000) => openpgpMessage(size);

onEach("a backup is missing at the minute when its time is over, and is told again and when it came", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxAgeMs: 26 * HOUR });
  const n = over(h, [notifier("ops", { repeatMs: 12 * HOUR })]);
  t.deepEqual(await n.told(), []);
  await h.upload(name, message());
  h.clock.advance(26 * HOUR);
  t.deepEqual(await n.told(), [], "it may be so old");
  h.clock.advance(1);
  t.deepEqual(await n.told(), [`ops: ${name} missing firing`]);
  t.is(n.bodies.at(-1)!.since, h.clock.now.toISOString());
  t.deepEqual(await n.told(), [], "once");
  h.clock.advance(12 * HOUR - 1);
  t.deepEqual(await n.told(), []);
  h.clock.advance(1);
  t.deepEqual(await n.told(), [`ops: ${name} missing reminder`]);
  await h.upload(name, message());
  t.deepEqual(await n.told(), [`ops: ${name} missing resolved`]);
  h.clock.advance(12 * HOUR);
  t.deepEqual(await n.told(), []);
});

onEach("a collection without any version is missing one from when it was first seen", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ windows: [{ from: "0 1 * * *", durationMs: HOUR }] });
  h.clock.advance(12 * HOUR);
  const n = over(h, [notifier("ops")]);
  t.deepEqual(await n.told(), [], "the window of this night was over before");
  h.clock.advance(14 * HOUR - 1);
  t.deepEqual(await n.told(), []);
  h.clock.advance(1);
  t.deepEqual(await n.told(), [`ops: ${name} missing firing`], "at the end of the next one");
  h.clock.advance(23 * HOUR + 30 * MINUTE);
  t.deepEqual(await n.told(), [], "an open window is not the end of it");
  await h.upload(name, message());
  t.deepEqual(await n.told(), [`ops: ${name} missing resolved`]);
});

onEach("an upload that was begun in time is waited for", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ windows: [{ from: "0 1 * * *", durationMs: HOUR }] });
  const n = over(h, [notifier("ops", { events: ["missing"] })]);
  t.deepEqual(await n.told(), []);
  h.clock.advance(HOUR + 59 * MINUTE);
  await h.begin(name);
  h.clock.advance(2 * MINUTE);
  t.deepEqual(await n.told(), [], "it is under way");
  h.clock.advance(15 * MINUTE);
  t.deepEqual(await n.told(), [`ops: ${name} missing firing`], "nobody continues it");
});

onEach("a failure is told though the next backup came before anybody looked", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxParallelUploads: 2 });
  const n = over(h, [notifier("ops"), notifier("quiet", { recovery: false })]);
  await n.told();
  const fail = async () => {
    const { upload } = await h.begin(name);
    await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "pg_dump: no space left" } as never);
  };
  await fail();
  t.deepEqual((await n.told()).sort(), [`ops: ${name} failed firing`, `quiet: ${name} failed firing`]);
  t.regex(n.bodies.at(-1)!.message, /pg_dump: no space left/);
  await fail();
  t.deepEqual(await n.told(), [], "it goes on");
  await h.upload(name, message());
  t.deepEqual(await n.told(), [`ops: ${name} failed resolved`]);
  await fail();
  await h.upload(name, message());
  t.deepEqual((await n.told()).sort(), [
    `ops: ${name} failed firing`,
    `ops: ${name} failed resolved`,
    `quiet: ${name} failed firing`,
  ]);
});

onEach("failures that nobody had looked at are told as one, with their number and the last of them", async (t) => {
  const { h } = t.context;
  const { name } = h.add({});
  const n = over(h, [notifier("ops")]);
  await n.told();
  const fail = async (reason: string) => {
    const { upload } = await h.begin(name);
    h.clock.advance(1000);
    await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason });
    const times = { begun_at: upload.begunAt.toISOString(), ended_at: h.clock.now.toISOString() };
    return { upload_id: upload.id, ...times, reason };
  };
  const told = async () => {
    const from = n.bodies.length;
    await n.told();
    return n.bodies.slice(from);
  };
  await fail("one");
  await fail("two");
  const third = await fail("three");
  await h.upload(name, message());
  const [firing, resolved, ...others] = await told();
  t.deepEqual(others, []);
  t.like(firing, { status: "firing", event: "failed", since: third.ended_at });
  t.deepEqual(firing!.facts, { ...third, uploads: "3" });
  t.regex(firing!.message, /^3 backups ended without a version since the last look; .*: three$/);
  t.like(resolved, { status: "resolved", since: third.ended_at, message: "this is over: backup failed" });
  t.deepEqual(resolved!.facts, {});
  const single = await fail("four");
  await h.upload(name, message());
  t.deepEqual((await told())[0]!.facts, single, "the others were told");
  await fail("five");
  const last = await fail("six");
  const [both, ...more] = await told();
  t.deepEqual(more, []);
  t.deepEqual(both!.facts, { ...last, uploads: "2" }, "it goes on");
});

onEach("that a failure is over is told later where there was room for the failure only", async (t) => {
  const { h } = t.context;
  const { name } = h.add({});
  const n = over(h, [notifier("ops")]);
  await n.told();
  const database = h.deps.database as SqlDatabase;
  await database.query(sql`insert into notification_outbox
    (delivery_id, notifier, subject, event, body, created_at, next_attempt_at)
    select gen_random_uuid(), 'ops', 'other', 'failed', '{}'::jsonb, '2026-01-01', '2026-01-01T00:30:00Z'
    from generate_series(1, 9999)`);
  const { upload } = await h.begin(name);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "pg_dump: no space left" });
  await h.upload(name, message());
  await n.notifications.review();
  await database.query(sql`delete from notification_outbox where subject = 'other'`);
  t.deepEqual(await n.told(), [`ops: ${name} failed firing`]);
  h.clock.advance(5 * MINUTE);
  t.deepEqual(await n.told(), [`ops: ${name} failed resolved`]);
});

onEach("sizes: shrunk, above the soft limit, and no room for the next one", async (t) => {
  const { h } = t.context;
  const { name } = h.add({
    maxBackupsCount: 2,
    maxOneVersionSize: BigInt(2 * MIB),
    maxCollectionSize: BigInt(6 * MIB),
  });
  const n = over(h, [notifier("ops")]);
  await h.upload(name, message(1.5 * MIB));
  t.deepEqual(await n.told(), []);
  const { version } = await h.upload(name, message(20_000));
  t.deepEqual(await n.told(), [`ops: ${name} shrunk firing`]);
  await confirmVersion(h.deps, h.admin, { collection: name, number: version.number });
  t.deepEqual(await n.told(), [`ops: ${name} shrunk resolved`]);
  await h.upload(name, message(3 * MIB));
  t.deepEqual((await n.told()).sort(), [
    `ops: ${name} over-soft-limit firing`,
    `ops: ${name} quota-nearly-full firing`,
  ]);
});

onEach("an organization that is nearly full is told to those who watch it", async (t) => {
  const { h } = t.context;
  h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(2 * MIB) });
  const { name } = h.add({ organization: "acme" });
  const other = h.add({});
  const n = over(h, [
    notifier("acme", { organizations: ["acme"] }),
    notifier("other", { collections: [other.name] }),
    notifier("all", { events: ["quota-nearly-full"] }),
  ]);
  await h.upload(name, message(1.9 * MIB));
  t.deepEqual((await n.told()).sort(), ["acme: acme quota-nearly-full firing", "all: acme quota-nearly-full firing"]);
});

onEach("damaged and unreadable versions, and that they are whole again", async (t) => {
  const { h } = t.context;
  const { name } = h.add({});
  const n = over(h, [notifier("ops")]);
  const { version } = await h.upload(name, message());
  t.deepEqual(await n.told(), []);
  const found = async (damage: string, damageReason: "" | "bytes-differ" | "unreadable") => {
    const current = await h.deps.database.read(async (tx) => (await tx.versions.findById(version.id))!);
    await recordVerification({ ...h.deps } as never, current, { damage, damageReason, damagedSegment: null });
  };
  await found("", "");
  t.deepEqual(await n.told(), []);
  await found("segment 0 has other bytes", "bytes-differ");
  t.deepEqual(await n.told(), [`ops: ${name} damaged firing`]);
  await found("the store does not give it", "unreadable");
  t.deepEqual((await n.told()).sort(), [`ops: ${name} damaged resolved`, `ops: ${name} unreadable firing`]);
  await found("", "");
  t.deepEqual(await n.told(), [`ops: ${name} unreadable resolved`]);
  await found("segment 0 has other bytes", "bytes-differ");
  t.deepEqual(await n.told(), [`ops: ${name} damaged firing`]);
  await deleteVersion(h.deps, h.admin, { collection: name, number: version.number });
  t.deepEqual(await n.told(), [`ops: ${name} damaged resolved`], "what was removed is damaged no longer");
});

onEach("a commit that the store cannot finish", async (t) => {
  const { h } = t.context;
  const { name } = h.add({});
  const n = over(h, [notifier("ops", { events: ["stuck-commit", "rolled-back"] })]);
  const { upload } = await h.begin(name);
  await h.deps.database.transaction(
    async (tx) => await tx.uploads.update(upload.id, "open", { state: "committing", versionNumber: 1n }),
  );
  t.deepEqual(await n.told(), []);
  await h.deps.database.transaction(
    async (tx) => await tx.uploads.update(upload.id, "committing", { lostSince: tx.now }),
  );
  t.deepEqual(await n.told(), []);
  h.clock.advance(2 * MINUTE);
  t.deepEqual(await n.told(), [`ops: ${name} stuck-commit firing`]);
  await h.deps.database.transaction(
    async (tx) => await tx.collections.noteRollback((await tx.collections.findByName(name))!.id, tx.now, 1),
  );
  t.deepEqual(await n.told(), [`ops: ${name} rolled-back firing`]);
  await (h.deps.database as SqlDatabase).query(sql`update uploads set state = 'aborted'`);
});

onEach("what a server says of itself goes to those who watch everything, and ends", async (t) => {
  const { h } = t.context;
  const { name } = h.add({});
  let problem: string | undefined = "a.yaml:3: spec: expected a mapping";
  const halves = "\ud800, \u0085\r\n";
  const signal: WatchedSignal = { event: "configuration-refused", message: () => problem };
  const n = over(h, [notifier("ops"), notifier("tenant", { collections: [name] })], [signal]);
  await n.notifications.say();
  t.deepEqual(await n.told(), ["ops: - configuration-refused firing"]);
  t.is(n.bodies.at(-1)!.message, problem);
  problem = undefined;
  await n.notifications.say();
  t.deepEqual(await n.told(), ["ops: - configuration-refused resolved"]);
  problem = `b.yaml:1: ${halves}`;
  await n.notifications.say();
  t.deepEqual(await n.told(), ["ops: - configuration-refused firing"]);
  h.clock.advance(10 * MINUTE);
  t.deepEqual(await n.told(), ["ops: - configuration-refused resolved"], "the server that said so is gone");
});

onEach("what servers say of themselves goes on while one of them says so, whatever the others say", async (t) => {
  const { h } = t.context;
  h.add({});
  const problems: (string | undefined)[] = ["a.yaml:3: no", undefined];
  const [one, two] = [0, 1].map((n) =>
    over(h, [notifier("ops")], [{ event: "configuration-refused", message: () => problems[n] }]),
  ) as [ReturnType<typeof over>, ReturnType<typeof over>];
  const told = async () => {
    await one.notifications.say();
    await two.notifications.say();
    return [...(await one.told()), ...(await two.told())];
  };
  t.deepEqual(await told(), ["ops: - configuration-refused firing"]);
  problems[1] = "b.yaml:1: no";
  t.deepEqual(await told(), []);
  problems[1] = undefined;
  t.deepEqual(await told(), [], "one goes on");
  problems[1] = "b.yaml:1: no";
  await told();
  problems[0] = undefined;
  t.deepEqual(await told(), [], "the other goes on");
  h.clock.advance(2 * MINUTE);
  problems[1] = undefined;
  t.deepEqual(await told(), ["ops: - configuration-refused resolved"]);
  problems[0] = "a.yaml:3: no";
  problems[1] = "b.yaml:1: no";
  await told();
  t.regex([...one.bodies, ...two.bodies].map(({ message }) => message).join(), /on 2 servers; on one of them: a/);
});

onEach("a clock that leapt is told, and nothing is missing because of it", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxAgeMs: DAY });
  const n = over(h, [notifier("ops")]);
  await h.upload(name, message());
  const paused = async (until: Date | null) =>
    await h.deps.database.transaction(
      async (tx) => await tx.clock.write({ newestAt: tx.now, pausedUntil: until, pauseReason: "it leapt" }),
    );
  await paused(null);
  t.deepEqual(await n.told(), []);
  h.clock.advance(2 * DAY);
  await paused(new Date(h.clock.now.getTime() + HOUR));
  t.deepEqual(await n.told(), ["ops: - clock firing"]);
  h.clock.advance(HOUR);
  await paused(null);
  h.clock.advance(15 * MINUTE);
  await paused(null);
  t.deepEqual((await n.told()).sort(), ["ops: - clock resolved", `ops: ${name} missing firing`]);
});

onEach("a notifier that is new is told what goes on; one that is gone, and a collection, are forgotten", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxAgeMs: HOUR });
  const n = over(h, [notifier("ops")]);
  await n.told();
  h.clock.advance(HOUR + 1);
  t.deepEqual(await n.told(), [`ops: ${name} missing firing`]);
  n.changeNotifiers(notifier("ops"), notifier("new", { collections: [name] }));
  t.deepEqual(await n.told(), [`new: ${name} missing firing`]);
  n.changeNotifiers(notifier("ops", { events: ["failed"] }));
  t.deepEqual(await n.told(), []);
  n.changeNotifiers(notifier("ops"));
  t.deepEqual(await n.told(), [`ops: ${name} missing firing`]);
  n.change({ collections: new Map() });
  t.deepEqual(await n.told(), [], "another server may know it still");
  h.clock.advance(10 * MINUTE);
  t.deepEqual(await n.told(), [`ops: ${name} missing resolved`]);
  t.regex(n.bodies.at(-1)!.message, /not configured any more/);
});

onEach(
  "a server that keeps an older configuration says of nothing that it is gone, and takes nothing back",
  async (t) => {
    const { h } = t.context;
    const known = h.add({ maxAgeMs: HOUR });
    const older = over(h, [notifier("ops", { events: ["damaged"], collections: [known.name] })]);
    older.change({ collections: new Map([[known.name, known]]) });
    older.refuse("users.yaml:1: expected a name, got nothing");
    const added = h.add({ maxAgeMs: HOUR });
    const newer = over(h, [notifier("ops")]);
    await newer.told();
    h.clock.advance(HOUR + 1);
    t.deepEqual(
      (await newer.told()).sort(),
      [`ops: ${added.name} missing firing`, `ops: ${known.name} missing firing`].sort(),
    );
    const due = async () =>
      await (h.deps.database as SqlDatabase).query(
        sql`update notification_reviews set review_at = ${h.clock.now.toISOString()}`,
      );
    for (let minutes = 0; minutes < 30; minutes += 5) {
      await due();
      t.deepEqual(await older.told(), [], `${minutes} minutes`);
      h.clock.advance(5 * MINUTE);
    }
    await due();
    t.deepEqual(await newer.told(), [], "what it told still goes on, and is not told again");
    older.refuse(undefined);
    older.changeNotifiers(notifier("ops"));
    await due();
    await older.told();
    h.clock.advance(10 * MINUTE);
    await due();
    t.deepEqual(
      await older.told(),
      [`ops: ${added.name} missing resolved`],
      "the configuration in force is the newest",
    );
  },
);

onEach(
  "a server with an older configuration leaves to others what has newer rules, for as long as they are there",
  async (t) => {
    const { h } = t.context;
    const strict = h.add({ maxAgeMs: HOUR });
    const same = h.add({ maxAgeMs: 2 * HOUR });
    const older = over(h, [notifier("ops", { events: ["missing"] })]);
    older.change({
      collections: new Map([
        [strict.name, { ...strict, maxAgeMs: 26 * HOUR }],
        [same.name, same],
      ]),
    });
    await older.told();
    older.refuse("users.yaml:1: expected a name, got nothing");
    // The rules of one collection are others in the newer configuration.
    const newer = over(h, [notifier("ops", { events: ["missing"] })]);
    await newer.told();
    h.clock.advance(HOUR + 1);
    t.deepEqual(await older.told(), [], "by its rules nothing is missing, and it leaves that to the other");
    t.deepEqual(await newer.told(), [`ops: ${strict.name} missing firing`], "as soon as it is due");
    const due = async () =>
      await (h.deps.database as SqlDatabase).query(
        sql`update notification_reviews set review_at = ${h.clock.now.toISOString()}`,
      );
    await due();
    t.deepEqual(await older.told(), [], "it does not take it back");
    t.deepEqual(await newer.told(), []);
    h.clock.advance(HOUR);
    t.deepEqual(await older.told(), [`ops: ${same.name} missing firing`], "it reviews what it knows");
    t.deepEqual(await newer.told(), []);
    // The newer one is gone: somebody has to do it.
    await due();
    h.clock.advance(10 * MINUTE - 1);
    t.deepEqual(await older.told(), []);
    h.clock.advance(1);
    t.deepEqual(await older.told(), [`ops: ${strict.name} missing resolved`]);
    // It is back, and reviews by its own rules what was reviewed by others.
    h.clock.advance(10 * MINUTE);
    t.deepEqual(await newer.told(), [`ops: ${strict.name} missing firing`]);
    t.deepEqual(await older.told(), []);
  },
);

onEach(
  "a failure that only a newer notifier is told is not lost to a server with an older configuration",
  async (t) => {
    const { h } = t.context;
    const { name } = h.add({ maxParallelUploads: 2 });
    const older = over(h, [notifier("ops", { events: ["missing"] })]);
    await older.told();
    older.refuse("users.yaml:1: expected a name, got nothing");
    const newer = over(h, [notifier("ops", { events: ["missing"] }), notifier("new", { events: ["failed"] })]);
    await newer.told();
    const { upload } = await h.begin(name);
    await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "pg_dump: no space left" } as never);
    await h.upload(name, message());
    t.deepEqual(await older.told(), []);
    t.deepEqual(await newer.told(), [`new: ${name} failed firing`, `new: ${name} failed resolved`]);
  },
);

onEach("a ping beats while all is well, fails, and beats again when nothing is wrong any more", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxAgeMs: 90 * MINUTE });
  const url = "https://example.org/ping/1";
  const target = { type: "webhook", url, form: "ping", secret: undefined, token: undefined } as const;
  const n = over(h, [notifier("check", { target, repeatMs: HOUR })]);
  t.deepEqual(await n.told(), ["check: - heartbeat ok"]);
  h.clock.advance(59 * MINUTE);
  t.deepEqual(await n.told(), []);
  h.clock.advance(MINUTE);
  t.deepEqual(await n.told(), ["check: - heartbeat ok"]);
  h.clock.advance(30 * MINUTE + 1);
  t.deepEqual(await n.told(), [`check: ${name} missing firing`]);
  await h.upload(name, message());
  h.clock.advance(MINUTE);
  t.deepEqual(await n.told(), ["check: - heartbeat ok"]);
});

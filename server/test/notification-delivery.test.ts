/** How notifications arrive: receivers that fail, hang and come back, and servers that die. */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { endWithUs } from "@strongroom/testkit/processes";
import test, { type ExecutionContext } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { Notifications } from "../src/app/notifications/notifications.ts";
import type { Database, Transaction } from "../src/app/ports/database.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import type { NotifierSpec } from "../src/domain/notifications.ts";
import { notificationSender } from "../src/main.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { Harness, TestClock } from "./support/harness.ts";
import { BODY, notifier, receiver, webhook } from "./support/notifications.ts";
import { quickClock } from "./support/quick-clock.ts";
import { until, WebhookReceiver } from "./support/webhook-receivers.ts";

test.after.always(async () => await removeSharedCluster());

/** Notifications of a harness to these receivers. */
function notifying(h: Harness, notifiers: readonly NotifierSpec[], log: string[] = []) {
  const config = {
    current: () => ({ ...h.deps.config.current(), notifiers: new Map(notifiers.map((n) => [n.name, n])) }),
  };
  const write = (fields: Record<string, unknown>, text: string) => void log.push(`${JSON.stringify(fields)} ${text}`);
  return new Notifications({
    ...h.deps,
    log: { debug: write, info: write, warn: write, error: write },
    config,
    newId: randomUUID,
    random: () => 0,
    serverId: "one",
    signals: [],
    sender: notificationSender(["127.0.0.1"]),
  });
}

async function fail(h: Harness, name: string): Promise<void> {
  const { upload } = await h.begin(name);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "the dump failed" });
}

test("a receiver that hangs holds up nobody else; what waits arrives in order when it is back", async (t) => {
  const h = await Harness.open();
  t.teardown(async () => await h.deps.database.close());
  const [hanging, good] = [await receiver(t, "hang"), await receiver(t, "ok")];
  const log: string[] = [];
  const notifications = notifying(
    h,
    [notifier("hangs", { target: webhook(hanging.url) }), notifier("ops", { target: webhook(good.url) })],
    log,
  );
  const { name } = h.add({});
  await notifications.review();
  await fail(h, name);
  await notifications.review();
  await h.upload(name, openpgpMessage(20_000));
  await notifications.review();
  const delivering = notifications.deliver();
  await until(() => good.received.length === 2 && hanging.received.length === 1);
  t.deepEqual(
    good.received.map(({ body }) => JSON.parse(body).status),
    ["firing", "resolved"],
  );
  await hanging.stop();
  await delivering;
  t.is((await notifications.figures()).find((each) => each.notifier === "hangs")!.queued, 2);
  t.true((await notifications.figures()).find((each) => each.notifier === "hangs")!.isFailing);
  const back = await WebhookReceiver.start("ok", hanging.port);
  t.teardown(async () => await back.stop());
  await notifications.deliver();
  t.deepEqual(back.received, [], "not before its pause is over");
  h.clock.advance(60_000);
  await notifications.deliver();
  t.deepEqual(
    (await back.first(2)).map(({ body }) => JSON.parse(body).status),
    ["firing", "resolved"],
  );
  const [first] = hanging.received.map(({ headers }) => headers["webhook-id"]);
  t.is(back.received[0]!.headers["webhook-id"], first, "the same delivery");
  t.regex(log.join("\n"), /cannot be reached[\s\S]+reached again/);
  t.notRegex(log.join("\n"), /hook/, "no log shows the URL");
});

test("an outbox that is full drops what is over, and tells later what goes on", async (t) => {
  const h = await Harness.open();
  t.teardown(async () => await h.deps.database.close());
  const to = await receiver(t, "ok");
  const log: string[] = [];
  const notifications = notifying(h, [notifier("ops", { target: webhook(to.url) })], log);
  const { name } = h.add({});
  await notifications.review();
  const database = h.deps.database as unknown as { query(of: unknown): Promise<unknown> };
  await database.query(sql`insert into notification_outbox
    (delivery_id, notifier, subject, event, body, created_at, next_attempt_at)
    select gen_random_uuid(), 'ops', 'other', 'failed', ${JSON.stringify(BODY)}::jsonb, '2026-01-01', '2026-01-01T00:30:00Z'
    from generate_series(1, 10000)`);
  await fail(h, name);
  await notifications.review();
  t.regex(log.join("\n"), /too many wait for a notifier/);
  await database.query(sql`delete from notification_outbox`);
  await notifications.deliver();
  t.deepEqual(to.received, []);
  h.clock.advance(5 * 60_000);
  await notifications.review();
  await notifications.deliver();
  t.is(JSON.parse((await to.first(1))[0]!.body).event, "failed");
});

const PROGRAM = fileURLToPath(new URL("./support/notifying-server.ts", import.meta.url));
const PACE = 30;

/** A server in a process of its own. */
async function startServer(t: ExecutionContext, url: string, to: string, collections: number) {
  const child = spawn(process.execPath, [PROGRAM, url, to, String(collections), String(PACE)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  endWithUs(child, "SIGKILL");
  await once(child.stdout!, "data");
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  t.teardown(kill);
  return { kill };
}

/** A database of a server, which writes down what was ever to be sent. */
async function watchedDatabase(t: ExecutionContext) {
  const url = await (await sharedCluster()).createDatabase();
  const database = await openServer(url, quickClock(PACE));
  t.teardown(async () => await database.close());
  await database.query(sql`create table written as select * from notification_outbox`);
  await database.query(sql`create function note() returns trigger language plpgsql as
    $$ begin insert into written select new.*; return new; end $$`);
  await database.query(
    sql`create trigger note after insert on notification_outbox for each row execute function note()`,
  );
  const h = Harness.on(database, new TestClock());
  const left = async (table: "written" | "notification_outbox") =>
    (await database.query(
      sql`select subject, delivery_id, body->>'status' as status from ${sql.identifier(table)} order by id`,
    )) as unknown as {
      readonly subject: string;
      readonly delivery_id: string;
      readonly status: string;
    }[];
  return { url, h, left };
}

test.serial("PostgreSQL: reviews, marks and what publishes lock rows in one order", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { h } = await watchedDatabase(t);
  const database = h.deps.database as SqlDatabase;
  // Of a deadlock one side is rolled back, and runs again.
  let repeated = 0;
  const counting = {
    read: database.read.bind(database),
    async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
      let isFirst = true;
      return await database.transaction(async (tx) => {
        if (!isFirst) repeated++;
        isFirst = false;
        return await work(tx);
      });
    },
  } as Database;
  /** A transaction that takes `second` as soon as `other` waits for `first`, which it holds. */
  const crossing = async (
    first: (tx: Transaction) => Promise<unknown>,
    other: () => Promise<unknown>,
    second: (tx: Transaction) => Promise<unknown>,
  ) => {
    let others: Promise<unknown> | undefined;
    await counting.transaction(async (tx) => {
      await first(tx);
      if (others === undefined) {
        others = other();
        const waits = sql`select 1 from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'`;
        await until(async () => (await database.query(waits)).length > 0);
      }
      await second(tx);
    });
    await others;
    return repeated;
  };
  h.organizations.set("x", { name: "x", maxTotalSize: undefined });
  h.add({ name: "pg-main", organization: "x" });
  await h.upload("pg-main", openpgpMessage(20_000));
  const { id } = (await database.read(async (tx) => await tx.collections.findByName("pg-main")))!;
  const since = new Date();
  const row = { subject: "pg-main", event: "failed", since, until: null, message: "", server: "" } as const;
  const failed = { uploadId: randomUUID(), begunAt: since, endedAt: since, reason: "" };
  const mark = (subject: string) => async (tx: Transaction) => await tx.notifications.mark([subject]);
  for (const signal of [
    async (tx: Transaction) => await tx.notifications.signal(row),
    async (tx: Transaction) => await tx.collections.noteFailed(id, failed, 1n),
  ]) {
    await database.transaction(async (tx) => await tx.notifications.signal(row));
    const drop = async (tx: Transaction) => await tx.notifications.dropSignals("pg-main");
    t.is(await crossing(mark("pg-main"), async () => await counting.transaction(signal), drop), 0, "a failure");
  }
  // No digest is known yet, so that all subjects are marked.
  const takeUp = async () => await notifying({ deps: { ...h.deps, database: counting } } as Harness, []).review(0);
  t.is(await crossing(mark("pg-main"), takeUp, mark("organization:x")), 0, "a changed configuration");
});

test("what waits for a notifier that this server does not know stays for a week", async (t) => {
  const h = await Harness.open();
  t.teardown(async () => await h.deps.database.close());
  const { name } = h.add({});
  const first = notifying(h, [notifier("ops")]);
  await first.review();
  await fail(h, name);
  await first.review();
  const waiting = async () => await h.deps.database.read(async (tx) => (await tx.notifications.queues()).length);
  const other = async (problem: string | undefined) => {
    const status = () => ({ problem, loadedAt: h.clock.now, reloads: 0, refusals: 0 });
    const config = { current: () => ({ ...h.deps.config.current(), notifiers: new Map() }), status };
    const sender = notificationSender([]);
    await new Notifications({
      ...h.deps,
      config,
      newId: randomUUID,
      random: () => 0,
      serverId: "one",
      signals: [],
      sender,
    }).forget();
    return await waiting();
  };
  h.clock.advance(2 * 3_600_000);
  t.is(await other(undefined), 1, "its configuration may be the older one");
  h.clock.advance(7 * 24 * 3_600_000);
  t.is(await other("a.yaml:3: expected a mapping"), 1, "its configuration is the older one");
  t.is(await other(undefined), 0);
});

test.serial(
  "PostgreSQL: a server is killed between the sending and its note: it is sent again, as the same",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const to = await receiver(t, "hang");
    const { url, h, left } = await watchedDatabase(t);
    const { name } = h.add({ name: "c-1" });
    const first = await startServer(t, url, to.url, 1);
    await until(async () => (await h.deps.database.read(async (tx) => await tx.notifications.subjects())).has(name));
    await fail(h, name);
    await until(() => to.received.length === 1);
    await first.kill();
    to.mode("ok");
    await startServer(t, url, to.url, 1);
    await until(async () => (await left("notification_outbox")).length === 0);
    const ids = (await to.first(2)).map(({ headers }) => headers["webhook-id"]);
    t.is(ids.length, 2);
    t.is(ids[0], ids[1]);
  },
);

test.serial(
  "PostgreSQL: two replicas, one of them killed again and again, a receiver that fails: none lost, in order",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const COLLECTIONS = 12;
    const to = await receiver(t, "mixed");
    const { url, h, left } = await watchedDatabase(t);
    for (let index = 1; index <= COLLECTIONS; index++) h.add({ name: `c-${index}` });
    await startServer(t, url, to.url, COLLECTIONS);
    let second = await startServer(t, url, to.url, COLLECTIONS);
    await until(
      async () =>
        (await left("written")).length === 0 &&
        (await h.deps.database.read(async (tx) => await tx.notifications.subjects())).size > COLLECTIONS,
    );
    let written = 0;
    for (let round = 0; round < 6; round++) {
      for (const { name } of h.collections.values()) {
        if (round % 2 === 0) await fail(h, name);
        else await h.upload(name, openpgpMessage(20_000));
      }
      written += COLLECTIONS;
      const expected = written;
      await until(async () => (await left("written")).length >= expected);
      if (round % 2 === 1) {
        await second.kill();
        second = await startServer(t, url, to.url, COLLECTIONS);
      }
    }
    await until(async () => (await left("notification_outbox")).length === 0);
    const arrived = to.received.filter(({ mode }) => mode === "ok").map(({ headers }) => headers["webhook-id"]!);
    const unique = new Set(arrived);
    const all = await left("written");
    const lost = all.filter(({ delivery_id: id }) => !unique.has(id));
    t.log(
      `${all.length} notifications, ${to.received.length} attempts: ${lost.length} lost, ${arrived.length - unique.size} doubled`,
    );
    t.deepEqual(lost, []);
    for (const { name } of h.collections.values()) {
      const wanted = all.filter(({ subject }) => subject === name).map(({ delivery_id: id }) => id);
      // The first arrival of each counts: what comes again is known by its id.
      const got = [...unique].filter((id) => wanted.includes(id));
      t.deepEqual(got, wanted, `${name}: in order`);
      t.deepEqual(
        all.filter(({ subject }) => subject === name).map(({ status }) => status),
        ["firing", "resolved", "firing", "resolved", "firing", "resolved"],
      );
    }
  },
);

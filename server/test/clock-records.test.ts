/**
 * Times that should be past, or that end soon, and were stored by a clock that was ahead: what is counted from them
 * goes on when the clock is right again, on both kinds of database. The rest of docs/clocks.md is in `clock-jumps`.
 */
import { randomUUID } from "node:crypto";
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { Notifications, type WatchedSignal } from "../src/app/notifications/notifications.ts";
import { closeOrganization } from "../src/app/organizations/organizations.ts";
import { purgeOrganization } from "../src/app/organizations/purge.ts";
import { ReplicaSign } from "../src/app/upkeep/replica-sign.ts";
import { getServerStatus } from "../src/app/upkeep/server-status.ts";
import { SILENT_MS, UpkeepRuns } from "../src/app/upkeep/upkeep-runs.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { ClockedServer as Server } from "./support/clocked-server.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";
import { notifier } from "./support/notifications.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const rows = async (h: Harness, query: ReturnType<typeof sql>) => await (h.deps.database as SqlDatabase).query(query);

/** Notifications that keep what they send. */
function notifications(h: Harness, signals: readonly WatchedSignal[] = []) {
  const sent: string[] = [];
  const own = new Notifications({
    ...h.deps,
    config: { current: () => ({ ...h.deps.config.current(), notifiers: new Map([["ops", notifier("ops", {})]]) }) },
    newId: randomUUID,
    serverId: randomUUID(),
    random: () => 0.5,
    signals,
    sender: {
      async send(_, { body }) {
        sent.push(`${body.event} ${body.status}`);
        return { ok: true, answer: "" };
      },
    },
  });
  return {
    own,
    async told(): Promise<string[]> {
      await own.review(20);
      await own.deliver();
      return sent.splice(0);
    },
  };
}

for (const [title, ms] of [
  ["2 days", 2 * DAY],
  ["a year", 365 * DAY],
] as const) {
  test(`a commit that a server waited for ${title} ahead, and died, is found to be lost`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    const server = new Server(h);
    await server.sweep();
    server.jump(ms);
    const { upload } = await h.begin(name);
    const segments = cutSegments(openpgpMessage(MIB), MIB);
    for (const segment of segments) await h.write(upload.id, segment);
    await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
    await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
    // What a server that waits for the store writes every 20 seconds.
    const completingUntil = new Date(h.clock.now.getTime() + MINUTE);
    await h.deps.database.transaction(
      async (tx) => await tx.uploads.update(upload.id, "committing", { completingUntil, lostSince: null }),
    );
    server.jump(-ms);
    await server.sweep();
    const [row] = await rows(
      h,
      sql`select extract(epoch from lease_expires_at - ${h.clock.now.toISOString()}::timestamptz)::int as lease,
        extract(epoch from completing_until - ${h.clock.now.toISOString()}::timestamptz)::int as completing from uploads`,
    );
    t.deepEqual(row, { lease: 15 * 60, completing: 60 });
    server.pass(2 * MINUTE);
    await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
    server.pass(3 * MINUTE);
    await refused(t, "UPLOAD_LOST", h.commit(upload.id, segments));
  });

  test(`a version that was purged ${title} ahead was purged now: its row goes 30 days from now`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    await h.upload(name, openpgpMessage(1000));
    await deleteVersion(h.deps, h.admin, { collection: name, number: 1n });
    const server = new Server(h);
    await server.sweep();
    server.pass(2 * DAY);
    server.jump(ms);
    server.restart();
    await server.sweep();
    server.pass(HOUR);
    t.is((await server.sweep()).status, "right");
    const purged = async () => {
      const [row] = await rows(h, sql`select state, purged_at as at from versions`);
      return { state: row!.state, at: new Date(row!.at as string) };
    };
    t.true((await purged()).at.getTime() > h.clock.now.getTime() - DAY);
    server.jump(-ms);
    await server.sweep();
    t.deepEqual(await purged(), { state: "purged", at: h.clock.now });
  });

  test(`an organization that was closed ${title} ahead can be purged, and what that means is from now`, async (t) => {
    const { h } = t.context;
    h.organizations.set("acme", { name: "acme", maxTotalSize: undefined });
    const { name } = h.add({ organization: "acme" });
    await h.upload(name, openpgpMessage(1000));
    const server = new Server(h);
    server.jump(ms);
    await closeOrganization(h.deps, h.admin, "acme", "contract has ended");
    server.jump(-ms);
    await server.sweep();
    const purge = async (versions: bigint, bytes: bigint) =>
      await purgeOrganization(h.deps, h.admin, "acme", { versions, bytes });
    await t.notThrowsAsync(purge(1n, 1000n));
    server.jump(ms);
    await purge(0n, 0n);
    server.jump(-ms);
    await server.sweep();
    const [row] = await rows(h, sql`select closed_at as closed, purge->>'at' as purged from organizations`);
    t.true(new Date(row!.closed as string) <= h.clock.now);
    t.is(row!.purged, h.clock.now.toISOString());
  });

  test(`a verification that was begun ${title} ahead, and died, does not keep the next from beginning`, async (t) => {
    const { h } = t.context;
    const server = new Server(h);
    server.jump(ms);
    await h.deps.database.transaction(
      async (tx) => await tx.records.beginRun("verification", "user:bob", tx.now, tx.now),
    );
    server.jump(-ms);
    const runs = new UpkeepRuns(h.deps, { runOnce: async () => undefined }, 10n ** 9n);
    await server.sweep();
    t.false(await runs.verify(h.admin, ""), "its server may live");
    server.pass(SILENT_MS + 1);
    t.true(await runs.verify(h.admin, ""));
    await runs.idle();
  });

  test(`what is first seen, gone or going on ${title} ahead is so from now on`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ maxAgeMs: 26 * HOUR });
    let refusal: string | undefined = "line 3 is wrong";
    const signal: WatchedSignal = { event: "configuration-refused", message: () => refusal };
    const n = notifications(h, [signal]);
    const server = new Server(h);
    server.jump(ms);
    await n.own.say();
    t.deepEqual(await n.told(), ["configuration-refused firing"]);
    // That server dies.
    server.jump(-ms);
    refusal = undefined;
    const next = notifications(h);
    t.deepEqual(await next.told(), [], "no backup is missing of a collection that is new");
    server.pass(5 * MINUTE);
    t.deepEqual(await next.told(), ["configuration-refused resolved"]);
    server.pass(26 * HOUR);
    t.deepEqual(await next.told(), ["missing firing"]);

    server.jump(ms);
    h.collections.delete(name);
    t.deepEqual(await notifications(h).told(), [], "another server may know it already");
    server.jump(-ms);
    const last = notifications(h);
    t.deepEqual(await last.told(), []);
    const [review] = await rows(h, sql`select gone_since as gone from notification_reviews where subject = ${name}`);
    t.deepEqual(new Date(review!.gone as string), h.clock.now);
    server.pass(11 * MINUTE);
    t.deepEqual(await last.told(), ["missing resolved"]);
  });

  test(`a notification that was made ${title} ahead gets old, and goes with its notifier`, async (t) => {
    const { h } = t.context;
    const server = new Server(h);
    const body = {} as never;
    const enqueue = async () =>
      await h.deps.database.transaction(async (tx) => {
        const of = { notifier: "ops", subject: "a", event: "missing" } as const;
        await tx.notifications.enqueue({ ...of, deliveryId: randomUUID(), body }, 9);
        await tx.notifications.tell({ ...of, since: tx.now, toldAt: tx.now } as never);
      });
    server.jump(ms);
    await enqueue();
    server.jump(-ms);
    const claimed = await h.deps.database.transaction(async (tx) => await tx.notifications.claim("ops", "me", MINUTE));
    t.deepEqual(claimed!.createdAt, h.clock.now);
    server.jump(ms);
    await enqueue();
    server.jump(-ms);
    const before = new Date(h.clock.now.getTime() - 7 * DAY);
    const dropped = await h.deps.database.transaction(
      async (tx) => await tx.notifications.forgetNotifiers(["other"], before),
    );
    t.is(dropped, 1, "the one that nobody looks at");
    t.deepEqual(await rows(h, sql`select 1 from notification_told`), []);
  });
}

test("a replica that was seen an hour ahead is not there, and is forgotten", async (t) => {
  const { h } = t.context;
  const sign = (host: string) => new ReplicaSign(h.deps, { id: randomUUID(), host, version: "1" });
  const [dead, living] = [sign("dead"), sign("living")];
  h.clock.advance(HOUR);
  await dead.renew();
  h.clock.advance(-HOUR);
  const status = async () => {
    const deps = {
      ...h.deps,
      auditor: { problem: undefined, contradiction: undefined },
      readiness: { check: async () => [] },
      replica: living,
      databaseKind: "x",
      commit: "",
    };
    const { replicas } = await getServerStatus(deps, h.admin);
    return replicas.map(({ host, isAlive }) => `${host} ${isAlive}`);
  };
  t.deepEqual(await status(), ["dead false"]);
  await living.renew();
  t.deepEqual(await status(), ["living true"]);
});

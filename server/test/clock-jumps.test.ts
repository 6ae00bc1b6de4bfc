/**
 * Every row of the table in docs/clocks.md: what a stored time does when the database's clock jumps, on both kinds of
 * database.
 */
import { createHash } from "node:crypto";
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { LoginBudget } from "../src/app/sessions/login-budget.ts";
import { authenticate, login, type SessionDeps } from "../src/app/sessions/sessions.ts";
import { deletableObjects, takeInventory } from "../src/app/upkeep/inventory.ts";
import { verifyNext } from "../src/app/upkeep/verifier.ts";
import { abortUpload, renewUpload } from "../src/app/uploads/manage-uploads.ts";
import { deleteVersion, getVersion } from "../src/app/versions/versions.ts";
import { ClockedServer as Server } from "./support/clocked-server.ts";
import type { Harness } from "./support/harness.ts";
import { harnessTest, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const YEAR = 365 * DAY;

const rows = async (h: Harness, query: ReturnType<typeof sql>) => await (h.deps.database as SqlDatabase).query(query);

/** How far ahead of now a time is, in minutes. */
const ahead = (h: Harness, time: Date) => Math.round((time.getTime() - h.clock.now.getTime()) / MINUTE);

const uploadOf = async (h: Harness, id: string) =>
  (await h.deps.database.read(async (tx) => await tx.uploads.find(id)))!;
const versionOf = async (h: Harness, id: string) =>
  (await h.deps.database.read(async (tx) => await tx.versions.findById(id)))!;

for (const [title, ms] of [
  ["2 days", 2 * DAY],
  ["a year", YEAR],
] as const) {
  test(`leases and expiries, ${title} forward: the place is free at once, and the client goes on`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    const server = new Server(h);
    const { upload } = await h.begin(name);
    const segments = cutSegments(openpgpMessage(1000), Number(upload.segmentSize));
    await h.write(upload.id, segments[0]!);
    await server.sweep();
    server.jump(ms);
    await server.sweep();
    t.like(await uploadOf(h, upload.id), { state: "open", lapsed: true });
    t.like(await renewUpload(h.deps, h.admin, upload.id), { lapsed: false });
    server.pass(HOUR - MINUTE);
    await server.sweep();
    t.is((await h.commit(upload.id, segments)).version.number, 1n);
  });

  test(`leases and expiries, right again after ${title} ahead: written again once, to their own duration`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    const server = new Server(h);
    await server.sweep();
    server.jump(ms);
    const { upload } = await h.begin(name);
    await refused(t, "COLLECTION_BUSY", h.begin(name));
    server.jump(-ms);
    await server.sweep();
    const healed = await uploadOf(h, upload.id);
    t.deepEqual([ahead(h, healed.leaseExpiresAt), ahead(h, healed.expiresAt)], [15, 24 * 60]);
    server.pass(10 * MINUTE);
    await server.sweep();
    t.deepEqual((await uploadOf(h, upload.id)).leaseExpiresAt, healed.leaseExpiresAt, "once");
    server.pass(5 * MINUTE);
    await t.notThrowsAsync(h.begin(name));
  });

  test(`protection and purging, right again after ${title} ahead: counted from now with their own duration`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ minRetentionMs: 7 * DAY, maxBackupsCount: 5, maxOneVersionSize: 2n ** 20n });
    const other = h.add().name;
    const server = new Server(h);
    await server.sweep();
    server.jump(ms);
    const { version } = await h.upload(name, openpgpMessage(1000));
    const gone = (await h.upload(other, openpgpMessage(1000))).version;
    await deleteVersion(h.deps, h.admin, { collection: other, number: 1n });
    server.jump(-ms);
    await server.sweep();
    const healed = await versionOf(h, version.id);
    t.is(ahead(h, healed.protectedUntil!), 7 * 24 * 60);
    t.is(healed.begunAt.getTime(), h.clock.now.getTime() + ms, "as it was read");
    t.is(ahead(h, (await versionOf(h, gone.id)).purgeAfter!), 24 * 60);
    server.pass(DAY);
    await server.sweep();
    t.deepEqual((await versionOf(h, version.id)).protectedUntil, healed.protectedUntil, "once");
    server.pass(6 * DAY - 1);
    const remove = async () => await deleteVersion(h.deps, h.admin, { collection: name, number: 1n });
    await refused(t, "VERSION_PROTECTED", remove());
    server.pass(1);
    // A retention that is raised later counts from there too.
    h.collections.set(name, { ...h.collections.get(name)!, minRetentionMs: 8 * DAY });
    const seen = await getVersion(h.deps, h.admin, { collection: name, number: 1n });
    t.is(ahead(h, seen.protectedUntil!), 24 * 60);
    await refused(t, "VERSION_PROTECTED", remove());
    server.pass(DAY);
    await t.notThrowsAsync(remove());
  });

  test(`protection that begins later, right again after ${title} ahead: counts from when that was found`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    const server = new Server(h);
    server.jump(ms);
    await h.upload(name, openpgpMessage(1000));
    server.jump(-ms);
    await server.sweep();
    h.collections.set(name, { ...h.collections.get(name)!, minRetentionMs: DAY });
    const seen = await getVersion(h.deps, h.admin, { collection: name, number: 1n });
    t.is(ahead(h, seen.protectedUntil!), 24 * 60);
  });

  test(`verification, right again after ${title} ahead: due at once, and claims of that time are none`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    const server = new Server(h);
    server.jump(ms);
    const { version } = await h.upload(name, openpgpMessage(1000));
    const plan = { everyMs: 30 * DAY, bytesPerSecond: 10n ** 9n };
    const claim = (now: Date, before: number) => {
      const at = (time: number) => new Date(now.getTime() + time);
      const limits = { before: at(before), damagedBefore: at(before), until: at(15 * MINUTE) };
      return h.deps.database.transaction(async (tx) => await tx.versions.claimForVerification(now, limits));
    };
    t.truthy(await claim(h.clock.now, 0));
    server.jump(-ms);
    const next = async () => await verifyNext(h.deps, plan, new AbortController().signal, async () => {});
    t.true(await next());
    t.deepEqual((await versionOf(h, version.id)).verifiedAt, h.clock.now);
    t.false(await next(), "once");
    server.pass(15 * DAY);
    t.true(await next());
  });

  test(`sessions, right again after ${title} ahead: they live as long as sessions do, from now`, async (t) => {
    const { h } = t.context;
    const of = await sessionDeps(h);
    const server = new Server(h);
    server.jump(ms);
    const [used, swept] = [await enter(of), await enter(of)];
    server.jump(-ms);
    await authenticate(of, used, "127.0.0.1");
    const lives = async () =>
      (
        await h.deps.database.read(
          async (tx) => await tx.sessions.listValid({ userName: "ann" }, h.clock.now, undefined, 9),
        )
      ).map((session) => ahead(h, session.expiresAt));
    t.deepEqual(
      (await lives()).sort((a, b) => a - b),
      [6 * 60, ms / MINUTE + 6 * 60],
      "the one that was used",
    );
    await server.sweep();
    t.deepEqual(await lives(), [6 * 60, 6 * 60]);
    server.pass(6 * HOUR - 1);
    await authenticate(of, swept, "127.0.0.1");
    server.pass(1);
    for (const token of [used, swept]) await refused(t, "SESSION_INVALID", authenticate(of, token, "127.0.0.1"));
  });

  test(`sessions, ${title} forward: they are over, and valid again when the clock is; revoked ones stay revoked`, async (t) => {
    const { h } = t.context;
    const of = await sessionDeps(h);
    const server = new Server(h);
    const [token, revoked] = [await enter(of), await enter(of)];
    await server.sweep();
    server.jump(ms);
    await refused(t, "SESSION_INVALID", authenticate(of, token, "127.0.0.1"));
    await rows(
      h,
      sql`update sessions set revoked_at = ${h.clock.now.toISOString()}::timestamptz where id = ${of.sha256(revoked)}`,
    );
    await server.sweep();
    server.jump(-ms);
    await server.sweep();
    await t.notThrowsAsync(authenticate(of, token, "127.0.0.1"));
    await refused(t, "SESSION_INVALID", authenticate(of, revoked, "127.0.0.1"));
    const [row] = await rows(
      h,
      sql`select count(*)::int as ahead from sessions where revoked_at > ${h.clock.now.toISOString()}::timestamptz`,
    );
    t.is(row!.ahead, 0);
  });

  test(`signing keys, right again after ${title} ahead: dated to now, and the next one comes in time`, async (t) => {
    const { h } = t.context;
    const server = new Server(h);
    server.jump(ms);
    await JoseSigner.fromDatabase(h.deps.database);
    server.jump(-ms);
    const dates = async () => (await rows(h, sql`select created_at from signing_keys order by created_at`)).length;
    const newest = async () => (await h.deps.database.read(async (tx) => await tx.sessions.signingKeys()))[0]!;
    await JoseSigner.fromDatabase(h.deps.database);
    t.is(await dates(), 1);
    t.deepEqual((await newest()).createdAt, h.clock.now);
    const { id } = await newest();
    server.pass(91 * DAY);
    await JoseSigner.fromDatabase(h.deps.database);
    t.not((await newest()).id, id);
  });

  test(`budgets of logins, right again after ${title} ahead: whole, once`, async (t) => {
    const { h } = t.context;
    const limit = { count: 3, perMs: HOUR };
    const address = "192.0.2.1";
    const budget = () => new LoginBudget(h.deps.database, limit, () => 0);
    const server = new Server(h);
    server.jump(ms);
    // A login that succeeded.
    const first = budget();
    await first.take(address);
    await first.giveBack(address);
    server.jump(-ms);
    // Each on a server that knows of nothing.
    for (let i = 0; i < 3; i++) await t.notThrowsAsync(budget().take(address), `login ${i + 1}`);
    await refused(t, "RATE_LIMITED", budget().take(address));
    server.pass(20 * MINUTE);
    await budget().take(address);
    await refused(t, "RATE_LIMITED", budget().take(address));
  });

  test(`request ids, right again after ${title} ahead: known as long as request ids are`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    const server = new Server(h);
    await server.sweep();
    server.jump(ms);
    const { upload } = await h.begin(name, h.admin, "nightly");
    server.jump(-ms);
    t.is((await h.begin(name, h.admin, "nightly")).upload.id, upload.id);
    server.jump(ms);
    await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
    server.jump(-ms);
    await server.sweep();
    server.pass(7 * DAY - 1);
    t.is((await h.begin(name, h.admin, "nightly")).upload.id, upload.id);
    server.pass(2);
    t.not((await h.begin(name, h.admin, "nightly")).upload.id, upload.id);
  });

  test(`unknown objects, right again after ${title} ahead: seen first from now on`, async (t) => {
    const { h } = t.context;
    const server = new Server(h);
    await h.deps.store.put("collections/c/8e315d9a-0f28-469f-b060-f8fd2e823b3c", new Uint8Array(5));
    const look = async () => {
      const found = await takeInventory(h.deps, { finished: true, record: true });
      return (await deletableObjects(h.deps, found)).length;
    };
    server.jump(ms);
    t.is(await look(), 0);
    server.jump(-ms);
    t.is(await look(), 0);
    server.pass(DAY - 1);
    t.is(await look(), 0);
    server.pass(1);
    t.is(await look(), 1);
  });
}

test("a clock that servers differ by gives nobody a whole budget, and no lease another end", async (t) => {
  const { h } = t.context;
  const limit = { count: 3, perMs: HOUR };
  const budget = () => new LoginBudget(h.deps.database, limit, () => 0);
  for (let i = 0; i < 3; i++) await budget().take("192.0.2.1");
  const { upload } = await h.begin(h.add().name);
  const server = new Server(h);
  await server.sweep();
  server.jump(-4 * MINUTE);
  await refused(t, "RATE_LIMITED", budget().take("192.0.2.1"));
  await server.sweep();
  t.deepEqual((await uploadOf(h, upload.id)).leaseExpiresAt, upload.leaseExpiresAt);
});

test("a budget far ahead is forgotten by a sweep, also when nobody comes back", async (t) => {
  const { h } = t.context;
  const server = new Server(h);
  server.jump(YEAR);
  await new LoginBudget(h.deps.database, { count: 3, perMs: HOUR }, () => 0).take("192.0.2.1");
  server.jump(-YEAR);
  await server.sweep();
  t.deepEqual(await rows(h, sql`select * from login_budgets`), []);
});

test("2 days back: leases, expiries and purging are counted from now", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxParallelUploads: 2 });
  const server = new Server(h);
  const { version } = await h.upload(name, openpgpMessage(1000));
  const { upload } = await h.begin(name);
  await deleteVersion(h.deps, h.admin, { collection: name, number: 1n });
  await server.sweep();
  for (const restart of [false, true]) {
    server.jump(-2 * DAY);
    if (restart) server.restart();
    const report = await server.sweep();
    t.like(report, { expired: 0, purged: 0, deletions: false });
    t.is(ahead(h, (await uploadOf(h, upload.id)).expiresAt), 24 * 60);
    t.is(ahead(h, (await versionOf(h, version.id)).purgeAfter!), 24 * 60);
  }
});

/** What logins need, for a user ann whose password is not looked at. */
async function sessionDeps(h: Harness): Promise<SessionDeps> {
  h.users.set("ann", user("ann", { passwordHash: "hash" }));
  return {
    ...h.deps,
    passwords: { verify: async () => true, hash: async () => "" },
    logins: { giveBack: async () => {} },
    tokens: await JoseSigner.fromDatabase(h.deps.database),
    sha256: (text) => createHash("sha256").update(text).digest("hex"),
    sessionMs: 6 * HOUR,
    sessionLifetimeMs: 30 * DAY,
  };
}

async function enter(deps: SessionDeps): Promise<string> {
  const input = { username: "ann", password: "x", description: "", scope: [], address: "127.0.0.1" };
  return (await login(deps, input)).token;
}

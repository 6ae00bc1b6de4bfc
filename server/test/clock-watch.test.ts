/** The watch of the clock, and what is paused because of it, on both kinds of database. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import { ClockWatch, confirmClock, peekAtClock } from "../src/app/upkeep/clock-watch.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { renewUpload } from "../src/app/uploads/manage-uploads.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import type { Harness } from "./support/harness.ts";
import { harnessTest } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A server as far as clocks go: its watch, its own clock, and what it logged. */
class Server {
  readonly logged: string[] = [];
  readonly #h: Harness;
  readonly #watch: ClockWatch;
  #own = 0;

  constructor(h: Harness) {
    this.#h = h;
    const log = {
      debug: () => {},
      info: (_fields: object, message: string) => void this.logged.push(message),
      warn: () => {},
      error: (_fields: object, message: string) => void this.logged.push(message),
    };
    this.#watch = new ClockWatch({ database: h.deps.database, log }, () => this.#own);
  }

  /** Time goes by, for every clock. */
  pass(ms: number): void {
    this.#own += ms;
    this.#h.clock.advance(ms);
  }

  /** What the sweeper does. */
  async sweep() {
    const { status } = await this.#watch.look();
    return { status, report: await sweep(this.#h.deps, status === "right") };
  }
}

/** One open upload, and one removed version whose time comes in a day. */
async function prepare(h: Harness) {
  const { name } = h.add({ maxParallelUploads: 2 });
  await h.upload(name, openpgpMessage(1000));
  const { upload } = await h.begin(name);
  await deleteVersion(h.deps, h.admin, { collection: name, number: 1n });
  return { name, upload };
}

async function healthOf(h: Harness, name: string) {
  const caller = { principal: h.admin, secret: undefined };
  const { checks } = await getCollectionHealth({ ...h.deps, sha256: () => "" }, caller, name);
  return Object.fromEntries(checks.map((check) => [check.name, check]));
}

for (const [title, ms] of [
  ["two days", 2 * DAY],
  ["a year", 365 * DAY],
] as const) {
  test(`a leap of ${title} forward: nothing is purged or expires for an hour; who lives on loses nothing`, async (t) => {
    const { h } = t.context;
    const { name, upload } = await prepare(h);
    const server = new Server(h);
    t.like(await server.sweep(), { status: "right", report: { deletions: true } });
    h.clock.advance(ms);
    server.pass(MINUTE);
    const leapt = await server.sweep();
    t.like(leapt, { status: "paused", report: { expired: 0, purged: 0, lapsed: 1, deletions: false } });
    t.regex(server.logged.at(-1)!, /^clock: the database's clock leapt forward by .*--clock-is-right/);
    t.like((await healthOf(h, name)).clock, { status: "warning" });
    t.is((await collectionFigures(h.deps)).collections[0]!.health, "warning");
    server.pass(30 * MINUTE);
    // Another server, and one that was started again, know of it.
    t.is((await new Server(h).sweep()).status, "paused");
    await renewUpload(h.deps, h.admin, upload.id);
    server.pass(30 * MINUTE);
    const over = await server.sweep();
    // After a year it is older than any upload may be.
    const expired = ms > DAY * 7 ? 1 : 0;
    t.like(over, { status: "right", report: { expired, purged: 1, deletions: true } });
    t.regex(server.logged.at(-1)!, /goes on as it should/);
    t.like((await healthOf(h, name)).clock, { status: "ok" });
  });
}

test("a clock that goes back two days: nothing is purged or expires until it gets there, or somebody confirms it", async (t) => {
  const { h } = t.context;
  const { name } = await prepare(h);
  await h.begin(name);
  const server = new Server(h);
  await server.sweep();
  h.clock.advance(-2 * DAY);
  server.pass(MINUTE);
  t.is((await server.sweep()).status, "behind");
  t.regex(server.logged.at(-1)!, /before what was stored, .*; it is 1d\d+h.* behind|it is 2d behind/);
  // The pause for the leap is over, the clock is still behind.
  server.pass(26 * HOUR);
  t.like(await server.sweep(), { status: "behind", report: { expired: 0, purged: 0 } });
  t.is((await healthOf(h, name)).clock!.status, "failed");
  t.is((await new Server(h).sweep()).status, "behind", "over a restart");
  t.is((await peekAtClock(h.deps.database)).status, "behind");
  await confirmClock(h.deps.database);
  t.is((await peekAtClock(h.deps.database)).status, "right");
  t.like(await server.sweep(), { status: "right", report: { expired: 2, purged: 1 } });
  const events = await (h.deps.database as SqlDatabase).query(
    sql`select actor, details->>'newest_stored' as newest from audit_events where kind = 'clock.confirmed'`,
  );
  t.deepEqual(events, [{ actor: "operator", newest: "2026-01-01T00:00:00.000Z" }]);
});

test("a server that starts after eight days pauses for an hour, also another one that starts after it", async (t) => {
  const { h } = t.context;
  await prepare(h);
  await new Server(h).sweep();
  h.clock.advance(8 * DAY);
  t.is((await peekAtClock(h.deps.database)).status, "paused", "a look changes nothing");
  t.like(await new Server(h).sweep(), { status: "paused", report: { expired: 0, purged: 0, lapsed: 1 } });
  t.like(await new Server(h).sweep(), { status: "paused", report: { expired: 0, purged: 0 } });
  await confirmClock(h.deps.database);
  t.like(await new Server(h).sweep(), { status: "right", report: { expired: 1, purged: 1 } });
});

test("a leap of two days over a restart looks like downtime: what is overdue is done", async (t) => {
  const { h } = t.context;
  await prepare(h);
  await new Server(h).sweep();
  h.clock.advance(2 * DAY);
  t.like(await new Server(h).sweep(), { status: "right", report: { expired: 1, purged: 1 } });
});

test("what was ended by somebody is freed, and commits are finished, while the clock is in doubt", async (t) => {
  const { h } = t.context;
  const { name, upload } = await prepare(h);
  const server = new Server(h);
  await server.sweep();
  h.clock.advance(2 * DAY);
  const { abortUpload } = await import("../src/app/uploads/manage-uploads.ts");
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  t.like(await server.sweep(), { status: "paused", report: { cleaned: 1, failed: 0 } });
  t.truthy(name);
});

test("versions dated ahead: age and window do not pass on them, the clock check fails, the metric shows no time", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxAgeMs: DAY, windows: [{ from: "0 1 * * *", durationMs: HOUR }] });
  const upload = async () => await h.upload(name, openpgpMessage(1000));
  const statuses = async () => {
    const checks = await healthOf(h, name);
    return Object.fromEntries(["window", "age", "clock"].map((check) => [check, checks[check]!.status]));
  };
  h.clock.advance(HOUR);
  await upload();
  h.clock.advance(HOUR);
  t.deepEqual(await statuses(), { window: "ok", age: "ok", clock: "ok" });
  for (const ahead of [HOUR, 2 * DAY, 365 * DAY]) {
    h.clock.advance(ahead);
    await h.upload(name, openpgpMessage(1000), h.admin);
    h.clock.advance(-ahead);
    t.deepEqual(await statuses(), { window: "failed", age: "failed", clock: "failed" });
    const [figures] = (await collectionFigures(h.deps)).collections;
    t.like(figures, { newestAt: undefined, health: "failed" });
  }
  h.clock.advance(24 * HOUR - HOUR);
  await upload();
  t.deepEqual(await statuses(), { window: "ok", age: "ok", clock: "failed" }, "by the newest; the others stay");
  const { clock } = await healthOf(h, name);
  t.regex(clock!.message, /no version to be dated beyond now, .*; got .*version 4 \(2027/);
});

test("what pauses while the clock is behind is said beside versions dated ahead", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  const server = new Server(h);
  h.clock.advance(2 * DAY);
  await server.sweep();
  await h.upload(name, openpgpMessage(1000));
  h.clock.advance(-2 * DAY);
  const { clock } = await healthOf(h, name);
  t.is(clock!.status, "failed");
  t.regex(
    clock!.message,
    /it is 2d behind.*nothing is purged.*; expected no version to be dated beyond now.*version 1/,
  );
  t.regex(clock!.advice, /sweep --clock-is-right.*Remove these versions/);
});

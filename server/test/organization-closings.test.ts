/** That an organization was closed and purged is in the storage too, and survives the loss of the database. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { settleClosing } from "../src/app/organizations/closing-object.ts";
import { closeOrganization, openOrganization } from "../src/app/organizations/organizations.ts";
import { purgeOrganization } from "../src/app/organizations/purge.ts";
import type { BlobStore } from "../src/app/ports/blob-store.ts";
import { copyStorage } from "../src/app/upkeep/copy-storage.ts";
import { healTimes } from "../src/app/upkeep/heal-times.ts";
import { takeInventory } from "../src/app/upkeep/inventory.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { closingKey } from "../src/domain/object-keys.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const REASON = 'contract "has" ended\n🗝';
const MESSAGE = openpgpMessage(5000);

function tenant(h: Harness): void {
  h.organizations.set("acme", { name: "acme", maxTotalSize: undefined });
  h.add({ name: "a", organization: "acme" });
}

const close = async (h: Harness) => await closeOrganization(h.deps, h.admin, "acme", REASON);

const rowOf = async (database: Pick<SqlDatabase, "read">) =>
  await database.read(async (tx) => await tx.organizations.find("acme"));

/** What a database has that was rebuilt from the store. */
async function rebuilt(t: ExecutionContext, h: Harness, store: BlobStore = h.deps.store) {
  const database = await openMemoryDatabase(() => h.clock.now);
  t.teardown(async () => await database.close());
  const report = await recover({ store, database });
  return { database, report, row: await rowOf(database) };
}

test("a closed organization is closed after a rebuild, since when, by whom and why; an opened one is open", async (t) => {
  const { h } = t.context;
  tenant(h);
  await h.upload("a", MESSAGE);
  t.is((await rebuilt(t, h)).row?.closedAt, null, "nothing is written of what was never closed");
  const closedAt = new Date(h.clock.now);
  await close(h);
  h.clock.advance(3_600_000);
  const { database, row, report } = await rebuilt(t, h);
  t.deepEqual([report.skipped, report.unknown], [[], []]);
  t.like(row, { closedAt, closedBy: "admin", closedReason: REASON, purge: null, storedBytes: BigInt(MESSAGE.length) });
  const over = { ...h.deps, database };
  await openOrganization(over, h.admin, "acme");
  t.is((await rebuilt(t, h)).row?.closedAt, null);
});

test("the record of a purge survives a rebuild", async (t) => {
  const { h } = t.context;
  tenant(h);
  await h.upload("a", MESSAGE);
  await close(h);
  const record = await purgeOrganization(h.deps, h.admin, "acme", { versions: 1n, bytes: BigInt(MESSAGE.length) });
  await sweep(h.deps, true);
  t.deepEqual((await rebuilt(t, h)).row?.purge, record);
});

test("a store that is away keeps nobody from closing; the sweeper writes what is missing or was changed", async (t) => {
  const { h } = t.context;
  tenant(h);
  await h.upload("a", MESSAGE);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("put", { when: "before" });
  await closeOrganization({ ...h.deps, store }, h.admin, "acme", REASON);
  store.assertAllFired(t);
  t.is(await h.deps.store.get(closingKey("acme"), 9999), undefined);
  const closing = { closedReason: REASON };
  t.is((await sweep(h.deps, true)).manifests, 1);
  t.like((await rebuilt(t, h)).row, closing);
  t.is((await sweep(h.deps, true)).manifests, 0, "once");
  for (const theft of [
    async () => await h.deps.store.delete(closingKey("acme")),
    async () => await h.deps.store.put(closingKey("acme"), new TextEncoder().encode("{}")),
    async () => await h.deps.store.put(closingKey("acme"), new Uint8Array(600_000)),
  ]) {
    await theft();
    t.is((await sweep(h.deps, true)).manifests, 1);
    t.like((await rebuilt(t, h)).row, closing);
  }
});

test("a database that was rolled back to before the closing does not take it out of the storage", async (t) => {
  const { h } = t.context;
  tenant(h);
  await close(h);
  await (h.deps.database as SqlDatabase).query(sql`update organizations set closed_at = null`);
  await sweep(h.deps, true);
  t.truthy((await rebuilt(t, h)).row?.closedAt);
});

test("of two that are written at once the newer state stays", async (t) => {
  const { h } = t.context;
  tenant(h);
  await close(h);
  const store = new FaultyBlobStore(h.deps.store);
  const stall = store.stall("put", { nth: 1, when: "before" });
  const late = settleClosing({ ...h.deps, store }, "acme");
  await stall.reached;
  await openOrganization(h.deps, h.admin, "acme");
  stall.release();
  await late;
  t.is((await rebuilt(t, h)).row?.closedAt, null);
});

test("objects that are no closings are named, and the rest is rebuilt", async (t) => {
  const { h } = t.context;
  tenant(h);
  await h.upload("a", MESSAGE);
  await close(h);
  const bytes = (await h.deps.store.get(closingKey("acme"), 9999))!;
  await h.deps.store.put(closingKey("other"), bytes);
  await h.deps.store.put(closingKey("broken"), new TextEncoder().encode('{"format":"strongroom-organization-1"}'));
  const purge = { at: "2026-01-31T00:00:00.000Z", by: "admin", versions: "1", bytes: "5000", collections: ["a"] };
  const put = async (name: string, change: object, purged: object = {}) => {
    const object = { ...JSON.parse(new TextDecoder().decode(bytes)), name, purge: { ...purge, ...purged }, ...change };
    await h.deps.store.put(closingKey(name), new TextEncoder().encode(JSON.stringify(object)));
    return closingKey(name);
  };
  const most = { versions: `${2n ** 63n - 1n}`, collections: Array.from({ length: 1000 }, (_, i) => `c${i}`) };
  await put("purged", {}, most);
  const times = ["soon", "2026-01-31", "2026-02-30T00:00:00.000Z", "+010000-01-01T00:00:00.000Z"];
  const bad: { change?: object; purged?: object }[] = [
    ...[...times, "0000-01-01T00:00:00.000Z"].flatMap((at) => [{ change: { closedAt: at } }, { purged: { at } }]),
    ...["many", "-1", "1.5", "", `${2n ** 63n}`].flatMap((n) => [
      { purged: { versions: n } },
      { purged: { bytes: n } },
    ]),
    { purged: { collections: [...most.collections, "c"] } },
    { change: { closedReason: "\ud800" } },
  ];
  const keys: string[] = [];
  for (const { change = {}, purged } of bad) keys.push(await put(`bad-${keys.length}`, change, purged));
  const { database, report, row } = await rebuilt(t, h);
  t.truthy(row?.closedAt);
  t.deepEqual(report.skipped.map(({ key }) => key).sort(), [closingKey("broken"), closingKey("other"), ...keys].sort());
  t.like((await database.read(async (tx) => await tx.organizations.find("purged")))?.purge, { ...purge, ...most });
  await healTimes({ ...h.deps, database });
});

test("closings are no unknown objects, and are copied with a store", async (t) => {
  const { h } = t.context;
  tenant(h);
  await close(h);
  const found = await takeInventory({ ...h.deps, log: h.deps.log }, { finished: true, record: false });
  t.deepEqual(found.unknown, []);
  const to = new MemoryBlobStore();
  const { signal } = new AbortController();
  t.is((await copyStorage({ from: h.deps.store, to, signal, onObject: () => {} })).failed, 0);
  t.truthy((await rebuilt(t, h, to)).row?.closedAt);
});

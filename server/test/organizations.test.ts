/** Tenants that end: closed, handed over, purged; and what was uploaded each day. */

import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { closeOrganization, listOrganizations, openOrganization } from "../src/app/organizations/organizations.ts";
import { purgeOrganization } from "../src/app/organizations/purge.ts";
import { listUsage } from "../src/app/organizations/usage.ts";
import { forgetByTime, KEPT } from "../src/app/upkeep/forget.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { holdVersion, releaseVersion } from "../src/app/versions/hold-version.ts";
import { deleteVersion, readVersion } from "../src/app/versions/versions.ts";
import { INSTALLATION_KEY } from "../src/domain/object-keys.ts";
import { type Harness, harnessTest, principal, refused, user } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const DAY = 24 * 3_600_000;
const MESSAGE = openpgpMessage(5000);
const SIZE = BigInt(MESSAGE.length);

/** Two tenants, the first with two collections. */
function tenants(h: Harness): void {
  for (const name of ["acme", "other"]) h.organizations.set(name, { name, maxTotalSize: undefined });
  for (const name of ["a-one", "a-two"]) h.add({ name, organization: "acme" });
  h.add({ name: "b-one", organization: "other" });
}

const close = async (h: Harness, name = "acme") => await closeOrganization(h.deps, h.admin, name, "contract has ended");
const purge = async (h: Harness, versions: bigint, bytes: bigint, name = "acme") =>
  await purgeOrganization(h.deps, h.admin, name, { versions, bytes });

async function bytesOf(h: Harness, collection: string, number: bigint): Promise<Buffer> {
  const input = { collection, number, offset: 0n, limit: 0n };
  const { body } = await readVersion(h.deps, h.admin, input, new AbortController().signal);
  return Buffer.concat(await Array.fromAsync(body));
}

test("a closed organization takes nothing, says why, and gives out what it has", async (t) => {
  const { h } = t.context;
  tenants(h);
  await h.upload("a-one", MESSAGE);
  const { upload } = await h.begin("a-one");
  const [segment] = cutSegments(MESSAGE, Number(upload.segmentSize));
  const whole = (await h.begin("a-two")).upload;
  await h.write(whole.id, segment!);

  const closed = await close(h);
  t.like(closed, { name: "acme", closedBy: "admin", closedReason: "contract has ended", configured: true });
  const error = await refused(t, "ORGANIZATION_CLOSED", h.begin("a-two"));
  t.regex(error.message, /closed \(contract has ended\)/);
  t.deepEqual(error.metadata, { organization: "acme", closed_reason: "contract has ended" });
  await refused(t, "ORGANIZATION_CLOSED", h.write(upload.id, segment!));
  await refused(t, "ORGANIZATION_CLOSED", h.commit(whole.id, [segment!]));
  t.deepEqual(await bytesOf(h, "a-one", 1n), Buffer.from(MESSAGE));
  await h.upload("b-one", MESSAGE);

  t.is((await openOrganization(h.deps, h.admin, "acme")).closedAt, null);
  await h.commit(whole.id, [segment!]);
  const database = h.deps.database as SqlDatabase;
  const events = await database.query(
    sql`select kind from audit_events where kind like 'organization.%' order by kind`,
  );
  t.deepEqual(events, [{ kind: "organization.closed" }, { kind: "organization.opened" }]);
});

test("a purge names the numbers before, removes everything of the tenant, and leaves a record", async (t) => {
  const { h } = t.context;
  tenants(h);
  for (const name of ["a-one", "a-one", "a-two", "b-one"]) await h.upload(name, MESSAGE);
  await deleteVersion(h.deps, h.admin, { collection: "a-one", number: 1n });
  const { upload } = await h.begin("a-two");
  await h.write(upload.id, cutSegments(MESSAGE, Number(upload.segmentSize))[0]!);

  const cause = async (versions: bigint, bytes: bigint) =>
    (await refused(t, "PURGE_REFUSED", purge(h, versions, bytes))).metadata;
  t.like(await cause(2n, 2n * SIZE), { cause: "open" });
  await close(h);
  for (const [versions, bytes] of [
    [0n, 0n],
    [2n, 2n * SIZE - 1n],
    [3n, 2n * SIZE],
  ] as const)
    t.like(await cause(versions, bytes), { cause: "unconfirmed", version_count: "2", size_bytes: `${2n * SIZE}` });

  const record = await purge(h, 2n, 2n * SIZE);
  t.like(record, { by: "admin", versions: "2", bytes: `${2n * SIZE}`, collections: ["a-one", "a-two"] });
  t.is((await h.usage("a-one")).storedBytes, 0n);
  await h.assertInvariants(t);
  h.clock.advance(DAY + 1000);
  await sweep(h.deps, true);
  const left = await Array.fromAsync(h.deps.store.list("collections/"));
  t.deepEqual(new Set(left.map(({ key }) => key.split("/")[1])), new Set(["b-one"]), "its trash and uploads too");
  t.deepEqual(await bytesOf(h, "b-one", 1n), Buffer.from(MESSAGE));
  const { organizations } = await listOrganizations(h.deps, h.admin, { afterName: undefined, pageSize: 10 });
  t.like(organizations[0], { name: "acme", storedBytes: 0n, reservedBytes: 0n, trashBytes: 0n, purge: record });
  t.like(await purge(h, 0n, 0n), { versions: "0" }, "there is nothing more");
});

test("the bytes of a purged tenant go too when its collections are taken out of the configuration", async (t) => {
  const { h } = t.context;
  tenants(h);
  for (const name of ["a-one", "a-two", "b-one"]) await h.upload(name, MESSAGE);
  await deleteVersion(h.deps, h.admin, { collection: "b-one", number: 1n });
  await close(h);
  await purge(h, 2n, 2n * SIZE);
  await close(h);
  for (const name of ["a-one", "a-two", "b-one"]) h.collections.delete(name);
  h.organizations.delete("acme");
  h.clock.advance(31 * DAY);
  t.is((await sweep(h.deps, true)).purged, 2);
  const left = await Array.fromAsync(h.deps.store.list("collections/"));
  t.deepEqual(new Set(left.map(({ key }) => key.split("/")[1])), new Set(["b-one"]), "nobody purged the other tenant");
});

/** Dependencies of a purge during which something happens: between its survey and its first batch. */
function interrupted(h: Harness, happens: () => Promise<unknown>): Harness["deps"] {
  let transactions = 0;
  const transaction: Harness["deps"]["database"]["transaction"] = async (work) => {
    if (++transactions === 2) await happens();
    return await h.deps.database.transaction(work);
  };
  const database = { ...h.deps.database, transaction, read: h.deps.database.read.bind(h.deps.database) };
  return { ...h.deps, database };
}

for (const { title, happens, cause } of [
  {
    title: "the organization is opened",
    happens: async (h: Harness) => await openOrganization(h.deps, h.admin, "acme"),
    cause: "open",
  },
  {
    title: "a backup is being committed",
    happens: async (h: Harness) =>
      await (h.deps.database as SqlDatabase).query(
        sql`update uploads set state = 'committing', version_number = 9 where state = 'open'`,
      ),
    cause: "committing",
  },
  {
    title: "another purge begins",
    happens: async (h: Harness) => {
      h.clock.advance(1000);
      await h.deps.database.transaction(async (tx) => {
        const record = (await tx.organizations.find("acme"))!.purge!;
        await tx.organizations.notePurge("acme", { ...record, at: tx.now.toISOString() });
      });
    },
    cause: "unconfirmed",
  },
])
  test(`a purge stops where ${title} after its survey`, async (t) => {
    const { h } = t.context;
    tenants(h);
    await h.upload("a-one", MESSAGE);
    await h.begin("a-one");
    await close(h);
    const deps = interrupted(h, async () => await happens(h));
    const purging = purgeOrganization(deps, h.admin, "acme", { versions: 1n, bytes: SIZE });
    t.like((await refused(t, "PURGE_REFUSED", purging)).metadata, { cause });
    t.deepEqual(await bytesOf(h, "a-one", 1n), Buffer.from(MESSAGE), "nothing was removed");
  });

test("a purge counts without a transaction around it, and is refused where that is not true any more", async (t) => {
  const { h } = t.context;
  tenants(h);
  for (const name of ["a-one", "a-one", "a-two"]) await h.upload(name, MESSAGE);
  await close(h);
  let reads = 0;
  const read: Harness["deps"]["database"]["read"] = async (work) => {
    const result = await h.deps.database.read(work);
    // When one collection is counted, a version of it is removed.
    if (++reads === 2) await deleteVersion(h.deps, h.admin, { collection: "a-one", number: 1n });
    return result;
  };
  const transaction = h.deps.database.transaction.bind(h.deps.database);
  const deps = { ...h.deps, database: { ...h.deps.database, transaction, read } };
  const confirmed = { versions: 3n, bytes: 3n * SIZE };
  const { message } = await refused(t, "PURGE_REFUSED", purgeOrganization(deps, h.admin, "acme", confirmed));
  t.regex(message, /while they were counted/);
  t.is(reads, 3, "one for the organization, one for each collection");
  t.like(await purge(h, 2n, 2n * SIZE), { versions: "2" });
});

test("what was published after the survey of a purge stays", async (t) => {
  const { h } = t.context;
  tenants(h);
  await h.upload("a-one", MESSAGE);
  await close(h);
  const deps = interrupted(h, async () => {
    await openOrganization(h.deps, h.admin, "acme");
    await h.upload("a-one", MESSAGE);
    await close(h);
  });
  await purgeOrganization(deps, h.admin, "acme", { versions: 1n, bytes: SIZE });
  t.is((await h.usage("a-one")).storedBytes, SIZE);
  t.deepEqual(await bytesOf(h, "a-one", 2n), Buffer.from(MESSAGE));
});

test("an upload whose collection went to another organization is refused once its own is closed", async (t) => {
  const { h } = t.context;
  tenants(h);
  const { upload } = await h.begin("a-one");
  const [segment] = cutSegments(MESSAGE, Number(upload.segmentSize));
  await h.write(upload.id, segment!);
  h.collections.set("a-one", { ...h.collections.get("a-one")!, organization: "other" });
  await close(h);
  const error = await refused(t, "ORGANIZATION_CLOSED", h.commit(upload.id, [segment!]));
  t.like(error.metadata, { organization: "acme" });
});

test("a purge deletes nothing of what a tenant has after it was opened again", async (t) => {
  const { h } = t.context;
  tenants(h);
  await close(h);
  await purge(h, 0n, 0n);
  await openOrganization(h.deps, h.admin, "acme");
  await h.upload("a-one", MESSAGE);
  h.clock.advance(1000);
  await deleteVersion(h.deps, h.admin, { collection: "a-one", number: 1n });
  await close(h);
  h.collections.delete("a-one");
  h.clock.advance(31 * DAY);
  t.is((await sweep(h.deps, true)).purged, 0);
});

test("what is held, protected or being committed keeps a tenant from being purged", async (t) => {
  const { h } = t.context;
  tenants(h);
  h.add({ name: "a-kept", organization: "acme", minRetentionMs: 10 * DAY });
  await h.upload("a-one", MESSAGE);
  await h.upload("a-kept", MESSAGE);
  await holdVersion(h.deps, h.admin, { collection: "a-one", number: 1n, reason: "court" });
  await close(h);
  const cause = async () => (await refused(t, "PURGE_REFUSED", purge(h, 2n, 2n * SIZE))).message;
  t.regex(await cause(), /version 1 of "a-kept" is protected until 2026-01-11/);
  h.clock.advance(11 * DAY);
  t.regex(await cause(), /version 1 of "a-one" is held; release it first/);
  await releaseVersion(h.deps, h.admin, { collection: "a-one", number: 1n });
  await sweep(h.deps, true);
  t.like(await purge(h, 2n, 2n * SIZE), { versions: "2" });
});

test("only systemAdmin sees and ends organizations, and only those that there are", async (t) => {
  const { h } = t.context;
  tenants(h);
  const roles = ["userManager", "collectionManager", "backupDownloader"] as const;
  const others = [principal(user("clerk", { roles })), principal(h.admin.user, { accessKey: "k" })];
  const page = { afterName: undefined, pageSize: 10 };
  for (const who of others) {
    await refused(t, "ACCESS_DENIED", listOrganizations(h.deps, who, page));
    await refused(t, "ACCESS_DENIED", closeOrganization(h.deps, who, "acme", "x"));
    await refused(t, "ACCESS_DENIED", openOrganization(h.deps, who, "acme"));
    await refused(t, "ACCESS_DENIED", purgeOrganization(h.deps, who, "acme", { versions: 0n, bytes: 0n }));
    await refused(t, "ACCESS_DENIED", listUsage(h.deps, who, {}, { after: undefined, pageSize: 10 }));
  }
  await refused(t, "ORGANIZATION_NOT_FOUND", close(h, "nobody"));
  await refused(t, "ORGANIZATION_NOT_FOUND", purge(h, 0n, 0n, "nobody"));
  const first = await listOrganizations(h.deps, h.admin, { afterName: undefined, pageSize: 1 });
  t.deepEqual([first.organizations[0]?.name, first.nextAfter], ["acme", "acme"]);
  const second = await listOrganizations(h.deps, h.admin, { afterName: "acme", pageSize: 1 });
  t.deepEqual([second.organizations[0]?.name, second.nextAfter], ["other", undefined]);
});

test("usage says per day what came in and what became versions, and is forgotten after its time", async (t) => {
  const { h } = t.context;
  tenants(h);
  await h.upload("a-one", MESSAGE);
  await h.upload("a-one", MESSAGE);
  h.clock.advance(DAY);
  await h.upload("b-one", MESSAGE);
  const { upload } = await h.begin("a-two");
  await h.write(upload.id, cutSegments(MESSAGE, Number(upload.segmentSize))[0]!);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });

  const all = async (filter = {}, pageSize = 100) => {
    const found = [];
    for (let after: Parameters<typeof listUsage>[3]["after"]; ; ) {
      const { days, next } = await listUsage(h.deps, h.admin, filter, { after, pageSize });
      for (const { key, receivedBytes, storedBytes, versions } of days)
        found.push([key.day, key.organization, key.collectionName, receivedBytes, storedBytes, versions]);
      if (next === undefined) return found;
      after = next;
    }
  };
  const expected = [
    ["2026-01-02", "acme", "a-two", SIZE, 0n, 0n],
    ["2026-01-02", "other", "b-one", SIZE, SIZE, 1n],
    ["2026-01-01", "acme", "a-one", 2n * SIZE, 2n * SIZE, 2n],
  ];
  t.deepEqual(await all(), expected);
  t.deepEqual(await all({}, 1), expected);
  t.deepEqual(await all({ organization: "other" }), [expected[1]]);
  t.deepEqual(await all({ collectionName: "a-one" }), [expected[2]]);
  t.deepEqual(await all({ fromDay: "2026-01-02" }), expected.slice(0, 2));
  t.deepEqual(await all({ toDay: "2026-01-01" }), expected.slice(2));

  h.clock.advance(KEPT.usageMs - DAY);
  await forgetByTime(h.deps.database, true);
  t.is((await all()).length, 3);
  h.clock.advance(DAY);
  await forgetByTime(h.deps.database, true);
  t.deepEqual(await all(), expected.slice(0, 2));
});

test("the prefixes of a tenant's collections are all that a receiver needs", async (t) => {
  const { h } = t.context;
  tenants(h);
  for (const name of ["a-one", "a-one", "a-two", "b-one"]) await h.upload(name, MESSAGE);
  await close(h);
  await sweep(h.deps, true);
  const theirs = new MemoryBlobStore();
  for await (const { key } of h.deps.store.list("collections/"))
    if (key.startsWith("collections/a-")) await theirs.put(key, (await h.deps.store.get(key, 1024 * 1024))!);
  await theirs.put(INSTALLATION_KEY, (await h.deps.store.get(INSTALLATION_KEY, 1024))!);
  const database = await openMemoryDatabase(() => h.clock.now);
  t.teardown(async () => await database.close());
  const report = await recover({ ...h.deps, database, store: theirs });
  t.is(report.versions, 3);
  const receiver = { ...h.deps, database, store: theirs };
  const input = { collection: "a-one", number: 2n, offset: 0n, limit: 0n };
  const { body } = await readVersion(receiver, h.admin, input, new AbortController().signal);
  t.deepEqual(Buffer.concat(await Array.fromAsync(body)), Buffer.from(MESSAGE));
});

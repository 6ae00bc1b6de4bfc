/** Records that go: uploads, purged versions, audit events and sessions, each by a time or a number. */
import { createHash } from "node:crypto";
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { BlobStoreUnavailableError } from "../src/app/ports/blob-store.ts";
import type { SessionRow } from "../src/app/ports/database.ts";
import { KEPT } from "../src/app/upkeep/forget.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { createUpload } from "../src/app/uploads/create-upload.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const DAY = 24 * 3_600_000;
const whole = { wholeStore: true };

const rowsOf = async (h: Harness, table: "uploads" | "versions" | "audit_events" | "sessions") =>
  Number((await (h.deps.database as SqlDatabase).query(sql`select count(*) as n from ${sql.identifier(table)}`))[0]!.n);

async function abort(h: Harness, collection: string, requestId = "", reason = "the dump failed") {
  const { upload } = await h.begin(collection, h.admin, requestId);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason });
  return upload;
}

test("the row of an ended upload goes after a week, its request id is known until then, its failure stays", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const upload = await abort(h, spec.name, "nightly");
  await h.upload(h.add().name, openpgpMessage(1000));
  const open = await h.begin(h.add().name);
  h.clock.advance(7 * DAY - 1000);
  await sweep(h.deps, true, whole);
  t.is((await h.begin(spec.name, h.admin, "nightly")).upload.id, upload.id);
  t.is(await rowsOf(h, "uploads"), 3);
  h.clock.advance(2000);
  await sweep(h.deps, true, { ...whole, dryRun: true });
  await sweep(h.deps, true);
  t.is(await rowsOf(h, "uploads"), 3, "only a look at the whole store says that nothing is left");
  await sweep(h.deps, true, whole);
  const left = await (h.deps.database as SqlDatabase).query(sql`select id from uploads`);
  t.deepEqual(
    left.map(({ id }) => id),
    [open.upload.id],
    "the one that expired a moment ago",
  );
  const caller = { principal: h.admin, secret: undefined };
  const { lastFailed } = await getCollectionHealth({ ...h.deps, sha256: String }, caller, spec.name);
  t.like(lastFailed, { uploadId: upload.id, reason: "the dump failed" });
});

test("the row stays while the store was not freed, or has anything under its key", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const failing = new FaultyBlobStore(h.deps.store);
  await abort(h, spec.name);
  h.clock.advance(8 * DAY);
  failing.fail("abort");
  await sweep(h.over(failing), true, whole);
  t.is(await rowsOf(h, "uploads"), 1, "not cleaned");
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "uploads"), 1, "freed, but the look before saw a part");
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "uploads"), 0);

  // A finished object of an upload that the database calls aborted: only a rolled-back database makes that.
  const other = await abort(h, spec.name);
  await h.deps.store.put(other.key, new Uint8Array(10));
  await sweep(h.deps, true);
  h.clock.advance(8 * DAY);
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "uploads"), 1, "an object under its key");
  await h.deps.store.delete(other.key);
  failing.fail("listPending");
  await sweep(h.over(failing), true, whole);
  t.is(await rowsOf(h, "uploads"), 1, "a store that could not be listed says nothing");
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "uploads"), 0);
});

test("an unfinished object of a version whose upload's row is gone is still known as one that has ended", async (t) => {
  const { h } = t.context;
  const { version } = await h.upload(h.add().name, openpgpMessage(1000));
  h.clock.advance(8 * DAY);
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "uploads"), 0);
  await h.deps.store.begin(version.key, version.id);
  const report = await sweep(h.deps, true);
  t.is(report.unfinished, 1);
  t.deepEqual(report.unknown, []);
  t.is((await h.deps.store.stat(version.key))?.size, 1000n);
});

test("a purged version loses its texts and digests at once, and its row after 30 days; its number is not reused", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(1000));
  await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  h.clock.advance(DAY + 1000);
  await sweep(h.deps, true, whole);
  const rows = await (h.deps.database as SqlDatabase).query(
    sql`select state, length(segment_digests)::int as digests from versions`,
  );
  t.deepEqual(rows, [{ state: "purged", digests: 0 }]);
  h.clock.advance(KEPT.purgedVersionsMs - 1000);
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "versions"), 1);
  h.clock.advance(2000);
  await sweep(h.deps, true, whole);
  t.is(await rowsOf(h, "versions"), 0);
  t.is((await h.upload(spec.name, openpgpMessage(1000))).version.number, 2n);
});

test("a collection takes so many uploads in 24 hours, whatever becomes of them", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const deps = { ...h.deps, settings: { ...h.deps.settings, maxUploadsPerDay: 3 } };
  const create = async (requestId: string) => {
    const input = { requestId, expectedSize: 0n, filename: "", contentEncoding: "none" as const };
    return await createUpload(deps, h.admin, { ...input, collection: spec.name, labels: {}, clientMetadata: {} });
  };
  for (const id of ["a", "b", "c"]) {
    const { upload } = await create(id);
    await abortUpload(deps, h.admin, { uploadId: upload.id, reason: "" });
  }
  const error = await refused(t, "COLLECTION_BUSY", create("d"));
  t.is(error.metadata.max_uploads_per_day, "3");
  t.true(error.retryAfterMs! > 0);
  t.is((await create("c")).upload.state, "aborted", "a repeated call is none of them");
  h.clock.advance(DAY + 1000);
  await create("d");
});

test("uploads that the store did not begin are slowed down, and do not count among those of a day", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const store = new FaultyBlobStore(h.deps.store);
  store.begin = async () => {
    throw new BlobStoreUnavailableError("Cannot begin: the store is away.");
  };
  const settings = { ...h.deps.settings, maxUploadsPerDay: 3 };
  const create = async (deps: typeof h.deps) => {
    const input = { requestId: "a", expectedSize: 0n, filename: "", contentEncoding: "none" as const };
    return await createUpload(deps, h.admin, { ...input, collection: spec.name, labels: {}, clientMetadata: {} });
  };
  for (let i = 0; i < 12; i++) await refused(t, "STORE_UNAVAILABLE", create({ ...h.deps, settings, store }));
  const error = await refused(t, "STORE_UNAVAILABLE", create({ ...h.deps, settings }));
  t.is(error.retryAfterMs, 30_000);
  t.is(await rowsOf(h, "uploads"), 12, "one that is slowed down leaves no row");
  h.clock.advance(10 * 60_000);
  t.is((await create({ ...h.deps, settings })).upload.state, "open");
});

test("sessions of a user and access key are bounded: a login ends the oldest, a refresh the one it came from", async (t) => {
  const { h } = t.context;
  let made = 0;
  const add = async (accessKey: string, instead?: string) => {
    h.clock.advance(1);
    const id = createHash("sha256").update(String(made++)).digest("hex");
    const session: SessionRow = {
      id,
      chainId: id,
      chainBeganAt: h.clock.now,
      chainEndsAt: null,
      userName: "ann",
      accessKey,
      fingerprint: "f",
      scope: [],
      description: "",
      address: "",
      createdAt: h.clock.now,
      expiresAt: new Date(h.clock.now.getTime() + DAY),
      revokedAt: null,
    };
    await h.deps.database.transaction(async (tx) => {
      await tx.sessions.insert(session);
      await tx.sessions.bound({ userName: "ann", accessKey }, tx.now, 3, instead);
    });
    return id;
  };
  const valid = async (accessKey: string) =>
    (
      await h.deps.database.read(
        async (tx) => await tx.sessions.listValid({ userName: "ann", accessKey }, tx.now, undefined, 100),
      )
    ).map(({ id }) => id);
  const own = [await add(""), await add(""), await add("")];
  const ofKey = [await add("key"), await add("key"), await add("key"), await add("key")];
  t.deepEqual(await valid("key"), ofKey.slice(1).reverse(), "the oldest one of the key");
  t.deepEqual(await valid(""), own.toReversed(), "and none of the user");
  const refreshed = await add("", own[1]);
  t.deepEqual(await valid(""), [refreshed, own[2]!, own[0]!]);
  for (let i = 0; i < 9; i++) await add("");
  t.is((await valid("")).length, 3);
  t.is(await rowsOf(h, "sessions"), 6 + 4, "of the ended ones as many are kept");
});

test("forgetting leaves counters and versions as they are", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 2 });
  for (let i = 0; i < 3; i++) await h.upload(spec.name, openpgpMessage(2 * MIB));
  const { upload } = await h.begin(spec.name);
  await h.write(upload.id, cutSegments(openpgpMessage(2 * MIB), MIB)[0]!);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  h.clock.advance(60 * DAY);
  await sweep(h.deps, true, whole);
  h.clock.advance(60 * DAY);
  await sweep(h.deps, true, whole);
  t.deepEqual([await rowsOf(h, "uploads"), await rowsOf(h, "versions")], [0, 2]);
  t.is((await h.usage(spec.name)).storedBytes, BigInt(4 * MIB));
});

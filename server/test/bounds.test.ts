/**
 * What callers can make the server keep and answer: each has a bound, and the table of docs/limits.md names the test.
 */
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollection, getCollectionHealth } from "../src/app/collections/collections.ts";
import { LIVE_VERSION_FIELDS } from "../src/app/ports/live-versions.ts";
import { createUpload } from "../src/app/uploads/create-upload.ts";
import { listUploads } from "../src/app/uploads/manage-uploads.ts";
import { listVersions } from "../src/app/versions/versions.ts";
import { cutPage } from "../src/domain/page.ts";
import { countedSize, LEAST_COUNTED_SIZE } from "../src/domain/quota.ts";
import { requireSmall, scopeOf } from "../src/transport/shapes.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

/** A version of a few bytes with many texts. */
async function tiny(h: Harness, collection: string, labels: Record<string, string>) {
  const input = { requestId: "", expectedSize: 0n, filename: "", contentEncoding: "none" as const };
  const { upload } = await createUpload(h.deps, h.admin, { ...input, collection, labels, clientMetadata: labels });
  const segments = cutSegments(openpgpMessage(216), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  return await h.commit(upload.id, segments);
}

anyTest("labels and client metadata are small together", (t) => {
  const fits = { k: "x".repeat(4000) };
  t.notThrows(() => requireSmall(fits, fits));
  t.throws(() => requireSmall(fits, { ...fits, more: "ä".repeat(100) }), { message: /8192 bytes .* together/ });
});

anyTest("a scope keeps each role once, and takes few", (t) => {
  const element = (roles: number[]) => [{ type: 1, name: "a", roles }];
  t.deepEqual(scopeOf(element([4, 4, 5, 4])), [
    { type: "collection", name: "a", roles: ["backupUploader", "backupDownloader"] },
  ]);
  t.throws(() => scopeOf(element(Array.from({ length: 60_000 }, () => 4))), { message: /at most 16/ });
});

anyTest("a page ends with the row that fills it, and has at least one", (t) => {
  const rows = Array.from({ length: 50 }, (_, i) => i);
  t.deepEqual(
    cutPage(rows, 3, () => 0),
    { page: [0, 1, 2], more: true },
  );
  t.deepEqual(
    cutPage(rows, 50, () => 0),
    { page: rows, more: false },
  );
  t.is(cutPage(rows, 50, () => 100_000).page.length, 11);
  t.deepEqual(
    cutPage(rows, 50, () => 5_000_000),
    { page: [0], more: true },
  );
});

anyTest("a version counts 16 KiB at least, or the soft limit where that is less", (t) => {
  t.is(countedSize({ maxOneVersionSize: BigInt(MIB) }, 216n), LEAST_COUNTED_SIZE);
  t.is(countedSize({ maxOneVersionSize: 1000n }, 216n), 1000n);
  t.is(countedSize({ maxOneVersionSize: BigInt(MIB) }, BigInt(MIB)), BigInt(MIB));
});

test("tiny versions that rotation keeps cannot be more than the hard limit has room for", async (t) => {
  const { h } = t.context;
  // Protected: the count does not remove them.
  const spec = h.add({ maxBackupsCount: 1, maxCollectionSize: 4n * BigInt(MIB), minRetentionMs: 3_600_000 });
  await h.upload(spec.name, openpgpMessage(4 * MIB - 10 * 16 * 1024));
  let made = 0;
  await refused(
    t,
    "ROTATION_BLOCKED",
    (async () => {
      for (; made < 20; made++) await tiny(h, spec.name, {});
    })(),
  );
  t.is(made, 10);
});

test("pages of versions and uploads end by their bytes, and the next goes on", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 60, maxCollectionSize: BigInt(300 * MIB), maxParallelUploads: 60 });
  // As versions of before the limit have them: 32 labels and 32 entries.
  const labels = Object.fromEntries(Array.from({ length: 32 }, (_, i) => [`k${i}`, "ä".repeat(1000)]));
  for (let i = 0; i < 20; i++) await tiny(h, spec.name, labels);
  const seen: bigint[] = [];
  let pages = 0;
  for (let before: bigint | undefined, more = true; more; pages++) {
    const input = { collection: spec.name, beforeNumber: before, pageSize: 1000 };
    const { versions, nextBefore } = await listVersions(h.deps, h.admin, input);
    seen.push(...versions.map((v) => v.number));
    before = nextBefore;
    more = nextBefore !== undefined;
  }
  t.deepEqual(
    seen,
    Array.from({ length: 20 }, (_, i) => BigInt(20 - i)),
  );
  t.is(pages, 3);

  for (let i = 0; i < 30; i++) {
    const input = { requestId: "", expectedSize: 0n, filename: "", contentEncoding: "none" as const };
    await createUpload(h.deps, h.admin, { ...input, collection: spec.name, labels, clientMetadata: labels });
  }
  const first = await listUploads(h.deps, h.admin, { collection: spec.name, from: 0, pageSize: 1000 });
  t.true(first.uploads.length < 30);
  const rest = await listUploads(h.deps, h.admin, { collection: spec.name, from: first.next!, pageSize: 1000 });
  t.is(first.uploads.length + rest.uploads.length, 30);
});

test("a collection and its health are read without labels, metadata and digests", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 5 });
  await tiny(h, spec.name, { a: "b" });
  const rows = await h.deps.database.read(async (tx) =>
    (await tx.collections.all()).map(async ({ id }) => await tx.versions.allLive(id)),
  );
  for (const row of (await Promise.all(rows)).flat())
    t.deepEqual(Object.keys(row).sort(), [...LIVE_VERSION_FIELDS].sort());
  const details = await getCollection({ ...h.deps, sha256: String }, h.admin, spec.name);
  t.is(details.usage.versionCount, 1);
  const caller = { principal: h.admin, secret: undefined };
  t.is((await getCollectionHealth({ ...h.deps, sha256: String }, caller, spec.name)).newest?.number, 1n);
});

test("what the client said about an upload is kept once: with its version, or not at all", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 5 });
  await tiny(h, spec.name, { a: "b" });
  const rows = await (h.deps.database as SqlDatabase).query(
    sql`select u.labels::text as ended, v.labels::text as version from uploads u join versions v on u.id = v.id`,
  );
  t.deepEqual(rows, [{ ended: "{}", version: '{"a": "b"}' }]);
});

import { createHash } from "node:crypto";
import { chunked, compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollection, getCollectionHealth } from "../src/app/collections/collections.ts";
import { EVERY_COLLECTION, listCollections } from "../src/app/collections/list-collections.ts";
import type { ConfigSource } from "../src/app/ports/config-source.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { commitUpload, finishCommit } from "../src/app/uploads/commit-upload.ts";
import { writeSegment } from "../src/app/uploads/write-segment.ts";
import {
  deleteVersion,
  getVersion,
  listSegmentDigests,
  listVersions,
  readVersion,
} from "../src/app/versions/versions.ts";
import { codeOf } from "../src/calls/codes.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const never = new AbortController().signal;
const DAY = 24 * 3_600_000;
const ALL = { beforeNumber: undefined, pageSize: 100 };

const withDigest = (h: Harness) => ({
  ...h.deps,
  sha256: (text: string) => createHash("sha256").update(text).digest("hex"),
});

async function keysOf(h: Harness, name: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const object of h.deps.store.list(`collections/${name}/`)) keys.push(object.key);
  return keys;
}

test("a frozen collection can be read by systemAdmin, keeps everything, and comes back whole", async (t) => {
  const { h } = t.context;
  const spec = h.add({
    name: "gone",
    maxBackupsCount: 2,
    accessControl: [{ userName: "ann", roles: ["collectionManager"] }],
  });
  const message = openpgpMessage(MIB + 1);
  for (let i = 0; i < 3; i++) {
    await h.upload(spec.name, message);
    h.clock.advance(1000);
  }
  t.is((await keysOf(h, spec.name)).length, 6, "two live ones and one in the trash, with manifests");
  const name = { collection: spec.name, number: 3n };

  h.collections.delete(spec.name);
  const ann = principal(user("ann", { roles: ["collectionManager"] }));
  for (const call of [
    () => getCollection(withDigest(h), ann, spec.name),
    () => getCollectionHealth(withDigest(h), { principal: ann, secret: undefined }, spec.name),
    () => getCollectionHealth(withDigest(h), { principal: undefined, secret: "x" }, spec.name),
    () => listVersions(h.deps, ann, { collection: spec.name, ...ALL }),
    () => readVersion(h.deps, ann, { ...name, offset: 0n, limit: 0n }, never),
    () => deleteVersion(h.deps, ann, name),
    () => h.begin(spec.name, ann),
    // A narrowed session of an administrator has no role for the whole system.
    () => getVersion(h.deps, { ...h.admin, accessKey: "key" }, name),
  ]) {
    await refused(t, "COLLECTION_NOT_FOUND", call());
  }
  t.false(
    (
      await listCollections(withDigest(h), ann, { ...EVERY_COLLECTION, afterName: undefined, pageSize: 100 })
    ).collections.some((c) => c.name === spec.name),
  );

  const listed = await listCollections(withDigest(h), h.admin, {
    ...EVERY_COLLECTION,
    afterName: undefined,
    pageSize: 100,
  });
  t.like(
    listed.collections.find((c) => c.name === spec.name),
    { spec: undefined, acceptsUploadsNow: false },
  );
  const shown = await getCollection(withDigest(h), h.admin, spec.name);
  t.is(shown.spec, undefined);
  t.like(shown.usage, {
    storedBytes: 2n * BigInt(message.length),
    trashBytes: BigInt(message.length),
    versionCount: 2,
    nextUploadAllowance: 0n,
  });
  const health = await getCollectionHealth(withDigest(h), { principal: h.admin, secret: undefined }, spec.name);
  t.is(health.status, "failed");
  t.deepEqual(
    health.checks.map((c) => c.name),
    ["frozen", "store"],
  );
  t.is(health.newest!.number, 3n);
  t.deepEqual(
    (await listVersions(h.deps, h.admin, { collection: spec.name, ...ALL })).versions.map((v) => v.number),
    [3n, 2n],
  );
  t.is((await listSegmentDigests(h.deps, h.admin, { ...name, first: 0, pageSize: 10 })).digests.length, 2);
  const read = await readVersion(h.deps, h.admin, { ...name, offset: 0n, limit: 0n }, never);
  const chunks: Uint8Array[] = [];
  for await (const chunk of read.body) chunks.push(chunk);
  t.true(Buffer.concat(chunks).equals(message));
  await refused(t, "COLLECTION_FROZEN", h.begin(spec.name));
  await refused(t, "COLLECTION_FROZEN", deleteVersion(h.deps, h.admin, name));

  // Another collection's trash goes meanwhile.
  const other = h.add({ name: "other", maxBackupsCount: 1 });
  for (let i = 0; i < 2; i++) await h.upload(other.name, message);
  h.clock.advance(30 * DAY);
  t.like(await sweep(h.deps, true), { purged: 1, failed: 0 });
  t.is((await keysOf(h, spec.name)).length, 6);
  t.is((await keysOf(h, other.name)).length, 2);

  h.collections.set(spec.name, spec);
  t.is((await h.upload(spec.name, message)).version.number, 4n);
  t.like(await sweep(h.deps, true), { purged: 1, failed: 0 });
  t.deepEqual(
    (await listVersions(h.deps, h.admin, { collection: spec.name, ...ALL })).versions.map((v) => v.number),
    [4n, 3n],
  );
});

test("pages of collections hold configured and frozen ones in one order", async (t) => {
  const { h } = t.context;
  for (const name of ["page-a", "page-b", "page-c"]) {
    h.add({ name });
    if (name !== "page-c") await h.upload(name, openpgpMessage(1000));
  }
  h.collections.delete("page-b");
  // Gone without a version: nothing is left to see.
  h.add({ name: "page-d" });
  h.collections.delete("page-d");
  const seen: string[] = [];
  for (let after: string | undefined = "page"; after !== undefined; ) {
    const page = await listCollections(withDigest(h), h.admin, { ...EVERY_COLLECTION, afterName: after, pageSize: 1 });
    seen.push(...page.collections.map((c) => `${c.name}${c.spec === undefined ? " frozen" : ""}`));
    after = page.nextAfter;
  }
  t.deepEqual(
    seen.filter((name) => name.startsWith("page-")),
    ["page-a", "page-b frozen", "page-c"],
  );
});

test("a server that keeps an older configuration takes no collection for one that is gone", async (t) => {
  const { h } = t.context;
  const spec = h.add({ name: "newer", maxBackupsCount: 1 });
  const message = openpgpMessage(MIB + 1);
  await h.upload(spec.name, message);
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(message, Number(upload.segmentSize));
  const status = { problem: "users.yaml:1: expected a name", loadedAt: new Date(), reloads: 0, refusals: 1 };
  const config: ConfigSource = {
    current: () => ({ ...h.deps.config.current(), collections: new Map() }),
    status: () => status,
  };
  const deps = { ...h.deps, config };
  const write = { uploadId: upload.id, ...segments[0]! };
  const error = await refused(
    t,
    "CONFIGURATION_OUTDATED",
    writeSegment(deps, h.admin, write, chunked(segments[0]!.bytes), never),
  );
  t.is(codeOf(error), "unavailable");
  await refused(t, "CONFIGURATION_OUTDATED", deleteVersion(deps, h.admin, { collection: spec.name, number: 1n }));
  await sweep(deps, true);
  const frozenSince = async () =>
    (await h.deps.database.transaction(async (tx) => await tx.collections.findByName(spec.name)))!.frozenSince;
  t.is(await frozenSince(), null, "noted as frozen by no server that may not know");
  const { checks } = await getCollectionHealth(
    { ...withDigest(h), config },
    { principal: h.admin, secret: undefined },
    spec.name,
  );
  t.regex(checks[0]!.message, /could not take up the newest configuration/);
  await h.write(upload.id, segments[0]!);
});

test("an upload under way waits for the object; a prepared commit is finished and rotates nothing", async (t) => {
  const { h } = t.context;
  const spec = h.add({ name: "under-way", maxBackupsCount: 1 });
  const message = openpgpMessage(MIB + 1);
  await h.upload(spec.name, message);

  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(message, Number(upload.segmentSize));
  await h.write(upload.id, segments[0]!);
  h.collections.delete(spec.name);
  await refused(t, "COLLECTION_FROZEN", h.write(upload.id, segments[1]!));
  await refused(t, "COLLECTION_FROZEN", h.commit(upload.id, segments));
  h.collections.set(spec.name, spec);
  await h.write(upload.id, segments[1]!);

  const faulty = new FaultyBlobStore(h.deps.store);
  faulty.fail("complete");
  const size = BigInt(message.length);
  const input = { uploadId: upload.id, size, compositeSha256: compositeOf(segments) };
  await refused(t, "STORE_UNAVAILABLE", commitUpload(h.over(faulty), h.admin, input));
  faulty.assertAllFired(t);

  h.collections.delete(spec.name);
  const row = (await h.deps.database.read(async (tx) => await tx.uploads.find(upload.id)))!;
  const { version, removedNumbers } = await finishCommit(h.deps, row);
  t.is(version.number, 2n);
  t.deepEqual(removedNumbers, []);
  t.deepEqual(
    (await listVersions(h.deps, h.admin, { collection: spec.name, ...ALL })).versions.map((v) => v.number),
    [2n, 1n],
  );
  h.collections.set(spec.name, spec);
});

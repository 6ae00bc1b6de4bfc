/** Removed versions come back within their time. */
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { undeleteVersion } from "../src/app/versions/undelete-version.ts";
import { deleteVersion, getVersion, listVersions, readVersion } from "../src/app/versions/versions.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const list = async (h: Harness, collection: string, removed = false) => {
  const input = { collection, beforeNumber: undefined, pageSize: 100, removed };
  return (await listVersions(h.deps, h.admin, input)).versions;
};
const numbers = async (h: Harness, collection: string, removed = false) =>
  (await list(h, collection, removed)).map((v) => Number(v.number));
const undelete = (h: Harness, collection: string, number: bigint) =>
  undeleteVersion(h.deps, h.admin, { collection, number });
const remove = (h: Harness, collection: string, number: bigint) =>
  deleteVersion(h.deps, h.admin, { collection, number });

async function events(h: Harness, collection: string, kind: string) {
  return await (h.deps.database as SqlDatabase).query(
    sql`select actor, details from audit_events where collection_name = ${collection} and kind = ${kind}`,
  );
}

test("a version removed by a person comes back with its bytes, under its number, and its manifest follows", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const message = openpgpMessage(5000);
  await h.upload(spec.name, message);
  await remove(h, spec.name, 1n);
  await sweep(h.deps, true);
  t.deepEqual(await numbers(h, spec.name, true), [1]);
  const back = await undelete(h, spec.name, 1n);
  t.is(back.state, "live");
  t.is(back.protectedUntil, null, "rotation would keep it anyway");
  t.deepEqual([back.removedAt, back.removedBy, back.purgeAfter], [null, "", null]);
  t.deepEqual(await numbers(h, spec.name), [1]);
  t.deepEqual(await numbers(h, spec.name, true), []);
  t.is((await undelete(h, spec.name, 1n)).revision, back.revision, "idempotent");
  t.deepEqual(await h.usage(spec.name).then((u) => [u.storedBytes, u.trashBytes]), [back.size, 0n]);
  // Its old time goes by: it is nobody's trash any more.
  h.clock.advance(3 * DAY);
  t.is((await sweep(h.deps, true)).manifests, 1);
  const never = new AbortController().signal;
  const input = { collection: spec.name, number: 1n, offset: 0n, limit: 0n };
  const { body } = await readVersion(h.deps, h.admin, input, never);
  t.deepEqual(Buffer.concat(await Array.fromAsync(body)), Buffer.from(message));
  const [event] = await events(h, spec.name, "version.undeleted");
  t.is(event?.actor, "user:admin");
  t.like(event?.details, { number: "1", removed_by: "user:admin" });
});

test("one that rotation removed stays for as long as it would have been kept, then rotation takes it", async (t) => {
  const { h } = t.context;
  const spec = h.add({ trashRetentionMs: 3 * DAY });
  for (let i = 0; i < 4; i++) await h.upload(spec.name, openpgpMessage(1000));
  t.deepEqual(await numbers(h, spec.name, true), [1]);
  const [removed] = await list(h, spec.name, true);
  t.deepEqual(removed?.purgeAfter, new Date(h.clock.now.getTime() + 3 * DAY), "trashRetention");
  const back = await undelete(h, spec.name, 1n);
  t.deepEqual(back.protectedUntil, new Date(h.clock.now.getTime() + 3 * DAY));
  t.deepEqual((await h.upload(spec.name, openpgpMessage(1000))).removedNumbers, [2n], "it pushes nothing else out");
  t.deepEqual(await numbers(h, spec.name), [5, 4, 3, 1]);
  h.clock.advance(3 * DAY);
  t.deepEqual((await h.upload(spec.name, openpgpMessage(1000))).removedNumbers, [1n, 3n]);
});

test("what does not fit under the hard limit stays removed, also beside what uploads have reserved", async (t) => {
  const { h } = t.context;
  const limits = { maxBackupsCount: 2, maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(3 * MIB) };
  const spec = h.add(limits);
  for (let i = 0; i < 3; i++) await h.upload(spec.name, openpgpMessage(MIB));
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  // 2 MiB live, of which rotation keeps one for the upload's two.
  const error = await refused(t, "QUOTA_EXCEEDED", undelete(h, spec.name, 1n));
  t.like(error.metadata, { limit: "collection", requested_bytes: String(MIB), remaining_bytes: "0" });
  await h.commit(upload.id, segments);
  t.deepEqual(await numbers(h, spec.name), [4, 3]);
  await refused(t, "QUOTA_EXCEEDED", undelete(h, spec.name, 2n));
  await remove(h, spec.name, 4n);
  await undelete(h, spec.name, 2n);
  t.is((await h.usage(spec.name)).storedBytes, BigInt(2 * MIB));
  // What is back counts: two more do not fit until its protection ends.
  await refused(t, "ROTATION_BLOCKED", h.upload(spec.name, openpgpMessage(2 * MIB + 1)));
});

test("versions that come back leave room for the next backup, since nobody can remove them again", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxOneVersionSize: BigInt(2 * MIB), maxCollectionSize: BigInt(6 * MIB) });
  for (let i = 0; i < 6; i++) await h.upload(name, openpgpMessage(MIB));
  await undelete(h, name, 1n);
  await undelete(h, name, 2n);
  const error = await refused(t, "QUOTA_EXCEEDED", undelete(h, name, 3n));
  t.regex(error.message, /beside what stays and the next backup; remove other versions/);
  await refused(t, "VERSION_PROTECTED", remove(h, name, 1n));
  await h.upload(name, openpgpMessage(2 * MIB));
  t.deepEqual(await numbers(h, name), [7, 6, 5, 2, 1]);
});

test("after its time it is gone, and the refusal of a removed version says what can still be done", async (t) => {
  const { h } = t.context;
  const spec = h.add({ timezone: "Asia/Kolkata" });
  await h.upload(spec.name, openpgpMessage(1000));
  await remove(h, spec.name, 1n);
  const get = () => getVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
  const removed = await refused(t, "VERSION_NOT_FOUND", get());
  t.regex(
    removed.message,
    /was removed by a person at [-\d]+ [:\d]+ \+05:30; until [-\d]+ [:\d]+ \+05:30 `strongroom undelete c-\d+ 1` brings it back/,
  );
  h.clock.advance(DAY);
  t.deepEqual(await numbers(h, spec.name, true), []);
  const late = await refused(t, "VERSION_NOT_FOUND", undelete(h, spec.name, 1n));
  t.regex(late.message, /the time to bring it back is over/);
  await refused(t, "VERSION_NOT_FOUND", undelete(h, spec.name, 2n));
});

test("a purge that has begun is not undone, though the clock goes back: no live version lacks its object", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  await h.upload(spec.name, openpgpMessage(1000));
  await remove(h, spec.name, 1n);
  h.clock.advance(DAY);
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("delete", { nth: 1, when: "after" });
  t.is((await sweep(h.over(store), true)).failed, 1);
  store.assertAllFired(t);
  h.clock.advance(-HOUR);
  t.deepEqual(await numbers(h, spec.name, true), []);
  await refused(t, "VERSION_NOT_FOUND", undelete(h, spec.name, 1n));
  h.clock.advance(HOUR);
  t.is((await sweep(h.deps, true)).purged, 1, "the next sweep ends it");
});

test("of several pages each continues where the one before ended", async (t) => {
  const { h } = t.context;
  const spec = h.add({ maxBackupsCount: 1 });
  for (let i = 0; i < 4; i++) await h.upload(spec.name, openpgpMessage(1000));
  const page = async (beforeNumber: bigint | undefined) =>
    await listVersions(h.deps, h.admin, { collection: spec.name, beforeNumber, pageSize: 2, removed: true });
  const first = await page(undefined);
  t.deepEqual(
    first.versions.map((v) => v.number),
    [3n, 2n],
  );
  const second = await page(first.nextBefore);
  t.deepEqual(
    second.versions.map((v) => v.number),
    [1n],
  );
  t.is(second.nextBefore, undefined);
});

test("only who manages the collection brings versions back", async (t) => {
  const { h } = t.context;
  const spec = h.add({ accessControl: [{ userName: "bob", roles: ["backupUploader", "backupDownloader"] }] });
  await h.upload(spec.name, openpgpMessage(1000));
  await remove(h, spec.name, 1n);
  const bob = principal(user("bob"));
  await refused(t, "ACCESS_DENIED", undeleteVersion(h.deps, bob, { collection: spec.name, number: 1n }));
});

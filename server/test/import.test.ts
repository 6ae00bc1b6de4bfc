/** What Backup Repository stored becomes versions, where it lies. */

import { openpgpMessage } from "@strongroom/testkit/ciphertext";

import test, { type ExecutionContext } from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { OldPostgresDatabase } from "../src/adapters/postgres/old-database.ts";
import { finishImport } from "../src/app/import/finish-import.ts";
import { type ImportDeps, importInstallation } from "../src/app/import/import-installation.ts";
import { checkInstallation, InstallationMismatchError } from "../src/app/installation.ts";
import { type BlobStore, BlobStoreError } from "../src/app/ports/blob-store.ts";
import { type CopiedObject, copyStorage } from "../src/app/upkeep/copy-storage.ts";
import { forgetByTime } from "../src/app/upkeep/forget.ts";
import { UnsafeError } from "../src/app/upkeep/inventory.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { holdVersion, releaseVersion } from "../src/app/versions/hold-version.ts";
import { recordVerification, verifyVersion } from "../src/app/versions/verify-version.ts";
import { deleteVersion, listVersions, readVersion } from "../src/app/versions/versions.ts";
import { foreignNumber } from "../src/domain/object-keys.ts";
import { parsePostgresUrl } from "../src/domain/postgres-url.ts";
import { collect, never } from "./support/blob-store-tools.ts";
import { type DatabaseKind, openDatabase, removeSharedCluster } from "./support/databases.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { Harness, MIB, TestClock } from "./support/harness.ts";
import {
  hashOf,
  type OldBucket,
  OldTables,
  oldBucket,
  openOver,
  PLACES,
  removeOldBuckets,
} from "./support/old-installation.ts";

test.after.always(async () => {
  await removeOldBuckets();
  await removeSharedCluster();
});

const DAY = 24 * 3_600_000;
const text = (bytes: string) => new TextEncoder().encode(bytes);

/** The new server over an old bucket, with a new database. */
async function moving(t: ExecutionContext, bucket: OldBucket, kind: DatabaseKind = "PGlite") {
  const clock = new TestClock();
  const database = await openDatabase(kind, () => clock.now);
  t.teardown(async () => await database.close());
  const store = await openOver(t, bucket);
  return Harness.on(database, clock, store);
}

async function oldDatabase(t: ExecutionContext, tables: OldTables) {
  const old = await OldPostgresDatabase.open(parsePostgresUrl(tables.url), {
    passwordFile: undefined,
    passFile: undefined,
  });
  t.teardown(async () => await old.close());
  return old;
}

const depsOf = (h: Harness, old?: ImportDeps["old"], change: Partial<ImportDeps> = {}): ImportDeps => ({
  store: h.deps.store,
  database: h.deps.database,
  old,
  config: h.deps.config,
  settings: h.deps.settings,
  signal: never,
  ...change,
});

const take = async (h: Harness, old?: ImportDeps["old"], change: Partial<ImportDeps> = {}) =>
  await importInstallation(depsOf(h, old, change), { dryRun: false });

async function bytesOf(h: Harness, collection: string, number: bigint): Promise<Buffer> {
  const { body } = await readVersion(h.deps, h.admin, { collection, number, offset: 0n, limit: 0n }, never);
  return Buffer.concat(await collect(body));
}

const listed = async (h: Harness, name: string) =>
  (await listVersions(h.deps, h.admin, { collection: name, beforeNumber: undefined, pageSize: 100 })).versions;

const numbers = async (h: Harness, name: string) => (await listed(h, name)).map(({ number }) => Number(number));

/** Keys and bytes of everything in a store but what is only of this moment. */
async function objectsOf(store: BlobStore): Promise<string[]> {
  return (await collect(store.list(""))).map(({ key, size }) => `${key} ${size}`);
}

for (const { place, database: kind } of PLACES) {
  test.serial(`${kind}, ${place}: versions come with their numbers, times and uploaders, where they lie`, async (t) => {
    const [bucket, tables] = [await oldBucket(t, place), await OldTables.make(t)];
    if (bucket === undefined || tables === undefined) return;
    const big = openpgpMessage(2 * MIB + 77);
    const messages = new Map([3, 4, 5, 6].map((n) => [n, n === 4 ? big : openpgpMessage(1000 + n)]));
    for (const [n, bytes] of messages) await bucket.put(`pg/pg-v${n}.sql.gpg`, bytes);
    await bucket.put(".health-1764547200000000000", text("secret-1764547200"));
    await bucket.put("notes.txt", text("somebody's"));
    const rows = [1, 2, 3, 4, 5, 6].map((number) => ({
      id: `00000000-0000-4000-8000-00000000000${number}`,
      collection: "pg",
      number,
      filename: `pg-v${number}.sql.gpg`,
      size: messages.get(number)?.length ?? 10,
      session: hashOf("token"),
      uploader: number === 5 ? "bob" : "ann",
      createdAt: `2025-12-0${number}T01:02:03.456Z`,
      ...(number < 3 ? { deletedAt: "2025-12-05T00:00:00Z" } : {}),
    }));
    await tables.add(...rows);
    await tables.add({
      collection: "pg",
      number: 9,
      filename: "pg-v9.sql.gpg",
      size: 1,
      deletedAt: "2025-12-06T00:00:00Z",
    });
    await tables.addTokens({ token: "token", user: "ann", accessKey: "cron", expiresAt: "2027-01-01T00:00:00Z" });
    const before = await tables.all();

    const h = await moving(t, bucket, kind);
    h.add({ name: "pg", filenameTemplate: "pg-v${version}.sql.gpg", maxBackupsCount: 4, organization: "acme" });
    h.organizations.set("acme", { name: "acme", maxTotalSize: undefined });
    const refusal = await t.throwsAsync(checkInstallation(h.deps.database, h.deps.store), {
      instanceOf: InstallationMismatchError,
    });
    t.regex(refusal!.message, /strongroom import/);

    const old = await oldDatabase(t, tables);
    const dry = await importInstallation(depsOf(h, old, { database: undefined }), { dryRun: true });
    t.is(dry.installation, undefined);
    const report = await take(h, old);
    t.deepEqual(report.problems, []);
    const [pg] = report.collections;
    t.like(pg, { name: "pg", versions: 4, present: 0, unchecked: 0, firstNumber: 3n, lastNumber: 6n, nextNumber: 7n });
    t.deepEqual(pg!.warnings, ["the next backup removes 1 of 4 versions (3)"]);
    t.deepEqual(dry.collections, [pg!], "a dry run says what a run does");
    await checkInstallation(h.deps.database, h.deps.store);
    t.deepEqual(await tables.all(), before, "the old database is only read");

    t.deepEqual(await numbers(h, "pg"), [6, 5, 4, 3]);
    for (const version of await listed(h, "pg")) {
      const n = Number(version.number);
      const row = rows[n - 1]!;
      t.like(version, {
        id: row.id,
        filename: row.filename,
        adoptedKey: `pg/${row.filename}`,
        size: BigInt(row.size),
        userName: row.uploader,
        accessKey: "cron",
        sessionId: hashOf("token"),
        committedAt: new Date(row.createdAt),
        begunAt: new Date(row.createdAt),
        unchecked: "",
        encryptionFormat: "openpgp",
        organization: "acme",
      });
      t.true((await bytesOf(h, "pg", version.number)).equals(messages.get(n)!), `bytes of ${n}`);
      const result = await verifyVersion({ ...h.deps, readWaitsMs: [] }, version, { signal: never });
      t.is(result.damage, "");
      await recordVerification(h.deps, version, result);
    }
    t.is((await listed(h, "pg")).find(({ number }) => number === 4n)!.segmentCount, place === "directory" ? 3 : 1);
    await h.assertInvariants(t);

    // It is repeatable, and the sweeper has nothing to do with any of it.
    const again = await take(h, old);
    t.like(again.collections[0], { versions: 4, present: 4 });
    const swept = await sweep(h.deps, true, { wholeStore: true });
    t.like(swept, { added: 0, missing: 0, manifestsWrong: 0, purged: 0, failed: 0 });
    t.deepEqual(
      swept.unknown.map(({ key, isOurs }) => [key, isOurs]),
      place === "directory"
        ? []
        : [
            [".health-1764547200000000000", false],
            ["notes.txt", false],
          ],
    );

    // The next one has the next number; what it pushes out stays in the bucket.
    t.is((await h.upload("pg", openpgpMessage(3000))).version.number, 7n);
    t.deepEqual(await numbers(h, "pg"), [7, 6, 5, 4]);
    await deleteVersion(h.deps, h.admin, { collection: "pg", number: 5n });
    h.clock.advance(30 * DAY);
    t.like(await sweep(h.deps, true, { wholeStore: true }), { purged: 0, failed: 0, leftovers: 0 });
    for (const n of messages.keys()) t.true(await bucket.has(`pg/pg-v${n}.sql.gpg`), `object ${n} is there`);
    await h.assertInvariants(t);

    // The database is lost: the manifests know where the objects are.
    const spare = await openDatabase(kind, () => h.clock.now);
    t.teardown(async () => await spare.close());
    const rebuilt = await recover({ database: spare, store: h.deps.store });
    t.like(rebuilt, { versions: 3, damaged: [], skipped: [], unknown: [] });
    const second = Harness.on(spare, h.clock, h.deps.store);
    for (const spec of h.collections.values()) second.add(spec);
    t.deepEqual(await numbers(second, "pg"), [7, 6, 4]);
    t.true((await bytesOf(second, "pg", 4n)).equals(big));

    // Nobody goes back: now what was removed goes, and nothing else.
    t.like(await finishImport({ database: second.deps.database, store: second.deps.store }), {
      versions: 4,
      removed: 2,
    });
    h.clock.advance(2 * DAY);
    t.like(await sweep(second.deps, true, { wholeStore: true }), { purged: 2, failed: 0 });
    for (const n of [3, 5]) t.false(await bucket.has(`pg/pg-v${n}.sql.gpg`));
    t.true((await bytesOf(second, "pg", 6n)).equals(messages.get(6)!));
    t.deepEqual(
      (await objectsOf(second.deps.store)).filter((object) => object.startsWith("pg/")),
      [`pg/pg-v4.sql.gpg ${big.length}`, "pg/pg-v6.sql.gpg 1006"],
    );
    if (place === "directory") t.false(await bucket.has("pg/pg-v6.sql.gpg"), "the old name went");
    t.true(place !== "directory" || (await bucket.has(".health-1764547200000000000")), "what is not a version stays");
    await second.assertInvariants(t);
  });
}

test.serial("what does not pass the check is imported and marked; what has no bytes is named", async (t) => {
  const [bucket, tables] = [await oldBucket(t, "directory"), await OldTables.make(t)];
  if (bucket === undefined || tables === undefined) return;
  const message = openpgpMessage(5000);
  const plain = text("-----BEGIN PGP MESSAGE in the middle of a dump\n".repeat(100));
  const cases = {
    "plain-1": plain,
    "plain-2": message.subarray(0, 4000),
    "plain-3": new Uint8Array([...message, 1, 2, 3]),
    "plain-4": message,
    "plain-5": new Uint8Array(0),
  };
  for (const [name, bytes] of Object.entries(cases)) await bucket.put(`plain/${name}`, bytes);
  const row = (number: number, size = cases[`plain-${number}` as keyof typeof cases]?.length ?? 7) => ({
    ...{ collection: "plain", number, filename: `plain-${number}`, size },
  });
  await tables.add(row(1), row(2), row(3), row(4, 4999), row(5), row(6));
  // All versions of a template without a number have one object, that of the last.
  await bucket.put("web/web.tar.gpg", message);
  for (const number of [1, 2, 3])
    await tables.add({ collection: "web", number, filename: "web.tar.gpg", size: message.length });
  // Its configuration was taken out.
  await bucket.put("gone/gone-1", message);
  await tables.add({ collection: "gone", number: 1, filename: "gone-1", size: message.length });
  await bucket.put("gone/gone-2", message);
  await bucket.put("odd/a b (7) ${version}.gpg", message);
  await tables.add({ collection: "odd", number: 7, filename: "a b (7) ${version}.gpg", size: message.length });

  const h = await moving(t, bucket);
  h.add({ name: "plain", filenameTemplate: "plain-${version}" });
  h.add({ name: "web", filenameTemplate: "web.tar.gpg" });
  h.add({ name: "odd", filenameTemplate: "a b (${version}) ${version}.gpg" });
  const report = await take(h, await oldDatabase(t, tables));
  t.deepEqual(
    report.problems.map(({ kind, key, why }) => `${kind} ${key}: ${why}`),
    [
      "left alone gone/gone-2: the old database has no live version of this name",
      "missing plain/plain-6: version 6: the store has no such object",
      "missing plain/plain-5: version 5: its object is empty",
      "missing web/web.tar.gpg: version 2: version 3 was stored over it, since both have this name",
      "missing web/web.tar.gpg: version 1: version 3 was stored over it, since both have this name",
    ],
  );
  t.deepEqual(
    report.collections.map(({ name, versions, unchecked, nextNumber }) => [name, versions, unchecked, nextNumber]),
    [
      ["gone", 1, 0, 2n],
      ["odd", 1, 0, 8n],
      ["plain", 4, 4, 7n],
      ["web", 1, 0, 4n],
    ],
  );
  t.regex(report.collections[0]!.warnings[0]!, /no collection "gone"/);
  t.deepEqual(
    (await listed(h, "plain")).map(({ number, unchecked }) => `${number} ${unchecked.split(":")[0]}`),
    ["4 size-differs", "3 trailing-data", "2 truncated", "1 not-ciphertext"],
  );
  for (const [n, bytes] of [
    [1n, plain],
    [2n, cases["plain-2"]],
    [3n, cases["plain-3"]],
  ] as const)
    t.true((await bytesOf(h, "plain", n)).equals(bytes), `${n} is what it was`);
  t.true((await bytesOf(h, "odd", 7n)).equals(message));
  t.is((await h.upload("web", openpgpMessage(100))).version.number, 4n);
  t.deepEqual(await numbers(h, "gone"), [1], "also without a configuration");
  await h.assertInvariants(t);
  t.like(await sweep(h.deps, true, { wholeStore: true }), { missing: 0, manifestsWrong: 0, failed: 0, unknown: [] });

  // One that was there is missed.
  await h.deps.store.delete("plain/plain-4");
  t.like(await sweep(h.deps, true, { wholeStore: true }), { missing: 1 });
  t.is((await listed(h, "plain"))[0]!.damageReason, "object-missing");
});

for (const { place, database: kind } of PLACES) {
  test.serial(
    `${kind}, ${place}: without the old database numbers come from names, and times from the store`,
    async (t) => {
      const bucket = await oldBucket(t, place);
      if (bucket === undefined) return;
      const at = new Date("2025-11-30T05:06:07Z");
      for (const n of [9, 10, 11]) await bucket.put(`pg/pg ä-${n}-\${version}.gpg`, openpgpMessage(900 + n), at);
      await bucket.put("pg/pg-x-${version}.gpg", openpgpMessage(50), at);
      await bucket.put("pg/older-name-8.gpg", openpgpMessage(50), at);
      await bucket.put("unknown/a-1", openpgpMessage(50), at);
      const h = await moving(t, bucket, kind);
      h.add({ name: "pg", filenameTemplate: "pg ä-${version}-${version}.gpg" });
      const report = await take(h);
      t.is(report.sessions, undefined);
      t.deepEqual(
        report.problems.map(({ kind: what, key }) => `${what} ${key}`),
        ["left alone pg/older-name-8.gpg", "left alone pg/pg-x-${version}.gpg", "left alone unknown/a-1"],
      );
      t.like(report.collections[0], { versions: 3, firstNumber: 9n, lastNumber: 11n, nextNumber: 12n });
      t.deepEqual(await numbers(h, "pg"), [11, 10, 9]);
      const version = (await listed(h, "pg"))[0]!;
      // The clock of a store may be ahead; nothing is from after now.
      t.deepEqual(version.committedAt, place === "directory" ? at : h.clock.now);
      t.like(version, { userName: "", filename: "pg ä-11-${version}.gpg" });
      t.is((await bytesOf(h, "pg", 10n)).length, 910);
      t.like((await take(h)).collections[0], { versions: 3, present: 3 });
      t.like(await sweep(h.deps, true, { wholeStore: true }), { missing: 0, manifestsWrong: 0, failed: 0 });
      await h.assertInvariants(t);
    },
  );
}

test("a number is what stands in the place of the first ${version}", (t) => {
  const cases: [string, string, bigint | undefined][] = [
    ["a-${version}.gpg", "a-12.gpg", 12n],
    ["a-${version}.gpg", "a-012.gpg", undefined],
    ["a-${version}.gpg", "a-.gpg", undefined],
    ["a-${version}.gpg", "a-0.gpg", undefined],
    ["a-${version}.gpg", "a-1.gpg.old", undefined],
    ["${version}", "3", 3n],
    ["a${version}a${version}", "a1a${version}", 1n],
    ["a${version}a${version}", "a1a1", undefined],
    ["x1${version}1x", "x11x", undefined],
    ["a.gpg", "a.gpg", 1n],
    ["a.gpg", "b.gpg", undefined],
  ];
  for (const [template, name, number] of cases) t.is(foreignNumber(template, name), number, `${template}: ${name}`);
});

test.serial("sessions go on until they would have expired, and end when they were ended there", async (t) => {
  const [bucket, tables] = [await oldBucket(t, "directory"), await OldTables.make(t)];
  if (bucket === undefined || tables === undefined) return;
  const far = "2099-01-01T00:00:00Z";
  await tables.addTokens(
    { token: "a", user: "ann", accessKey: "cron", expiresAt: far },
    { token: "b", user: "bob", expiresAt: far, deactivated: true },
    { token: "c", user: "ann", expiresAt: "2025-12-31T00:00:00Z" },
    { token: "d", user: "ann", expiresAt: far, deletedAt: "2025-12-02T00:00:00Z" },
  );
  const h = await moving(t, bucket);
  const old = await oldDatabase(t, tables);
  t.deepEqual((await importInstallation(depsOf(h, old, { database: undefined }), { dryRun: true })).sessions, {
    ...{ imported: 2, present: 0, ended: 0 },
  });
  t.deepEqual((await take(h, old)).sessions, { imported: 2, present: 0, ended: 0 });
  const find = async (token: string) => await h.deps.database.read(async (tx) => await tx.sessions.find(hashOf(token)));
  t.like(await find("a"), {
    ...{ userName: "ann", accessKey: "cron", expiresAt: new Date(far), revokedAt: null, fingerprint: null },
    ...{ createdAt: new Date("2025-12-01T00:00:00Z"), chainEndsAt: new Date(far), address: "192.0.2.1" },
  });
  t.truthy((await find("b"))!.revokedAt);
  t.deepEqual([await find("c"), await find("d")], [undefined, undefined]);
  await tables.run("update granted_accesses set deactivated = true");
  t.deepEqual((await take(h, old)).sessions, { imported: 0, present: 1, ended: 1 });
  t.truthy((await find("a"))!.revokedAt);
});

test.serial("a session that was revoked here stays so, however late the next import is", async (t) => {
  const [bucket, tables] = [await oldBucket(t, "directory"), await OldTables.make(t)];
  if (bucket === undefined || tables === undefined) return;
  await tables.addTokens({ token: "a", user: "ann", expiresAt: "2099-01-01T00:00:00Z" });
  const h = await moving(t, bucket);
  const old = await oldDatabase(t, tables);
  t.like((await take(h, old)).sessions, { imported: 1 });
  await h.deps.database.transaction(async (tx) => await tx.sessions.revoke({ userName: "ann" }, tx.now));
  h.clock.advance(31 * DAY);
  await forgetByTime(h.deps.database, true);
  t.like((await take(h, old)).sessions, { imported: 0, present: 1 });
  const found = await h.deps.database.read(async (tx) => await tx.sessions.find(hashOf("a")));
  t.truthy(found!.revokedAt);
});

for (const { place, database: kind } of PLACES) {
  test.serial(`${kind}, ${place}: broken off anywhere and run again, it ends whole`, async (t) => {
    const bucket = await oldBucket(t, place);
    if (bucket === undefined) return;
    const messages = Array.from({ length: 13 }, (_, n) => openpgpMessage(1000 + n));
    for (const [n, bytes] of messages.entries()) await bucket.put(`pg/pg-${n + 1}`, bytes);
    const h = await moving(t, bucket, kind);
    h.add({ name: "pg", filenameTemplate: "pg-${version}", maxBackupsCount: 20, maxOneVersionSize: BigInt(MIB) });
    const places = [
      ["listForeign", "during"],
      ["adopt", "before"],
      ["adopt", "after"],
      ["put", "before"],
      ["put", "after"],
    ] as const;
    for (const [operation, when] of places) {
      const store = new FaultyBlobStore(h.deps.store);
      // The marker is put first.
      store.fail(operation, { nth: operation === "put" ? 2 : 1, when });
      await t.throwsAsync(take(h, undefined, { store }), undefined, `${operation} ${when}`);
      store.assertAllFired(t);
      const error = await t.throwsAsync(checkInstallation(h.deps.database, h.deps.store));
      t.regex(error!.message, /run `strongroom import`/, "no server starts in between");
    }
    const stopped = new AbortController();
    const onProgress = () => stopped.abort(new Error("stopped"));
    await t.throwsAsync(take(h, undefined, { signal: stopped.signal, onProgress }), { message: "stopped" });
    const report = await take(h);
    t.deepEqual(report.problems, []);
    t.like(report.collections[0], { versions: 13, nextNumber: 14n });
    await checkInstallation(h.deps.database, h.deps.store);
    t.deepEqual(await numbers(h, "pg"), [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    for (const [n, bytes] of messages.entries()) t.true((await bytesOf(h, "pg", BigInt(n + 1))).equals(bytes));
    await h.assertInvariants(t);
    t.like(await sweep(h.deps, true, { wholeStore: true }), { added: 0, missing: 0, manifests: 0, unknown: [] });
    // Many versions of a moment ago are no uploads that the store did not begin.
    t.is((await h.upload("pg", openpgpMessage(100))).version.number, 14n);
  });
}

test.serial("a copy of the storage has imported versions too, and what was left alone stays behind", async (t) => {
  const [bucket, target] = [await oldBucket(t, "directory"), await oldBucket(t, "directory")];
  if (bucket === undefined || target === undefined) return;
  const message = openpgpMessage(MIB + 5);
  for (const n of [1, 2]) await bucket.put(`pg/pg-${n}`, message);
  await bucket.put("pg/other", message);
  const h = await moving(t, bucket);
  h.add({ name: "pg", filenameTemplate: "pg-${version}" });
  await take(h);
  const to = await openOver(t, target);
  const objects: CopiedObject[] = [];
  const copy = async () =>
    await copyStorage({ from: h.deps.store, to, signal: never, onObject: (object) => objects.push(object) });
  t.like(await copy(), { failed: 0, left: 0 });
  t.deepEqual(
    objects.filter(({ key }) => key.startsWith("pg/")).map(({ key, verified }) => [key, verified]),
    [
      ["pg/pg-1", true],
      ["pg/pg-2", true],
    ],
  );
  t.like(await copy(), { copied: 0, failed: 0 });
  const there = Harness.on(h.deps.database as SqlDatabase, h.clock, to);
  there.add({ name: "pg" });
  t.true((await bytesOf(there, "pg", 2n)).equals(message));
  t.like(await sweep(there.deps, true, { wholeStore: true }), { missing: 0, failed: 0, unknown: [] });
});

test.serial(
  "a name in a directory is one of two: what the other program does to its own changes nothing here",
  async (t) => {
    const bucket = await oldBucket(t, "directory");
    if (bucket === undefined) return;
    const [first, second] = [openpgpMessage(1000), openpgpMessage(2000)];
    await bucket.put("pg/pg-1", first);
    await bucket.put("pg/pg-2", first);
    const h = await moving(t, bucket);
    h.add({ name: "pg", filenameTemplate: "pg-${version}" });
    await take(h);
    await bucket.put("pg/pg-1", second);
    await bucket.delete("pg/pg-2");
    for (const n of [1n, 2n]) t.true((await bytesOf(h, "pg", n)).equals(first));
    t.like((await take(h)).collections[0], { versions: 1, present: 1 }, "the number is taken");
    t.like(await finishImport({ database: h.deps.database, store: h.deps.store }), { versions: 2 });
    t.true(await bucket.has("pg/pg-1"), "its new object is not ours");
    for (const n of [1n, 2n]) t.true((await bytesOf(h, "pg", n)).equals(first));
  },
);

test.serial("an object that alone cannot be read is named; a store that is away ends the import", async (t) => {
  const bucket = await oldBucket(t, "directory");
  if (bucket === undefined) return;
  for (const n of [1, 2]) await bucket.put(`pg/pg-${n}`, openpgpMessage(1000));
  const h = await moving(t, bucket);
  h.add({ name: "pg", filenameTemplate: "pg-${version}" });
  const read = h.deps.store.read.bind(h.deps.store);
  const store: BlobStore = Object.create(h.deps.store, {
    read: {
      value: (key: string, ...rest: [bigint, bigint, AbortSignal]) =>
        key === "pg/pg-1" ? failing() : read(key, ...rest),
    },
  });
  for (const method of ["get", "stat", "adopt", "put", "listForeign"] as const)
    Object.defineProperty(store, method, { value: h.deps.store[method].bind(h.deps.store) });
  const report = await take(h, undefined, { store });
  t.deepEqual(
    report.problems.map(({ kind, key }) => `${kind} ${key}`),
    ["unreadable pg/pg-1"],
  );
  t.deepEqual(await numbers(h, "pg"), [2]);
  t.deepEqual((await take(h)).problems, [], "it may be another time");
  t.deepEqual(await numbers(h, "pg"), [2, 1]);
});

async function* failing(): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(1);
  throw new BlobStoreError("Cannot read: the disk reports an error.");
}

test.serial("an import needs a database and a store that fit", async (t) => {
  const bucket = await oldBucket(t, "directory");
  if (bucket === undefined) return;
  await bucket.put("pg/pg-1", openpgpMessage(1000));
  const h = await moving(t, bucket);
  h.add({ name: "pg", filenameTemplate: "pg-${version}" });
  const used = await Harness.open();
  t.teardown(async () => await used.deps.database.close());
  used.add({ name: "pg" });
  await used.upload("pg", openpgpMessage(100));
  await t.throwsAsync(take(h, undefined, { database: used.deps.database }), {
    instanceOf: UnsafeError,
    message: /the database is in use/,
  });
  await take(h);
  await t.throwsAsync(take(h, undefined, { database: used.deps.database }), {
    instanceOf: InstallationMismatchError,
    message: /the store belongs to installation/,
  });
  // A version of the new server that has the number by now stays what it is.
  const own = await h.upload("pg", openpgpMessage(200));
  await bucket.put("pg/pg-2", openpgpMessage(300));
  const report = await take(h);
  t.deepEqual(
    report.problems.map(({ kind, key }) => `${kind} ${key}`),
    ["conflict pg/pg-2"],
  );
  t.is((await listed(h, "pg"))[0]!.id, own.version.id);
});

for (const { place, database: kind } of PLACES) {
  test.serial(
    `${kind}, ${place}: the old server may go on after a first import; the next one catches up`,
    async (t) => {
      const [bucket, tables] = [await oldBucket(t, place), await OldTables.make(t)];
      if (bucket === undefined || tables === undefined) return;
      const size = 1000;
      const add = async (collection: string, number: number, filename: string) => {
        const bytes = openpgpMessage(size);
        await bucket.put(`${collection}/${filename}`, bytes);
        await tables.add({ collection, number, filename, size });
        return bytes;
      };
      for (const n of [1, 2, 3]) await add("pg", n, `pg-${n}`);
      await add("web", 1, "web.gpg");
      const h = await moving(t, bucket, kind);
      h.add({ name: "pg", filenameTemplate: "pg-${version}" });
      h.add({ name: "web", filenameTemplate: "web.gpg" });
      const old = await oldDatabase(t, tables);
      t.deepEqual((await take(h, old)).problems, []);
      // A backup of each, and its rotation.
      await add("pg", 4, "pg-4");
      await bucket.delete("pg/pg-1");
      const newest = await add("web", 2, "web.gpg");
      await tables.run("update uploaded_versions set deleted_at = now() where version_number = 1");
      const dry = await importInstallation(depsOf(h, old), { dryRun: true });
      const report = await take(h, old);
      t.deepEqual(report.problems, []);
      t.deepEqual(
        [dry, report].map(({ collections }) =>
          collections.map(({ name, versions, retired }) => [name, versions, retired]),
        ),
        [0, 1].map(() => [
          ["pg", 3, 1],
          ["web", 1, 1],
        ]),
      );
      t.deepEqual(await numbers(h, "pg"), [4, 3, 2]);
      t.deepEqual(await numbers(h, "web"), [2]);
      t.true((await bytesOf(h, "web", 2n)).equals(newest));
      await h.assertInvariants(t);
      t.like(await sweep(h.deps, true, { wholeStore: true }), { missing: 0, failed: 0, added: 0 });
      h.clock.advance(2 * DAY);
      t.like(
        await sweep(h.deps, true, { wholeStore: true }),
        { purged: 1, failed: 0 },
        "what was replaced has nothing left",
      );
      t.true((await bytesOf(h, "web", 2n)).equals(newest));
      t.like(await take(h, old), { problems: [] });
      await h.assertInvariants(t);
    },
  );
}

test.serial("what is stored again under the key of a purged version stays", async (t) => {
  const clock = new TestClock();
  const database = await openDatabase("PGlite", () => clock.now);
  t.teardown(async () => await database.close());
  // As in a bucket, an adopted object has one name.
  const h = Harness.on(database, clock, new MemoryBlobStore());
  h.add({ name: "web", filenameTemplate: "web.gpg" });
  await h.deps.store.put("web/web.gpg", openpgpMessage(1000));
  await take(h);
  await finishImport({ database: h.deps.database, store: h.deps.store });
  await deleteVersion(h.deps, h.admin, { collection: "web", number: 1n });
  clock.advance(2 * DAY);
  t.like(await sweep(h.deps, true, { wholeStore: true }), { purged: 1 });
  await h.deps.store.put("web/web.gpg", openpgpMessage(2000));
  t.like(await sweep(h.deps, true, { wholeStore: true }), { leftovers: 0, failed: 0 });
  t.is((await h.deps.store.stat("web/web.gpg"))?.size, 2000n);
  await h.assertInvariants(t);
});

test.serial("a version whose object was replaced after its removal does not take the later one along", async (t) => {
  const tables = await OldTables.make(t);
  if (tables === undefined) return;
  const clock = new TestClock();
  const database = await openDatabase("PGlite", () => clock.now);
  t.teardown(async () => await database.close());
  const h = Harness.on(database, clock, new MemoryBlobStore());
  const names = ["removed", "held"];
  for (const name of names) h.add({ name, filenameTemplate: "a.gpg" });
  const old = await oldDatabase(t, tables);
  const bytes = new Map<string, Uint8Array>();
  const store = async (name: string, number: number) => {
    const message = openpgpMessage(1000);
    bytes.set(name, message);
    await h.deps.store.put(`${name}/a.gpg`, message);
    await tables.add({ collection: name, number, filename: "a.gpg", size: message.length });
  };
  for (const name of names) await store(name, 5);
  t.deepEqual((await take(h, old)).problems, []);
  await deleteVersion(h.deps, h.admin, { collection: "removed", number: 5n });
  await holdVersion(h.deps, h.admin, { collection: "held", number: 5n, reason: "audit" });
  // Back to the old server, which stores the next one over it.
  for (const name of names) await store(name, 6);
  await tables.run("update uploaded_versions set deleted_at = now() where version_number = 5");
  t.deepEqual((await take(h, old)).problems, []);
  t.deepEqual(await numbers(h, "removed"), [6]);
  t.deepEqual(
    (await listed(h, "held")).map(({ number, damageReason }) => [Number(number), damageReason]),
    [
      [6, ""],
      [5, "bytes-differ"],
    ],
  );
  await releaseVersion(h.deps, h.admin, { collection: "held", number: 5n });
  await deleteVersion(h.deps, h.admin, { collection: "held", number: 5n });
  await finishImport({ database: h.deps.database, store: h.deps.store });
  clock.advance(2 * DAY);
  t.like(await sweep(h.deps, true, { wholeStore: true }), { purged: 2, failed: 0 });
  for (const name of names) t.true((await bytesOf(h, name, 6n)).equals(bytes.get(name)!), name);
  await h.assertInvariants(t);
});

import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { measuredDatabase } from "../src/adapters/measured/measured-database.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { EVERY_COLLECTION, listCollections } from "../src/app/collections/list-collections.ts";
import { checkInstallation, InstallationMismatchError } from "../src/app/installation.ts";
import type { BlobStore } from "../src/app/ports/blob-store.ts";
import type { Database } from "../src/app/ports/database.ts";
import { UnsafeError } from "../src/app/upkeep/inventory.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { commitUpload } from "../src/app/uploads/commit-upload.ts";
import { encodeManifest, ManifestError, parseManifest } from "../src/app/versions/manifest.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { manifestKey } from "../src/domain/object-keys.ts";
import { DATABASES, openDatabase, POSTGRES_PROGRAMS, removeSharedCluster } from "./support/databases.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { emptyTables, Harness, MIB } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const test = anyTest as TestFn<{ h: Harness; spare: SqlDatabase }>;
const DAY = 24 * 3_600_000;

test.before(async (t) => {
  const h = await Harness.open();
  t.context = { h, spare: await openMemoryDatabase(() => h.clock.now) };
});
test.beforeEach(async (t) => {
  t.context.h = await t.context.h.reset();
});
test.after.always(async (t) => {
  await t.context.h.deps.database.close();
  await t.context.spare.close();
  await removeSharedCluster();
});

async function emptyDatabase(t: ExecutionContext<{ h: Harness; spare: SqlDatabase }>): Promise<SqlDatabase> {
  await emptyTables(t.context.spare);
  return t.context.spare;
}

/** A life of some weeks: rotation, removal, purge, a tenant, protection, an upload under way. */
async function live(h: Harness): Promise<void> {
  h.organizations.set("acme", { name: "acme", maxTotalSize: undefined });
  const a = h.add({ name: "a", maxBackupsCount: 2, organization: "acme" });
  const b = h.add({
    name: "a-b",
    maxBackupsCount: 9,
    maxOneVersionSize: BigInt(MIB),
    minRetentionMs: 90 * DAY,
    organization: "acme",
  });
  const c = h.add({ name: "c", maxParallelUploads: 2 });
  for (let day = 0; day < 5; day++) {
    await h.upload(a.name, openpgpMessage(2 * MIB + day));
    h.clock.advance(DAY / 2);
    await h.upload(b.name, openpgpMessage(1000 + day));
    await sweep(h.deps, true);
  }
  await h.upload(c.name, openpgpMessage(5000));
  await h.upload(c.name, openpgpMessage(6000));
  await deleteVersion(h.deps, h.admin, { collection: c.name, number: 2n });
  await sweep(h.deps, true);
  const { upload } = await h.begin(c.name);
  await h.write(upload.id, cutSegments(openpgpMessage(MIB), MIB)[0]!);
}

async function rowsOf(database: SqlDatabase) {
  const versions = await database.query(sql`
    select id, collection_id, collection_name, organization, storage, key, number, filename, size, segment_size, segment_count,
      encode(composite_sha256, 'hex') as composite, encode(segment_digests, 'hex') as digests, content_encoding, encryption_format,
      armored, begun_at, committed_at, user_name, access_key, session_id, labels, client_metadata, above_soft_limit, state, held,
      hold_reason, protected_until, removed_at, removed_by, purge_after, damage, damaged_segment, revision, manifest_revision
    from versions where state <> 'purged' order by key`);
  const collections = await database.query(
    sql`select id, name, last_number, stored_bytes, trash_bytes from collections order by name`,
  );
  const organizations = await database.query(
    sql`select name, stored_bytes, trash_bytes from organizations order by name`,
  );
  const installation = await database.query(sql`select id, recovering_since from installation`);
  return { versions, collections, organizations, installation };
}

test.serial("a lost database comes back: versions, numbers, provenance, counters, the installation", async (t) => {
  const { h } = t.context;
  await live(h);
  const lost = await rowsOf(h.deps.database as SqlDatabase);
  t.true(lost.versions.length > 6);
  t.deepEqual(new Set(lost.versions.map((v) => v.state)), new Set(["live", "removed"]));
  const database = await emptyDatabase(t);
  const report = await recover({ database, store: h.deps.store });
  t.deepEqual(await rowsOf(database), lost);
  t.deepEqual([report.damaged, report.skipped, report.unknown], [[], [], []]);
  t.is(report.unfinished, 1, "the upload under way");
  t.is(report.versions + report.removed, lost.versions.length);

  const again = Harness.on(database, h.clock, h.deps.store);
  await checkInstallation(database, h.deps.store);
  for (const spec of h.collections.values()) again.add(spec);
  await again.assertInvariants(t);
  t.is((await again.upload("c", openpgpMessage(1000))).version.number, 3n, "also after a removed one");
  t.is((await again.upload("a", openpgpMessage(1000))).version.number, 6n);
  h.clock.advance(2 * DAY);
  await sweep(again.deps, true, { wholeStore: true });
  await again.assertInvariants(t);
  t.false((await recover({ database: undefined, store: h.deps.store })).removed > 0, "what was in the trash went");
  // A client that never got the answer to its commit asks the new database.
  const version =
    report.versions > 0 ? lost.versions.find((v) => v.collection_name === "c" && v.state === "live")! : undefined;
  const outcome = await commitUpload(again.deps, h.admin, {
    uploadId: String(version!.id),
    size: BigInt(String(version!.size)),
    compositeSha256: Buffer.from(String(version!.composite), "hex"),
  });
  t.is(outcome.version.number, 1n);
});

for (const kind of DATABASES)
  test.serial(`names that somebody asked for before or meanwhile keep nothing from a rebuild: ${kind}`, async (t) => {
    if (kind === "PostgreSQL" && !hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { h } = t.context;
    h.organizations.set("acme", { name: "acme", maxTotalSize: undefined });
    for (const name of ["a", "b"]) {
      h.add({ name, organization: "acme" });
      await h.upload(name, openpgpMessage(5000));
      await h.upload(name, openpgpMessage(5001));
    }
    const lost = await rowsOf(h.deps.database as SqlDatabase);
    const database = await openDatabase(kind, () => h.clock.now);
    t.teardown(async () => await database.close());
    const page = { ...EVERY_COLLECTION, afterName: undefined, pageSize: 10 };
    const list = async () => await listCollections({ ...h.deps, database, sha256: String }, h.admin, page);
    await list();
    await database.transaction(async (tx) => {
      for (const name of ["acme", "other"]) await tx.organizations.lock(name);
    });
    t.is((await recover({ database, store: h.deps.store })).versions, 4);
    // The drivers give large numbers as texts or not.
    const texts = (rows: unknown) => JSON.parse(JSON.stringify(rows, (_, v) => (typeof v === "number" ? `${v}` : v)));
    t.deepEqual(texts(await rowsOf(database)), texts(lost));
    await Harness.on(database, h.clock, h.deps.store).assertInvariants(t);

    const other = await openDatabase(kind, () => h.clock.now);
    t.teardown(async () => await other.close());
    const over: Database = {
      ...measuredDatabase(other, () => {}),
      startRecovery: async (id) => {
        const begun = await other.startRecovery(id);
        await other.transaction(async (tx) => await tx.collections.ensure(["a", "b"]));
        return begun;
      },
    };
    await t.throwsAsync(recover({ database: over, store: h.deps.store }), {
      instanceOf: UnsafeError,
      message: /made collection a .*end every server.*again/,
    });
    await recover({ database: other, store: h.deps.store });
    t.deepEqual(texts(await rowsOf(other)), texts(lost));
  });

test.serial("after a crash in the middle nothing serves, and the same call goes on", async (t) => {
  const { h } = t.context;
  await live(h);
  const lost = await rowsOf(h.deps.database as SqlDatabase);
  const database = await emptyDatabase(t);
  for (let dies = 1; dies <= 3; dies++) {
    await emptyTables(database);
    let done = 0;
    const onCollection = () => {
      if (++done === dies) throw new Error("killed");
    };
    await t.throwsAsync(recover({ database, store: h.deps.store, onCollection }), { message: "killed" });
    await t.throwsAsync(checkInstallation(database, h.deps.store), {
      instanceOf: InstallationMismatchError,
      message: /not complete.*strongroom recover/,
    });
    await recover({ database, store: h.deps.store });
    t.deepEqual(await rowsOf(database), lost);
    await Harness.on(database, h.clock, h.deps.store).assertInvariants(t);
  }
});

test.serial("a store that fails anywhere leaves a rebuild that can be repeated", async (t) => {
  const { h } = t.context;
  await live(h);
  const lost = await rowsOf(h.deps.database as SqlDatabase);
  const database = await emptyDatabase(t);
  for (let nth = 1; nth <= 9; nth += 2) {
    const store = new FaultyBlobStore(h.deps.store);
    store.fail("get", { nth });
    await t.throwsAsync(recover({ database, store }), { message: /Injected/ });
    store.assertAllFired(t);
  }
  await recover({ database, store: h.deps.store });
  t.deepEqual(await rowsOf(database), lost);
});

test.serial(
  "a database in use and a store without a mark are refused; an id that belongs to nothing is replaced",
  async (t) => {
    const { h } = t.context;
    await live(h);
    const before = await rowsOf(h.deps.database as SqlDatabase);
    await t.throwsAsync(recover({ database: h.deps.database, store: h.deps.store }), {
      instanceOf: UnsafeError,
      message: /database is in use/,
    });
    t.deepEqual(await rowsOf(h.deps.database as SqlDatabase), before);
    const database = await emptyDatabase(t);
    await t.throwsAsync(recover({ database, store: new MemoryBlobStore() }), { instanceOf: UnsafeError });
    // A server was started on the new database, and refused.
    await t.throwsAsync(checkInstallation(database, h.deps.store), { instanceOf: InstallationMismatchError });
    await recover({ database, store: h.deps.store });
    t.deepEqual(await rowsOf(database), before);
  },
);

test.serial(
  "damage and doubt: what is missing is marked, what cannot be read is reported, nothing stops the rest",
  async (t) => {
    const { h } = t.context;
    const { store } = h.deps;
    const spec = h.add({ name: "x", maxBackupsCount: 9, maxOneVersionSize: BigInt(MIB) });
    const made = [];
    for (let i = 0; i < 6; i++) made.push((await h.upload(spec.name, openpgpMessage(1000 + i))).version);
    const [missing, short, unreadable, bare, doubled, well] = made as [
      (typeof made)[0],
      (typeof made)[0],
      (typeof made)[0],
      (typeof made)[0],
      (typeof made)[0],
      (typeof made)[0],
    ];
    await store.delete(missing.key);
    await store.delete(short.key);
    await store.put(short.key, new Uint8Array(3));
    await store.put(manifestKey(unreadable.key), new TextEncoder().encode('{"format": 1'));
    await store.delete(manifestKey(bare.key));
    // A number given out twice, by a database that had been rolled back: the later one keeps it.
    const text = new TextDecoder().decode((await store.get(manifestKey(doubled.key), MIB))!);
    const twin = doubled.id.replace(/^.{8}/, "00000000");
    await store.put(
      manifestKey(doubled.key.replace(doubled.id, twin)),
      new TextEncoder().encode(
        text.replaceAll(doubled.id, twin).replace(/"committed_at": "2026/, '"committed_at": "2025'),
      ),
    );
    await store.put("collections/x/y/z", new Uint8Array(1));
    const database = await emptyDatabase(t);
    const report = await recover({ database, store });
    t.deepEqual(report.damaged.map(({ key }) => key).sort(), [missing.key, short.key].sort());
    t.deepEqual(
      report.skipped.map(({ key }) => key).sort(),
      [manifestKey(unreadable.key), manifestKey(doubled.key.replace(doubled.id, twin))].sort(),
    );
    t.deepEqual(report.unknown.map(({ key }) => key).sort(), ["collections/x/y/z", bare.key].sort());
    const restored = Harness.on(database, h.clock, store);
    restored.add(spec);
    await restored.assertInvariants(t);
    const rows = await database.query(sql`select number, damage from versions order by number`);
    t.deepEqual(
      rows.map(({ number, damage }) => [Number(number), damage !== ""]),
      [
        [1, true],
        [2, true],
        [5, false],
        [6, false],
      ],
    );
    t.is(well.number, 6n);
    t.is((await restored.upload("x", openpgpMessage(1000))).version.number, 7n);
  },
);

test.serial("a version that was found damaged before is reported as damaged, and stays marked", async (t) => {
  const { h } = t.context;
  const { store } = h.deps;
  const { version } = await h.upload(h.add({ name: "x" }).name, openpgpMessage(1000));
  const text = new TextDecoder().decode((await store.get(manifestKey(version.key), MIB))!);
  const damaged = text
    .replace('"damage": ""', '"damage": "segment 0 differs"')
    .replace('"damage_reason": ""', '"damage_reason": "bytes-differ"');
  t.not(damaged, text);
  await store.put(manifestKey(version.key), new TextEncoder().encode(damaged));
  const database = await emptyDatabase(t);
  const report = await recover({ database, store });
  t.deepEqual(report.damaged, [{ key: version.key, why: "version 1: segment 0 differs" }]);
  t.deepEqual(await database.query(sql`select damage, damage_reason from versions`), [
    { damage: "segment 0 differs", damage_reason: "bytes-differ" },
  ]);
});

test.serial("of two manifests of one version the higher revision counts", async (t) => {
  const { h } = t.context;
  const { store } = h.deps;
  const { version } = await h.upload(h.add({ name: "x" }).name, openpgpMessage(1000));
  const text = new TextDecoder().decode((await store.get(manifestKey(version.key), MIB))!);
  for (const [prefix, revision] of [
    ["00000000", 3],
    ["ffffffff", 2],
  ] as const) {
    const key = version.key.replace(version.id, version.id.replace(/^.{8}/, prefix));
    const copy = text.replace(version.key, key).replace('"revision": 1', `"revision": ${revision}`);
    await store.put(manifestKey(key), new TextEncoder().encode(copy));
    await store.put(key, new Uint8Array(Number(version.size)));
  }
  const database = await emptyDatabase(t);
  const { skipped } = await recover({ database, store });
  t.is(skipped.length, 2);
  t.deepEqual(await database.query(sql`select id, revision from versions`), [{ id: version.id, revision: 3 }]);
});

test.serial("a dry run needs no database and changes nothing", async (t) => {
  const { h } = t.context;
  await live(h);
  const refuse = async () => {
    throw new Error("a dry run changed the store");
  };
  const store: BlobStore = new Proxy(h.deps.store, {
    get: (target, name) => {
      if (["put", "delete", "abort", "begin", "complete"].includes(String(name))) return refuse;
      const value = Reflect.get(target, name) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const dry = await recover({ database: undefined, store });
  const database = await emptyDatabase(t);
  t.deepEqual(await recover({ database, store: h.deps.store }), dry);
});

test.serial(
  "manifests of format 1 are read: all versions are live, also those that were removed and not purged",
  async (t) => {
    const { h } = t.context;
    await live(h);
    for await (const { key } of h.deps.store.list("collections/")) {
      if (!key.endsWith(".manifest.json")) continue;
      const manifest = JSON.parse(new TextDecoder().decode((await h.deps.store.get(key, MIB))!)) as Record<
        string,
        unknown
      >;
      const {
        state: _,
        removed_by: __,
        ...old
      } = { ...manifest, format: 1, removed_at: null, purge_after: null } as Record<string, unknown>;
      await h.deps.store.put(key, new TextEncoder().encode(JSON.stringify(old)));
    }
    const database = await emptyDatabase(t);
    const report = await recover({ database, store: h.deps.store });
    t.deepEqual([report.removed, report.skipped], [0, []]);
    await Harness.on(database, h.clock, h.deps.store).assertInvariants(t);
  },
);

test.serial("what a manifest says is checked", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const message = openpgpMessage(2 * MIB + 1);
  const { version } = await h.upload(spec.name, message);
  const digests = cutSegments(message, MIB).map((s) => s.sha256);
  const whole = encodeManifest(version, digests);
  const parsed = parseManifest(whole, "default");
  t.deepEqual(parsed.version, { ...version, compositeSha256: Uint8Array.from(compositeOf(cutSegments(message, MIB))) });
  const text = new TextDecoder().decode(whole);
  const wrong: [RegExp, string][] = [
    [/"format": 7/, '"format": 8'],
    [/"revision": 1/, '"revision": 0'],
    [/"state": "live"/, '"state": "removed"'],
    [/"state": "live"/, '"state": "purged"'],
    [/"removed_at": null/, '"removed_at": "2026-01-01T00:00:00Z"'],
    [/"damaged_segment": null/, '"damaged_segment": -1'],
    [/"number": "1"/, '"number": "0"'],
    [/"number": "1"/, '"number": 1'],
    [/"size": "\d+"/, '"size": "1"'],
    [/"composite_sha256": "./, '"composite_sha256": "x'],
    [/"version_id": "./, '"version_id": "../'],
    [/"content_encoding": "none"/, '"content_encoding": "gzip"'],
    [/"committed_at": "[^"]*"/, '"committed_at": "soon"'],
    [/"armored": false/, '"armored": "no"'],
    [/"labels": {}/, '"labels": {"a": 1}'],
    [/"segment_sha256": \[\n\s+"./, '"segment_sha256": ["g'],
    [/^/, "["],
  ];
  for (const [from, to] of wrong) {
    const changed = text.replace(from, to);
    t.not(changed, text, String(from));
    t.throws(() => parseManifest(new TextEncoder().encode(changed), ""), { instanceOf: ManifestError }, to);
  }
  t.throws(() => parseManifest(Uint8Array.of(0xff), ""), { instanceOf: ManifestError });
});

/** The manifest of a version follows its row: what both say, and how a change gets from the one to the other. */

import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import fc from "fast-check";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { commitUpload, finishCommit } from "../src/app/uploads/commit-upload.ts";
import { confirmVersion } from "../src/app/versions/confirm-version.ts";
import { holdVersion, releaseVersion } from "../src/app/versions/hold-version.ts";
import { encodeManifest, ManifestError, parseManifest } from "../src/app/versions/manifest.ts";
import { ManifestWriter } from "../src/app/versions/manifest-writer.ts";
import { undeleteVersion } from "../src/app/versions/undelete-version.ts";
import { recordVerification } from "../src/app/versions/verify-version.ts";
import { deleteVersion, type VersionDeps } from "../src/app/versions/versions.ts";
import { manifestKey } from "../src/domain/object-keys.ts";
import { DAMAGE_REASONS, PUBLISHED, STATED_FIELDS, VERSION_FIELDS, type Version } from "../src/domain/version.ts";
import { versionMessage } from "../src/transport/messages.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB } from "./support/harness.ts";

const test = anyTest as TestFn;
const each = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const HOUR = 3_600_000;
const DAMAGE = { damage: "segment 0 has other bytes", damageReason: "bytes-differ", damagedSegment: 0 } as const;
const WHOLE = { damage: "", damageReason: "", damagedSegment: null } as const;

async function rowOf(h: Harness, id: string): Promise<Version> {
  return (await h.deps.database.transaction(async (tx) => await tx.versions.findById(id)))!;
}

async function manifestOf(h: Harness, { key }: Version): Promise<Version> {
  return parseManifest((await h.deps.store.get(manifestKey(key), MIB))!, "default").version;
}

/** Sweeps, and returns how many manifests were written. */
async function rewritten(h: Harness, deps = h.deps): Promise<number> {
  return (await sweep(deps, true)).manifests;
}

/** Asserts that the manifest says what the row says, all of it. */
async function assertFollowed(t: import("ava").ExecutionContext, h: Harness, id: string): Promise<void> {
  const row = await rowOf(h, id);
  t.is(row.manifestRevision, row.revision);
  t.deepEqual(await manifestOf(h, row), { ...row, verifiedAt: null });
  t.is(await rewritten(h), 0);
}

each("every change that a manifest says raises the revision by one, and a sweep brings it there", async (t) => {
  const { h } = t.context;
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(MIB));
  await assertFollowed(t, h, version.id);
  const changes: readonly (readonly [() => Promise<unknown>, Partial<Version>])[] = [
    [async () => await recordVerification(h.deps, await rowOf(h, version.id), DAMAGE), DAMAGE],
    [async () => await recordVerification(h.deps, await rowOf(h, version.id), WHOLE), WHOLE],
    [async () => await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n }), { state: "removed" }],
  ];
  for (const [i, [change, says]] of changes.entries()) {
    h.clock.advance(1000);
    await change();
    t.like(await rowOf(h, version.id), { ...says, revision: i + 2, manifestRevision: i + 1 });
    t.is((await manifestOf(h, version)).revision, i + 1);
    t.is(await rewritten(h), 1);
    t.like(await manifestOf(h, version), { ...says, revision: i + 2 });
    await assertFollowed(t, h, version.id);
  }
});

each("what a manifest does not say, and what changes nothing, raises no revision", async (t) => {
  const { h } = t.context;
  const { version } = await h.upload(h.add().name, openpgpMessage(MIB));
  await recordVerification(h.deps, version, WHOLE);
  t.like(await rowOf(h, version.id), { revision: 1, verifiedAt: h.clock.now });
  await recordVerification(h.deps, version, DAMAGE);
  h.clock.advance(1000);
  await recordVerification(h.deps, version, DAMAGE);
  t.like(await rowOf(h, version.id), { revision: 2, verifiedAt: h.clock.now });
  const removal = { removedAt: h.clock.now, removedBy: "x", purgeAfter: h.clock.now };
  t.true(await h.deps.database.transaction(async (tx) => await tx.versions.remove(version.id, removal)));
  t.false(await h.deps.database.transaction(async (tx) => await tx.versions.remove(version.id, removal)));
  t.is((await rowOf(h, version.id)).revision, 3);
  // Its counters were left alone on purpose.
  await h.reset();
});

each("a sweep that dies before, during or after writing a manifest is repeated", async (t) => {
  const { h } = t.context;
  const { version } = await h.upload(h.add().name, openpgpMessage(MIB));
  for (const [i, when] of (["before", "after"] as const).entries()) {
    await recordVerification(h.deps, await rowOf(h, version.id), i === 0 ? DAMAGE : WHOLE);
    const store = new FaultyBlobStore(h.deps.store);
    store.fail("put", { when });
    const report = await sweep(h.over(store), true);
    t.deepEqual([report.manifests, report.failed], [0, 1]);
    store.assertAllFired(t);
    t.not((await rowOf(h, version.id)).manifestRevision, i + 2);
    t.is(await rewritten(h), 1);
    await assertFollowed(t, h, version.id);
  }
});

for (const lastToNote of ["older", "newer"] as const) {
  each(
    `of two sweeps at once the older manifest is stored last, the ${lastToNote} noted last: found out`,
    async (t) => {
      const { h } = t.context;
      const spec = h.add();
      const { version } = await h.upload(spec.name, openpgpMessage(MIB));
      await recordVerification(h.deps, version, DAMAGE);
      const [one, two] = [new FaultyBlobStore(h.deps.store), new FaultyBlobStore(h.deps.store)];
      const beforePut = one.stall("put");
      const older = rewritten(h, h.over(one));
      await beforePut.reached;
      await deleteVersion(h.deps, h.admin, { collection: spec.name, number: 1n });
      const afterPut = two.stall("put", { when: "after" });
      const newer = rewritten(h, h.over(two));
      await afterPut.reached;
      t.is((await manifestOf(h, version)).state, "removed");
      if (lastToNote === "older") {
        afterPut.release();
        await newer;
      }
      beforePut.release();
      await older;
      t.is((await manifestOf(h, version)).state, "live");
      afterPut.release();
      t.deepEqual(await Promise.all([older, newer]), [1, 1]);
      t.is(await rewritten(h), 1);
      await assertFollowed(t, h, version.id);
    },
  );
}

each("what a person does to a version is in the store when the call answers, and survives the database", async (t) => {
  const { h } = t.context;
  const deps: VersionDeps = { ...h.deps, manifests: new ManifestWriter(h.deps) };
  const spec = h.add();
  const { version } = await h.upload(spec.name, openpgpMessage(MIB));
  const name = { collection: spec.name, number: 1n };
  const steps: readonly (readonly [() => Promise<unknown>, Partial<Version>])[] = [
    [async () => await holdVersion(deps, h.admin, { ...name, reason: "evidence" }), { held: true }],
    [async () => await releaseVersion(deps, h.admin, name), { held: false }],
    [async () => await confirmVersion(deps, h.admin, name), { confirmedAt: h.clock.now }],
    [async () => await deleteVersion(deps, h.admin, name), { state: "removed" }],
    [async () => await undeleteVersion(deps, h.admin, name), { state: "live" }],
  ];
  for (const [change, says] of steps) {
    await change();
    t.like(await manifestOf(h, version), says);
    await assertFollowed(t, h, version.id);
  }
});

each(
  "a store that is down or hangs does not undo a hold; the answer says so, and the next call tells it",
  async (t) => {
    const { h } = t.context;
    const { version } = await h.upload(h.add().name, openpgpMessage(MIB));
    const store = new FaultyBlobStore(h.deps.store);
    const manifests = new ManifestWriter({ ...h.deps, store }, 20);
    const hold = async () =>
      await holdVersion({ ...h.deps, manifests }, h.admin, {
        collection: version.collectionName,
        number: 1n,
        reason: "evidence",
      });
    store.fail("put");
    t.true(versionMessage(await hold(), "").manifestPending);
    t.true((await rowOf(h, version.id)).held);
    t.false((await manifestOf(h, version)).held);
    const stall = store.stall("put");
    t.true(versionMessage(await hold(), "").manifestPending);
    const behind = hold();
    t.true(versionMessage(await behind, "").manifestPending, "in line behind one that hangs, it ends too");
    stall.release();
    const again = versionMessage(
      await holdVersion({ ...h.deps, manifests: new ManifestWriter(h.deps) }, h.admin, {
        collection: version.collectionName,
        number: 1n,
        reason: "evidence",
      }),
      "",
    );
    t.false(again.manifestPending, "nothing has changed, and the manifest is written");
    t.true((await manifestOf(h, version)).held);
    store.assertAllFired(t);
    await sweep(h.deps, true);
    await assertFollowed(t, h, version.id);
  },
);

each("of two servers that finish one commit the manifest is that of the version published", async (t) => {
  const { h } = t.context;
  const spec = h.add({ minRetentionMs: HOUR });
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(MIB), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const slow = new FaultyBlobStore(h.deps.store);
  const stall = slow.stall("put");
  const input = { uploadId: upload.id, size: BigInt(MIB), compositeSha256: compositeOf(segments) };
  const loser = commitUpload(h.over(slow), h.admin, input);
  await stall.reached;
  const committing = (await h.deps.database.transaction(async (tx) => await tx.uploads.find(upload.id)))!;
  h.clock.advance(1000);
  const { version } = await finishCommit(h.deps, committing);
  stall.release();
  t.deepEqual((await loser).version, version);
  t.notDeepEqual((await manifestOf(h, version)).committedAt, version.committedAt, "the other's was last");
  t.is(await rewritten(h), 1);
  await assertFollowed(t, h, version.id);
});

const instant = fc.date({ min: new Date(0), max: new Date("2100-01-01"), noInvalidDate: true });
const words = fc.string({ unit: "grapheme", maxLength: 12 });
const uuid = fc.uuid({ version: 4 });
const big = fc.bigInt({ min: 1n, max: 10n ** 18n - 1n });

/** Versions with every field at random; segments of one byte each. */
const versions = fc
  .record({
    id: uuid,
    revision: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    collectionName: fc.string({ minLength: 1 }).filter((name) => /./.test(name)),
    collectionId: uuid,
    organization: words,
    number: big,
    removedAt: fc.option(instant),
    key: fc.constant("collections/a/b"),
    adoptedKey: fc.option(fc.constantFrom("a/b.gpg", "a/b c.gpg")),
    keptForReturn: fc.boolean(),
    unchecked: words,
    filename: fc.constant("a.tar"),
    contentEncoding: fc.constantFrom("none" as const, "zstd" as const),
    encryptionFormat: fc.constantFrom("openpgp" as const, "age" as const),
    armored: fc.boolean(),
    begunAt: instant,
    committedAt: instant,
    userName: words,
    accessKey: words,
    sessionId: words,
    labels: fc.dictionary(words, words, { noNullPrototype: true }),
    clientMetadata: fc.dictionary(words, words, { noNullPrototype: true }),
    aboveSoftLimit: fc.boolean(),
    held: fc.boolean(),
    holdReason: words,
    heldBy: words,
    heldByAdmin: fc.boolean(),
    heldAt: fc.option(instant),
    protectedUntil: fc.option(instant),
    removedBy: words,
    damage: words,
    damageReason: fc.constantFrom(...DAMAGE_REASONS),
    damagedSegment: fc.option(fc.integer({ min: 0, max: 1_000_000 })),
    damagedAt: fc.option(instant),
    recipients: fc.option(fc.dictionary(words, fc.integer({ min: 1 }), { noNullPrototype: true })),
    usualSize: fc.option(big),
    confirmedAt: fc.option(instant),
    storage: fc.constant("default"),
    verifiedAt: fc.constant(null),
    segmentCount: fc.integer({ min: 1, max: 5 }),
  })
  .map((some): { version: Version; digests: Uint8Array[] } => {
    const segments = cutSegments(Buffer.alloc(some.segmentCount, 1), 1);
    const { removedAt, segmentCount, revision, protectedUntil } = some;
    // As long as older formats would have it.
    const protectedForMs =
      protectedUntil === null ? null : Math.max(0, protectedUntil.getTime() - some.committedAt.getTime());
    const state = removedAt === null ? ("live" as const) : ("removed" as const);
    const compositeSha256 = Uint8Array.from(compositeOf(segments));
    const sizes = { size: BigInt(segmentCount), segmentSize: 1n, compositeSha256 };
    return {
      version: { ...some, ...sizes, protectedForMs, state, purgeAfter: removedAt, manifestRevision: revision },
      digests: segments.map((s) => s.sha256),
    };
  });

test("the message of a version is made of every field but those that clients do not see", (t) => {
  const unseen = [
    "collectionId",
    "organization",
    "storage",
    "key",
    "adoptedKey",
    "keptForReturn",
    "removedBy",
    "protectedForMs",
    "heldByAdmin",
  ];
  const [{ version }] = fc.sample(versions, { numRuns: 1, seed: 1 }) as [{ version: Version; digests: Uint8Array[] }];
  const read = new Set<string | symbol>();
  const watched = new Proxy(
    { ...version, damage: "damaged" },
    {
      get: (target, name) => {
        read.add(name);
        return Reflect.get(target, name) as unknown;
      },
    },
  );
  const message = versionMessage(watched, "");
  t.deepEqual([...read, ...unseen].sort(), Object.keys(VERSION_FIELDS).sort());
  t.is(message.number, version.number);
});

test("a manifest says every field, and is read back as the same version", (t) => {
  fc.assert(
    fc.property(versions, ({ version, digests }) => {
      const { version: read, segmentDigests } = parseManifest(encodeManifest(version, digests), "default");
      t.deepEqual(read, version);
      t.true(Buffer.concat(digests).equals(segmentDigests));
    }),
    { numRuns: 200 },
  );
});

test("a manifest without a field of its format is refused; one of an older format without newer ones is read", (t) => {
  const [{ version, digests }] = fc.sample(versions, { numRuns: 1, seed: 1 }) as [
    { version: Version; digests: Uint8Array[] },
  ];
  const live: Version = { ...version, ...PUBLISHED, usualSize: null, recipients: null };
  const json = JSON.parse(new TextDecoder().decode(encodeManifest(live, digests))) as Record<string, unknown>;
  const read = (value: object) => parseManifest(new TextEncoder().encode(JSON.stringify(value)), "default").version;
  for (const [, { name, since }] of STATED_FIELDS) {
    const { [name]: _, ...rest } = json;
    t.throws(() => read(rest), {
      instanceOf: ManifestError,
      message: new RegExp(`^${name}: expected .*, got nothing$`),
    });
    for (let format = 1; format < since; format++) t.deepEqual(read({ ...rest, format }), live);
  }
  t.is(VERSION_FIELDS.revision.since, 3);
  const removed = {
    ...json,
    state: "removed",
    removed_at: "2026-01-01T00:00:00Z",
    purge_after: "2026-01-02T00:00:00Z",
  };
  t.like(read({ ...removed, format: 2 }), { state: "removed", revision: 2, manifestRevision: 2 });
  t.like(read({ ...removed, format: 1 }), { state: "removed", revision: 2 });
});

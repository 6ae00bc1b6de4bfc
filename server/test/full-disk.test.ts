/** Real small file systems that run full: who says what, and that all goes on when there is room again. */
import { randomBytes } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { smallDisk } from "@strongroom/testkit/small-disk";
import test from "ava";
import { DirectoryBlobStore } from "../src/adapters/filesystem/directory-blob-store.ts";
import { freeSpace } from "../src/adapters/filesystem/free-space.ts";
import { openPglite } from "../src/adapters/pglite/pglite.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { checkInstallation } from "../src/app/installation.ts";
import { Readiness, type WatchedDisk } from "../src/app/upkeep/readiness.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { DiskReserve } from "../src/app/uploads/disk-reserve.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { deleteVersion } from "../src/app/versions/versions.ts";
import { Harness, MIB, refused, TestClock } from "./support/harness.ts";

/** Leaves so many bytes on a disk. */
async function fill(disk: string, left: number): Promise<() => Promise<void>> {
  const path = join(disk, "filler");
  const bytes = Number(await freeSpace(disk)) - left;
  if (bytes > 0) await writeFile(path, Buffer.alloc(bytes, 1));
  return async () => await rm(path, { force: true });
}

function readinessOf(h: Harness, disks: readonly WatchedDisk[]): Readiness {
  const { database, store, config, log, newId } = h.deps;
  return new Readiness(
    { database, store, config, log, clock: () => ({ status: "right", message: "" }), newId, disks },
    { limitMs: 60_000, freshMs: 0 },
  );
}

const failed = async (readiness: Readiness) =>
  (await readiness.check()).filter(({ ok }) => !ok).map(({ name, message }) => `${name}: ${message}`);

test.serial("a full directory store names its cause to the client, and readiness notices it", async (t) => {
  const disk = await smallDisk(t, 64);
  if (disk === undefined) return;
  const store = await DirectoryBlobStore.open(join(disk, "storage"));
  t.teardown(() => store.close());
  const h = await Harness.open("PGlite", store);
  t.teardown(() => h.deps.database.close());
  const name = h.add().name;
  const ready = readinessOf(h, [{ check: "storage", freeBytes: async () => await freeSpace(disk) }]);
  t.deepEqual(await failed(ready), []);
  const { upload } = await h.begin(name);
  const segments = cutSegments(openpgpMessage(3 * MIB), MIB);
  await h.write(upload.id, segments[0]!);

  const makeRoom = await fill(disk, MIB / 2);
  const error = await refused(t, "STORE_UNAVAILABLE", h.write(upload.id, segments[1]!, chunked(segments[1]!.bytes)));
  t.regex(error.message, /the object store is full: notify the operator/);
  t.is(error.metadata.cause, "store-full");
  t.regex((await failed(ready)).join(), /^storage: .*the file system is full/);
  await makeRoom();
  // A probe still fits, a segment would not for long.
  const almost = await fill(disk, 20 * MIB);
  t.regex((await failed(ready)).join(), /^storage: the disk of the storage is full: expected at least 32 MiB free/);
  await almost();
  t.deepEqual(await failed(ready), []);
  for (const segment of segments.slice(1)) await h.write(upload.id, segment);
  t.is((await h.commit(upload.id, segments)).version.number, 1n);
  await h.assertInvariants(t);
});

test.serial(
  "a full disk below the embedded database is said to be full, not busy, and it goes on with room",
  async (t) => {
    const disk = await smallDisk(t, 160);
    if (disk === undefined) return;
    const clock = new TestClock();
    const database = await openPglite({ directory: join(disk, "database"), clock: () => clock.now });
    t.teardown(() => database.close());
    await database.installation();
    const h = Harness.on(database, clock);
    const ready = readinessOf(h, [{ check: "database", freeBytes: async () => await freeSpace(disk) }]);
    t.deepEqual(await failed(ready), []);
    const makeRoom = await fill(disk, 0);
    // Until what is preallocated is used up.
    const write = async () =>
      await database.transaction(async (tx) => {
        const details = Object.fromEntries(
          Array.from({ length: 16 }, (_, i) => [`k${i}`, randomBytes(40_000).toString("hex")]),
        );
        await tx.auditLog.setConfiguration(randomBytes(8).toString("hex"), details);
      });
    const writing = (async () => {
      for (let i = 0; i < 200; i++) await write();
    })();
    const error = await refused(t, "DATABASE_UNAVAILABLE", writing);
    t.regex(error.message, /the database has no space left on its disk: notify the operator/);
    t.is(error.metadata.cause, "disk-full");
    t.regex((await failed(ready)).join(), /database: /);
    await makeRoom();
    for (let tries = 1; ; tries++) {
      try {
        await write();
        break;
      } catch (reason) {
        if (tries === 20) throw reason;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
    t.deepEqual(await failed(ready), []);
  },
);

test.serial("where database and storage share a disk, uploads leave enough that it can be emptied again", async (t) => {
  const disk = await smallDisk(t, 240);
  if (disk === undefined) return;
  const clock = new TestClock();
  const database = await openPglite({ directory: join(disk, "database"), clock: () => clock.now });
  t.teardown(() => database.close());
  const store = await DirectoryBlobStore.open(join(disk, "storage"));
  t.teardown(() => store.close());
  await checkInstallation(database, store);
  const disks = (["storage", "database"] as const).map((check) => ({
    check,
    freeBytes: async () => await freeSpace(disk),
    reserveBytes: async () => 24n * BigInt(MIB),
  }));
  const h = Harness.on(database, clock, store, undefined, new DiskReserve(disks));
  const { name } = h.add({ maxOneVersionSize: 1024n ** 3n, maxCollectionSize: 1024n ** 4n, maxParallelUploads: 9 });
  await h.upload(name, openpgpMessage(5 * MIB));
  const { upload } = await h.begin(name);
  const segments = cutSegments(openpgpMessage(300 * MIB), Number(upload.segmentSize));
  let stored = 0;
  const error = await refused(
    t,
    "STORE_UNAVAILABLE",
    (async () => {
      for (const segment of segments) {
        await h.write(upload.id, segment);
        stored++;
      }
    })(),
  );
  t.true(stored > 10, String(stored));
  t.is(error.metadata.cause, "store-full");
  t.regex(error.message, /24 MiB of it are held back .*--disk-reserve/);
  await fill(disk, 20 * MIB);
  await refused(t, "STORE_UNAVAILABLE", h.begin(name));
  // What is stored is acknowledged, so that an upload whose last answer was lost can be committed.
  await h.write(upload.id, segments[0]!);
  const caller = { principal: h.admin, secret: undefined };
  const health = await getCollectionHealth({ ...h.deps, sha256: () => "" }, caller, name);
  const room = health.checks.find((check) => check.name === "room")!;
  t.is(room.status, "failed");
  t.regex(room.message, /the disk of the storage has .* left, and 24 MiB of it are held back/);

  await deleteVersion(h.deps, h.admin, { collection: name, number: 1n });
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  clock.advance(25 * 3_600_000);
  const report = await sweep(h.deps, true);
  t.is(report.purged, 1);
  t.is((await h.upload(name, openpgpMessage(5 * MIB))).version.number, 2n);
  await h.assertInvariants(t);
});

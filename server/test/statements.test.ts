/**
 * How many statements PostgreSQL is asked for a step of a backup: the numbers of docs/performance.md. A step that needs
 * more is slower for everybody, since each is a round trip, and under the collection's lock most of the time.
 */
import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { type StatementLog, startStatementLog } from "@strongroom/testkit/statement-log";
import anyTest, { type TestFn } from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { checkInstallation } from "../src/app/installation.ts";
import { abortUpload, renewUpload } from "../src/app/uploads/manage-uploads.ts";
import { readVersion } from "../src/app/versions/versions.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { Harness, MIB, TestClock } from "./support/harness.ts";

const test = anyTest as TestFn;
test.after.always(removeSharedCluster);

/** A harness whose statements are written down. */
async function logged(): Promise<{ h: Harness; log: StatementLog }> {
  const cluster = await sharedCluster();
  const log = await startStatementLog(cluster.peer.port);
  const clock = new TestClock();
  // One connection, so that what is set at its beginning is sent once.
  const database = await openServer(log.through(await cluster.createDatabase()), () => clock.now, 1);
  const store = new MemoryBlobStore();
  await checkInstallation(database, store);
  return { h: Harness.on(database, clock, store), log };
}

/** Statements of each step, BEGIN and COMMIT among them; what finds out who calls is one more for each call. */
interface Steps {
  readonly create: number;
  readonly segment: number;
  /** After an attempt that broke off. */
  readonly sentAgain: number;
  /** It was stored before. */
  readonly acknowledged: number;
  readonly renewal: number;
  readonly commit: number;
  readonly read: number;
}

const RARE: Partial<CollectionSpec> = { maxOneVersionSize: BigInt(8 * MIB), maxCollectionSize: BigInt(1000 * MIB) };

const CASES: Readonly<Record<string, { readonly spec: Partial<CollectionSpec>; readonly steps: Steps }>> = {
  "a collection that is not full": {
    spec: { ...RARE, maxBackupsCount: 30 },
    steps: { create: 12, segment: 10, sentAgain: 11, acknowledged: 7, renewal: 5, commit: 25, read: 6 },
  },
  "a full collection, which rotates": {
    spec: { ...RARE, maxBackupsCount: 2 },
    steps: { create: 13, segment: 11, sentAgain: 12, acknowledged: 8, renewal: 5, commit: 30, read: 6 },
  },
  "a collection of an organization with a limit": {
    spec: { ...RARE, maxBackupsCount: 30, organization: "acme" },
    steps: { create: 14, segment: 12, sentAgain: 13, acknowledged: 9, renewal: 6, commit: 30, read: 6 },
  },
};

for (const [name, { spec, steps }] of Object.entries(CASES)) {
  test.serial(`PostgreSQL: the statements of a backup to ${name}`, async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { h, log } = await logged();
    t.teardown(async () => {
      await h.deps.database.close();
      await log.close();
    });
    h.organizations.set("acme", { name: "acme", description: "", maxTotalSize: BigInt(5000 * MIB) } as never);
    const { name: collection } = h.add(spec);
    for (let i = 0; i < 2; i++) await h.upload(collection, openpgpMessage(1024));
    const counted = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
      log.take();
      const result = await work();
      return [result, log.take().length];
    };
    const message = openpgpMessage(3 * MIB);
    const [{ upload }, create] = await counted(async () => await h.begin(collection));
    const segments = cutSegments(message, Number(upload.segmentSize));
    await h.write(upload.id, segments[0]!);
    const broken = h.write(upload.id, segments[1]!, broke(segments[1]!.bytes));
    await t.throwsAsync(broken);
    const [, sentAgain] = await counted(async () => await h.write(upload.id, segments[1]!));
    const [, acknowledged] = await counted(async () => await h.write(upload.id, segments[1]!));
    const [, segment] = await counted(async () => await h.write(upload.id, segments[2]!));
    const [, renewal] = await counted(async () => await renewUpload(h.deps, h.admin, upload.id));
    for (const rest of segments.slice(3)) await h.write(upload.id, rest);
    const [{ version }, commit] = await counted(async () => await h.commit(upload.id, segments));
    const [, read] = await counted(async () => {
      const signal = new AbortController().signal;
      const range = { collection, number: version.number, offset: 0n, limit: 0n };
      const { body } = await readVersion(h.deps, h.admin, range, signal);
      for await (const _chunk of body);
    });
    t.deepEqual({ create, segment, sentAgain, acknowledged, renewal, commit, read }, steps);
  });
}

test.serial(
  "PostgreSQL: a segment is settled once, however often it is asked for, and by the newest attempt only",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { h, log } = await logged();
    t.teardown(async () => {
      await h.deps.database.close();
      await log.close();
    });
    const { upload } = await h.begin(h.add().name);
    const [first, second] = cutSegments(openpgpMessage(2 * MIB), Number(upload.segmentSize));
    await h.write(upload.id, first!);
    const settle = async (attempt: number, framingOut: Uint8Array, uploadId = upload.id) => {
      const lease = { leaseExpiresAt: new Date(h.clock.now.getTime() + 60_000), expiresAt: h.clock.now };
      const found = { framingOut, recipients: null, storedAt: h.clock.now };
      return await h.deps.database.read(
        async (tx) => await tx.segments.settle({ uploadId, index: 0, attempt }, found, lease),
      );
    };
    const stored = async () =>
      (await h.deps.database.read(async (tx) => await tx.segments.list(upload.id, 0, 1)))[0]!.framingOut!;
    const end = await stored();
    t.is(await settle(1, end), "settled", "again, as when the answer was lost");
    t.is(await settle(2, end), "superseded");
    await t.throwsAsync(h.write(upload.id, second!, broke(second!.bytes)), undefined, "announces it");
    t.is(await settle(1, new Uint8Array(5)), "chain-broken");
    t.deepEqual(Buffer.from(await stored()), Buffer.from(end), "what is refused changes nothing");
    await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
    t.is(await settle(1, end), "not-held");
  },
);

/** Ends in the middle. */
async function* broke(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield* chunked(bytes.subarray(0, 100));
  throw new Error("the connection is gone");
}

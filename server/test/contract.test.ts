/**
 * What the comments of the contract promise of names, numbers, the choice of a version, empty reads and damage, over
 * the network.
 */
import { type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { file_strongroom_v1_collection_service } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import {
  DamageReason,
  DamageReasonSchema,
  file_strongroom_v1_resources,
} from "@strongroom/gen/strongroom/v1/resources_pb";
import { file_strongroom_v1_session_service } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { file_strongroom_v1_upload_service } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { file_strongroom_v1_version_service } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { compositeOf, cutSegments, openpgpMessage, type TestSegment } from "@strongroom/testkit/ciphertext";
import test, { type ExecutionContext } from "ava";
import { sql } from "drizzle-orm";
import { DAMAGE_REASONS } from "../src/domain/version.ts";
import { collection, MIB, user } from "./support/harness.ts";
import { bearer, type Clients, framesOf, LiveServer } from "./support/live-server.ts";

const FILES = [
  file_strongroom_v1_collection_service,
  file_strongroom_v1_resources,
  file_strongroom_v1_session_service,
  file_strongroom_v1_upload_service,
  file_strongroom_v1_version_service,
];

const messages = FILES.flatMap((file) => file.messages);

/** Fields that hold the number of a version: as large as a byte count, and none. */
const NUMBERS = /^(number|version_number|newest_version_number|numbers|removed_numbers)$/;

/** What breaks the rule of names and types in one message. */
function breaches(message: DescMessage): string[] {
  return message.fields.flatMap((field) => {
    const name = `${message.name}.${field.name}`;
    const type = field.message?.typeName;
    if ((type === "google.protobuf.Timestamp") !== /_(at|until|after)$/.test(field.name))
      return [`${name}: a point in time is a Timestamp that ends in _at, _until or _after`];
    if (/_(seconds|ms|millis)$/.test(field.name)) return [`${name}: a length of time is a Duration`];
    const scalar = field.scalar;
    if (scalar === undefined || [ScalarType.STRING, ScalarType.BOOL, ScalarType.BYTES].includes(scalar)) return [];
    if (scalar === ScalarType.INT32) return /_bytes$|_size$/.test(field.name) ? check(field.name, name) : [];
    if (scalar !== ScalarType.INT64) return [`${name}: integers are int32 or int64`];
    return /_bytes$/.test(field.name) || NUMBERS.test(field.name) ? [] : [`${name}: bytes end in _bytes`];
  });
}

const check = (field: string, name: string) => (field === "page_size" ? [] : [`${name}: bytes are int64`]);

test("names and types follow the rule that resources.proto states", (t) => {
  t.true(messages.length > 40);
  t.deepEqual(messages.flatMap(breaches), []);
});

const wide = { maxOneVersionSize: BigInt(40 * MIB), maxCollectionSize: BigInt(400 * MIB), maxParallelUploads: 100 };
const ann = user("ann", { roles: ["collectionManager"] });

/** One server for all tests, with a collection for each. */
let live: LiveServer;
let auth: ReturnType<typeof bearer>;
let uploads: Clients["uploads"];
let versions: Clients["versions"];
test.before(async () => {
  const names = ["stored", "which", "negative", "empty", "damage"];
  live = await LiveServer.open(
    [ann],
    names.map((name) => collection(name, wide)),
  );
  auth = bearer((await live.session("ann")).token);
  ({ uploads, versions } = live.clients);
});
test.after.always(async () => await live?.close());

async function publish(name: string, message: Uint8Array): Promise<TestSegment[]> {
  const { upload } = await uploads.createUpload({ collection: name }, auth);
  const segments = cutSegments(message, Number(upload!.segmentSizeBytes));
  for (const segment of segments) await uploads.writeSegment(framesOf(upload!.uploadId, segment), auth);
  await uploads.commitUpload(
    { uploadId: upload!.uploadId, sizeBytes: BigInt(message.length), compositeSha256: compositeOf(segments) },
    auth,
  );
  return segments;
}

/** That a call is refused with INVALID_REQUEST for one field; returns the message. */
async function invalid(t: ExecutionContext, field: string, call: Promise<unknown>): Promise<string> {
  const error = (await t.throwsAsync(call, { instanceOf: ConnectError }, field)) as ConnectError;
  t.is(error.findDetails(ErrorInfoSchema)[0]?.reason, "INVALID_REQUEST", error.message);
  t.is(error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field, field);
  return error.rawMessage;
}

test("stored_bytes is what is acknowledged, reserved_bytes also what is under way", async (t) => {
  const { upload } = await uploads.createUpload({ collection: "stored" }, auth);
  const { uploadId } = upload!;
  const segments = cutSegments(openpgpMessage(2 * MIB + 1000), MIB);
  /** As the rows say it: every segment, and those that are stored. */
  const rows = async () => {
    const [row] = await live.database.query(
      sql`select coalesce(sum(size), 0)::text as all, coalesce(sum(size) filter (where state = 'stored'), 0)::text as stored
        from segments where upload_id = ${uploadId}`,
    );
    return [BigInt(String(row!.stored)), BigInt(String(row!.all))];
  };
  const states = async () => {
    const { upload: one } = await uploads.getUpload({ uploadId }, auth);
    const listed = (await uploads.listUploads({ collection: "stored" }, auth)).uploads;
    const other = listed.find((each) => each.uploadId === uploadId)!;
    t.deepEqual([other.storedBytes, other.reservedBytes], [one!.storedBytes, one!.reservedBytes]);
    return [one!.storedBytes, one!.reservedBytes];
  };
  t.deepEqual(await states(), [0n, 0n]);
  await uploads.writeSegment(framesOf(uploadId, segments[0]!), auth);
  const begun = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  async function* paused() {
    const [header, chunk] = await Array.fromAsync(framesOf(uploadId, segments[1]!));
    yield header!;
    begun.resolve();
    await goOn.promise;
    yield chunk!;
  }
  const writing = uploads.writeSegment(paused(), auth);
  await begun.promise;
  // The header is on its way; it counts as soon as its row is there.
  while ((await rows())[1] === BigInt(MIB)) await new Promise((resolve) => setTimeout(resolve, 5));
  t.deepEqual(await states(), [BigInt(MIB), BigInt(2 * MIB)]);
  t.deepEqual(await states(), await rows());
  goOn.resolve();
  await writing;
  await uploads.writeSegment(framesOf(uploadId, segments[2]!), auth);
  t.deepEqual(await states(), [BigInt(2 * MIB + 1000), BigInt(2 * MIB + 1000)]);
  t.deepEqual(await states(), await rows());
  const { upload: ended } = await uploads.abortUpload({ uploadId }, auth);
  // Its bytes stay reserved until the store has deleted them.
  t.deepEqual([ended!.storedBytes, ended!.reservedBytes, ended!.remainingBytes], [0n, BigInt(2 * MIB + 1000), 0n]);
});

test("a version is asked for by its number or as the newest, and by nothing else", async (t) => {
  await publish("which", openpgpMessage(1000));
  await publish("which", openpgpMessage(2000));
  const name = { collection: "which" };
  const calls = {
    GetVersion: (which: object) => versions.getVersion({ ...name, ...which }, auth),
    ListSegmentDigests: (which: object) => versions.listSegmentDigests({ ...name, ...which }, auth),
    ReadVersion: (which: object) => Array.fromAsync(versions.readVersion({ ...name, ...which }, auth)),
  };
  const number = (value: bigint) => ({ which: { case: "number", value } });
  const newest = (value: boolean) => ({ which: { case: "newest", value } });
  for (const call of Object.values(calls)) {
    const neither = await invalid(t, "which", call({}));
    t.regex(neither, /expected the number of a version, from 1, or newest: true; got neither/);
    t.regex(await invalid(t, "which", call(newest(false))), /got newest: false/);
    t.regex(await invalid(t, "number", call(number(0n))), /from 1, got 0/);
    t.regex(await invalid(t, "number", call(number(-7n))), /from 1, got -7/);
  }
  const bytes = async (which: object) => {
    const { version } = await versions.getVersion({ ...name, ...which }, auth);
    return [version!.number, version!.sizeBytes];
  };
  t.deepEqual(await bytes(number(1n)), [1n, 1000n]);
  t.deepEqual(await bytes(newest(true)), [2n, 2000n]);
  await invalid(t, "number", versions.deleteVersion(name, auth));
  await invalid(t, "number", versions.deleteVersion({ ...name, number: -1n }, auth));
});

test("negative integers are refused, and the field is named", async (t) => {
  const name = { collection: "negative" };
  const newest = { which: { case: "newest" as const, value: true } };
  const { upload } = await uploads.createUpload(name, auth);
  const { uploadId } = upload!;
  const [segment] = cutSegments(openpgpMessage(1000), MIB);
  const sent = (change: Partial<TestSegment>) =>
    uploads.writeSegment(framesOf(uploadId, { ...segment!, ...change }), auth);
  await invalid(t, "expected_size_bytes", uploads.createUpload({ ...name, expectedSizeBytes: -1n }, auth));
  await invalid(t, "index", sent({ index: -1 }));
  await invalid(t, "size_bytes", sent({ size: -1n }));
  await invalid(t, "size_bytes", sent({ size: 0n }));
  const compositeSha256 = new Uint8Array(32);
  await invalid(t, "size_bytes", uploads.commitUpload({ uploadId, sizeBytes: -1n, compositeSha256 }, auth));
  await invalid(t, "first_index", uploads.getUpload({ uploadId, firstIndex: -1 }, auth));
  const pageSize = -1;
  await invalid(t, "page_size", uploads.getUpload({ uploadId, pageSize }, auth));
  await invalid(t, "page_size", uploads.listUploads({ ...name, pageSize }, auth));
  await invalid(t, "page_size", versions.listVersions({ ...name, pageSize }, auth));
  await invalid(t, "page_size", versions.listSegmentDigests({ ...name, ...newest, pageSize }, auth));
  await invalid(t, "page_size", live.clients.collections.listCollections({ pageSize }, auth));
  await invalid(t, "page_size", live.clients.sessions.listSessions({ pageSize }, auth));
  const read = (range: object) => Array.fromAsync(versions.readVersion({ ...name, ...newest, ...range }, auth));
  await invalid(t, "offset_bytes", read({ offsetBytes: -1n }));
  await invalid(t, "limit_bytes", read({ limitBytes: -1n }));
  const documents = "kind: List\n";
  await invalid(t, "confirm_removals", live.clients.admin.applyObjects({ documents, confirmRemovals: -1n }, auth));
});

test("empty reads, and limits beyond the end", async (t) => {
  const message = openpgpMessage(5000);
  await publish("empty", message);
  const newest = { which: { case: "newest" as const, value: true } };
  const read = async (offsetBytes: bigint, limitBytes: bigint) => {
    const frames = await Array.fromAsync(
      versions.readVersion({ collection: "empty", ...newest, offsetBytes, limitBytes }, auth),
    );
    const [first, ...chunks] = frames.map(({ frame }) => frame);
    if (first?.case !== "header") throw new Error("expected a header first");
    const bytes = Buffer.concat(chunks.map((frame) => (frame.case === "chunk" ? frame.value : Buffer.from("header"))));
    return { length: first.value.lengthBytes, chunks: chunks.length, bytes };
  };
  t.deepEqual(await read(5000n, 0n), { length: 0n, chunks: 0, bytes: Buffer.alloc(0) });
  t.deepEqual(await read(5000n, 7n), { length: 0n, chunks: 0, bytes: Buffer.alloc(0) });
  t.true((await read(0n, 0n)).bytes.equals(message));
  t.true((await read(4990n, 100n)).bytes.equals(message.subarray(4990)));
  t.true((await read(10n, 20n)).bytes.equals(message.subarray(10, 30)));
  const beyond = (await t.throwsAsync(read(5001n, 0n), { instanceOf: ConnectError })) as ConnectError;
  const [info] = beyond.findDetails(ErrorInfoSchema);
  t.deepEqual([info?.reason, { ...info?.metadata }], ["RANGE_INVALID", { size_bytes: "5000" }]);
});

test("damage has a reason, a message and the segment", async (t) => {
  await publish("damage", openpgpMessage(1000));
  const number = { which: { case: "number" as const, value: 1n } };
  const damage = async () => (await versions.getVersion({ collection: "damage", ...number }, auth)).version!.damage;
  t.is(await damage(), undefined);
  const cases = [
    ["object-missing", DamageReason.OBJECT_MISSING, null],
    ["size-differs", DamageReason.SIZE_DIFFERS, null],
    ["bytes-differ", DamageReason.BYTES_DIFFER, 0],
    ["record-inconsistent", DamageReason.RECORD_INCONSISTENT, null],
    ["unreadable", DamageReason.UNREADABLE, 0],
    ["", DamageReason.UNSPECIFIED, null],
  ] as const;
  t.deepEqual(cases.map(([reason]) => reason).sort(), [...DAMAGE_REASONS].sort());
  t.deepEqual(cases.map(([, reason]) => reason).sort(), DamageReasonSchema.values.map(({ number }) => number).sort());
  for (const [damageReason, reason, damagedSegment] of cases) {
    await live.database.transaction(async (tx) => {
      const row = (await tx.versions.listLive((await tx.collections.findByName("damage"))!.id, undefined, 1))[0]!;
      await tx.versions.recordVerification(row.id, tx.now, { damage: "as said", damageReason, damagedSegment });
    });
    const found = await damage();
    t.deepEqual([found?.reason, found?.message, found?.segment], [reason, "as said", damagedSegment ?? undefined]);
  }
});

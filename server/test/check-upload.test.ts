/** CheckUpload refuses what CreateUpload would refuse, and creates nothing. */
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { EVERY_COLLECTION, listCollections } from "../src/app/collections/list-collections.ts";
import { type CreateUploadInput, checkUpload, createUpload } from "../src/app/uploads/create-upload.ts";
import { parseWindow } from "../src/domain/window.ts";
import { type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);
const alone = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const input = (collection: string, more: Partial<CreateUploadInput> = {}): CreateUploadInput => ({
  collection,
  requestId: "",
  expectedSize: 0n,
  filename: "",
  contentEncoding: "none",
  labels: {},
  clientMetadata: {},
  ...more,
});

test("what CreateUpload would refuse is refused, and what it would take creates nothing", async (t) => {
  const { h } = t.context;
  h.clock.now = new Date("2026-03-01T02:30:00Z");
  const access = { accessControl: [{ userName: "bob", roles: ["backupUploader"] as const }] };
  const uploader = principal(user("bob"));
  const windows = [parseWindow({ from: "0 20 * * *", duration: "1h" })];
  const full = h.add({ ...access, maxCollectionSize: BigInt(2 * MIB) });
  const busy = h.add({ ...access, maxParallelUploads: 1 });
  await h.begin(busy.name, uploader);
  const soon = h.add({ ...access, minIntervalMs: 3_600_000 });
  await h.upload(soon.name, openpgpMessage(1000));
  const open = h.add(access);
  const cases = [
    [input(h.add({ ...access, windows }).name), "WINDOW_CLOSED"],
    [input(full.name, { expectedSize: BigInt(3 * MIB) }), "QUOTA_EXCEEDED"],
    [input(busy.name), "COLLECTION_BUSY"],
    [input(soon.name), "VERSION_TOO_SOON"],
    [input("nowhere"), "COLLECTION_NOT_FOUND"],
    [input(h.add({}).name), "COLLECTION_NOT_FOUND"],
  ] as const;
  for (const [asked, reason] of cases) {
    await refused(t, reason, checkUpload(h.deps, uploader, asked));
    await refused(t, reason, createUpload(h.deps, uploader, asked));
  }
  t.true((await checkUpload(h.deps, uploader, input(open.name))) > 0n);
});

test("a request id that is in use passes with the content it was used with, whatever its encoding", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  const asked = input(name, { requestId: "again", contentEncoding: "zstd" });
  await createUpload(h.deps, h.admin, asked);
  await checkUpload(h.deps, h.admin, { ...asked, contentEncoding: undefined });
  await refused(t, "REQUEST_ID_REUSED", checkUpload(h.deps, h.admin, { ...asked, contentEncoding: "none" }));
  const other = { ...asked, contentEncoding: undefined, filename: "other" };
  await refused(t, "REQUEST_ID_REUSED", checkUpload(h.deps, h.admin, other));
});

test("nothing at all is written: no row of the collection, and no lapsed upload ends for it", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  await checkUpload(h.deps, h.admin, input(name));
  const find = async (of: string) => await h.deps.database.read(async (tx) => await tx.collections.findByName(of));
  t.is(await find(name), undefined);

  const small = h.add({ maxCollectionSize: BigInt(2 * MIB), maxOneVersionSize: BigInt(2 * MIB), maxBackupsCount: 1 });
  const { upload } = await h.begin(small.name);
  for (const segment of cutSegments(openpgpMessage(MIB + 1000), Number(upload.segmentSize)))
    await h.write(upload.id, segment);
  h.clock.advance(h.deps.settings.leaseMs + 1);
  const asked = input(small.name, { expectedSize: BigInt(MIB + 1000) });
  t.true((await checkUpload(h.deps, h.admin, asked)) >= asked.expectedSize);
  const state = async () => (await h.deps.database.read(async (tx) => await tx.uploads.find(upload.id)))!.state;
  t.is(await state(), "open");
  await createUpload(h.deps, h.admin, asked);
  t.is(await state(), "expired");
});

alone("a database is new until somebody uploads, whoever asked for names before", async (t) => {
  const { h } = t.context;
  const database = h.deps.database;
  t.true((await database.installation()).fresh);
  const { name } = h.add();
  await checkUpload(h.deps, h.admin, input(name));
  await listCollections({ ...h.deps, sha256: String }, h.admin, {
    ...EVERY_COLLECTION,
    afterName: undefined,
    pageSize: 10,
  });
  t.true((await database.installation()).fresh);
  await createUpload(h.deps, h.admin, input(name));
  t.false((await database.installation()).fresh);
});

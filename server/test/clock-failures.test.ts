/** The order of uploads, and which failure is the last one, whatever the clock says: on both kinds of database. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { abortUpload, listUploads } from "../src/app/uploads/manage-uploads.ts";
import type { Harness } from "./support/harness.ts";
import { harnessTest } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const DAY = 24 * 3_600_000;
const MESSAGE = openpgpMessage(1000);

async function lastFailure(h: Harness, name: string): Promise<string | undefined> {
  const caller = { principal: h.admin, secret: undefined };
  return (await getCollectionHealth({ ...h.deps, sha256: String }, caller, name)).lastFailed?.reason;
}

const failIn = async (h: Harness, name: string, reason: string) => {
  const { upload } = await h.begin(name);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason });
};

for (const [title, ms] of [
  ["2 days", 2 * DAY],
  ["a year", 365 * DAY],
] as const) {
  test(`a failure is the last one until a version of a later upload, also when the clock was ${title} ahead`, async (t) => {
    const { h } = t.context;
    const { name } = h.add();
    h.clock.advance(ms);
    await failIn(h, name, "ahead");
    t.is(await lastFailure(h, name), "ahead");
    h.clock.advance(-ms);
    await failIn(h, name, "right");
    t.is(await lastFailure(h, name), "right", "the later one");
    h.clock.advance(ms);
    await failIn(h, name, "ahead");
    h.clock.advance(-ms);
    await h.upload(name, MESSAGE);
    t.is(await lastFailure(h, name), undefined, "a version was published after it");
    h.clock.advance(ms);
    await h.upload(name, MESSAGE);
    h.clock.advance(-ms);
    await failIn(h, name, "right");
    t.is(await lastFailure(h, name), "right", "after a version dated ahead");
  });

  test(`uploads are listed and found by their order, also when the clock was ${title} ahead`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ maxParallelUploads: 9 });
    const begun: string[] = [];
    for (const jump of [ms, -ms, 0, ms, -ms]) {
      h.clock.advance(jump);
      begun.push((await h.begin(name)).upload.id);
    }
    const { uploads } = await listUploads(h.deps, h.admin, { collection: name, from: 0, pageSize: 9 });
    t.deepEqual(
      uploads.map(({ upload }) => upload.id),
      begun.toReversed(),
    );
  });
}

test("an upload that was begun before a version and fails after it is not the last failure", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxParallelUploads: 2 });
  const { upload } = await h.begin(name);
  h.clock.advance(-2 * DAY);
  await h.upload(name, MESSAGE);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "late" });
  t.is(await lastFailure(h, name), undefined);
});

/** The health check `room`: the next backup would be refused, and health says so before it is. */
import { createHash } from "node:crypto";
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);
const DAY = 24 * 3_600_000;
const SMALL = { maxBackupsCount: 2, maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(2 * MIB) };

async function roomOf(h: Harness, name: string) {
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const { checks } = await getCollectionHealth({ ...h.deps, sha256 }, { principal: h.admin, secret: undefined }, name);
  return checks.find((check) => check.name === "room")!;
}

test("protected versions that leave no room", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ ...SMALL, minRetentionMs: DAY });
  await h.upload(name, openpgpMessage(MIB));
  t.is((await roomOf(h, name)).status, "ok");
  await h.upload(name, openpgpMessage(MIB));
  const found = await roomOf(h, name);
  t.is(found.status, "failed");
  t.regex(found.message, /as large as version 2, 1 MiB; the next one would be refused with ROTATION_BLOCKED/);
  t.regex(found.advice, /^Held or protected versions leave no room/);
  await refused(t, "ROTATION_BLOCKED", h.begin(name));
  h.clock.advance(2 * DAY);
  t.is((await roomOf(h, name)).status, "ok");
});

test("an organization that is full, and one in which less than the newest version fits", async (t) => {
  const { h } = t.context;
  h.organizations.set("acme", { name: "acme", maxTotalSize: BigInt(2 * MIB + 1000) });
  const { name } = h.add({ ...SMALL, organization: "acme" });
  await h.upload(name, openpgpMessage(MIB));
  t.is((await roomOf(h, name)).status, "ok");
  await h.upload(name, openpgpMessage(MIB));
  const few = await roomOf(h, name);
  t.is(few.status, "warning");
  t.regex(few.message, /refused with QUOTA_EXCEEDED/);
  t.regex(few.advice, /organization.*maxTotalSize/);
  await h.upload(name, openpgpMessage(1000));
  t.is((await roomOf(h, name)).status, "failed");
  await refused(t, "QUOTA_EXCEEDED", h.begin(name));
});

test("a backup that runs is no reason for an alarm", async (t) => {
  const { h } = t.context;
  const { name } = h.add(SMALL);
  for (let i = 0; i < 2; i++) await h.upload(name, openpgpMessage(MIB));
  const { upload } = await h.begin(name);
  for (const segment of cutSegments(openpgpMessage(MIB), MIB)) await h.write(upload.id, segment);
  t.is((await roomOf(h, name)).status, "ok");
});

/** A store that has lost what it was to complete, or what it had received. */
import { createHash } from "node:crypto";
import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { type S3Peer, startS3 } from "@strongroom/testkit/peers/s3";
import { bringBackParts, CompletionKiller } from "@strongroom/testkit/peers/versitygw";
import test, { type ExecutionContext } from "ava";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import { giveUpCommit } from "../src/app/upkeep/give-up-commit.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { readVersion } from "../src/app/versions/versions.ts";
import { collect } from "./support/blob-store-tools.ts";
import { Harness, MIB, refused } from "./support/harness.ts";
import { locationIn, openS3, useCredentials } from "./support/s3-tools.ts";

const LIMITS = { maxOneVersionSize: BigInt(60 * MIB), maxCollectionSize: BigInt(100 * MIB) };

async function storeCheckOf(h: Harness, name: string) {
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const { checks } = await getCollectionHealth({ ...h.deps, sha256 }, { principal: h.admin, secret: undefined }, name);
  return checks.find((check) => check.name === "store")!;
}

async function received(h: Harness, name: string, message: Uint8Array) {
  const { upload } = await h.begin(name);
  const segments = cutSegments(message, Number(upload.segmentSize));
  for (const segment of segments) await h.write(upload.id, segment, chunked(segment.bytes, 500_000));
  return { upload, segments };
}

/** Sends a message and kills the store while it makes the object of it, until it has really lost one. */
async function lose(t: ExecutionContext, h: Harness, peer: S3Peer, name: string, message: Uint8Array) {
  const killer = await CompletionKiller.open(peer);
  t.teardown(() => killer.close());
  for (let tries = 1; tries <= 8; tries++) {
    const { upload, segments } = await received(h, name, message);
    const killed = killer.arm();
    const committing = h.commit(upload.id, segments).catch(() => undefined);
    // When the object is there before it is killed, the next one is.
    await Promise.race([killed, committing]);
    killer.disarm();
    if (!(await killed)) continue;
    await peer.stop("kill");
    await peer.start();
    await committing;
    if ((await h.deps.store.stat(upload.key)) === undefined) return { upload, segments };
    await sweep(h.deps, true);
  }
  return t.fail("versitygw lost nothing in 8 kills") as never;
}

test("versitygw, killed while it completes: the commit is lost, is said to be, and its parts can be brought back", async (t) => {
  if (!hasPeers(t, "versitygw")) return;
  const peer = await startS3("versitygw");
  t.teardown(() => peer.remove());
  useCredentials(peer);
  const h = await Harness.open("PGlite", await openS3(t, locationIn(peer)));
  t.teardown(() => h.deps.database.close());
  const spec = h.add({ ...LIMITS, maxBackupsCount: 1 });
  const message = openpgpMessage(41 * MIB);
  const { upload, segments } = await lose(t, h, peer, spec.name, message);

  // For a moment it may only be putting the parts together.
  const patient = await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
  t.regex(patient.message, /repeat the commit/);
  t.is((await storeCheckOf(h, spec.name)).status, "ok");
  h.clock.advance(3 * 60_000);
  const lost = await refused(t, "UPLOAD_LOST", h.commit(upload.id, segments));
  t.regex(lost.message, /Make a new backup.*--give-up-commit/);
  const check = await storeCheckOf(h, spec.name);
  t.is(check.status, "failed");
  t.regex(check.message, new RegExp(`upload ${upload.id} .* cannot be completed since 20`));
  t.regex(check.advice, /--give-up-commit/);
  const [figures] = (await collectionFigures(h.deps)).collections;
  t.like(figures, { lostCommits: 1, health: "failed" });
  const aborting = abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "" });
  t.regex((await refused(t, "UPLOAD_NOT_OPEN", aborting)).message, /--give-up-commit/);
  t.is((await sweep(h.deps, true)).failed, 1);

  await peer.stop("term");
  t.is(await bringBackParts(peer), 1);
  await peer.start();
  t.like(await sweep(h.deps, true), { failed: 0, committed: 1 });
  t.is((await storeCheckOf(h, spec.name)).status, "ok");
  const input = { collection: spec.name, number: "newest" as const, offset: 0n, limit: 0n };
  const read = await readVersion(h.deps, h.admin, input, new AbortController().signal);
  t.true(Buffer.concat(await collect(read.body)).equals(message));

  const second = await lose(t, h, peer, spec.name, message);
  h.clock.advance(60_000);
  await refused(t, "STORE_UNAVAILABLE", h.commit(second.upload.id, second.segments));
  await giveUpCommit(h.deps, second.upload.id);
  await sweep(h.deps, true);
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  t.is((await storeCheckOf(h, spec.name)).status, "ok");
  await h.assertInvariants(t);
});

test("parts that a lifecycle rule deleted end the upload with a reason", async (t) => {
  const h = await Harness.open();
  t.teardown(() => h.deps.database.close());
  const spec = h.add();
  const { upload } = await h.begin(spec.name);
  const segments = cutSegments(openpgpMessage(2 * MIB), MIB);
  await h.write(upload.id, segments[0]!);
  await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
  const error = await refused(t, "UPLOAD_LOST", h.write(upload.id, segments[1]!));
  t.regex(error.message, /lifecycle rule/);
  const again = await refused(t, "UPLOAD_NOT_OPEN", h.write(upload.id, segments[1]!));
  t.regex(again.message, /lost its parts/);
  await sweep(h.deps, true);
  t.is((await h.usage(spec.name)).reservedBytes, 0n);
  t.truthy(await h.upload(spec.name, openpgpMessage(1000)), "the next backup is taken");
  await h.assertInvariants(t);
});

test("a store that takes its time is not taken for one that has lost something", async (t) => {
  const h = await Harness.open();
  t.teardown(() => h.deps.database.close());
  const spec = h.add();
  const { upload, segments } = await received(h, spec.name, openpgpMessage(MIB));
  await h.deps.store.abort({ key: upload.key, token: upload.storeToken! });
  await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
  const completingUntil = new Date(h.clock.now.getTime() + 10 * 60_000);
  await h.deps.database.transaction(
    async (tx) => await tx.uploads.update(upload.id, "committing", { completingUntil }),
  );
  h.clock.advance(5 * 60_000);
  await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
  t.is((await storeCheckOf(h, spec.name)).status, "ok", "another server waits for the store");
  h.clock.advance(6 * 60_000);
  await refused(t, "STORE_UNAVAILABLE", h.commit(upload.id, segments));
  h.clock.advance(2 * 60_000);
  await refused(t, "UPLOAD_LOST", h.commit(upload.id, segments));
});

/** A real MinIO, which breaks off where a bit of its data file has flipped. */
import { createHash } from "node:crypto";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { startS3 } from "@strongroom/testkit/peers/s3";
import test from "ava";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { verifyVersion } from "../src/app/versions/verify-version.ts";
import { readVersion } from "../src/app/versions/versions.ts";
import { collect } from "./support/blob-store-tools.ts";
import { Harness, MIB, refused } from "./support/harness.ts";
import { locationIn, openS3, useCredentials } from "./support/s3-tools.ts";

test("minio: a flipped bit ends a restore at once, marks the version, and fails its verification", async (t) => {
  if (!hasPeers(t, "minio")) return;
  const peer = await startS3("minio");
  t.teardown(() => peer.remove());
  useCredentials(peer);
  const store = await openS3(t, locationIn(peer));
  const h = await Harness.open("PGlite", store);
  t.teardown(() => h.deps.database.close());
  const [name, other] = [
    h.add({ maxOneVersionSize: BigInt(20 * MIB), maxCollectionSize: BigInt(100 * MIB) }).name,
    h.add().name,
  ];
  const { version } = await h.upload(name, openpgpMessage(12 * MIB));
  await h.upload(other, openpgpMessage(MIB));

  const files = await readdir(peer.folder, { recursive: true, withFileTypes: true });
  const part = files.find((file) => file.name === "part.2" && file.parentPath.includes(version.id))!;
  const file = await open(join(part.parentPath, part.name), "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 3 * MIB);
  byte[0]! ^= 1;
  await file.write(byte, 0, 1, 3 * MIB);
  await file.close();

  const never = new AbortController().signal;
  const read = async () => {
    const input = { collection: name, number: 1n, offset: 0n, limit: 0n };
    const { body } = await readVersion(h.deps, h.admin, input, never);
    return await collect(body);
  };
  const error = await refused(t, "VERSION_DAMAGED", read());
  t.is(error.metadata.damage_reason, "unreadable");
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const health = async (of: string) =>
    await getCollectionHealth({ ...h.deps, sha256 }, { principal: h.admin, secret: undefined }, of);
  const { status, checks } = await health(name);
  t.is(status, "failed");
  t.regex(checks.find((check) => check.name === "integrity")!.message, /version 1: the store cannot read segment 1 /);
  t.is((await health(other)).status, "ok");
  t.like(await verifyVersion(h.deps, version, { signal: never }), { damageReason: "unreadable", damagedSegment: 1 });
});

/** What a reader meets marks the version: health says so, and nobody is asked to try again. */
import { createHash } from "node:crypto";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { type BlobStore, BlobStoreUnavailableError } from "../src/app/ports/blob-store.ts";
import { verifyVersion } from "../src/app/versions/verify-version.ts";
import { listVersions, readVersion } from "../src/app/versions/versions.ts";
import { collect } from "./support/blob-store-tools.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });
const never = new AbortController().signal;

async function read(h: Harness, collection: string, store: BlobStore = h.deps.store, offset = 0n): Promise<Buffer> {
  const input = { collection, number: "newest" as const, offset, limit: 0n };
  const { body } = await readVersion({ ...h.deps, store }, h.admin, input, never);
  return Buffer.concat(await collect(body));
}

async function integrity(h: Harness, name: string) {
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const { checks } = await getCollectionHealth({ ...h.deps, sha256 }, { principal: h.admin, secret: undefined }, name);
  return checks.find((check) => check.name === "integrity")!;
}

/** A store that gives nothing of these keys from a place on, as one whose disk or checksum fails there. */
function unreadable(h: Harness, keys: readonly string[], from: bigint): BlobStore {
  const store = new FaultyBlobStore(h.deps.store);
  const whole = store.read.bind(store);
  store.read = async function* (key, offset, length, signal) {
    let at = offset;
    for await (const chunk of whole(key, offset, length, signal)) {
      if (keys.includes(key) && at + BigInt(chunk.length) > from)
        throw new BlobStoreUnavailableError(`Cannot read ${key}: the store broke off in the middle.`);
      yield chunk;
      at += BigInt(chunk.length);
    }
  };
  return store;
}

test("a segment that the store cannot read marks the version, when it reads others well", async (t) => {
  const { h } = t.context;
  const [name, other] = [h.add().name, h.add().name];
  const { version } = await h.upload(name, openpgpMessage(3 * MIB));
  await h.upload(other, openpgpMessage(1000));
  const store = unreadable(h, [version.key], BigInt(MIB + 10));
  const error = await refused(t, "VERSION_DAMAGED", read(h, name, store));
  t.regex(error.message, /version 1 is damaged: the store cannot read segment 1 \(from byte 1048576\)/);
  t.is(error.metadata.damage_reason, "unreadable");
  const check = await integrity(h, name);
  t.is(check.status, "failed");
  t.regex(check.message, /version 1: the store cannot read segment 1 .* broke off/);
  t.is((await integrity(h, other)).status, "ok");
  const verified = await verifyVersion({ ...h.deps, store }, version, { signal: never });
  t.like(verified, { damageReason: "unreadable", damagedSegment: 1 });
  t.is((await verifyVersion(h.deps, version, { signal: never })).damage, "", "it is whole when it can be read again");
});

test("a store that reads no other either says nothing of the version", async (t) => {
  const { h } = t.context;
  const [name, other] = [h.add().name, h.add().name];
  const { version } = await h.upload(name, openpgpMessage(MIB));
  const second = await h.upload(other, openpgpMessage(1000));
  const store = unreadable(h, [version.key, second.version.key], 0n);
  await refused(t, "STORE_UNAVAILABLE", read(h, name, store));
  t.is((await integrity(h, name)).status, "ok");
});

test("a store that broke off once is asked to go on, and nothing is marked", async (t) => {
  const { h } = t.context;
  const name = h.add().name;
  await h.upload(name, openpgpMessage(2 * MIB));
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("read", { when: "during" });
  await refused(t, "STORE_UNAVAILABLE", read(h, name, store));
  t.is((await integrity(h, name)).status, "ok");
});

test("other bytes, another size and a missing object mark the version that is read", async (t) => {
  const { h } = t.context;
  const change: readonly (readonly [(bytes: Uint8Array) => Uint8Array | undefined, RegExp, string])[] = [
    [(bytes) => bytes.with(MIB + 5, bytes[MIB + 5]! ^ 1), /segment 1 .* has other bytes/, "bytes-differ"],
    [(bytes) => bytes.subarray(1), /has 2097151 bytes; 2097152 were/, "size-differs"],
    [() => undefined, /missing in the store/, "object-missing"],
  ];
  for (const [to, says, reason] of change) {
    const name = h.add().name;
    const message = openpgpMessage(2 * MIB);
    const { version } = await h.upload(name, message);
    await h.deps.store.delete(version.key);
    const other = to(new Uint8Array(message));
    if (other !== undefined) await h.deps.store.put(version.key, other);
    const error = await refused(t, "VERSION_DAMAGED", read(h, name));
    t.regex(error.message, says);
    t.is(error.metadata.damage_reason, reason);
    t.regex((await integrity(h, name)).message, says);
  }
});

test("bytes that are wrong on the way once are not passed on as a whole segment, and nothing is marked", async (t) => {
  const { h } = t.context;
  const name = h.add().name;
  const message = openpgpMessage(2 * MIB + 7);
  await h.upload(name, message);
  const store = new FaultyBlobStore(h.deps.store);
  const whole = store.read.bind(store);
  let reads = 0;
  store.read = async function* (...given) {
    const isFirst = reads++ === 0;
    for await (const chunk of whole(...given)) yield isFirst ? new Uint8Array(chunk).with(3, chunk[3]! ^ 1) : chunk;
  };
  await refused(t, "STORE_UNAVAILABLE", read(h, name, store));
  t.is((await integrity(h, name)).status, "ok");
  t.true((await read(h, name)).equals(message));
  for (const offset of [1n, BigInt(MIB), BigInt(2 * MIB + 6), BigInt(2 * MIB + 7)])
    t.true((await read(h, name, h.deps.store, offset)).equals(message.subarray(Number(offset))), `from ${offset}`);
});

for (const [room, left] of [
  [BigInt(12 * MIB), [4, 3, 2, 1]],
  [BigInt(9 * MIB + MIB / 2), [4, 3, 1]],
] as const) {
  const title = room === BigInt(12 * MIB) ? "stay beside whole ones while there is room" : "give way to the hard limit";
  test(`damaged versions take no place in rotation, and ${title}`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ maxBackupsCount: 3, maxOneVersionSize: BigInt(3 * MIB), maxCollectionSize: room });
    for (let i = 0; i < 3; i++) await h.upload(name, openpgpMessage(3 * MIB - 10_000));
    await (h.deps.database as SqlDatabase).query(
      sql`update versions set damage = 'x', damage_reason = 'unreadable' where number > 1 and collection_name = ${name}`,
    );
    await h.upload(name, openpgpMessage(3 * MIB - 10_000));
    const { versions } = await listVersions(h.deps, h.admin, {
      collection: name,
      beforeNumber: undefined,
      pageSize: 9,
    });
    t.deepEqual(
      versions.map(({ number }) => Number(number)),
      left,
    );
  });
}

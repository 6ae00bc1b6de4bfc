import { hasPeers } from "@strongroom/testkit/peers/programs";
import { type S3Peer, startS3 } from "@strongroom/testkit/peers/s3";
import { type S3Fault, type S3FaultProxy, startS3FaultProxy } from "@strongroom/testkit/s3-fault-proxy";
import test, { type ExecutionContext } from "ava";
import type { PartLister } from "../src/adapters/blob-store/part-lister.ts";
import type { S3Location } from "../src/adapters/s3/s3-location.ts";
import {
  BlobNotFoundError,
  type BlobStore,
  BlobStoreError,
  BlobStoreUnavailableError,
} from "../src/app/ports/blob-store.ts";
import {
  begin,
  body,
  bytesOf,
  collect,
  eventually,
  HangingBody,
  never,
  partsOf,
  placementFor,
  read,
  storedIndexes,
  threeParts,
  write,
} from "./support/blob-store-tools.ts";
import { locationIn, openS3, useCredentials } from "./support/s3-tools.ts";

/*
 * The S3 adapter behind a proxy that loses answers, cuts, stalls and refuses, and with a server that is killed. MinIO,
 * since it forgets an upload that was completed: the harder case.
 */

let started: Promise<S3Peer> | undefined;
test.after.always(async () => await (await started)?.remove());

interface Faulty {
  readonly peer: S3Peer;
  readonly proxy: S3FaultProxy;
  readonly store: BlobStore & PartLister;
  /** The same store, which gives silence up soon: for stalls alone, since a busy machine is silent too. */
  readonly impatient: BlobStore & PartLister;
}

async function faulty(t: ExecutionContext): Promise<Faulty> {
  started ??= startS3("minio");
  const peer = await started;
  useCredentials(peer);
  const proxy = await startS3FaultProxy(t, peer.endpoint);
  const location: S3Location = { ...locationIn(peer), endpoint: proxy.endpoint };
  return { peer, proxy, store: await openS3(t, location), impatient: await openS3(t, location, { silenceMs: 500 }) };
}

function serial(title: string, run: (t: ExecutionContext, faulty: Faulty) => Promise<void>): void {
  test.serial(title, async (t) => {
    if (!hasPeers(t, "minio")) return;
    const each = await faulty(t);
    await run(t, each);
    t.deepEqual(each.proxy.left, [], "these faults never struck");
  });
}

serial(
  "an answer that is lost after an upload was begun leaves an upload that is found",
  async (t, { proxy, store }) => {
    proxy.fail("begin", "lose-answer");
    const blob = await begin(store, "dumps/1", "upload-1");
    const pending = await collect(store.listPending());
    t.is(pending.length, 2);
    for (const each of pending) if (each.token !== blob.token) await store.abort(each);
    t.deepEqual(await collect(store.listPending()), [blob]);
  },
);

for (const fault of ["lose-answer", "cut", "stall", "busy", "error", "early-ok"] as const satisfies S3Fault[]) {
  serial(
    `a part fails by "${fault}", does not hang, and can be written again`,
    async (t, { proxy, store, impatient }) => {
      const { data, pieces } = threeParts(store, t.title);
      const blob = await begin(store, "dumps/1", "upload-1");
      proxy.fail("part", fault);
      const writer = fault === "stall" ? impatient : store;
      await t.throwsAsync(write(writer, blob, pieces[0]), { instanceOf: BlobStoreUnavailableError });
      t.deepEqual(await storedIndexes(store, blob), fault === "lose-answer" ? [0] : []);
      for (const piece of pieces) await write(store, blob, piece);
      await store.complete(blob, "upload-1", partsOf(pieces));
      t.true((await read(store, "dumps/1")).equals(data));
    },
  );
}

serial("a refusal ends a part although its body is silent", async (t, { proxy, store }) => {
  const { pieces } = threeParts(store, t.title);
  const [piece] = pieces;
  const blob = await begin(store, "dumps/1", "upload-1");
  proxy.fail("part", "busy");
  const from = new HangingBody(piece.bytes.subarray(0, piece.bytes.length >> 1));
  await t.throwsAsync(write(store, blob, piece, { from }), { instanceOf: BlobStoreUnavailableError });
  t.true(from.released);
});

for (const fault of ["lose-answer", "busy", "error", "error-in-200", "cut-200"] as const satisfies S3Fault[]) {
  serial(`completing succeeds in spite of "${fault}"`, async (t, { proxy, store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) await write(store, blob, piece);
    proxy.fail("complete", fault);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.is((await store.stat("dumps/1"))?.uploadId, "upload-1");
    t.true((await read(store, "dumps/1")).equals(data));
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.deepEqual(await collect(store.listPending()), []);
  });
}

serial(
  "a completion that keeps failing is an error, deletes nothing, and can be repeated",
  async (t, { proxy, store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) await write(store, blob, piece);
    proxy.fail("complete", "error-in-200", 4);
    const aborts = proxy.seen.get("abort") ?? 0;
    const failing = store.complete(blob, "upload-1", partsOf(pieces));
    await t.throwsAsync(failing, { instanceOf: BlobStoreUnavailableError, message: /InternalError/ });
    t.is(proxy.seen.get("abort") ?? 0, aborts, "nothing is deleted while the outcome is unknown");
    t.deepEqual(await storedIndexes(store, blob), [0, 1, 2]);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  },
);

serial("an upload that somebody removed is unknown, not failed, when it is completed", async (t, { store }) => {
  const { pieces } = threeParts(store, t.title);
  const blob = await begin(store, "dumps/1", "upload-1");
  for (const piece of pieces) await write(store, blob, piece);
  for (const each of await collect(store.listPending())) if (each.token === blob.token) await store.abort(each);
  await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces)), { instanceOf: BlobNotFoundError });
});

for (const fault of ["lose-answer", "busy", "error"] as const satisfies S3Fault[]) {
  serial(`aborting succeeds in spite of "${fault}"`, async (t, { proxy, store }) => {
    const { pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    await write(store, blob, pieces[0]);
    proxy.fail("abort", fault);
    await store.abort(blob);
    await t.throwsAsync(store.listParts(blob), { instanceOf: BlobNotFoundError });
  });
}

serial("small calls are repeated, and reading says that it was cut off", async (t, { proxy, store }) => {
  const data = bytesOf(t.title, 1_000_000);
  proxy.fail("put", "lose-answer");
  await store.put("notes/1", data);
  proxy.fail("head", "error", 2);
  t.is((await store.stat("notes/1"))?.size, 1_000_000n);
  proxy.fail("get", "cut");
  t.true(Buffer.from(data).equals((await store.get("notes/1", 1_000_000))!));
  proxy.fail("get", "cut");
  await t.throwsAsync(collect(store.read("notes/1", 0n, 1_000_000n, never)), {
    instanceOf: BlobStoreUnavailableError,
    message: /broke off/,
  });
});

for (const operation of ["begin", "part", "complete", "put"] as const) {
  for (const fault of ["lose-answer", "busy", "error"] as const satisfies S3Fault[]) {
    serial(`a body of unknown length is stored in spite of "${fault}" of ${operation}`, async (t, { proxy, store }) => {
      const { data } = threeParts(store, t.title);
      const bytes = operation === "put" ? data.subarray(0, 1_000_000) : data;
      proxy.fail(operation, fault);
      const { segmentSize: partSize } = placementFor(store);
      const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
      t.is(await store.putStream(input, body(bytes)), BigInt(bytes.length));
      t.is((await store.stat("dumps/1"))?.uploadId, "upload-1");
      t.true((await read(store, "dumps/1", { length: bytes.length })).equals(bytes));
      t.deepEqual(await collect(store.listPending()), []);
    });
  }
}

for (const fault of ["error-in-200", "cut-200"] as const satisfies S3Fault[]) {
  serial(`a body of unknown length is stored in spite of "${fault}" of complete`, async (t, { proxy, store }) => {
    const { data } = threeParts(store, t.title);
    proxy.fail("complete", fault);
    const { segmentSize: partSize } = placementFor(store);
    await store.putStream({ key: "dumps/1", uploadId: "upload-1", partSize, signal: never }, body(data));
    t.true((await read(store, "dumps/1")).equals(data));
    t.deepEqual(await collect(store.listPending()), []);
  });
}

serial(
  "a stream's completion that keeps failing leaves nothing once the store says that there is no object",
  async (t, { proxy, store }) => {
    const { data } = threeParts(store, t.title);
    const { segmentSize: partSize } = placementFor(store);
    const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
    proxy.fail("complete", "error", 4);
    await t.throwsAsync(store.putStream(input, body(data)), { instanceOf: BlobStoreUnavailableError });
    t.is(await store.stat("dumps/1"), undefined);
    t.deepEqual(await collect(store.listPending()), []);
    // A part that keeps failing ends a body that is silent.
    proxy.fail("part", "busy", 4);
    const hanging = new HangingBody(data);
    await t.throwsAsync(store.putStream(input, hanging), { instanceOf: BlobStoreUnavailableError });
    await eventually(() => hanging.released);
    t.deepEqual(await collect(store.listPending()), []);
    await store.putStream(input, body(data));
    t.true((await read(store, "dumps/1")).equals(data));
  },
);

serial("while the outcome of a stream's completion is unknown, nothing is removed", async (t, { proxy, store }) => {
  const { data } = threeParts(store, t.title);
  const { segmentSize: partSize } = placementFor(store);
  const input = { key: "dumps/1", uploadId: "upload-1", partSize, signal: never };
  const aborts = proxy.seen.get("abort") ?? 0;
  // The completion takes effect. HEAD is answered twice before it and not after it: by four tries to complete, and four
  // to find out.
  proxy.fail("head", "none", 2);
  proxy.fail("head", "error", 8);
  proxy.fail("complete", "lose-answer");
  await t.throwsAsync(store.putStream(input, body(data)), { instanceOf: BlobStoreUnavailableError });
  t.is(proxy.seen.get("abort") ?? 0, aborts);
  t.true((await read(store, "dumps/1")).equals(data));
  t.is(await store.putStream(input, body(data)), BigInt(data.length));
});

serial("a server that is killed in the middle of a part costs that part alone", async (t, { peer, store }) => {
  const { data, pieces } = threeParts(store, t.title);
  const [first, second] = pieces;
  const blob = await begin(store, "dumps/1", "upload-1");
  await write(store, blob, first);
  const half = second.bytes.length >> 1;
  const hanging = new HangingBody(second.bytes.subarray(0, half));
  const attempt = t.throwsAsync(write(store, blob, second, { from: hanging }), { instanceOf: BlobStoreError });
  await hanging.hangs;
  await peer.stop("kill");
  await attempt;
  await peer.start();
  t.deepEqual(await storedIndexes(store, blob), [0]);
  for (const piece of pieces.slice(1)) await write(store, blob, piece);
  await store.complete(blob, "upload-1", partsOf(pieces));
  t.true((await read(store, "dumps/1")).equals(data));
});

serial("a large part is not kept in memory, and its source waits for the store", async (t, { proxy, impatient }) => {
  const size = 256 * 1024 * 1024;
  const chunk = bytesOf(t.title, 1024 * 1024);
  const part = { index: 0, size: BigInt(size), sha256: new Uint8Array(32) };
  const blob = await begin(impatient, "dumps/1", "upload-1");
  let given = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    for (; given < size; given += chunk.length) yield chunk;
  }
  proxy.fail("part", "stall");
  const attempt = impatient.writePart(blob, part, { segmentSize: BigInt(size) }, source(), never);
  await t.throwsAsync(attempt, { instanceOf: BlobStoreUnavailableError, message: /silent for 0.5 s/ });
  // What fits the buffers of two sockets, and one chunk.
  t.true(given < 32 * 1024 * 1024, `${given} bytes were taken from the source`);
});

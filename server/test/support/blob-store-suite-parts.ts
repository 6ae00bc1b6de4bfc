import { BlobDigestError, BlobNotFoundError, BlobStoreError } from "../../src/app/ports/blob-store.ts";
import type { DeclareTest } from "./blob-store-tools.ts";
import {
  begin,
  body,
  brokenBody,
  bytesOf,
  eventually,
  HangingBody,
  partsOf,
  placementFor,
  read,
  storedIndexes,
  threeParts,
  write,
} from "./blob-store-tools.ts";

/** What {@link blobStoreSuite} asks of parts. */
export function partBehaviour(test: DeclareTest): void {
  test("parts may come in any order and at the same time", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    t.deepEqual(await store.listParts(blob), []);
    await write(store, blob, pieces[2]);
    t.deepEqual(await storedIndexes(store, blob), [2]);
    await Promise.all([write(store, blob, pieces[1]), write(store, blob, pieces[0])]);

    const stored = await store.listParts(blob);
    t.deepEqual(
      stored.map(({ index, size, sha256 }) => ({ index, size, sha256: sha256 && Buffer.from(sha256).toString("hex") })),
      pieces.map(({ part: { index, size, sha256 } }) => ({ index, size, sha256: Buffer.from(sha256).toString("hex") })),
    );
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  for (const where of ["at the start", "in the middle", "just before the end", "at the end"] as const) {
    test(`a body that breaks off ${where} leaves no part, and its error comes back`, async (t, { store }) => {
      const { data, pieces } = threeParts(store, t.title);
      const [first, second, third] = pieces;
      const size = second.bytes.length;
      const length = {
        "at the start": 0,
        "in the middle": size >> 1,
        "just before the end": size - 1,
        "at the end": size,
      };
      const blob = await begin(store, "dumps/1", "upload-1");
      await write(store, blob, first);
      const broken = new Error("the connection is gone");
      const attempt = write(store, blob, second, { from: brokenBody(second.bytes, length[where], broken) });
      t.is(await t.throwsAsync(attempt), broken);
      t.deepEqual(await storedIndexes(store, blob), [0]);
      await t.throwsAsync(store.complete(blob, "upload-1", partsOf([first, second])), { instanceOf: BlobStoreError });

      await write(store, blob, second);
      await write(store, blob, third);
      await store.complete(blob, "upload-1", partsOf(pieces));
      t.true((await read(store, "dumps/1")).equals(data));
    });
  }

  test("a body that is shorter or longer than declared leaves no part", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) {
      const bodies = {
        empty: body(new Uint8Array()),
        "a byte short": body(piece.bytes.subarray(0, -1)),
        "a byte long": body(Buffer.concat([piece.bytes, Buffer.from("+")])),
        "twice as long": body(Buffer.concat([piece.bytes, piece.bytes])),
      };
      for (const [name, from] of Object.entries(bodies)) {
        await t.throwsAsync(write(store, blob, piece, { from }), { instanceOf: BlobStoreError }, name);
      }
    }
    t.deepEqual(await store.listParts(blob), []);
    for (const piece of pieces) await write(store, blob, piece);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("a store that verifies digests refuses other bytes than were declared", async (t, { store }) => {
    // Other stores leave that to their caller.
    if (!store.capabilities.verifiesPartDigests) {
      t.pass();
      return;
    }
    const { pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    const other = body(bytesOf("other", pieces[0].bytes.length));
    await t.throwsAsync(write(store, blob, pieces[0], { from: other }), { instanceOf: BlobDigestError });
    t.deepEqual(await store.listParts(blob), []);
  });

  test("an aborted signal breaks a part off at once, even while its body is silent", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    const [piece] = pieces;
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const length of [0, piece.bytes.length >> 1, piece.bytes.length]) {
      const abort = new AbortController();
      const from = new HangingBody(piece.bytes.subarray(0, length));
      const attempt = t.throwsAsync(write(store, blob, piece, { from, signal: abort.signal }));
      await from.hangs;
      abort.abort(new Error("the caller has gone"));
      await attempt;
      await eventually(() => from.released);
      t.deepEqual(await store.listParts(blob), []);
    }
    await t.throwsAsync(write(store, blob, piece, { signal: AbortSignal.abort() }));
    t.deepEqual(await store.listParts(blob), []);
    await write(store, blob, piece);
    t.deepEqual(await storedIndexes(store, blob), [0]);
  });

  test("a part may be written again", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of [...pieces, ...pieces, pieces[0]]) await write(store, blob, piece);
    t.deepEqual(await storedIndexes(store, blob), [0, 1, 2]);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("an attempt that fails does no harm to a part that was acknowledged", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const [piece] = pieces;
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const each of pieces) await write(store, blob, each);

    const wrong = bytesOf("wrong", piece.bytes.length);
    const broken = new Error("the digest is wrong");
    t.is(await t.throwsAsync(write(store, blob, piece, { from: brokenBody(wrong, wrong.length - 1, broken) })), broken);
    await t.throwsAsync(write(store, blob, piece, { from: body(wrong.subarray(1)) }), { instanceOf: BlobStoreError });
    t.deepEqual(await storedIndexes(store, blob), [0, 1, 2]);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("an attempt that was given up does no harm to the one that took over", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const [piece] = pieces;
    const blob = await begin(store, "dumps/1", "upload-1");
    const wrong = bytesOf("wrong", piece.bytes.length);
    const half = wrong.length >> 1;
    const hanging = new HangingBody(wrong.subarray(0, half));
    // One byte too few, so it must fail whatever else happens.
    const givenUp = t.throwsAsync(write(store, blob, piece, { from: hanging }));
    await hanging.hangs;
    for (const each of pieces) await write(store, blob, each);
    hanging.finish(wrong.subarray(half, -1));
    await givenUp;
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("of attempts at one part at the same time, the last one makes it", async (t, { store }) => {
    const { data, pieces } = threeParts(store, t.title);
    const blob = await begin(store, "dumps/1", "upload-1");
    for (const piece of pieces) {
      const attempts = Array.from({ length: 5 }, () => write(store, blob, piece));
      const results = await Promise.allSettled(attempts);
      t.is(results.at(-1)?.status, "fulfilled");
      for (const result of results) t.true(result.status === "fulfilled" || result.reason instanceof BlobStoreError);
    }
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.true((await read(store, "dumps/1")).equals(data));
  });

  test("parts that cannot be are refused", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    const [{ part, bytes }] = pieces;
    const blob = await begin(store, "dumps/1", "upload-1");
    const { segmentSize } = placementFor(store);
    const impossible = [
      { ...part, index: -1 },
      { ...part, index: 0.5 },
      { ...part, index: store.capabilities.maxParts },
      { ...part, size: segmentSize + 1n },
      { ...part, size: -1n },
      { ...part, sha256: part.sha256.subarray(1) },
    ];
    for (const each of impossible) {
      await t.throwsAsync(write(store, blob, { part: each, bytes }), { instanceOf: BlobStoreError });
    }
    t.deepEqual(await store.listParts(blob), []);
  });

  test("parts belong to the key and the token they were begun with", async (t, { store }) => {
    const { pieces } = threeParts(store, t.title);
    const [piece] = pieces;
    const blob = await begin(store, "dumps/1", "upload-1");
    const other = await begin(store, "dumps/2", "upload-2");
    await write(store, blob, piece);
    t.deepEqual(await store.listParts(other), []);
    const mixed = { key: blob.key, token: other.token };
    await t.throwsAsync(store.listParts(mixed), { instanceOf: BlobNotFoundError });
    await t.throwsAsync(write(store, mixed, piece), { instanceOf: BlobStoreError });
    await t.throwsAsync(store.complete(mixed, "upload-1", [piece.part]), { instanceOf: BlobNotFoundError });
    await store.abort(mixed);
    t.deepEqual(await storedIndexes(store, blob), [0]);
    t.deepEqual(await store.listParts(other), []);
  });
}

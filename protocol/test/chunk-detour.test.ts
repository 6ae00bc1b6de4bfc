import { PassThrough, Readable } from "node:stream";
import { fromBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { transformSplitEnvelope } from "@connectrpc/connect/protocol";
import { WriteSegmentRequestSchema } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { ReadVersionResponseSchema } from "@strongroom/gen/strongroom/v1/version_service_pb";
import test from "ava";
import fc from "fast-check";
import { CHUNK_TAG, ChunkDetour, ChunkOutlet, chunkPrefix, mayDetour } from "../src/chunk-detour.ts";

const MOST_MESSAGE = 2_000_000;
const MOST_CHUNK = 1_000_000;

function envelope(message: Uint8Array, flags = 0, size = message.length): Uint8Array {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(size, 1);
  return Buffer.concat([head, message]);
}

const noise = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * 31 + size) & 0xff);
const chunk = (size: number) => Buffer.concat([chunkPrefix(size), noise(size)]);
const message = (...bytes: number[]) => envelope(Uint8Array.from(bytes));

/** What one side gave: messages, the bytes of chunks, and how it ended. */
interface Read {
  readonly envelopes: { flags: number; data: string }[];
  readonly end: string;
}

function shown(flags: number, data: Uint8Array): { flags: number; data: string } {
  if (flags !== 0) return { flags, data: Buffer.from(data).toString("hex") };
  try {
    const { frame } = fromBinary(WriteSegmentRequestSchema, data);
    if (frame.case === "chunk") return { flags, data: `chunk ${Buffer.from(frame.value).toString("hex")}` };
  } catch {
    // No message; compared as it is.
  }
  return { flags, data: Buffer.from(data).toString("hex") };
}

async function generic(pieces: readonly Uint8Array[], limit: number): Promise<Read> {
  const envelopes: Read["envelopes"] = [];
  async function* source() {
    yield* pieces;
  }
  try {
    for await (const { flags, data } of transformSplitEnvelope(limit)(source())) envelopes.push(shown(flags, data));
  } catch (error) {
    return { envelopes, end: ConnectError.from(error).message };
  }
  return { envelopes, end: "ok" };
}

async function detoured(body: Readable, limit: number): Promise<Read & { readonly counted: number }> {
  const envelopes: Read["envelopes"] = [];
  let counted = 0;
  const bounds = {
    mostMessageBytes: limit,
    mostChunkBytes: MOST_CHUNK,
    reuse: true,
    onBytes: (n: number) => (counted += n),
  };
  const detour = new ChunkDetour(body, bounds);
  try {
    for await (const { flags, data } of transformSplitEnvelope(limit)(detour.envelopes())) {
      const pieces = detour.chunk();
      if (pieces === undefined) {
        envelopes.push(shown(flags, data));
        continue;
      }
      const bytes: Uint8Array[] = [];
      // A copy, since a piece is valid until the one after the next.
      for await (const piece of pieces) bytes.push(Uint8Array.from(piece));
      envelopes.push({ flags: 0, data: `chunk ${Buffer.concat(bytes).toString("hex")}` });
    }
  } catch (error) {
    return { envelopes, end: ConnectError.from(error).message, counted };
  }
  return { envelopes, end: "ok", counted };
}

/** What comes over the wire: mostly as it should be, and everything that need not be. */
const wire = fc
  .array(
    fc.oneof(
      { weight: 4, arbitrary: fc.integer({ min: 1, max: 30_000 }).map(chunk) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 300 }).map(chunk) },
      fc.constant(message(0x0a, 2, 0x10, 5)),
      fc.constant(message()),
      fc.constant(message(CHUNK_TAG)),
      fc.constant(message(CHUNK_TAG, 0)),
      // A length in more octets than it needs, one beyond its message, one that ends before it, another field after it.
      fc.constant(message(CHUNK_TAG, 0x82, 0x80, 0, 7, 8)),
      fc.constant(message(CHUNK_TAG, 0x84, 0x80, 0x80, 0x80, 0x80, 0, 1, 2, 3, 4)),
      fc.constant(message(CHUNK_TAG, 9, 1, 2)),
      fc.constant(message(CHUNK_TAG, 2, 1, 2, CHUNK_TAG, 1, 3)),
      fc.constant(message(CHUNK_TAG, 1, 1, 0x0a, 0)),
      fc.constant(message(0x1a, 1, 7, CHUNK_TAG, 1, 1)),
      fc.uint8Array({ maxLength: 20 }).map((bytes) => envelope(bytes)),
      fc.tuple(fc.integer({ min: 1, max: 255 }), fc.uint8Array({ maxLength: 20 })).map(([f, b]) => envelope(b, f)),
      fc.constant(envelope(Uint8Array.of(CHUNK_TAG, 1, 1), 0, MOST_MESSAGE + 1)),
      fc.constant(envelope(Uint8Array.of(CHUNK_TAG, 1, 1), 0, 0xffff_ffff)),
    ),
    { maxLength: 8 },
  )
  .map((parts) => Buffer.concat(parts));

const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 40_000 })), {
  minLength: 1,
  maxLength: 12,
});

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const size = sizes[i % sizes.length]!;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

test("the library is told the same as without the detour, and the chunks are the same, whatever comes", async (t) => {
  let chunks = 0;
  await fc.assert(
    fc.asyncProperty(wire, cuts, fc.nat({ max: 30 }), async (whole, sizes, missing) => {
      const bytes = whole.subarray(0, whole.length - Math.min(whole.length, missing));
      const pieces = cut(bytes, sizes);
      const expected = await generic(pieces, MOST_MESSAGE);
      const got = await detoured(Readable.from(pieces, { objectMode: false }), MOST_MESSAGE);
      chunks += got.envelopes.filter(({ data }) => data.length > 100).length;
      t.is(got.end, expected.end);
      // The bytes of a chunk that breaks off have come before that is known. And of an envelope that is too large the
      // library says so before it gives those before it that came in the same piece.
      const mayBeMore = /incomplete|larger than/.test(got.end);
      const shared = mayBeMore ? got.envelopes.slice(0, expected.envelopes.length) : got.envelopes;
      t.is(JSON.stringify(shared), JSON.stringify(expected.envelopes));
    }),
    { numRuns: 200 },
  );
  t.true(chunks > 100, `${chunks} chunks`);
});

test("chunks above the bound of a chunk go through the library, and those at it do not", async (t) => {
  for (const [size, counted] of [
    [MOST_CHUNK, MOST_CHUNK],
    [MOST_CHUNK + 1, 0],
  ] as const) {
    const got = await detoured(Readable.from(cut(chunk(size), [65_536]), { objectMode: false }), MOST_MESSAGE);
    t.is(got.envelopes.length, 1);
    t.is(got.counted, counted);
  }
});

test("a body that fails fails the detour with its own error, between chunks and within one", async (t) => {
  for (const size of [5, 50_000]) {
    const body = new PassThrough();
    const detour = new ChunkDetour(body, {
      mostMessageBytes: 1e6,
      mostChunkBytes: 1e6,
      reuse: true,
      onBytes: () => {},
    });
    body.write(chunk(100_000).subarray(0, size));
    const read = async () => {
      for await (const _ of detour.envelopes())
        for await (const piece of detour.chunk() ?? []) t.true(piece.length > 0);
    };
    const reading = read();
    await new Promise(setImmediate);
    body.destroy(new Error("the line was cut"));
    await t.throwsAsync(reading, { message: "the line was cut" });
  }
});

test("a body that was closed before its end is no end", async (t) => {
  const body = new PassThrough();
  const detour = new ChunkDetour(body, { mostMessageBytes: 1e6, mostChunkBytes: 1e6, reuse: true, onBytes: () => {} });
  const reading = detour.envelopes().next();
  body.destroy();
  await t.throwsAsync(reading, { code: "ERR_STREAM_PREMATURE_CLOSE" });
});

test("whoever leaves early leaves the rest in the stream, which is neither destroyed nor read on", async (t) => {
  const body = new PassThrough();
  const detour = new ChunkDetour(body, { mostMessageBytes: 1e6, mostChunkBytes: 1e6, reuse: true, onBytes: () => {} });
  body.write(message(0x0a, 0));
  const envelopes = detour.envelopes();
  t.is(Buffer.from((await envelopes.next()).value!).toString("hex"), "00000000020a00");
  await envelopes.return(undefined);
  t.false(body.destroyed);
  t.true(body.isPaused());
  body.write(new Uint8Array(10));
  await new Promise(setImmediate);
  t.is(body.readableLength, 10);
});

test("a stream that somebody else took over meanwhile flows on", async (t) => {
  const body = new PassThrough();
  const detour = new ChunkDetour(body, { mostMessageBytes: 1e6, mostChunkBytes: 1e6, reuse: true, onBytes: () => {} });
  body.write(message(0x0a, 0));
  const envelopes = detour.envelopes();
  await envelopes.next();
  body.removeAllListeners("data");
  let dropped = 0;
  body.on("data", (piece: Buffer) => (dropped += piece.length)).resume();
  await envelopes.return(undefined);
  body.write(new Uint8Array(10));
  await new Promise(setImmediate);
  t.is(dropped, 10);
});

test("a fast body is held back while nobody takes its bytes", async (t) => {
  const body = new PassThrough({ highWaterMark: 1024 });
  const detour = new ChunkDetour(body, { mostMessageBytes: 2e6, mostChunkBytes: 2e6, reuse: true, onBytes: () => {} });
  const pieces = cut(chunk(1_900_000), [16_384]);
  let written = 0;
  const write = async () => {
    for (const piece of pieces) {
      written += piece.length;
      if (!body.write(piece)) await new Promise((resolve) => body.once("drain", resolve));
    }
  };
  const writing = write();
  await detour.envelopes().next();
  for (let i = 0; i < 50; i += 1) await new Promise(setImmediate);
  t.true(written < 400_000, `${written} bytes taken`);
  let size = 0;
  for await (const piece of detour.chunk()!) size += piece.length;
  t.is(size, 1_900_000);
  await writing;
});

test("a body in the smallest pieces is held back by their number", async (t) => {
  const body = new PassThrough({ highWaterMark: 1024 });
  const detour = new ChunkDetour(body, { mostMessageBytes: 1e6, mostChunkBytes: 1e6, reuse: true, onBytes: () => {} });
  const bytes = chunk(20_000);
  let written = 0;
  const write = async () => {
    for (const byte of bytes) {
      written += 1;
      if (!body.write(Uint8Array.of(byte))) await new Promise((resolve) => body.once("drain", resolve));
    }
  };
  const writing = write();
  await detour.envelopes().next();
  for (let i = 0; i < 5_000; i += 1) await new Promise(setImmediate);
  t.true(written < 5_000, `${written} pieces taken`);
  let size = 0;
  for await (const piece of detour.chunk()!) size += piece.length;
  t.is(size, 20_000);
  await writing;
});

test("an outlet writes chunks in place of their stand-ins, and everything else unchanged", (t) => {
  let counted = 0;
  const outlet = new ChunkOutlet((n) => (counted += n));
  const end = envelope(Uint8Array.of(123, 125), 2);
  t.deepEqual(outlet.written(end), [end]);
  const pieces = [noise(100), noise(70_000)];
  t.is(outlet.hold(pieces).length, 0);
  t.throws(() => outlet.hold(pieces), { message: /chunk before/ });
  // An error that comes instead of the chunk.
  t.deepEqual(outlet.written(end), [end]);
  const written = Buffer.concat(outlet.written(message(CHUNK_TAG, 0)));
  t.is(counted, 70_100);
  t.is(written.readUInt32BE(1), written.length - 5);
  const { frame } = fromBinary(ReadVersionResponseSchema, written.subarray(5));
  t.true(Buffer.concat(pieces).equals(frame.value as Uint8Array));
  t.deepEqual(outlet.written(message(CHUNK_TAG, 0)), [message(CHUNK_TAG, 0)]);
});

test("the tag is that of both messages", (t) => {
  for (const schema of [WriteSegmentRequestSchema, ReadVersionResponseSchema]) {
    t.is((schema.field.chunk.number << 3) | 2, CHUNK_TAG);
    t.is(schema.field.chunk.fieldKind, "scalar");
  }
});

test("only binary streams take it", (t) => {
  for (const type of [
    "application/connect+proto",
    "application/grpc",
    "application/grpc+proto",
    "application/grpc-web",
  ])
    t.true(mayDetour(type), type);
  for (const type of [
    "application/connect+json",
    "application/grpc+json",
    "application/grpc-web-text",
    "text/plain",
    "",
  ])
    t.false(mayDetour(type), type);
  t.false(mayDetour(undefined));
});

/**
 * The client's ways past the library for chunks against the generic way: the same answers of a server, byte for byte,
 * must become the same messages, the same bytes and the same errors.
 */
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { ConnectError, createClient, createContextValues } from "@connectrpc/connect";
import {
  UploadService,
  WriteSegmentRequestSchema,
  WriteSegmentResponseSchema,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { ReadVersionResponseSchema, VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { chunkPrefix } from "@strongroom/protocol/chunk-detour";
import anyTest, { type TestFn } from "ava";
import fc from "fast-check";
import { receivedOf, TAKES_PIECES } from "../src/connection/read-transport.ts";
import { retryKind } from "../src/connection/retry-kind.ts";
import { type Connection, createConnection } from "../src/connection/transport.ts";

const LIMIT = 1_000_000;

/** What the server does with a call. */
type Answer = (stream: ServerHttp2Stream) => void;

interface Context {
  /** What the next calls are answered with. */
  answer: Answer;
  fast: Connection;
  generic: Connection;
  /** Ends the server. */
  stop: () => void;
}

const test = anyTest as TestFn<Context>;

test.beforeEach(async (t) => {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    t.context.answer(stream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const open = (genericStreams: boolean) =>
    createConnection({ urls: [url], token: "t", readMaxBytes: LIMIT, genericStreams });
  const stop = () => {
    for (const session of sessions) session.destroy();
    server.close();
  };
  Object.assign(t.context, { fast: open(false), generic: open(true), stop });
});
test.afterEach.always((t) => {
  t.context.fast.reset();
  t.context.generic.reset();
  t.context.stop();
});

function envelope(message: Uint8Array, flags = 0, size = message.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(size, 1);
  return Buffer.concat([head, message]);
}

const noise = (size: number) => Uint8Array.from({ length: size }, (_, i) => (i * 37 + size) & 0xff);
const chunk = (size: number) => Buffer.concat([chunkPrefix(size), noise(size)]);
const message = (...bytes: number[]) => envelope(Uint8Array.from(bytes));
const frame = (value: bigint) =>
  envelope(
    toBinary(
      ReadVersionResponseSchema,
      create(ReadVersionResponseSchema, { frame: { case: "header", value: { offsetBytes: value } } }),
    ),
  );
const end = (content: unknown = {}) => envelope(Buffer.from(JSON.stringify(content)), 2);
const refused = end({
  error: { code: "resource_exhausted", message: "too much", details: [{ type: "a.B", value: "AAAA" }] },
  metadata: { "x-more": ["1", "2"] },
});

const TYPE = "application/connect+proto";

/** An answer of these bytes. */
function of(pieces: readonly Uint8Array[], headers: Record<string, string | number> = {}): Answer {
  return (stream) => {
    stream.resume();
    stream.respond({ ":status": 200, "content-type": TYPE, "x-said": "yes", ...headers });
    for (const piece of pieces) stream.write(piece);
    stream.end();
  };
}

/** Bytes, and then the stream is reset with a code of HTTP/2. */
function reset(pieces: readonly Uint8Array[], code: number): Answer {
  return (stream) => {
    stream.resume();
    stream.respond({ ":status": 200, "content-type": TYPE });
    for (const piece of pieces) stream.write(piece);
    setTimeout(() => stream.close(code), 20);
  };
}

/** What a caller sees. Pieces of chunks are joined: how they are cut is no matter. */
interface Seen {
  readonly messages: string[];
  readonly bytes: string;
  readonly end: string;
}

/** @param isBroken the connection broke: what is said of that differs, and what follows from it does not. */
function shownEnd(error: unknown, isBroken: boolean): string {
  const known = ConnectError.from(error);
  const kind = `retry: ${retryKind(error)}`;
  if (isBroken) return kind;
  const metadata = [...known.metadata].filter(([name]) => name.startsWith("x-") && name !== "x-request-id");
  const details = JSON.stringify(known.details);
  return `${kind}, code ${known.code}, ${known.rawMessage}, ${JSON.stringify(metadata)}, ${details}`;
}

async function read(connection: Connection, way: "messages" | "pieces", isBroken: boolean): Promise<Seen> {
  const messages: string[] = [];
  const bytes: Uint8Array[] = [];
  const client = createClient(VersionService, connection.transport);
  const contextValues = createContextValues().set(TAKES_PIECES, way === "pieces");
  try {
    for await (const got of client.readVersion({ collection: "c" }, { contextValues })) {
      if (got.frame.case === "chunk") {
        bytes.push(got.frame.value);
        for (let more = await receivedOf(got); more !== undefined; more = await receivedOf(got))
          bytes.push(...more.pieces);
      } else messages.push(`${got.frame.case} ${got.frame.value?.offsetBytes} after ${Buffer.concat(bytes).length}`);
    }
  } catch (error) {
    return { messages, bytes: Buffer.concat(bytes).toString("hex"), end: shownEnd(error, isBroken) };
  }
  return { messages, bytes: Buffer.concat(bytes).toString("hex"), end: "ok" };
}

const READS: Readonly<Record<string, Answer>> = {
  "chunks of all sizes": of([frame(7n), chunk(1), chunk(127), chunk(128), chunk(70_000), chunk(900_000), end()]),
  "an empty chunk": of([frame(0n), message(0x12, 0), chunk(9), end()]),
  "an empty message": of([message(), chunk(9), end()]),
  "no header": of([chunk(5), end()]),
  "a header between chunks": of([frame(1n), chunk(50_000), frame(2n), chunk(50_000), end()]),
  "an unknown field beside a chunk": of([message(0x12, 2, 1, 2, 0x7a, 1, 1), end()]),
  "two chunks in one message": of([message(0x12, 2, 1, 2, 0x12, 1, 3), end()]),
  "no protobuf": of([frame(0n), message(0x12, 0xff, 0xff, 0xff), end()]),
  "a chunk longer than its message": of([frame(0n), message(0x12, 9, 1, 2), end()]),
  "a message above the limit": of([frame(0n), envelope(chunk(9).subarray(5), 0, LIMIT + 1)]),
  "a compressed message": of([frame(0n), envelope(noise(9), 1), end()]),
  "an unknown flag": of([frame(0n), envelope(noise(9), 4), end()]),
  "an error before the first byte": of([refused]),
  "an error after bytes": of([frame(0n), chunk(100_000), refused]),
  "an error of an unknown code": of([chunk(9), end({ error: { code: "strange", message: "m" } })]),
  "an end that is no JSON": of([chunk(9), envelope(Buffer.from("{"), 2)]),
  "bytes after the end": of([frame(0n), chunk(9), end(), chunk(9)]),
  "no end": of([frame(0n), chunk(9)]),
  "nothing at all": of([]),
  "cut within the head of an envelope": of([chunk(9), chunk(9).subarray(0, 3)]),
  "cut after the head of an envelope": of([chunk(9), chunk(9).subarray(0, 5)]),
  "cut within the length of a chunk": of([chunk(9), chunk(90_000).subarray(0, 7)]),
  "another content type": of([Buffer.from("<html>")], { "content-type": "text/html" }),
  "JSON instead of protobuf": of([end()], { "content-type": "application/connect+json" }),
  "a compressed stream": of([end()], { "connect-content-encoding": "gzip" }),
  "a page of a proxy": of([Buffer.from("bad gateway")], { ":status": 502, "content-type": "text/html" }),
  "an error as a whole answer": of([Buffer.from('{"code":"unauthenticated","message":"m"}')], {
    ":status": 401,
    "content-type": "application/json",
  }),
  "a status without a body": of([], { ":status": 404 }),
};

for (const [name, answer] of Object.entries(READS)) {
  test(`ReadVersion, ${name}`, async (t) => {
    t.context.answer = answer;
    const expected = await read(t.context.generic, "messages", false);
    t.deepEqual(await read(t.context.fast, "messages", false), expected);
    t.deepEqual(await read(t.context.fast, "pieces", false), expected);
  });
}

/** What came of a chunk before it broke off is passed on past the library, and not through it. */
function sameUpToBytes(expected: Seen, got: Seen): string | undefined {
  if (expected.end !== got.end) return `${expected.end} or ${got.end}`;
  if (!got.bytes.startsWith(expected.bytes)) return "other bytes";
  return undefined;
}

for (const code of [0, 1, 2, 7, 8, 11]) {
  test(`ReadVersion, reset with code ${code} within a chunk and between two`, async (t) => {
    for (const pieces of [[], [frame(0n)], [frame(0n), chunk(50_000)], [chunk(9), chunk(90_000).subarray(0, 40_000)]]) {
      t.context.answer = reset(pieces, code);
      const expected = await read(t.context.generic, "messages", true);
      t.is(sameUpToBytes(expected, await read(t.context.fast, "messages", true)), undefined);
      t.is(sameUpToBytes(expected, await read(t.context.fast, "pieces", true)), undefined);
    }
  });
}

test("ReadVersion, cut within a chunk", async (t) => {
  t.context.answer = of([chunk(9), chunk(90_000).subarray(0, 40_000)]);
  const expected = await read(t.context.generic, "messages", false);
  t.is(sameUpToBytes(expected, await read(t.context.fast, "messages", false)), undefined);
  const pieces = await read(t.context.fast, "pieces", false);
  t.is(sameUpToBytes(expected, pieces), undefined);
  t.is(pieces.bytes.length / 2, 9 + 40_000 - chunkPrefix(90_000).length);
});

test("ReadVersion, whatever a server sends", async (t) => {
  const part = fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 60_000 }).map(chunk) },
    { weight: 2, arbitrary: fc.integer({ min: 1, max: 300 }).map(chunk) },
    fc.bigInt({ min: 0n, max: 99n }).map(frame),
    fc.constant(message()),
    fc.constant(message(0x12, 0)),
    fc.constant(message(0x12, 0x82, 0x80, 0, 7, 8)),
    fc.constant(message(0x12, 2, 1, 2, 0x12, 1, 3)),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => envelope(bytes)),
    fc.tuple(fc.integer({ min: 1, max: 255 }), fc.uint8Array({ maxLength: 20 })).map(([f, b]) => envelope(b, f)),
    fc.constant(end()),
    fc.constant(refused),
  );
  const wire = fc.tuple(fc.array(part, { maxLength: 6 }), fc.boolean(), fc.nat({ max: 30 }));
  await fc.assert(
    fc.asyncProperty(wire, fc.integer({ min: 1, max: 50_000 }), async ([parts, isEnded, missing], size) => {
      const whole = Buffer.concat([...parts, ...(isEnded ? [end()] : [])]);
      const bytes = whole.subarray(0, whole.length - (isEnded ? 0 : Math.min(whole.length, missing)));
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
      t.context.answer = of(pieces);
      const expected = await read(t.context.generic, "messages", false);
      for (const way of ["messages", "pieces"] as const)
        t.is(sameUpToBytes(expected, await read(t.context.fast, way, false)), undefined);
    }),
    { numRuns: 100 },
  );
});

/** Sends a segment of three frames, and says what came of it. */
async function write(connection: Connection, isBroken: boolean): Promise<string> {
  const client = createClient(UploadService, connection.transport);
  async function* frames() {
    yield create(WriteSegmentRequestSchema, { frame: { case: "header", value: { uploadId: "u" } } });
    for (const size of [10, 200_000])
      yield create(WriteSegmentRequestSchema, { frame: { case: "chunk", value: noise(size) } });
  }
  try {
    return `${(await client.writeSegment(frames())).remainingBytes} bytes left`;
  } catch (error) {
    return shownEnd(error, isBroken);
  }
}

const acknowledged = envelope(
  toBinary(WriteSegmentResponseSchema, create(WriteSegmentResponseSchema, { remainingBytes: 7n })),
);
const WRITES: Readonly<Record<string, Answer>> = {
  "an acknowledgement": of([acknowledged, end()]),
  "an acknowledgement in small pieces": of([...acknowledged, ...end()].map((byte) => Uint8Array.of(byte))),
  "a refusal": of([refused]),
  "a refusal after a message": of([acknowledged, refused]),
  "an answer without a message": of([end()]),
  "two messages": of([acknowledged, acknowledged, end()]),
  "no protobuf": of([message(0xff, 0xff), end()]),
  "an end that is no JSON": of([acknowledged, envelope(Buffer.from("{"), 2)]),
  "another content type": of([Buffer.from("<html>")], { "content-type": "text/html" }),
  "JSON instead of protobuf": of([end()], { "content-type": "application/connect+json" }),
  "a page of a proxy": of([Buffer.from("bad gateway")], { ":status": 502, "content-type": "text/html" }),
  "an error as a whole answer": of([Buffer.from('{"code":"unauthenticated","message":"m"}')], {
    ":status": 401,
    "content-type": "application/json",
  }),
};

for (const [name, answer] of Object.entries(WRITES)) {
  test(`WriteSegment, ${name}`, async (t) => {
    t.context.answer = answer;
    t.is(await write(t.context.fast, false), await write(t.context.generic, false));
  });
}

test("WriteSegment, an answer that breaks off", async (t) => {
  for (const answer of [
    of([acknowledged]),
    of([acknowledged, end().subarray(0, 3)]),
    of([acknowledged.subarray(0, 3)]),
    ...[1, 2, 7, 8, 11].map((code) => reset([], code)),
  ]) {
    t.context.answer = answer;
    t.is(await write(t.context.fast, true), await write(t.context.generic, true));
  }
});

test("a deadline and a caller that gives up end a call the same", async (t) => {
  t.context.answer = (stream) => {
    stream.respond({ ":status": 200, "content-type": TYPE });
    stream.write(Buffer.concat([frame(0n), chunk(90_000).subarray(0, 40_000)]));
  };
  for (const end of ["deadline", "abort"] as const) {
    const ends: string[] = [];
    for (const [connection, way] of [
      [t.context.generic, "messages"],
      [t.context.fast, "messages"],
      [t.context.fast, "pieces"],
    ] as const) {
      const giveUp = new AbortController();
      const client = createClient(VersionService, connection.transport);
      const contextValues = createContextValues().set(TAKES_PIECES, way === "pieces");
      const options = end === "deadline" ? { timeoutMs: 300 } : { signal: giveUp.signal };
      const reading = (async () => {
        for await (const got of client.readVersion({ collection: "c" }, { contextValues, ...options }))
          while ((await receivedOf(got)) !== undefined);
      })();
      const failing = reading.then(
        () => "ok",
        (error: unknown) => shownEnd(error, false),
      );
      if (end === "abort") {
        await sleep(200);
        giveUp.abort(new Error("the caller gave up"));
      }
      ends.push(await failing);
    }
    t.is(ends[1], ends[0]!);
    t.is(ends[2], ends[0]!);
    t.not(ends[0], "ok");
  }
});

/**
 * The way of chunks past the library against the generic way: two servers that differ in nothing else get the same
 * bytes, and must say and store the same.
 */
import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type WriteSegmentRequest,
  WriteSegmentRequestSchema,
  WriteSegmentResponseSchema,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { ReadVersionRequestSchema, ReadVersionResponseSchema } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { compositeOf, cutSegments, openpgpMessage, type TestSegment } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import fc from "fast-check";
import { collection, MIB, SETTINGS, user } from "./support/harness.ts";
import { bearer, framesOf, LiveServer } from "./support/live-server.ts";

interface Side {
  readonly live: LiveServer;
  readonly token: string;
}

interface Context {
  /** Chunks past the library, and through it. */
  sides: readonly [Side, Side];
}

const test = anyTest as TestFn<Context>;
const SIZE = 300_000;
const MESSAGE = openpgpMessage(SIZE);
const [SEGMENT] = cutSegments(MESSAGE, SIZE) as [TestSegment];
const WRITE = "/strongroom.v1.UploadService/WriteSegment";
const READ = "/strongroom.v1.VersionService/ReadVersion";
const REQUEST_ID = "11111111-2222-4333-8444-555555555555";

test.before(async (t) => {
  const open = async (genericStreams: boolean): Promise<Side> => {
    const sizes = { maxOneVersionSize: BigInt(64 * MIB), maxCollectionSize: BigInt(6_400 * MIB) };
    const spec = collection("db", { ...sizes, maxParallelUploads: 100_000 });
    const live = await LiveServer.open([user("admin", { roles: ["systemAdmin"] })], [spec], {
      genericStreams,
      settings: { ...SETTINGS, leastSegmentSize: BigInt(MIB) },
    });
    return { live, token: (await live.session("admin")).token };
  };
  t.context = { sides: [await open(false), await open(true)] };
});
test.after.always(async (t) => {
  for (const { live } of t.context.sides ?? []) await live.close();
});

type Frame = MessageInitShape<typeof WriteSegmentRequestSchema>["frame"];
const encoded = (frame: Frame) => toBinary(WriteSegmentRequestSchema, create(WriteSegmentRequestSchema, { frame }));
const chunk = (bytes: Uint8Array) => envelope(encoded({ case: "chunk", value: bytes }));

function envelope(message: Uint8Array, flags = 0, size = message.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(size, 1);
  return Buffer.concat([head, message]);
}

type Header = Extract<WriteSegmentRequest["frame"], { case: "header" }>["value"];

/** Makes the header's frame for an upload. */
type Announce = (more?: Partial<Pick<Header, "sizeBytes" | "sha256" | "index">>) => Buffer;

/** A body, made for an upload whose id is not known before. */
type MakeBody = (announce: Announce) => readonly Uint8Array[];

function whole(chunkSize: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < SIZE; at += chunkSize) chunks.push(chunk(MESSAGE.subarray(at, at + chunkSize)));
  return chunks;
}

const BODIES: Readonly<Record<string, MakeBody>> = {
  "one chunk": (announce) => [announce(), ...whole(SIZE)],
  "many chunks": (announce) => [announce(), ...whole(7_001)],
  "the smallest chunks": (announce) => [announce(), ...whole(100)],
  "nothing at all": () => [],
  "no header": () => whole(SIZE),
  "a header alone": (announce) => [announce()],
  "two headers": (announce) => [announce(), announce(), ...whole(SIZE)],
  "a header in the middle": (announce) => [announce(), whole(200_000)[0]!, announce(), whole(200_000)[1]!],
  "an empty chunk": (announce) => [announce(), chunk(new Uint8Array()), ...whole(SIZE)],
  "an empty message": (announce) => [announce(), envelope(new Uint8Array()), ...whole(SIZE)],
  "an unknown field beside a chunk": (announce) => [
    announce(),
    envelope(Buffer.concat([encoded({ case: "chunk", value: MESSAGE }), Uint8Array.of(0x7a, 1, 1)])),
  ],
  "two chunks in one message, of which the last counts": (announce) => [
    announce(),
    envelope(
      Buffer.concat([
        encoded({ case: "chunk", value: MESSAGE.subarray(0, 9) }),
        encoded({ case: "chunk", value: MESSAGE }),
      ]),
    ),
  ],
  "no protobuf": (announce) => [announce(), envelope(Uint8Array.of(0x12, 0xff, 0xff, 0xff))],
  "no protobuf instead of the header": () => [envelope(Uint8Array.of(0xff, 0xff))],
  "a chunk above the bound": (announce) => [announce(), chunk(new Uint8Array(MIB + 1))],
  "a message above the bound": (announce) => [announce(), envelope(new Uint8Array(9), 0, 64 * MIB)],
  "a compressed frame": (announce) => [announce(), envelope(new Uint8Array(9), 1)],
  "a frame that ends the stream": (announce) => [announce(), ...whole(SIZE), envelope(Buffer.from("{}"), 2)],
  "a frame of trailers": (announce) => [announce(), ...whole(SIZE), envelope(Buffer.from("a: b\r\n"), 0x80)],
  "fewer bytes than declared": (announce) => [announce(), ...whole(100_000).slice(0, 2)],
  "more bytes than declared": (announce) => [announce({ sizeBytes: 250_000n }), ...whole(100_000)],
  "another digest": (announce) => [announce({ sha256: new Uint8Array(32) }), ...whole(100_000)],
  "plain text": (announce) => [announce(), chunk(Buffer.alloc(SIZE, "SELECT 1;\n"))],
  "a wrong index": (announce) => [announce({ index: 2_000_000 }), ...whole(SIZE)],
  "cut within the head of an envelope": (announce) => [
    announce(),
    ...whole(100_000).slice(0, 2),
    whole(SIZE)[0]!.subarray(0, 3),
  ],
  "cut after the head of an envelope": (announce) => [
    announce(),
    ...whole(100_000).slice(0, 2),
    whole(SIZE)[0]!.subarray(0, 5),
  ],
  "cut within the length of a chunk": (announce) => [
    announce(),
    ...whole(100_000).slice(0, 2),
    whole(SIZE)[0]!.subarray(0, 7),
  ],
  "cut within a chunk": (announce) => [
    announce(),
    ...whole(100_000).slice(0, 2),
    whole(100_000)[2]!.subarray(0, 50_000),
  ],
};

const TYPES = ["application/connect+proto", "application/grpc", "application/grpc-web+proto"] as const;

/** What a caller sees, without what differs between two servers for other reasons. */
interface Answer {
  readonly status: number;
  readonly headers: string;
  readonly body: string;
  readonly trailers: string;
}

const KEPT = ["content-type", "grpc-status", "grpc-message", "connect-content-encoding", "grpc-encoding"];

const shownHeaders = (headers: Readonly<Record<string, unknown>>) =>
  JSON.stringify(
    KEPT.map((name) => headers[name] ?? "").concat(headers["grpc-status-details-bin"] === undefined ? "" : "details"),
  );

/** The messages of an answer; of one of WriteSegment what has no times in it. */
function shownBody(body: Buffer, uploadId: string): string {
  const parts: string[] = [];
  for (let at = 0; at + 5 <= body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    const data = body.subarray(at + 5, end);
    if (body[at] === 0) {
      const { segment, remainingBytes } = fromBinary(WriteSegmentResponseSchema, data);
      parts.push(`segment ${segment?.index} ${segment?.sizeBytes} ${remainingBytes}`);
    } else parts.push(data.toString().replace(/^grpc-status-details-bin.*$/m, "details"));
    at = end;
  }
  // The details of Connect's errors are compared without what is encoded in them.
  return (
    parts
      .join(" | ")
      .replaceAll(uploadId, "UPLOAD")
      // A message about JSON shows the first characters of it.
      .replaceAll(uploadId.slice(0, 7), "UPLOAD")
      .replace(/"value":"[^"]*"/g, "value")
  );
}

async function overHttp2(side: Side, path: string, headers: Record<string, string>, pieces: readonly Uint8Array[]) {
  const session = http2.connect(side.live.server.url);
  try {
    const stream = session.request({ ":method": "POST", ":path": path, ...headers });
    const seen: Record<string, unknown> = {};
    let trailers: Record<string, unknown> = {};
    stream.on("response", (got) => Object.assign(seen, got)).on("trailers", (got) => (trailers = got));
    stream.on("error", () => {});
    const body: Buffer[] = [];
    stream.on("data", (piece: Buffer) => body.push(piece));
    for (const piece of pieces) if (!stream.destroyed) stream.write(piece);
    if (!stream.destroyed) stream.end();
    if (!stream.closed) await once(stream, "close");
    return { status: Number(seen[":status"] ?? 0), headers: seen, trailers, body: Buffer.concat(body) };
  } finally {
    session.close();
  }
}

async function overHttp1(side: Side, path: string, headers: Record<string, string>, pieces: readonly Uint8Array[]) {
  const request = http.request(side.live.server.url + path, { method: "POST", headers, agent: false });
  request.on("error", () => {});
  const answered = once(request, "response") as Promise<[http.IncomingMessage]>;
  for (const piece of pieces) request.write(piece);
  request.end();
  const [response] = await answered;
  const body: Buffer[] = [];
  for await (const piece of response) body.push(piece as Buffer);
  const { statusCode, headers: got, trailers } = response;
  return { status: statusCode ?? 0, headers: got as Record<string, unknown>, trailers, body: Buffer.concat(body) };
}

type Send = typeof overHttp2;

/** Sends a body to a fresh upload, and says what came back and what is stored then. */
async function outcome(side: Side, send: Send, headers: Record<string, string>, make: MakeBody) {
  const { live, token } = side;
  const { upload } = await live.clients.uploads.createUpload({ collection: "db" }, bearer(token));
  const uploadId = upload!.uploadId;
  const { index, size, sha256, framingIn } = SEGMENT;
  const announce: Announce = (more = {}) =>
    envelope(encoded({ case: "header", value: { uploadId, index, sizeBytes: size, sha256, framingIn, ...more } }));
  const all = { authorization: `Bearer ${token}`, [REQUEST_ID_HEADER]: REQUEST_ID, ...headers };
  const got = await send(side, WRITE, all, make(announce));
  const answer: Answer = {
    status: got.status,
    headers: shownHeaders(got.headers),
    trailers: shownHeaders(got.trailers).replaceAll(uploadId, "UPLOAD"),
    body: shownBody(got.body, uploadId),
  };
  const after = await live.clients.uploads.getUpload({ uploadId }, bearer(token));
  const { state, storedBytes, reservedBytes } = after.upload!;
  const stored = `${state} ${storedBytes} ${reservedBytes} ${after.segments.map((s) => s.index)}`;
  await live.clients.uploads.abortUpload({ uploadId }, bearer(token));
  return { answer, stored };
}

async function sameOnBoth(
  t: ExecutionContext<Context>,
  send: Send,
  headers: Record<string, string>,
  make: MakeBody,
  name?: string,
) {
  const [direct, generic] = t.context.sides;
  const expected = await outcome(generic, send, headers, make);
  t.deepEqual(await outcome(direct, send, headers, make), expected, name);
  return expected;
}

for (const type of TYPES) {
  for (const [version, send] of Object.entries({ "HTTP/2": overHttp2, "HTTP/1.1": overHttp1 })) {
    test(`${type} over ${version}: every body is answered and stored the same`, async (t) => {
      // gRPC needs HTTP/2 for its trailers; that it is refused is one of the cases.
      const headers = { "content-type": type, ...(type === "application/grpc" ? { te: "trailers" } : {}) };
      let stored = 0;
      for (const [name, make] of Object.entries(BODIES)) {
        const { answer } = await sameOnBoth(t, send, headers, make, name);
        if (answer.body.includes("segment 0")) stored += 1;
      }
      t.true(stored >= 4, `${stored} bodies were stored`);
    });
  }
}

test("headers that are not as usual are answered the same", async (t) => {
  const [first] = TYPES;
  const odd: Record<string, string>[] = [
    { "content-type": "application/connect+json" },
    { "content-type": "application/grpc-web-text" },
    { "content-type": "application/connect+proto; charset=utf-8" },
    { "content-type": "APPLICATION/CONNECT+PROTO" },
    { "content-type": "application/proto" },
    { "content-type": first, "connect-timeout-ms": "soon" },
    { "content-type": first, "connect-timeout-ms": "60000" },
    { "content-type": first, "connect-content-encoding": "gzip" },
    { "content-type": first, "connect-content-encoding": "identity" },
    { "content-type": first, "connect-protocol-version": "2" },
    { "content-type": "application/grpc", te: "trailers", "grpc-timeout": "1x" },
    { "content-type": first, authorization: "Bearer nobody" },
  ];
  for (const headers of odd) await sameOnBoth(t, overHttp2, headers, BODIES["many chunks"]!);
});

test("changed bodies are answered and stored the same", async (t) => {
  const changes = fc.array(
    fc.record({
      at: fc.nat(),
      how: fc.constantFrom("flip", "drop", "double", "cut"),
      value: fc.integer({ min: 1, max: 255 }),
    }),
    { minLength: 1, maxLength: 3 },
  );
  await fc.assert(
    fc.asyncProperty(changes, fc.constantFrom(30, 400, 100_000), fc.constantFrom(...TYPES), async (all, size, type) => {
      const make: MakeBody = (announce) => {
        let body = Buffer.concat([announce(), ...whole(100_000)]);
        for (const { at, how, value } of all) {
          // Near the borders of envelopes, mostly.
          const border = [0, 5, 100_000, 200_000][value % 4]!;
          const position = (border + (at % size)) % body.length;
          const [head, tail] = [body.subarray(0, position), body.subarray(position)];
          if (how === "flip") body = Buffer.concat([head, Uint8Array.of(tail[0]! ^ value), tail.subarray(1)]);
          else if (how === "drop") body = Buffer.concat([head, tail.subarray(1)]);
          else if (how === "double") body = Buffer.concat([head, tail.subarray(0, value), tail]);
          else body = head;
          if (body.length === 0) break;
        }
        return [body];
      };
      const headers = { "content-type": type, ...(type === "application/grpc" ? { te: "trailers" } : {}) };
      const [direct, generic] = t.context.sides;
      const expected = await outcome(generic, overHttp2, headers, make);
      const got = await outcome(direct, overHttp2, headers, make);
      // Of a stream that is wrong in two ways, the first that was seen is told: bytes are looked at as they come, and
      // not only when their chunk is there whole.
      const refusals = /CIPHERTEXT|SEGMENT_|FRAMING|grpc-status|"code"|grpc/;
      if (JSON.stringify(got) !== JSON.stringify(expected)) {
        t.regex(JSON.stringify(expected.answer), refusals);
        t.regex(JSON.stringify(got.answer), refusals);
        t.false(got.answer.body.includes("segment 0") || expected.answer.body.includes("segment 0"));
      }
    }),
    { numRuns: 40 },
  );
});

test("a client that goes away within a chunk leaves the same behind", async (t) => {
  const goAway: Send = async (side, path, headers, pieces) => {
    const session = http2.connect(side.live.server.url);
    const stream = session.request({ ":method": "POST", ":path": path, ...headers });
    stream.on("error", () => {});
    for (const piece of pieces) stream.write(piece);
    await new Promise<void>((resolve) => session.ping(Buffer.alloc(8), () => resolve()));
    session.destroy();
    await once(session, "close").catch(() => {});
    return { status: 0, headers: {}, trailers: {}, body: Buffer.alloc(0) };
  };
  await sameOnBoth(t, goAway, { "content-type": TYPES[0] }, BODIES["cut within a chunk"]!);
});

test("a version is read the same, in every protocol, whole and in part", async (t) => {
  const bodies: Buffer[][] = [];
  for (const side of t.context.sides) {
    const { live, token } = side;
    const { upload } = await live.clients.uploads.createUpload({ collection: "db" }, bearer(token));
    await live.clients.uploads.writeSegment(framesOf(upload!.uploadId, SEGMENT), bearer(token));
    const commit = { uploadId: upload!.uploadId, sizeBytes: BigInt(SIZE), compositeSha256: compositeOf([SEGMENT]) };
    const { version } = await live.clients.uploads.commitUpload(commit, bearer(token));
    const read: Buffer[] = [];
    for (const send of [overHttp2, overHttp1]) {
      for (const type of TYPES) {
        if (type === "application/grpc" && send === overHttp1) continue;
        for (const more of [{}, { offsetBytes: 100_000n, limitBytes: 7n }, { offsetBytes: 900_000n }]) {
          const which = { case: "number" as const, value: version!.number };
          const request = toBinary(
            ReadVersionRequestSchema,
            create(ReadVersionRequestSchema, { collection: "db", which, ...more }),
          );
          const headers = { authorization: `Bearer ${token}`, [REQUEST_ID_HEADER]: REQUEST_ID, "content-type": type };
          const got = await send(side, READ, headers, [envelope(request)]);
          read.push(chunksIn(got.body), Buffer.from(shownHeaders(got.trailers)), Buffer.from(String(got.status)));
        }
      }
    }
    bodies.push(read);
  }
  const [direct, generic] = bodies as [Buffer[], Buffer[]];
  t.is(direct.length, generic.length);
  t.true(direct[0]!.equals(MESSAGE));
  direct.forEach((bytes, i) => {
    t.true(bytes.equals(generic[i]!), `${i}`);
  });
});

/** The bytes of all chunks of an answer, however they were cut; of one without chunks its last envelope. */
function chunksIn(body: Buffer): Buffer {
  const chunks: Buffer[] = [];
  let last: Uint8Array = Buffer.alloc(0);
  for (let at = 0; at + 5 <= body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    const data = body.subarray(at + 5, end);
    if (body[at] !== 0) last = data;
    else {
      const { frame } = fromBinary(ReadVersionResponseSchema, data);
      if (frame.case === "chunk") chunks.push(Buffer.from(frame.value));
    }
    at = end;
  }
  return Buffer.concat(chunks.length > 0 ? chunks : [last]);
}

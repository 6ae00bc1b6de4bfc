/** What the connection tells the server, and what WriteSegment makes of answers that no Strongroom server gives. */
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  SegmentHeaderSchema,
  UploadService,
  WriteSegmentRequestSchema,
  WriteSegmentResponseSchema,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import test, { type ExecutionContext } from "ava";
import { toStrongroomError } from "../src/connection/error-mapping.ts";
import { retryKind } from "../src/connection/retry-kind.ts";
import { SessionManager } from "../src/connection/session-manager.ts";
import { createConnection } from "../src/connection/transport.ts";
import { writeSegment } from "../src/upload/segment-writer.ts";
import { noise } from "./support/bytes.ts";
import { FakeServer, sha256 } from "./support/server.ts";

type Answer = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

async function raw(t: ExecutionContext, answer: Answer): Promise<{ url: string; sessions: ServerHttp2Session[] }> {
  const sessions: ServerHttp2Session[] = [];
  const server = createServer();
  server.on("session", (session) => sessions.push(session));
  server.on("stream", (stream, headers) => {
    stream.on("error", () => undefined);
    answer(stream, headers);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, sessions };
}

function send(t: ExecutionContext, url: string, bytes: Uint8Array = noise(3_000_000)) {
  const connection = createConnection({ urls: [url], token: "x" });
  t.teardown(() => connection.reset());
  const target = {
    client: createClient(UploadService, connection.transport),
    uploadId: "u",
    maxChunkSize: 1_000_000,
    timings: { stallMs: 60_000, acknowledgeMs: 60_000 },
  };
  const segment = {
    index: 3,
    size: bytes.length,
    sha256: sha256(bytes),
    framingIn: new Uint8Array([1]),
    spooled: false,
    read: (offset: number, length: number) => bytes.subarray(offset, offset + length),
    moveTo: async () => undefined,
    release: () => undefined,
  };
  return writeSegment(target, segment, new AbortController().signal);
}

function envelope(flags: number, content: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flags;
  prefix.writeUInt32BE(content.length, 1);
  return Buffer.concat([prefix, content]);
}

const STREAM = { ":status": 200, "content-type": "application/connect+proto" };
const good = envelope(
  0,
  toBinary(WriteSegmentResponseSchema, create(WriteSegmentResponseSchema, { remainingBytes: 7n })),
);
const end = envelope(2, Buffer.from("{}"));

test("the bytes on the wire are those of the Connect protocol", async (t) => {
  let request: IncomingHttpHeaders = {};
  const chunks: Buffer[] = [];
  const { url } = await raw(t, (stream, headers) => {
    request = headers;
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      stream.respond(STREAM);
      stream.end(Buffer.concat([good, end]));
    });
  });
  const bytes = noise(2_500_000);
  t.is((await send(t, url, bytes)).remainingBytes, 7n);
  t.is(request[":path"], "/strongroom.v1.UploadService/WriteSegment");
  t.is(request["content-type"], "application/connect+proto");
  t.is(request["connect-protocol-version"], "1");
  t.is(request.authorization, "Bearer x");
  t.truthy(request["x-request-id"]);
  const body = Buffer.concat(chunks);
  const frames = [];
  for (let offset = 0; offset < body.length; ) {
    const length = body.readUInt32BE(offset + 1);
    t.is(body[offset], 0);
    const message = new Uint8Array(body.subarray(offset + 5, offset + 5 + length));
    frames.push(fromBinary(WriteSegmentRequestSchema, message).frame);
    offset += 5 + length;
  }
  const [first, ...rest] = frames;
  t.deepEqual(
    first!.value,
    create(SegmentHeaderSchema, {
      uploadId: "u",
      index: 3,
      sizeBytes: 2_500_000n,
      sha256: new Uint8Array(sha256(bytes)),
      framingIn: new Uint8Array([1]),
    }),
  );
  t.deepEqual(
    rest.map((frame) => (frame.value as Uint8Array).length),
    [1_000_000, 1_000_000, 500_000],
  );
  t.true(Buffer.concat(rest.map((frame) => frame.value as Uint8Array)).equals(bytes));
});

test("windows are 1 MiB for a stream and 2 MiB for the connection", async (t) => {
  const { url, sessions } = await raw(t, (stream) => {
    stream.resume();
    stream.on("end", () => {
      stream.respond(STREAM);
      stream.end(Buffer.concat([good, end]));
    });
  });
  await send(t, url);
  t.is(sessions[0]!.remoteSettings.initialWindowSize, 1024 * 1024);
  t.true(sessions[0]!.state.remoteWindowSize! > 1.9 * 1024 * 1024);
});

const answers: [name: string, answer: Answer, code: Code, kind: string][] = [
  ["an error page of a proxy", (s) => page(s, 503), Code.Unavailable, "patient"],
  ["a proxy without a server behind it", (s) => page(s, 502), Code.Unavailable, "patient"],
  ["a fault of a proxy", (s) => page(s, 500), Code.Unknown, "patient"],
  ["a refusal of a proxy", (s) => page(s, 403), Code.PermissionDenied, "no"],
  ["a limit of a proxy", (s) => page(s, 413), Code.Unknown, "no"],
  ["a redirect to a login page", (s) => page(s, 302), Code.Unknown, "no"],
  ["a proxy that wants a login", (s) => page(s, 407), Code.Unknown, "no"],
  ["a server that wants another login", (s) => page(s, 401), Code.Unauthenticated, "no"],
  ["a page of another server", (s) => page(s, 200), Code.Unknown, "no"],
  ["an answer that is cut off", (s) => body(s, good.subarray(0, 6)), Code.InvalidArgument, "patient"],
  ["an answer without its end", (s) => body(s, good), Code.InvalidArgument, "patient"],
  ["an empty answer", (s) => body(s, Buffer.alloc(0)), Code.Unavailable, "patient"],
  ["an answer without a message", (s) => body(s, end), Code.Unimplemented, "no"],
  ["an endless answer", (s) => body(s, Buffer.alloc(3 * 1024 * 1024)), Code.Internal, "patient"],
  ["a stream that is reset", (s) => s.close(2), Code.Unavailable, "patient"],
  ["a connection that is destroyed", (s) => s.session?.destroy(), Code.Unavailable, "patient"],
];

for (const [name, answer, code, kind] of answers) {
  test(`${name} is an error`, async (t) => {
    const { url } = await raw(t, (stream) => {
      // In the midst of the bytes.
      stream.once("data", () => answer(stream, {}));
    });
    const error = await t.throwsAsync(send(t, url));
    t.true(error instanceof ConnectError);
    t.is((error as ConnectError).code, code);
    t.is(retryKind(error), kind as never);
    // Connect's client counts the messages outside of the interceptors.
    if (code !== Code.Unimplemented) t.truthy(toStrongroomError(error).requestId);
  });
}

test("an early refusal is reported although bytes are still being sent", async (t) => {
  const refusal = envelope(2, Buffer.from('{"error":{"code":"resource_exhausted","message":"full"}}'));
  const { url } = await raw(t, (stream) => {
    stream.once("data", () => body(stream, refusal));
  });
  for (let i = 0; i < 20; i++) {
    await t.throwsAsync(send(t, url, noise(16_000_000)), { message: "[resource_exhausted] full" });
  }
});

test("a caller that aborts resets the stream", async (t) => {
  let code = -1;
  const closed = new Promise<void>((resolve) => {
    void raw(t, (stream) => {
      stream.once("data", () => controller.abort(new Error("enough")));
      stream.on("close", () => {
        code = stream.rstCode;
        resolve();
      });
    }).then(({ url }) => {
      const connection = createConnection({ urls: [url] });
      t.teardown(() => connection.reset());
      const client = createClient(UploadService, connection.transport);
      const chunk = { frame: { case: "chunk" as const, value: noise(500_000) } };
      async function* frames() {
        for (;;) yield chunk;
      }
      client.writeSegment(frames(), { signal: controller.signal }).then(
        () => t.fail(),
        () => t.pass(),
      );
    });
  });
  const controller = new AbortController();
  await closed;
  t.is(code, 8);
});

test("frames that fail fail the call", async (t) => {
  const server = await FakeServer.start();
  t.teardown(() => server.stop());
  const connection = createConnection({ urls: [server.url] });
  t.teardown(() => connection.reset());
  const client = createClient(UploadService, connection.transport);
  // biome-ignore lint/correctness/useYield: it fails before
  async function* frames(): AsyncGenerator<never> {
    throw new Error("no frames");
  }
  await t.throwsAsync(client.writeSegment(frames()), { message: /no frames/ });
});

function page(stream: ServerHttp2Stream, status: number): void {
  stream.respond({ ":status": status, "content-type": "text/html" });
  stream.end("<html>");
}

function body(stream: ServerHttp2Stream, bytes: Buffer): void {
  stream.respond(STREAM);
  stream.end(bytes);
}

test("a connection that fails while nobody waits for anything is forgotten, and ends no process", async (t) => {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    // Read on, so that its end is seen.
    socket.resume();
    // The frame with which HTTP/2 begins: empty settings.
    socket.write(Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const manager = new SessionManager({
    destination: { url, proxy: undefined, secureContext: undefined },
    windowBytes: 65_536,
    patience: () => ({ connectMs: 60_000, pingIntervalMs: 60_000, pingTimeoutMs: 60_000 }),
  });
  await manager.ready();
  t.true(manager.isOpen);
  const closed = once(sockets[0]!, "close");
  sockets[0]!.write("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  await closed;
  while (manager.isOpen) await setImmediate();
  await manager.ready();
  t.is(sockets.length, 2, "the next call opens another");
  manager.abort();
});

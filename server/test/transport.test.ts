import { createHash, randomUUID } from "node:crypto";
import http2 from "node:http2";
import net from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import {
  ErrorInfoSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@strongroom/gen/google/rpc/error_details_pb";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@strongroom/gen/grpc/health/v1/health_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService, type WriteSegmentRequestSchema } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { compositeOf, cutSegments, openpgpMessage, type TestSegment } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { destination, pino } from "pino";
import { Argon2Hasher } from "../src/adapters/argon2/argon2-hasher.ts";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { type RunningServer, startServer } from "../src/main.ts";
import { collection, MIB, SETTINGS, user } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

interface Context {
  server: RunningServer;
  token: string;
  collections: Map<string, ReturnType<typeof collection>>;
  users: Map<string, ReturnType<typeof user>>;
}

const test = anyTest as TestFn<Context>;
const SESSION_MS = 6 * 3_600_000;

test.before(async (t) => {
  const database = await openMemoryDatabase();
  const passwords = new Argon2Hasher();
  const admin = user("admin", { roles: ["systemAdmin"], passwordHash: await passwords.hash("right password") });
  const users = new Map([[admin.name, admin]]);
  const collections = new Map<string, ReturnType<typeof collection>>();
  const server = await startServer(
    {
      database,
      store: new MemoryBlobStore(),
      config: { current: () => ({ users, collections, organizations: new Map() }) },
      passwords,
      tokens: await JoseSigner.fromDatabase(database),
      log: pino({ level: "silent" }, destination({ dest: 2 })),
      settings: { ...SETTINGS, segmentIdleMs: 8000 },
      sessionMs: SESSION_MS,
      sessionLifetimeMs: 7 * 24 * 3_600_000,
      sweepMs: 60_000,
    },
    "127.0.0.1",
    0,
  );
  const sessions = createClient(SessionService, createConnectTransport({ baseUrl: server.url, httpVersion: "2" }));
  const { token } = await sessions.login({ username: "admin", password: "right password" });
  t.context = { server, token, collections, users };
});
test.after.always(async (t) => await t.context.server?.stop(1000));

const TRANSPORTS: readonly [string, (baseUrl: string) => Transport][] = [
  ["Connect over HTTP/2", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" })],
  ["Connect over HTTP/1.1", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" })],
  ["Connect with JSON", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false })],
  ["gRPC over HTTP/2", (baseUrl) => createGrpcTransport({ baseUrl })],
  ["gRPC-Web over HTTP/2", (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "2" })],
  ["gRPC-Web over HTTP/1.1", (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
];

function add(t: ExecutionContext<Context>, change: Parameters<typeof collection>[1] = {}) {
  const spec = collection(`c-${randomUUID()}`, change);
  t.context.collections.set(spec.name, spec);
  return spec;
}

const auth = (t: ExecutionContext<Context>) => ({ headers: { authorization: `Bearer ${t.context.token}` } });

async function* frames(uploadId: string, segment: TestSegment, chunkSize = 200_000) {
  const { index, size, sha256, framingIn } = segment;
  yield { frame: { case: "header" as const, value: { uploadId, index, sizeBytes: size, sha256, framingIn } } };
  for (let at = 0; at < segment.bytes.length; at += chunkSize) {
    yield { frame: { case: "chunk" as const, value: segment.bytes.subarray(at, at + chunkSize) } };
  }
}

type Frame = MessageInitShape<typeof WriteSegmentRequestSchema>;

async function failing(t: ExecutionContext, code: Code, reason: string, call: Promise<unknown>): Promise<ConnectError> {
  const error = (await t.throwsAsync(call, { instanceOf: ConnectError })) as ConnectError;
  t.is(Code[error.code], Code[code], error.message);
  t.is(error.findDetails(ErrorInfoSchema)[0]?.reason, reason, error.message);
  t.is(error.findDetails(ErrorInfoSchema)[0]?.domain, "strongroom");
  t.truthy(error.findDetails(RequestInfoSchema)[0]?.requestId);
  return error;
}

for (const [name, make] of TRANSPORTS) {
  test(`${name}: upload, list, health, download, refusals`, async (t) => {
    const transport = make(t.context.server.url);
    const spec = add(t);
    const uploads = createClient(UploadService, transport);
    const versions = createClient(VersionService, transport);
    const { upload } = await uploads.createUpload({ collection: spec.name }, auth(t));
    const message = openpgpMessage(MIB + 70_000);
    const segments = cutSegments(message, Number(upload!.segmentSizeBytes));
    for (const segment of segments) await uploads.writeSegment(frames(upload!.uploadId, segment), auth(t));
    const commit = {
      uploadId: upload!.uploadId,
      sizeBytes: BigInt(message.length),
      compositeSha256: compositeOf(segments),
    };
    const { version } = await uploads.commitUpload(commit, auth(t));
    t.is(version!.number, 1n);
    t.is((await versions.listVersions({ collection: spec.name }, auth(t))).versions.length, 1);

    const hash = createHash("sha256");
    let length: bigint | undefined;
    for await (const { frame } of versions.readVersion(
      { collection: spec.name, which: { case: "newest", value: true }, offsetBytes: 5n },
      auth(t),
    )) {
      if (frame.case === "header") length = frame.value.lengthBytes;
      else if (frame.case === "chunk") hash.update(frame.value);
    }
    t.is(length, BigInt(message.length - 5));
    t.is(hash.digest("hex"), createHash("sha256").update(message.subarray(5)).digest("hex"));

    const collections = createClient(CollectionService, transport);
    t.is((await collections.getCollectionHealth({ collection: spec.name }, auth(t))).checks.length, 7);
    const details = (await collections.getCollection({ collection: spec.name }, auth(t))).collection!;
    t.is(details.usage!.storedBytes, BigInt(message.length));

    // Errors of unary calls, of client streams that are refused early, and of server streams that surface while
    // iterated.
    await failing(t, Code.Unauthenticated, "AUTHENTICATION_REQUIRED", versions.listVersions({ collection: spec.name }));
    const second = (await uploads.createUpload({ collection: spec.name }, auth(t))).upload!;
    const [plain] = cutSegments(Buffer.alloc(900_000, "plain text "), MIB);
    const refusal = await failing(
      t,
      Code.InvalidArgument,
      "CIPHERTEXT_REFUSED",
      uploads.writeSegment(frames(second.uploadId, plain!), auth(t)),
    );
    t.is(refusal.findDetails(ErrorInfoSchema)[0]!.metadata.violation, "not-ciphertext");
    await failing(
      t,
      Code.NotFound,
      "VERSION_NOT_FOUND",
      drain(versions.readVersion({ collection: spec.name, which: { case: "number", value: 9n } }, auth(t))),
    );
    const tooMuch = uploads.createUpload({ collection: spec.name, expectedSizeBytes: 2n ** 50n }, auth(t));
    const quota = await failing(t, Code.ResourceExhausted, "QUOTA_EXCEEDED", tooMuch);
    t.is(quota.findDetails(QuotaFailureSchema)[0]?.violations[0]?.subject, "collection");
    await uploads.createUpload({ collection: spec.name }, auth(t));
    const busy = await failing(
      t,
      Code.Aborted,
      "COLLECTION_BUSY",
      uploads.createUpload({ collection: spec.name }, auth(t)),
    );
    t.true(busy.findDetails(RetryInfoSchema)[0]!.retryDelay!.seconds > 0n);
    t.is((await createClient(Health, transport).check({})).status, Status.SERVING);
    const login = await createClient(SessionService, transport).login({
      username: "admin",
      password: "right password",
    });
    t.is(login.session!.address, "127.0.0.1");
  });
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

function uploadsOf(t: ExecutionContext<Context>): Client<typeof UploadService> {
  return createClient(UploadService, createConnectTransport({ baseUrl: t.context.server.url, httpVersion: "2" }));
}

test("frames in the wrong order, doubled headers, oversized and silent streams are refused", async (t) => {
  const uploads = uploadsOf(t);
  const spec = add(t);
  const { upload } = await uploads.createUpload({ collection: spec.name }, auth(t));
  const [segment] = cutSegments(openpgpMessage(900_000), MIB);
  const all: Frame[] = [];
  for await (const frame of frames(upload!.uploadId, segment!)) all.push(frame);
  async function* of<T>(...list: T[]) {
    yield* list;
  }
  const send = (...list: Frame[]) => uploads.writeSegment(of(...list), auth(t));
  const invalid = async (call: Promise<unknown>) =>
    await failing(t, Code.InvalidArgument, "SEGMENT_FRAMES_INVALID", call);
  await invalid(send(all[1]!, all[0]!));
  await invalid(send());
  await invalid(send(all[0]!, all[1]!, all[0]!));
  const big = (size: number) => ({ frame: { case: "chunk" as const, value: new Uint8Array(size) } });
  await invalid(send(all[0]!, big(MIB + 1)));
  await invalid(send(all[0]!, big(3 * MIB)));
  await invalid(send(all[0]!, big(0)));
  async function* silent() {
    yield all[0]!;
    yield all[1]!;
    await new Promise((resolve) => setTimeout(resolve, 60_000).unref());
  }
  await failing(t, Code.DeadlineExceeded, "SEGMENT_IDLE", uploads.writeSegment(silent(), auth(t)));
  t.is((await uploads.getUpload({ uploadId: upload!.uploadId }, auth(t))).segments.length, 0);
  await send(...all);
  t.is((await uploads.getUpload({ uploadId: upload!.uploadId }, auth(t))).segments.length, 1);
});

test("a connection cut in the middle of a segment leaves the upload open, and the server goes on", async (t) => {
  const spec = add(t);
  const uploads = uploadsOf(t);
  const { upload } = await uploads.createUpload({ collection: spec.name }, auth(t));
  const [segment] = cutSegments(openpgpMessage(900_000), MIB);
  const socket = net.connect(t.context.server.listener.port, "127.0.0.1");
  const session = http2.connect(t.context.server.url, { createConnection: () => socket });
  session.on("error", () => {});
  const own = createClient(
    UploadService,
    createConnectTransport({
      baseUrl: t.context.server.url,
      httpVersion: "2",
      sessionManager: {
        authority: t.context.server.url,
        request: async (method: string, path: string, headers: http2.OutgoingHttpHeaders) =>
          session.request({ ...headers, ":method": method, ":path": path }),
        notifyResponseByteRead() {},
      } as never,
    }),
  );
  async function* cut() {
    let sent = 0;
    for await (const frame of frames(upload!.uploadId, segment!)) {
      if (sent++ === 3) {
        socket.destroy();
        return;
      }
      yield frame;
    }
  }
  await t.throwsAsync(own.writeSegment(cut(), auth(t)));
  t.is((await uploads.getUpload({ uploadId: upload!.uploadId }, auth(t))).upload!.state, 1);
  await uploads.writeSegment(frames(upload!.uploadId, segment!), auth(t));
  t.is((await uploads.getUpload({ uploadId: upload!.uploadId }, auth(t))).segments.length, 1);
});

test("expired, revoked and foreign tokens have one answer; login failures too", async (t) => {
  const transport = createConnectTransport({ baseUrl: t.context.server.url, httpVersion: "2" });
  const sessions = createClient(SessionService, transport);
  const { token, session } = await sessions.login({
    username: "admin",
    password: "right password",
    description: "to be revoked",
  });
  const own = { headers: { authorization: `Bearer ${token}` } };
  t.is((await sessions.whoAmI({}, own)).session!.description, "to be revoked");
  await sessions.revokeSession({ sessionId: session!.sessionId }, auth(t));
  const revoked = await failing(t, Code.Unauthenticated, "SESSION_INVALID", sessions.whoAmI({}, own));
  const forged = `${token.slice(0, -4)}AAAA`;
  const other = await failing(
    t,
    Code.Unauthenticated,
    "SESSION_INVALID",
    sessions.whoAmI({}, { headers: { authorization: `Bearer ${forged}` } }),
  );
  t.is(revoked.rawMessage, other.rawMessage);
  const wrong = await failing(
    t,
    Code.Unauthenticated,
    "CREDENTIALS_INVALID",
    sessions.login({ username: "admin", password: "wrong" }),
  );
  const unknown = await failing(
    t,
    Code.Unauthenticated,
    "CREDENTIALS_INVALID",
    sessions.login({ username: "nobody", password: "wrong" }),
  );
  t.is(wrong.rawMessage, unknown.rawMessage);
});

test("versions, uploads and health name the time zone of the collection, also in refusals", async (t) => {
  const timezone = "Europe/Warsaw";
  const spec = add(t, { timezone, minRetentionMs: 3_600_000, maxParallelUploads: 2 });
  const transport = createConnectTransport({ baseUrl: t.context.server.url, httpVersion: "1.1" });
  const uploads = createClient(UploadService, transport);
  const versions = createClient(VersionService, transport);
  const { upload } = await uploads.createUpload({ collection: spec.name }, auth(t));
  t.is(upload!.timezone, timezone);
  t.is((await uploads.getUpload({ uploadId: upload!.uploadId }, auth(t))).upload!.timezone, timezone);
  t.is((await uploads.listUploads({ collection: spec.name }, auth(t))).uploads[0]!.timezone, timezone);
  const message = openpgpMessage(1000);
  const segments = cutSegments(message, Number(upload!.segmentSizeBytes));
  for (const segment of segments) await uploads.writeSegment(frames(upload!.uploadId, segment), auth(t));
  const { version } = await uploads.commitUpload(
    { uploadId: upload!.uploadId, sizeBytes: BigInt(message.length), compositeSha256: compositeOf(segments) },
    auth(t),
  );
  const held = await versions.holdVersion({ collection: spec.name, number: 1n, reason: "evidence" }, auth(t));
  t.is(held.version!.timezone, timezone);
  await versions.releaseVersion({ collection: spec.name, number: 1n }, auth(t));
  const listed = await versions.listVersions({ collection: spec.name }, auth(t));
  t.deepEqual([version!.timezone, listed.versions[0]!.timezone], [timezone, timezone]);
  const collections = createClient(CollectionService, transport);
  t.is((await collections.getCollectionHealth({ collection: spec.name }, auth(t))).timezone, timezone);
  const refused = await failing(
    t,
    Code.FailedPrecondition,
    "VERSION_PROTECTED",
    versions.deleteVersion({ collection: spec.name, number: 1n }, auth(t)),
  );
  t.regex(refused.rawMessage, /protected until \d{4}-\d\d-\d\d \d\d:\d\d \+0[12]:00;/);
  t.is(refused.findDetails(ErrorInfoSchema)[0]!.metadata.timezone, timezone);
});

test("health by secret needs no session; a wrong secret and an unknown collection have the same answer", async (t) => {
  const secret = "monitoring secret";
  const spec = add(t, { healthSecretSha256: createHash("sha256").update(secret).digest("hex") });
  const open = add(t);
  const transport = createConnectTransport({ baseUrl: t.context.server.url, httpVersion: "1.1" });
  const collections = createClient(CollectionService, transport);
  const by = (value: string) => ({ headers: { "strongroom-health-secret": value } });
  t.is((await collections.getCollectionHealth({ collection: spec.name }, by(secret))).checks.length, 6);
  for (const [name, given] of [
    [spec.name, "wrong"],
    [open.name, secret],
    ["no-such", secret],
  ] as const) {
    await failing(
      t,
      Code.NotFound,
      "COLLECTION_NOT_FOUND",
      collections.getCollectionHealth({ collection: name }, by(given)),
    );
  }
  await failing(
    t,
    Code.Unauthenticated,
    "AUTHENTICATION_REQUIRED",
    collections.getCollectionHealth({ collection: spec.name }),
  );
  await failing(
    t,
    Code.Unauthenticated,
    "AUTHENTICATION_REQUIRED",
    collections.getCollection({ collection: spec.name }, by(secret)),
  );
});

test("the listener gives large windows from the first authenticated call on, and survives garbage", async (t) => {
  const { port } = t.context.server.listener;
  const session = http2.connect(t.context.server.url);
  const settings = async () => await new Promise<http2.Settings>((resolve) => session.once("remoteSettings", resolve));
  t.is((await settings()).initialWindowSize, 65_535);
  const raised = settings();
  const call = session.request({
    ":method": "POST",
    ":path": "/strongroom.v1.SessionService/WhoAmI",
    "content-type": "application/json",
    authorization: `Bearer ${t.context.token}`,
  });
  call.resume().end("{}");
  t.is((await raised).initialWindowSize, 2 * MIB);
  // What the server sent before the answer to a ping has arrived with it.
  await new Promise((resolve) => session.ping(resolve));
  // Less the body of the call.
  const { remoteWindowSize = 0 } = session.state;
  t.true(remoteWindowSize >= 4 * MIB - 2, `connection window: ${remoteWindowSize}`);
  session.destroy();
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {}).resume();
  socket.end("garbage\r\n\r\n");
  await new Promise((resolve) => socket.once("close", resolve));
  const slow = net.connect(port, "127.0.0.1");
  slow.on("error", () => {});
  let answer = "";
  slow.on("data", (data) => {
    answer += data;
  });
  for (const piece of [
    "P",
    "OS",
    "T /grpc.health.v1.Health/Check HTTP/1.1\r\n",
    "host: x\r\ncontent-type: application/json\r\n",
  ]) {
    slow.write(piece);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  slow.end("content-length: 2\r\nconnection: close\r\n\r\n{}");
  await new Promise((resolve) => slow.once("close", resolve));
  t.regex(answer, /SERVING/);
  const half = net.connect(port, "127.0.0.1", () => half.end("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense"));
  half.on("error", () => {}).resume();
  await new Promise((resolve) => half.once("close", resolve));
  const transport = createConnectTransport({ baseUrl: t.context.server.url, httpVersion: "1.1" });
  t.is((await createClient(Health, transport).check({})).status, Status.SERVING);
});

test("requests that name no host the adapter understands are refused, and the server goes on", async (t) => {
  const { port } = t.context.server.listener;
  const path = "/strongroom.v1.SessionService/Login";
  for (const request of [
    `POST ${path} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}`,
    `POST ${path} HTTP/1.1\r\nhost: a b\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}`,
    `POST ${path} HTTP/1.1\r\nhost: [::\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}`,
  ]) {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => {}).resume();
    socket.end(request);
    await new Promise((resolve) => socket.once("close", resolve));
  }
  for (const authority of ["[::", "a:99999999"]) {
    const session = http2.connect(t.context.server.url);
    session.on("error", () => {});
    const stream = session.request({ ":method": "POST", ":path": path, ":authority": authority });
    stream.on("error", () => {}).resume();
    stream.end("{}");
    await new Promise((resolve) => stream.once("close", resolve));
    session.destroy();
  }
  const transport = createConnectTransport({ baseUrl: t.context.server.url, httpVersion: "2" });
  t.is((await createClient(Health, transport).check({})).status, Status.SERVING);
});

test("an own request id comes back; an unfit one is replaced", async (t) => {
  const ask = async (id: string) => {
    const res = await fetch(`${t.context.server.url}/grpc.health.v1.Health/Check`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-request-id": id },
      body: "{}",
    });
    return res.headers.get("x-request-id");
  };
  t.is(await ask("run-42"), "run-42");
  t.not(await ask("a b"), "a b");
});

/**
 * What holds for every call over the network, whatever door it uses: bounds before the body, one log line, error texts,
 * compression, cross-origin calls.
 */
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, createContextValues, type Transport } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { ErrorInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { Health } from "@strongroom/gen/grpc/health/v1/health_pb";
import { ServerReflection } from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers, requirePeer } from "@strongroom/testkit/peers/programs";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { processBudgets } from "../src/calls/budgets.ts";
import { beginCall } from "../src/calls/call.ts";
import { Calls, type CallsDeps } from "../src/calls/calls.ts";
import { CallRefused } from "../src/calls/codes.ts";
import { NO_LIMITS } from "../src/domain/rate-limit.ts";
import { CALL, callInterceptor } from "../src/transport/connect-calls.ts";
import { listen } from "../src/transport/listener.ts";
import { wholeBody } from "../src/transport/request-body.ts";
import { collection, MIB, TestClock, user } from "./support/harness.ts";
import { bearer, type LiveOptions, LiveServer, reasonOf } from "./support/live-server.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";
import { parseMetrics } from "./support/prometheus-text.ts";

const KIB = 1024;
const LOGIN = "/strongroom.v1.SessionService/Login";
const LIMITED = { count: 3, perMs: 3_600_000 };

interface Line {
  readonly msg: string;
  readonly request_id: string;
  readonly door: string;
  readonly method: string;
  readonly code: string;
}

/** The reason in an error of the Connect protocol in JSON. */
function reasonIn(json: unknown): string | undefined {
  const { details = [] } = json as { details?: readonly { type: string; value: string }[] };
  const info = details.find(({ type }) => type === "google.rpc.ErrorInfo");
  return info && fromBinary(ErrorInfoSchema, Buffer.from(info.value, "base64")).reason;
}

const test = (anyTest as TestFn<{ database: SqlDatabase }>).serial;

test.before(async (t) => {
  // At the time of each server's own clock, which no test here moves.
  const { now } = new TestClock();
  t.context.database = await openMemoryDatabase(() => now);
});
test.after.always(async (t) => await t.context.database?.close());

/** A server with what it logged, on the database that all tests here share. */
async function open(t: ExecutionContext<{ database: SqlDatabase }>, options: LiveOptions = {}) {
  const lines: string[] = [];
  const admin = user("admin", { roles: ["systemAdmin"], passwordHash: "hash of right" });
  const { database } = t.context;
  await database.query(sql`truncate login_budgets`);
  // The other tests' uploads are not in the way of this one's.
  const spec = collection("db", { maxParallelUploads: 50 });
  const live = await LiveServer.open([admin], [spec], {
    ...options,
    database,
    log: (line) => void lines.push(line),
  });
  t.teardown(async () => await live.close());
  const calls = () =>
    lines.map((line) => JSON.parse(line) as Line).filter(({ msg }) => msg === "call" || msg.startsWith("call: "));
  return { live, url: live.server.url, lines, calls };
}

async function post(url: string, path: string, body: string | Uint8Array, headers: Record<string, string> = {}) {
  const res = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: body as NonNullable<RequestInit["body"]>,
  });
  const text = await res.text();
  return { status: res.status, headers: res.headers, text, json: text.startsWith("{") ? JSON.parse(text) : undefined };
}

/** Sends headers and a part of a body over HTTP/2, never its end. @returns the answer */
async function unfinished(t: ExecutionContext, url: string, path: string, body: Uint8Array, headers = {}) {
  const session = http2.connect(url);
  session.on("error", () => {});
  t.teardown(() => session.destroy());
  const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/json", ...headers });
  stream.on("error", () => {});
  if (body.length > 0) stream.write(body);
  const status = await new Promise<number>((resolve, reject) => {
    stream.once("response", (head) => resolve(Number(head[":status"])));
    stream.once("close", () => reject(new Error("closed without an answer")));
  });
  let text = "";
  for await (const piece of stream.setEncoding("utf8")) text += piece;
  return { status, json: JSON.parse(text) as { code: string; message: string } };
}

const PROTOCOLS: readonly [door: string, make: (baseUrl: string) => Transport][] = [
  ["connect", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" })],
  ["grpc", (baseUrl) => createGrpcTransport({ baseUrl })],
  ["grpc-web", (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
];

test("refusals by headers are answered before the body: no session, and no budget left", async (t) => {
  const { url } = await open(t, { rateLimits: { login: LIMITED, health: undefined, requests: undefined } });
  const part = Buffer.from('{"username": "');
  const create = await unfinished(t, url, "/strongroom.v1.UploadService/CreateUpload", part);
  t.like(create, { status: 401, json: { code: "unauthenticated" } });
  for (let i = 0; i < LIMITED.count; i++) t.is((await post(url, LOGIN, '{"username":"x"}')).status, 401);
  const login = await unfinished(t, url, LOGIN, part);
  t.like(login, { status: 429, json: { code: "resource_exhausted" } });
  const packed = await unfinished(t, url, "/strongroom.v1.SessionService/WhoAmI", Buffer.alloc(0), {
    "content-encoding": "br",
  });
  t.is(packed.status, 401, "who calls is asked first");
});

test("malformed logins count as failed, whatever is wrong with them", async (t) => {
  const limit = { count: 6, perMs: 3_600_000 };
  const { url } = await open(t, { rateLimits: { login: limit, health: undefined, requests: undefined } });
  const right = JSON.stringify({ username: "admin", password: "right" });
  for (let i = 0; i < 10; i++) t.is((await post(url, LOGIN, right)).status, 200, "what succeeds costs nothing");
  const malformed: [body: string | Uint8Array, status: number, headers?: Record<string, string>][] = [
    ["{", 400],
    ['{"usrname":"admin"}', 400],
    ['{"username":""}', 400],
    [`{"username":"${"x".repeat(17 * KIB)}"}`, 429],
    [Buffer.from([0xff, 0xff]), 400, { "content-type": "application/proto" }],
    ["no gzip", 400, { "content-encoding": "gzip" }],
  ];
  for (const [body, status, headers] of malformed) t.is((await post(url, LOGIN, body, headers)).status, status);
  const login = await post(url, LOGIN, right);
  t.is(login.status, 429);
  t.regex(login.json.message, /too many failed logins/);
});

test("a body has a largest size, and a message that is larger is answered over both protocols", async (t) => {
  const { live, url } = await open(t);
  const { token } = await live.session("admin");
  const login = (size: number) => {
    const empty = JSON.stringify({ username: "admin", password: "right", description: "" });
    return empty.replace(/""/, `"${" ".repeat(size - empty.length)}"`);
  };
  t.regex((await post(url, LOGIN, login(16 * KIB))).json.message, /^description: expected at most 255/);
  t.is((await post(url, LOGIN, login(16 * KIB + 1))).status, 429);
  t.is((await post(url, LOGIN, login(4_000_000))).status, 429);
  for (const version of ["--http1.1", "--http2-prior-knowledge"]) {
    if (!hasPeers(t, "curl")) break;
    for (const more of [[], ["-H", "Transfer-Encoding: chunked"]]) {
      if (version !== "--http1.1" && more.length > 0) continue;
      const flags = [
        version,
        ...more,
        "-sS",
        "-m",
        "20",
        "-H",
        "Content-Type: application/json",
        "--data-binary",
        "@-",
      ];
      const curl = await run("curl", [...flags, "-w", "\n%{http_code}", url + LOGIN], { input: login(4_000_000) });
      const [json = "", status] = curl.stdout.toString().split("\n");
      t.is(status, "429", `${version} ${more.join(" ")}: ${curl.stderr}`);
      t.is(JSON.parse(json).code, "resource_exhausted");
      t.regex(JSON.parse(json).message, /^expected at most \d+ bytes in .* of this call, got /);
    }
  }
  const auth = { authorization: `Bearer ${token}` };
  const who = "/strongroom.v1.SessionService/WhoAmI";
  t.is((await post(url, who, `{}${" ".repeat(64 * KIB - 2)}`, auth)).status, 200);
  t.is((await post(url, who, `{}${" ".repeat(64 * KIB - 1)}`, auth)).status, 429);
  const create = "/strongroom.v1.UploadService/CreateUpload";
  const request = '{"collection":"db"}';
  t.is((await post(url, create, request + " ".repeat(256 * KIB - request.length), auth)).status, 200);
  t.is((await post(url, create, request + " ".repeat(256 * KIB - request.length + 1), auth)).status, 429);
  for (const [name, make] of PROTOCOLS) {
    const sessions = createClient(SessionService, make(url));
    const error = (await t.throwsAsync(
      sessions.login({ username: "x".repeat(17 * KIB), password: "right" }),
    )) as ConnectError;
    t.is(error.code, Code.ResourceExhausted, name);
    t.is(error.findDetails(ErrorInfoSchema)[0]?.reason, "CALL_TOO_LARGE", name);
  }
});

test("a body that does not come to its end in time is refused, and so is one that breaks off", async (t) => {
  const outcomes: unknown[] = [];
  const handler: Parameters<typeof listen>[0] = async (req, res) => {
    const withinMs = req.url === "/slow" ? 50 : 60_000;
    try {
      let read = 0;
      for await (const piece of wholeBody(req, { most: 1000, withinMs }, () => {})) read += piece.length;
      outcomes.push(read);
    } catch (error) {
      outcomes.push(error);
    }
    res.end("answered");
  };
  const listener = await listen(handler, "127.0.0.1", 0);
  t.teardown(() => listener.stop(0, () => {}));
  const { port } = listener;
  const options = { port, method: "POST", headers: { "content-length": 20 } };
  // One byte at a time, never all of them.
  const slow = http.request({ ...options, path: "/slow" });
  slow.on("error", () => {});
  slow.write("x");
  const drip = setInterval(() => slow.write("x"), 20);
  const [answer] = await new Promise<http.IncomingMessage[]>((resolve) =>
    slow.once("response", (res) => resolve([res])),
  );
  clearInterval(drip);
  t.is(answer!.statusCode, 200);
  const error = outcomes.pop() as CallRefused;
  t.true(error instanceof CallRefused);
  t.is(error.code, "deadline_exceeded");
  slow.destroy();
  const broken = http.request({ ...options, path: "/broken" });
  broken.on("error", () => {});
  broken.write("x", () => setTimeout(() => broken.destroy(), 20));
  while (outcomes.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  t.is((outcomes.pop() as Error).name, "BodyBrokenError");
  const whole = await fetch(`http://127.0.0.1:${port}/whole`, { method: "POST", body: "x".repeat(1000) });
  t.is(await whole.text(), "answered");
  t.is(outcomes.pop(), 1000);
});

/** The longest line of a call, in characters. What the server says at its start is nobody's doing. */
const longestOf = (lines: readonly string[]) =>
  Math.max(...lines.filter((line) => line.includes('"request_id"')).map((line) => line.length));

for (const [door, make] of PROTOCOLS) {
  test(`${door}: error texts and log lines are one bounded line, whatever the caller sent`, async (t) => {
    const { url, lines, calls } = await open(t);
    const health = createClient(Health, make(url));
    const service = `a\nb\u2028${"x".repeat(60_000)}`;
    const error = (await t.throwsAsync(health.check({ service }))) as ConnectError;
    t.is(error.code, Code.NotFound);
    t.true(error.rawMessage.startsWith("unknown service a b x"), error.rawMessage.slice(0, 100));
    t.true(error.rawMessage.length <= 1000, String(error.rawMessage.length));
    const [call] = calls();
    t.like(call, { door, method: "grpc.health.v1.Health/Check", code: "not_found" });
    t.true(longestOf(lines) < 1000);
    // Streams have other ends than unary calls.
    const [stream] = [createClient(UploadService, make(url))];
    const long = `${"y".repeat(8000)}`;
    async function* none() {}
    const refused = stream.writeSegment(none(), { headers: { authorization: `Bearer ${long}`, "x-request-id": long } });
    t.is(await reasonOf(refused), "AUTHENTICATION_REQUIRED");
    t.like(calls()[1], { door, method: "strongroom.v1.UploadService/WriteSegment", code: "unauthenticated" });
    t.true(longestOf(lines) < 1000);
  });
}

test("what cannot be parsed is named in one bounded line, and is the caller's mistake in all protocols", async (t) => {
  const { url, lines } = await open(t);
  const health = "/grpc.health.v1.Health/Check";
  const unknown = await post(url, health, JSON.stringify({ [`k${"\n".repeat(30_000)}`]: 1 }));
  t.is(unknown.status, 400);
  t.true(unknown.json.message.length <= 1000);
  t.notRegex(unknown.json.message, /[\n\r]/);
  const binary = await post(url, health, Buffer.from([0xff]), { "content-type": "application/proto" });
  t.is(binary.status, 400);
  t.is(binary.json.code, "invalid_argument");
  for (const { json } of [unknown, binary]) t.is(reasonIn(json), "CALL_MALFORMED");
  const web = Buffer.from([0, 0, 0, 0, 1, 0xff]);
  const { text } = await post(url, health, web, { "content-type": "application/grpc-web+proto" });
  t.regex(text, /grpc-status: 3\r\n/);
  t.regex(text, /grpc-status-details-bin: /);
  t.true(Math.max(...lines.map((line) => line.length)) < 1500);
});

test("Connect of another version, and a timeout that is over before it begins, are refused", async (t) => {
  const { url } = await open(t);
  const health = "/grpc.health.v1.Health/Check";
  for (const [name, value, status] of [
    ["connect-protocol-version", "1", 200],
    ["connect-protocol-version", "2", 400],
    ["connect-protocol-version", "", 400],
    ["connect-timeout-ms", "60000", 200],
    ["connect-timeout-ms", "0", 400],
    ["connect-timeout-ms", "000", 400],
    ["connect-timeout-ms", "soon", 400],
  ] as const) {
    const answer = await post(url, health, "{}", { [name]: value });
    t.is(answer.status, status, `${name}: ${value}`);
    if (status === 400) t.is(answer.json.code, "invalid_argument");
  }
  // Other protocols may carry the header as they like.
  const web = Buffer.from([0, 0, 0, 0, 0]);
  const headers = { "content-type": "application/grpc-web+proto", "connect-protocol-version": "2" };
  t.regex((await post(url, health, web, headers)).text, /grpc-status: 0\r\n/);
});

test("what is no call has a reason, and the whole URL may stand in the place of the path", async (t) => {
  const { url } = await open(t);
  const who = `${url}/strongroom.v1.SessionService/WhoAmI`;
  for (const [path, init] of [
    [`${url}/nowhere`, { method: "POST" }],
    [who, {}],
    [who, { method: "POST", body: "x" }],
  ] as const)
    t.is(reasonIn(await (await fetch(path, init)).json()), "CALL_UNKNOWN");
  const health = "/grpc.health.v1.Health/Check";
  const { hostname, port } = new URL(url);
  for (const [path, host] of [
    [url + health, "elsewhere"],
    [`http://strongroom.example.org${health}`, "elsewhere"],
    [health, "elsewhere"],
  ] as const) {
    const status = await new Promise((resolve, reject) => {
      const headers = { host, "content-type": "application/json" };
      const req = http.request({ hostname, port, method: "POST", path, headers }, (res) => {
        res.resume();
        resolve(res.statusCode);
      });
      req.on("error", reject).end("{}");
    });
    t.is(status, 200, path);
  }
});

test("every question of a reflection stream draws from the budget", async (t) => {
  const { live } = await open(t, { rateLimits: { login: undefined, health: undefined, requests: LIMITED } });
  async function* questions() {
    for (let i = 0; i < 10; i++) yield { messageRequest: { case: "listServices" as const, value: "" } };
  }
  let answers = 0;
  const error = await t.throwsAsync(async () => {
    for await (const answer of live.clients.reflectionV1.serverReflectionInfo(questions())) {
      t.is(answer.messageResponse.case, "listServicesResponse");
      answers++;
    }
  });
  t.is((error as ConnectError).code, Code.ResourceExhausted);
  t.is(answers, LIMITED.count);
  t.is(await reasonOf(live.clients.sessions.whoAmI({})), "RATE_LIMITED");
});

test("every message of a health stream draws from the budget", async (t) => {
  const budgets = processBudgets({ ...NO_LIMITS, health: LIMITED });
  const calls = new Calls({ budgets } as unknown as CallsDeps);
  const method = "grpc.health.v1.Health/Watch";
  const call = beginCall({ door: "grpc", method, address: "192.0.2.1", requestId: undefined });
  calls.draw(call);
  async function* changes() {
    for (;;) yield { status: 1 };
  }
  const contextValues = createContextValues().set(CALL, { call, bodyBytes: 0, admitted() {}, wasAsked: true });
  const req = { stream: true, method: Health.method.watch, message: changes(), contextValues };
  const next = async () => ({ stream: true, message: changes() });
  const res = await callInterceptor(calls, undefined)(next as never)(req as never);
  let sent = 0;
  await t.throwsAsync(
    async () => {
      for await (const _ of res.message as AsyncIterable<unknown>) sent++;
    },
    { instanceOf: ConnectError },
  );
  t.is(sent, LIMITED.count);
});

test("every door writes one line with the request id of its answer, and counts", async (t) => {
  const secret = "s3cret";
  const monitoringSecretSha256 = createHash("sha256").update(secret).digest("hex");
  const { url, calls } = await open(t, { monitoringSecretSha256 });
  const idOf = async (path: string, init: RequestInit = {}) => {
    const res = await fetch(url + path, init);
    await res.arrayBuffer();
    return res.headers.get("x-request-id");
  };
  const json = { "content-type": "application/json" };
  const who = "/strongroom.v1.SessionService/WhoAmI";
  const expected: [door: string, method: string, code: string, id: string | null][] = [
    ["http", "/health", "ok", await idOf("/health?code=hidden")],
    ["http", "/ready", "unauthenticated", await idOf("/ready?code=hidden")],
    ["http", "/health", "unimplemented", await idOf("/health", { method: "POST" })],
    ["http", "OPTIONS", "unimplemented", await idOf(who, { method: "OPTIONS" })],
    ["connect", "nowhere/at all", "unimplemented", await idOf("/nowhere/at%20all?code=hidden")],
    ["connect", who.slice(1), "unimplemented", await idOf(who)],
    [
      "connect",
      who.slice(1),
      "unimplemented",
      await idOf(who, { method: "POST", headers: { "content-type": "text/plain" }, body: "x" }),
    ],
    ["connect", who.slice(1), "unauthenticated", await idOf(who, { method: "POST", headers: json, body: "{}" })],
    ["connect", LOGIN.slice(1), "invalid_argument", await idOf(LOGIN, { method: "POST", headers: json, body: "{" })],
    [
      "grpc-web",
      "grpc.health.v1.Health/Check",
      "ok",
      await idOf("/grpc.health.v1.Health/Check", {
        method: "POST",
        headers: { "content-type": "application/grpc-web+proto" },
        body: Buffer.alloc(5),
      }),
    ],
  ];
  const lines = calls();
  t.deepEqual(
    lines.map(({ door, method, code, request_id }) => [door, method.replace("%20", " "), code, request_id]),
    expected,
  );
  t.false(JSON.stringify(lines).includes("hidden"));
  const metrics = parseMetrics(await (await fetch(`${url}/metrics?code=${secret}`)).text());
  const count = (method: string, code: string) => metrics.value("strongroom_requests_total", { method, code });
  t.is(count("/health", "ok"), 1);
  t.is(count("/ready", "unauthenticated"), 1);
  t.is(count("other", "unimplemented"), 2, "what nobody serves has one label");
  t.is(count("SessionService/WhoAmI", "unimplemented"), 2);
  t.is(count("SessionService/Login", "invalid_argument"), 1);
});

test("what is no call draws from the budget of requests too", async (t) => {
  const { url } = await open(t, { rateLimits: { login: undefined, health: undefined, requests: LIMITED } });
  const who = `${url}/strongroom.v1.SessionService/WhoAmI`;
  const status = async (path: string, init: RequestInit = {}) => (await fetch(path, init)).status;
  t.is(await status(`${url}/nowhere`), 404);
  const got = await fetch(who);
  t.is(got.status, 405);
  t.is(got.headers.get("allow"), "POST");
  t.is(await status(who, { method: "POST", body: "x" }), 415);
  const refused = await fetch(`${url}/nowhere`);
  t.is(refused.status, 429);
  t.true(Number(refused.headers.get("retry-after")) > 0);
  t.is(await status(who), 429);
  t.is(await status(who, { method: "OPTIONS" }), 429);
  t.is(await status(`${url}/health`), 200);
});

test("unary requests in gzip are bounded unpacked, answers stay plain, streams are refused", async (t) => {
  const { live, url } = await open(t);
  const { token } = await live.session("admin");
  const right = JSON.stringify({ username: "admin", password: "right" });
  const gzip = { "content-encoding": "gzip", "accept-encoding": "gzip" };
  const login = await post(url, LOGIN, gzipSync(right), gzip);
  t.is(login.status, 200);
  t.is(login.headers.get("content-encoding"), null);
  const bomb = await post(url, LOGIN, gzipSync(right + " ".repeat(16 * KIB)), gzip);
  t.is(bomb.status, 429);
  t.regex(bomb.json.message, /^expected at most 16384 bytes in the body of this call, got more/);
  const brotli = await post(url, LOGIN, right, { "content-encoding": "br" });
  t.is(brotli.json.code, "unimplemented");
  t.regex(brotli.json.message, /got br; pack this call with gzip, or send it uncompressed/);
  const packing = { sendCompression: compressionGzip, acceptCompression: [compressionGzip], compressMinBytes: 0 };
  for (const [name, transport] of [
    ["connect", createConnectTransport({ baseUrl: url, httpVersion: "2", ...packing })],
    ["grpc", createGrpcTransport({ baseUrl: url, ...packing })],
    ["grpc-web", createGrpcWebTransport({ baseUrl: url, httpVersion: "2", ...packing })],
  ] as const) {
    const headers: Headers[] = [];
    const onHeader = (header: Headers) => void headers.push(header);
    const { session } = await createClient(SessionService, transport).whoAmI({}, { ...bearer(token), onHeader });
    t.is(session?.user, "admin", name);
    for (const encoding of ["content-encoding", "grpc-encoding"]) t.is(headers[0]!.get(encoding), null, name);
    async function* frames() {
      yield { frame: { case: "chunk" as const, value: new Uint8Array(100) } };
    }
    const refused = (error: unknown) => {
      t.is((error as ConnectError).code, Code.Unimplemented, name);
      t.regex((error as ConnectError).rawMessage, /got gzip; send this call uncompressed$/, name);
    };
    await createClient(UploadService, transport)
      .writeSegment(frames(), bearer(token))
      .then(() => t.fail(), refused);
    try {
      for await (const _ of createClient(ServerReflection, transport).serverReflectionInfo(
        (async function* () {
          yield {};
        })(),
      ))
        t.fail();
    } catch (error) {
      refused(error);
    }
  }
});

test("a frame that cannot be read is malformed, and no connection that broke off", async (t) => {
  const { live, url, calls } = await open(t);
  const { token } = await live.session("admin");
  const envelope = (flags: number, data: Uint8Array, announced = data.length) => {
    const head = Buffer.alloc(5);
    head[0] = flags;
    head.writeUInt32BE(announced, 1);
    return Buffer.concat([head, data]);
  };
  const packed = gzipSync(Buffer.alloc(100));
  const cases: [name: string, body: Uint8Array, message: RegExp][] = [
    ["compressed", envelope(1, packed), /expected a frame without compression, got a compressed one/],
    ["compressed, and cut", envelope(1, packed.subarray(0, 10)), /expected a frame without compression/],
    ["compressed, and its end missing", envelope(1, packed.subarray(0, 10), packed.length), /incomplete envelope/],
    ["no message", envelope(0, Buffer.from([0xff, 0xff, 0xff])), /a frame is malformed or too large/],
    ["cut", envelope(0, Buffer.alloc(3), 100), /incomplete envelope/],
    ["larger than it may be", envelope(0, Buffer.alloc(3), 2 ** 31), /a frame is malformed or too large/],
  ];
  const types = ["application/connect+proto", "application/grpc-web+proto"];
  for (const type of types) {
    for (const [name, body, message] of cases) {
      await post(url, "/strongroom.v1.UploadService/WriteSegment", body, {
        "content-type": type,
        authorization: `Bearer ${token}`,
      });
      const { code, msg, ...line } = calls().at(-1)!;
      t.is(code, "invalid_argument", `${type}: ${name}: ${msg} ${JSON.stringify(line)}`);
      t.regex(JSON.stringify(calls().at(-1)), message, `${type}: ${name}`);
    }
  }
});

test("connectrpc of Python works as it is out of the box", async (t) => {
  if (!hasPeers(t, "python-grpc-tools-protoc")) return;
  const python = join(requirePeer("python-grpc-tools-protoc"), "..", "python3");
  const folder = await mkdtemp(join(tmpdir(), "strongroom-doors-"));
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const init = await run(STRONGROOM, ["init", "--data", folder]);
  const password = /^ +password +(\S+)$/m.exec(init.stdout.toString())![1]!;
  const server = await startServerProcess(["--data", folder]);
  t.teardown(async () => await server.end("SIGTERM"));
  const script = new URL("clients-python/connectrpc_client.py", import.meta.url).pathname;
  const descriptors = new URL("../../gen/src/strongroom.binpb", import.meta.url).pathname;
  const outcome = await run(python, [script, server.url, descriptors], { input: password });
  t.is(outcome.code, 0, outcome.stderr);
  const { user: name, refused } = JSON.parse(outcome.stdout.toString());
  t.is(name, "admin");
  t.is(refused.code, "unimplemented");
  t.regex(refused.message, /send this call uncompressed/);
});

test("a chunk of the largest size is accepted in JSON too, and a larger one is refused", async (t) => {
  const { live, url } = await open(t);
  const { token } = await live.session("admin");
  const { upload } = await live.clients.uploads.createUpload({ collection: "db" }, bearer(token));
  const [segment] = cutSegments(openpgpMessage(MIB), MIB);
  const envelope = (message: unknown) => {
    const json = Buffer.from(JSON.stringify(message));
    const head = Buffer.alloc(5);
    head.writeUInt32BE(json.length, 1);
    return Buffer.concat([head, json]);
  };
  const send = async (bytes: Uint8Array, chunk = bytes) => {
    const header = {
      uploadId: upload!.uploadId,
      index: 0,
      sizeBytes: String(bytes.length),
      sha256: createHash("sha256").update(bytes).digest("base64"),
    };
    const frames = [envelope({ header }), envelope({ chunk: Buffer.from(chunk).toString("base64") })];
    const { text } = await post(url, "/strongroom.v1.UploadService/WriteSegment", Buffer.concat(frames), {
      "content-type": "application/connect+json",
      authorization: `Bearer ${token}`,
    });
    return text;
  };
  const largest = segment!.bytes.subarray(0, MIB);
  t.regex(await send(largest, Buffer.alloc(MIB + 1)), /a chunk has 1048577 bytes/);
  const answer = await send(largest);
  t.regex(answer, /"segment":\{/, answer);
});

/** Calls one method with grpc-js as a client of others does: bytes in, bytes out. */
async function grpcJs(t: ExecutionContext, url: string, method: string, message: Uint8Array): Promise<ServiceError> {
  const client = new Client(new URL(url).host, credentials.createInsecure());
  t.teardown(() => client.close());
  return await new Promise<ServiceError>((resolve, reject) => {
    const bytes = (value: Uint8Array) => Buffer.from(value);
    client.makeUnaryRequest(method, bytes, bytes, message, new Metadata(), (error) =>
      error === null ? reject(new Error("expected a refusal")) : resolve(error),
    );
  });
}

test("grpc-js shows messages of errors unharmed", async (t) => {
  const { url } = await open(t);
  const service = Buffer.from("a, b: c; 100% of \u00fc (x)?");
  const error = await grpcJs(
    t,
    url,
    "/grpc.health.v1.Health/Check",
    Buffer.concat([Buffer.from([10, service.length]), service]),
  );
  t.is(error.details, "unknown service a, b: c; 100% of \u00fc (x)?");
});

test("unknown fields and names of enums in JSON are refused, with the message type and the key", async (t) => {
  const { live, url } = await open(t);
  const { token } = await live.session("admin");
  const create = async (body: object) =>
    await post(url, "/strongroom.v1.UploadService/CreateUpload", JSON.stringify(body), {
      authorization: `Bearer ${token}`,
    });
  const typo = await create({ collection: "db", requestid: "run-1" });
  t.is(typo.status, 400);
  t.regex(typo.json.message, /strongroom\.v1\.CreateUploadRequest\b.*"requestid"/);
  const name = await create({ collection: "db", contentEncoding: "CONTENT_ENCODING_FOO" });
  t.is(name.status, 400);
  t.regex(name.json.message, /ontent_?[eE]ncoding.*"CONTENT_ENCODING_FOO"/);
  const nested = await post(url, LOGIN, JSON.stringify({ username: "x", scope: [{ nme: "db" }] }));
  t.regex(nested.json.message, /strongroom\.v1\.\w+ .*"nme"/);
  t.is((await create({ collection: "db", request_id: "run-1" })).status, 200, "names as in the .proto file are fine");
});

test("pages of other origins may call only when the origin is named, and a preflight needs no login", async (t) => {
  const asks = (origin: string) => ({
    method: "OPTIONS",
    headers: {
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,content-type",
    },
  });
  const who = "/strongroom.v1.SessionService/WhoAmI";
  const off = await open(t);
  const none = await fetch(off.url + who, asks("https://console.example.org"));
  t.is(none.status, 405);
  t.is(none.headers.get("access-control-allow-origin"), null);

  const origin = "https://console.example.org";
  const { live, url } = await open(t, {
    corsOrigins: [origin],
    rateLimits: { ...NO_LIMITS, requests: { count: 4, perMs: 3_600_000 } },
  });
  const { token } = await live.session("admin");
  const preflight = await fetch(url + who, asks(origin));
  t.is(preflight.status, 204);
  t.is(preflight.headers.get("access-control-allow-origin"), origin);
  t.regex(preflight.headers.get("access-control-allow-headers")!, /\bAuthorization\b/);
  t.regex(preflight.headers.get("access-control-allow-methods")!, /\bPOST\b/);
  t.regex(preflight.headers.get("vary")!, /Origin/);
  const other = await fetch(url + who, asks("https://evil.example.org"));
  t.is(other.status, 405);
  t.is(other.headers.get("access-control-allow-origin"), null);
  const answer = await post(url, who, "{}", { origin, authorization: `Bearer ${token}` });
  t.is(answer.status, 200);
  t.is(answer.headers.get("access-control-allow-origin"), origin);
  t.regex(answer.headers.get("access-control-expose-headers")!, /x-request-id/);
  const refused = await post(url, who, "{}", { origin: "https://evil.example.org", authorization: `Bearer ${token}` });
  t.is(refused.headers.get("access-control-allow-origin"), null);
  t.is((await fetch(url + who, asks(origin))).status, 429, "preflights draw from the budget of requests");
});

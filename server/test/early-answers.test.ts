/**
 * Answers that come before a request's body has ended, to stock clients of others: a refused segment, and the repeat of
 * an acknowledged one. Each body is larger than what windows and kernels hold, so that a client is still sending when
 * the answer comes.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { WriteSegmentRequestSchema, WriteSegmentResponseSchema } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { cutSegments, openpgpMessage, type TestSegment } from "@strongroom/testkit/ciphertext";
import { buildGoProgram } from "@strongroom/testkit/peers/go";
import { startHaproxy } from "@strongroom/testkit/peers/haproxy";
import { findPeer, hasPeers, requirePeer } from "@strongroom/testkit/peers/programs";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { collection, MIB, SETTINGS, user } from "./support/harness.ts";
import { LiveServer } from "./support/live-server.ts";

interface Context {
  folder: string;
  live: LiveServer;
  token: string;
  /** The program of the Go clients; undefined without Go. */
  goClients: string | undefined;
  /** Bodies by what they lead to. */
  bodies: Record<Situation, Body>;
}

/** What leads to an early answer. */
type Situation = "refused" | "repeated";

/** The messages of one call. */
interface Body {
  readonly messages: readonly Uint8Array[];
  /** As `clients-go` reads them. */
  readonly framesFile: string;
  /** As the Connect protocol sends them. */
  readonly connectFile: string;
}

const test = anyTest as TestFn<Context>;
const METHOD = "strongroom.v1.UploadService/WriteSegment";
const SIZE = 16 * MIB;

/**
 * A client that never gets its answer is ended then, in milliseconds; each of these faults kept one waiting for 75 s or
 * without end.
 */
const HANGS_MS = 20_000;

const execute = promisify(execFile);

test.before(async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-early-"));
  const sizes = { maxOneVersionSize: BigInt(4 * SIZE), maxCollectionSize: BigInt(20 * SIZE) };
  const live = await LiveServer.open([user("admin", { roles: ["systemAdmin"] })], [collection("db", sizes)], {
    settings: { ...SETTINGS, leastSegmentSize: BigInt(SIZE) },
  });
  const { token } = await live.session("admin");
  const headers = { authorization: `Bearer ${token}` };
  const upload = (await live.clients.uploads.createUpload({ collection: "db" }, { headers })).upload!;
  const [segment] = cutSegments(openpgpMessage(SIZE), SIZE);
  const acknowledged = await framesOf(folder, "repeated", upload.uploadId, segment!);
  async function* requests() {
    yield* acknowledged.messages.map((message) => fromBinary(WriteSegmentRequestSchema, message));
  }
  await live.clients.uploads.writeSegment(requests(), { headers });
  const refused = await framesOf(folder, "refused", "no-such-upload", segment!);
  const goClients =
    findPeer("go") === undefined
      ? undefined
      : await buildGoProgram(fileURLToPath(new URL("clients-go", import.meta.url)), folder);
  t.context = { folder, live, token, goClients, bodies: { refused, repeated: acknowledged } };
});
test.after.always(async (t) => {
  await t.context.live?.close();
  if (t.context.folder !== undefined) await rm(t.context.folder, { recursive: true, force: true });
});

async function framesOf(folder: string, name: string, uploadId: string, segment: TestSegment): Promise<Body> {
  const { index, size, sha256, framingIn, bytes } = segment;
  const encode = (frame: MessageInitShape<typeof WriteSegmentRequestSchema>["frame"]) =>
    toBinary(WriteSegmentRequestSchema, create(WriteSegmentRequestSchema, { frame }));
  const messages = [encode({ case: "header", value: { uploadId, index, sizeBytes: size, sha256, framingIn } })];
  for (let at = 0; at < bytes.length; at += MIB)
    messages.push(encode({ case: "chunk", value: bytes.subarray(at, at + MIB) }));
  const lengthOf = (message: Uint8Array) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(message.length);
    return length;
  };
  const [framesFile, connectFile] = [join(folder, `${name}.frames`), join(folder, `${name}.connect`)];
  await writeFile(framesFile, Buffer.concat(messages.flatMap((message) => [lengthOf(message), message])));
  const enveloped = messages.flatMap((message) => [Buffer.of(0), lengthOf(message), message]);
  await writeFile(connectFile, Buffer.concat(enveloped));
  return { messages, framesFile, connectFile };
}

/** How a call ended, as a client tells it. */
interface Ended {
  /** Empty for an answer, else the code without underscores in lower case. */
  readonly code: string;
  readonly message: string;
  /** Types of the details of a refusal. */
  readonly details: readonly string[];
  /** The message of an answer. */
  readonly response: Uint8Array;
  readonly requestId: string;
}

/** The whole answer of each situation, wherever its protocol puts the parts. */
function isWhole(t: ExecutionContext<Context>, situation: Situation, ended: Ended): void {
  if (situation === "repeated") {
    t.is(ended.code, "", ended.message);
    const { segment } = fromBinary(WriteSegmentResponseSchema, ended.response);
    t.is(segment?.sizeBytes, BigInt(SIZE));
  } else {
    t.is(ended.code, "notfound", ended.message);
    t.regex(ended.message, /upload/);
    t.deepEqual(ended.details, ["google.rpc.ErrorInfo", "google.rpc.RequestInfo"]);
  }
  t.regex(ended.requestId, /^[\w-]{36}$/);
}

async function goClient(
  t: ExecutionContext<Context>,
  client: string,
  host: string,
  body: Body,
  calls = 2,
): Promise<Ended> {
  const { goClients, token } = t.context;
  const env = { ...process.env, TOKEN: token, CALLS: String(calls) };
  const { stdout } = await execute(goClients!, [client, host, METHOD, body.framesFile], { env, timeout: HANGS_MS });
  const ended = JSON.parse(stdout) as Ended & { response: string | null; details: string[] | null };
  return {
    ...ended,
    response: Buffer.from(ended.response ?? "", "base64"),
    details: (ended.details ?? []).map((type) => type.replace("type.googleapis.com/", "")),
  };
}

const hostOf = (t: ExecutionContext<Context>) => new URL(t.context.live.server.url).host;

for (const situation of ["refused", "repeated"] as const) {
  for (const client of ["grpc-go", "connect/2", "connect/1.1", "grpc/2", "grpcweb/2", "grpcweb/1.1"]) {
    const name = client === "grpc-go" ? client : `connect-go (${client})`;
    test.serial(`${situation}: ${name} gets the whole answer`, async (t) => {
      if (!hasPeers(t, "go")) return;
      isWhole(t, situation, await goClient(t, client, hostOf(t), t.context.bodies[situation]));
    });
  }

  test.serial(`${situation}: grpc-go through HAProxy, h2 to h2, gets the whole answer`, async (t) => {
    if (!hasPeers(t, "go", "haproxy")) return;
    const proxy = await startHaproxy(hostOf(t));
    t.teardown(async () => await proxy.remove());
    // One call after the other over one connection: the first must not leave anything that stalls the next.
    isWhole(t, situation, await goClient(t, "grpc-go", proxy.host, t.context.bodies[situation], 10));
  });

  for (const [version, flags] of [
    ["HTTP/2", ["--http2-prior-knowledge"]],
    ["HTTP/1.1", ["--http1.1", "-H", "Expect:"]],
    ["HTTP/1.1 that waits for 100 Continue", ["--http1.1", "-H", "Expect: 100-continue"]],
  ] as const) {
    test.serial(`${situation}: curl over ${version} gets the whole answer`, async (t) => {
      if (!hasPeers(t, "curl")) return;
      const { live, token, bodies } = t.context;
      const { stdout, code } = await runCurl([
        ...["-sS", "-D", "-", ...flags, "--data-binary", `@${bodies[situation].connectFile}`],
        ...["-H", "Content-Type: application/connect+proto", "-H", `Authorization: Bearer ${token}`],
        `${live.server.url}/${METHOD}`,
      ]);
      isWhole(t, situation, connectAnswer(stdout));
      // curl 7.88 prints the whole answer, and then takes it for an error that it could not send everything.
      if (version === "HTTP/2") t.true(code === 0 || code === 92, `curl ended with ${code}`);
      else t.is(code, 0);
    });
  }

  test.serial(`${situation}: grpc-js gets the whole answer`, async (t) => {
    const { token, bodies } = t.context;
    isWhole(t, situation, await grpcJs(hostOf(t), token, bodies[situation].messages));
  });
}

/** Runs curl, which is killed when it hangs. */
async function runCurl(args: readonly string[]): Promise<{ stdout: Buffer; code: number | null }> {
  const child = spawn(requirePeer("curl"), args, { stdio: ["ignore", "pipe", "ignore"], timeout: HANGS_MS });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  const [code] = (await once(child, "close")) as [number | null];
  return { stdout: Buffer.concat(chunks), code };
}

/** Heads and body of an answer of the Connect protocol to a stream, as `curl -D -` prints them. */
function connectAnswer(printed: Buffer): Ended {
  let rest = printed;
  let head = "";
  while (rest.subarray(0, 5).toString() === "HTTP/") {
    const end = rest.indexOf("\r\n\r\n") + 4;
    head = rest.subarray(0, end).toString();
    rest = rest.subarray(end);
  }
  let response: Uint8Array = Buffer.alloc(0);
  let end: { error?: { code: string; message: string; details: { type: string }[] }; metadata?: object } | undefined;
  while (rest.length > 0) {
    const message = rest.subarray(5, 5 + rest.readUInt32BE(1));
    if ((rest[0]! & 2) === 0) response = message;
    else end = JSON.parse(message.toString()) as typeof end;
    rest = rest.subarray(5 + message.length);
  }
  if (end === undefined) throw new Error(`expected the message that ends a stream, got ${printed.length} bytes`);
  const { code = "", message = "", details = [] } = end.error ?? {};
  const metadata = JSON.stringify(end.metadata ?? {});
  return {
    code: code.replaceAll("_", ""),
    message,
    details: details.map(({ type }) => type),
    response,
    requestId: (/^x-request-id: (\S+)/im.exec(head) ?? /"x-request-id":\["([^"]+)/.exec(metadata))?.[1] ?? "",
  };
}

/** A call of grpc-js, which waits for the stream to take each message. */
async function grpcJs(host: string, token: string, messages: readonly Uint8Array[]): Promise<Ended> {
  const client = new grpc.Client(host, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const same = (bytes: Buffer) => bytes;
  try {
    return await new Promise((resolve) => {
      let response: Buffer | undefined;
      let error: grpc.ServiceError | null = null;
      const deadline = Date.now() + HANGS_MS;
      const call = client.makeClientStreamRequest(
        `/${METHOD}`,
        same,
        same,
        metadata,
        { deadline },
        (failure, answer) => {
          error = failure;
          response = answer;
        },
      );
      let header: grpc.Metadata | undefined;
      call.on("metadata", (got: grpc.Metadata) => {
        header = got;
      });
      call.on("status", ({ code, details, metadata: trailer }: grpc.StatusObject) => {
        const status = trailer.get("grpc-status-details-bin")[0] as Buffer | undefined;
        const types = status?.toString("latin1").match(/google\.rpc\.\w+Info/g) ?? [];
        setImmediate(() =>
          resolve({
            code: error === null ? "" : grpc.status[code]!.replaceAll("_", "").toLowerCase(),
            message: details,
            details: types,
            response: response ?? new Uint8Array(),
            requestId: String(trailer.get("x-request-id")[0] ?? header?.get("x-request-id")[0] ?? ""),
          }),
        );
      });
      void (async () => {
        for (const message of messages) {
          await new Promise<void>((taken) => call.write(Buffer.from(message), () => taken()));
        }
        call.end();
      })();
    });
  } finally {
    client.close();
  }
}

test.serial(
  "a call that is refused by its headers is refused before its body is asked for by 100 Continue",
  async (t) => {
    const { live } = t.context;
    const req = http.request(`${live.server.url}/${METHOD}`, {
      method: "POST",
      headers: { "content-type": "application/connect+proto", expect: "100-continue", "content-length": 1000 },
    });
    let asked = 0;
    req.on("continue", () => asked++);
    req.on("error", () => {});
    req.flushHeaders();
    const res = await new Promise<http.IncomingMessage>((resolve) => req.once("response", resolve));
    const chunks: Buffer[] = [];
    for await (const chunk of res) chunks.push(chunk as Buffer);
    t.regex(Buffer.concat(chunks).toString(), /unauthenticated/);
    t.is(asked, 0);
    t.is(res.headers.connection, "close");
  },
);

test.serial("the same over HTTP/2", async (t) => {
  const session = http2.connect(t.context.live.server.url);
  t.teardown(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": `/${METHOD}`,
    "content-type": "application/connect+proto",
    expect: "100-continue",
  });
  let asked = 0;
  stream.on("continue", () => asked++);
  let text = "";
  for await (const chunk of stream) text += chunk;
  t.regex(text, /unauthenticated/);
  t.is(asked, 0);
});

test.serial("a body that is in when the answer comes leaves the connection open over HTTP/1.1", async (t) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.teardown(() => agent.destroy());
  const ports = new Set<number | undefined>();
  for (let nth = 0; nth < 3; nth++) {
    const req = http.request(`${t.context.live.server.url}/strongroom.v1.SessionService/WhoAmI`, {
      method: "POST",
      agent,
      headers: { "content-type": "application/json" },
    });
    req.end("{}");
    const res = await new Promise<http.IncomingMessage>((resolve, reject) => {
      req.once("response", resolve);
      req.once("error", reject);
    });
    ports.add(req.socket?.localPort);
    res.resume();
    await new Promise((resolve) => res.once("end", resolve));
    t.is(res.statusCode, 401);
  }
  t.is(ports.size, 1);
});

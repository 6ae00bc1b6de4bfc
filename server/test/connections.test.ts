/** Limits of connections: who makes room for whom, and that a server under a small limit of open files goes on. */
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { Authority } from "@strongroom/testkit/peers/certificates";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test, { type ExecutionContext } from "ava";
import { fileLimit } from "../src/adapters/process/file-limit.ts";
import { AddressSet } from "../src/domain/addresses.ts";
import { connectionLimits } from "../src/domain/connection-limits.ts";
import { connectionOf } from "../src/transport/connection.ts";
import { type ConnectionPressure, ConnectionTable } from "../src/transport/connection-table.ts";
import { type Listener, type ListenOptions, listen, type RequestHandler } from "../src/transport/listener.ts";
import { MIB } from "./support/harness.ts";

test("connections get half of the open files, one holder a quarter of that; a quarter is left for the rest", (t) => {
  t.deepEqual(connectionLimits(400, undefined, undefined), { total: 200, perHolder: 50 });
  t.deepEqual(connectionLimits(1_000_000, undefined, undefined), { total: 10_000, perHolder: 2500 });
  t.deepEqual(connectionLimits(undefined, undefined, undefined), { total: 10_000, perHolder: 2500 });
  t.deepEqual(connectionLimits(400, 300, undefined), { total: 300, perHolder: 75 });
  t.deepEqual(connectionLimits(400, 300, 7), { total: 300, perHolder: 7 });
  t.deepEqual(connectionLimits(400, 10, 50), { total: 10, perHolder: 10 });
  t.deepEqual(connectionLimits(2, undefined, undefined), { total: 1, perHolder: 1 });
  t.throws(() => connectionLimits(400, 301, undefined), {
    instanceOf: RangeError,
    message: /at most 300.+400 files.+got 301/,
  });
});

test("the limit of open files is that of the process", async (t) => {
  const limits = await readFile("/proc/self/limits", "utf8").catch(() => undefined);
  if (limits === undefined) {
    console.error("!!! SKIPPED: there is no /proc/self/limits to compare with");
    t.log("SKIPPED: there is no /proc/self/limits to compare with");
    t.pass();
    return;
  }
  t.is(String(fileLimit() ?? "unlimited"), /^Max open files +(\S+)/m.exec(limits)![1]!);
});

/** Answers at once; `/known` is an authenticated call, and `/wait` is answered when the test ends. */
const answer: RequestHandler = (req, res) => {
  if (req.url === "/known") connectionOf(req).authenticated();
  if (req.url !== "/wait") res.end(connectionOf(req).holder);
};

async function open(t: ExecutionContext, options: ListenOptions): Promise<Listener> {
  const listener = await listen(answer, "127.0.0.1", 0, options);
  t.teardown(async () => await listener.stop(0, () => {}));
  return listener;
}

/** A caller with one connection of its own, from an address of loopback. */
class Caller {
  readonly socket: net.Socket;
  readonly #agent: http.Agent;
  isClosed = false;

  private constructor(socket: net.Socket) {
    this.socket = socket;
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    Object.assign(this.#agent, { createConnection: () => socket });
    socket.on("error", () => {});
    socket.once("close", () => {
      this.isClosed = true;
    });
  }

  /** Connects, and is there when the server has taken the connection in or refused it. */
  static async connect(t: ExecutionContext, { port }: Listener, localAddress = "127.0.0.1"): Promise<Caller> {
    const socket = net.connect({ port, host: "127.0.0.1", localAddress });
    t.teardown(() => socket.destroy());
    const caller = new Caller(socket);
    await once(socket, "connect");
    return caller;
  }

  async get(path: string): Promise<string> {
    const req = http.get({ agent: this.#agent, path });
    const [res] = (await once(req, "response")) as [http.IncomingMessage];
    let text = "";
    for await (const chunk of res) text += chunk;
    return text;
  }
}

/** Callers whose connections the server has taken in, one after the other. */
async function callers(
  t: ExecutionContext,
  listener: Listener,
  ...addresses: (string | undefined)[]
): Promise<Caller[]> {
  const all: Caller[] = [];
  for (const address of addresses) {
    const caller = await Caller.connect(t, listener, address);
    await caller.get("/");
    all.push(caller);
  }
  return all;
}

/** Which of the callers the server has closed, as their indexes. */
async function closedOf(all: readonly Caller[], count: number): Promise<number[]> {
  const closed = () => all.flatMap((caller, index) => (caller.isClosed ? [index] : []));
  while (closed().length < count) await sleep(5);
  return closed();
}

test("at the limit the one makes room on which no call began or ended for the longest time", async (t) => {
  const listener = await open(t, { limits: { total: 4, perHolder: 4 } });
  const all = await callers(t, listener, ...Array<undefined>(4));
  await all[0]!.get("/");
  void all[1]!.get("/wait").catch(() => {});
  // The call is there when one of another connection is answered after it.
  await sleep(50);
  await all[3]!.get("/");
  await callers(t, listener, undefined);
  t.deepEqual(await closedOf(all, 1), [2]);
  await callers(t, listener, undefined);
  t.deepEqual(await closedOf(all, 2), [0, 2]);
  await callers(t, listener, undefined);
  t.deepEqual(await closedOf(all, 3), [0, 1, 2]);
  t.is(listener.connections, 4);
});

test("calls of strangers that never end lock nobody out, not even one who is slow to ask", async (t) => {
  const listener = await open(t, { limits: { total: 8, perHolder: 8 } });
  const endless = await callers(t, listener, ...Array<undefined>(8));
  for (const caller of endless) void caller.get("/wait").catch(() => {});
  await sleep(50);
  const slow = await Caller.connect(t, listener);
  for (let nth = 0; nth < 7; nth++) await Caller.connect(t, listener);
  t.is(await slow.get("/"), "127.0.0.1");
  t.deepEqual(await closedOf(endless, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
});

test("known callers are never closed for strangers; only among known ones a new one is refused", async (t) => {
  const pressure: ConnectionPressure[] = [];
  const listener = await open(t, { limits: { total: 4, perHolder: 4 }, onPressure: (each) => pressure.push(each) });
  const known = await callers(t, listener, undefined, undefined);
  for (const caller of known) await caller.get("/known");
  const flood: Caller[] = [];
  for (let nth = 0; nth < 50; nth++) flood.push(await Caller.connect(t, listener));
  await closedOf(flood, 48);
  t.deepEqual(await closedOf(known, 0), []);
  for (const caller of known) t.is(await caller.get("/"), "127.0.0.1");
  const late = await callers(t, listener, undefined, undefined);
  for (const caller of late) await caller.get("/known");
  const refused = await Caller.connect(t, listener);
  t.deepEqual(await closedOf([refused], 1), [0]);
  t.deepEqual(await closedOf([...known, ...late], 0), []);
  t.is(listener.connections, 4);
  // The first at once, the others counted until the next notice.
  t.deepEqual(pressure, [{ closed: 1, refused: 0, open: 3 }]);
});

test("known over HTTP/2 as well, and a connection that is closed gives its place back", async (t) => {
  const listener = await open(t, { limits: { total: 2, perHolder: 2 } });
  const session = http2.connect(`http://127.0.0.1:${listener.port}`);
  t.teardown(() => session.destroy());
  const get = async (path: string) => {
    const stream = session.request({ ":path": path });
    let text = "";
    for await (const chunk of stream) text += chunk;
    return text;
  };
  await get("/known");
  const all = await callers(t, listener, undefined, undefined, undefined);
  t.deepEqual(await closedOf(all, 2), [0, 1]);
  t.is(await get("/"), "127.0.0.1");
  all[2]!.socket.destroy();
  while (listener.connections > 1) await sleep(5);
  const [next] = await callers(t, listener, undefined);
  t.is(await next!.get("/"), "127.0.0.1");
  t.false(session.closed);
});

test("an HTTP/2 connection may have little unread until its first authenticated call, and more after it", async (t) => {
  const unread: http2.ServerHttp2Stream[] = [];
  const handler: RequestHandler = (req, res) => {
    if (req.url === "/wait") unread.push((req as http2.Http2ServerRequest).stream);
    else answer(req, res);
  };
  const listener = await listen(handler, "127.0.0.1", 0);
  t.teardown(async () => await listener.stop(0, () => {}));
  const connect = async () => {
    const session = http2.connect(`http://127.0.0.1:${listener.port}`);
    t.teardown(() => session.destroy());
    await once(session, "remoteSettings");
    return session;
  };
  /** Sends more on each stream than fits, and says what the server holds of it. */
  const held = async (session: http2.ClientHttp2Session, streams: number) => {
    unread.splice(0);
    for (let nth = 0; nth < streams; nth++) {
      const stream = session.request({ ":path": "/wait", ":method": "POST" });
      stream.on("error", () => {});
      stream.write(Buffer.alloc(3 * MIB));
    }
    // Each is answered after everything that was sent before, and lets out what a window had kept back.
    for (let nth = 0; nth < 10; nth++) await new Promise<void>((resolve) => session.ping(() => resolve()));
    return unread.reduce((sum, stream) => sum + stream.readableLength, 0);
  };
  const stranger = await connect();
  t.is(stranger.remoteSettings.initialWindowSize, 65_535);
  t.is(stranger.remoteSettings.maxConcurrentStreams, 32);
  const little = await held(stranger, 40);
  t.true(unread.length > 0 && unread.length <= 32, `${unread.length} streams`);
  t.true(little > 0 && little <= 32 * 65_535, `${little} bytes`);

  const known = await connect();
  const raised = once(known, "remoteSettings");
  const call = known.request({ ":path": "/known" }).resume();
  await Promise.all([once(call, "end"), raised]);
  t.is(known.remoteSettings.initialWindowSize, 2 * MIB);
  t.is(known.remoteSettings.maxConcurrentStreams, 256);
  const more = await held(known, 3);
  t.true(more > 3 * 65_535, `${more} bytes`);
});

test("one address at its limit makes room among its own, and takes nothing from others", async (t) => {
  const listener = await open(t, { limits: { total: 10, perHolder: 2 } });
  const others = await callers(t, listener, "127.0.0.2", "127.0.0.3");
  const own = await callers(t, listener, ...Array<undefined>(5));
  t.deepEqual(await closedOf(own, 3), [0, 1, 2]);
  t.deepEqual(await closedOf(others, 0), []);
  for (const caller of own.slice(3)) await caller.get("/known");
  const refused = await Caller.connect(t, listener);
  t.deepEqual(await closedOf([refused], 1), [0]);
  t.is(await others[0]!.get("/"), "127.0.0.2");
});

test("trusted proxies have no limit of their own, but count in all", async (t) => {
  const trustedProxies = new AddressSet(["127.0.0.9"]);
  const listener = await open(t, { limits: { total: 5, perHolder: 2 }, trustedProxies });
  const proxies = await callers(t, listener, ...Array<string>(4).fill("127.0.0.9"));
  const others = await callers(t, listener, "127.0.0.2");
  t.deepEqual(await closedOf(proxies, 0), []);
  await callers(t, listener, "127.0.0.3");
  t.deepEqual(await closedOf([...proxies, ...others], 1), [0]);
});

/** A stream with the address of a socket: loopback has one IPv6 address only. */
function socketFrom(remoteAddress: string): net.Socket {
  return Object.assign(new PassThrough(), { remoteAddress }) as unknown as net.Socket;
}

test("addresses of one IPv6 /64 are one holder, and a mapped IPv4 address is that address", (t) => {
  const table = new ConnectionTable({ limits: { total: 100, perHolder: 2 } });
  const first = socketFrom("2001:db8:0:1::1");
  for (const socket of [first, socketFrom("2001:db8:0:1:ffff::2"), socketFrom("2001:db8:0:2::1")])
    t.truthy(table.admit(socket));
  t.false(first.destroyed);
  t.truthy(table.admit(socketFrom("2001:db8:0:1:abcd::3")));
  t.true(first.destroyed);
  const mapped = [socketFrom("::ffff:192.0.2.7"), socketFrom("192.0.2.7"), socketFrom("::ffff:192.0.2.7")];
  for (const socket of mapped) t.is(table.admit(socket)?.holder, "192.0.2.7");
  t.deepEqual(
    mapped.map((socket) => socket.destroyed),
    [true, false, false],
  );
  t.is(table.size, 5);
});

test("TLS connections count from their first byte on, and known ones stay", async (t) => {
  if (!hasPeers(t, "openssl")) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-connections-"));
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const authority = await Authority.make(folder, "authority");
  const issued = await authority.issue("server");
  const [cert, key] = [await readFile(issued.certificate), await readFile(issued.key)];
  const ca = await readFile(authority.certificate);
  const listener = await open(t, { tls: { cert, key, ca: undefined }, limits: { total: 3, perHolder: 3 } });
  const session = http2.connect(`https://127.0.0.1:${listener.port}`, { ca });
  t.teardown(() => session.destroy());
  const get = async (path: string) => {
    const stream = session.request({ ":path": path });
    let text = "";
    for await (const chunk of stream) text += chunk;
    return text;
  };
  await get("/known");
  const shaken = tls.connect({ port: listener.port, host: "127.0.0.1", ca, ALPNProtocols: ["http/1.1"] });
  await once(shaken, "secureConnect");
  const silent = await Caller.connect(t, listener);
  while (listener.connections < 3) await sleep(5);
  const closed = once(shaken.on("error", () => {}).resume(), "close");
  await Caller.connect(t, listener);
  await closed;
  await Caller.connect(t, listener);
  t.deepEqual(await closedOf([silent], 1), [0]);
  t.is(await get("/"), "127.0.0.1");
  t.is(listener.connections, 3);
});

test("500 idle connections under `ulimit -n 400`: probes, logins, uploads and known callers go on", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-connections-"));
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const config = join(folder, "config");
  const init = await run(STRONGROOM, ["init", config, "--collection", "db"]);
  const password = /password\s+(\S+)/.exec(init.stdout.toString())![1]!;
  const server = await startServerProcess(["--config", config, "--data", join(folder, "data")], {}, 400);
  t.teardown(async () => await server.end("SIGTERM"));
  const port = Number(new URL(server.url).port);
  const connections = { opened: 0 };
  const transport = createConnectTransport({
    baseUrl: server.url,
    httpVersion: "2",
    nodeOptions: {
      createConnection: () => {
        connections.opened++;
        return net.connect(port, "127.0.0.1");
      },
    },
  });
  const sessions = createClient(SessionService, transport);
  const { token } = await sessions.login({ username: "admin", password });
  const headers = { authorization: `Bearer ${token}` };
  await sessions.whoAmI({}, { headers });

  // From ten addresses, so that the limit in all is reached too.
  const idle = Array.from({ length: 500 }, (_, nth) => {
    const socket = net.connect({ port, host: "127.0.0.1", localAddress: `127.0.0.${1 + (nth % 10)}` });
    t.teardown(() => socket.destroy());
    return socket.on("error", () => {}).resume();
  });
  await Promise.all(idle.map(async (socket) => await Promise.race([once(socket, "connect"), once(socket, "close")])));
  for (const path of ["/health", "/ready"]) {
    const answered = await fetch(`${server.url}${path}`);
    t.is(answered.status, 200, await answered.text());
  }

  const uploads = createClient(UploadService, transport);
  const { upload } = await uploads.createUpload({ collection: "db" }, { headers });
  const message = openpgpMessage(3 * MIB);
  const segments = cutSegments(message, Number(upload!.segmentSizeBytes));
  for (const { index, size, sha256, framingIn, bytes } of segments) {
    async function* frames() {
      const value = { uploadId: upload!.uploadId, index, sizeBytes: size, sha256, framingIn };
      yield { frame: { case: "header" as const, value } };
      for (let at = 0; at < bytes.length; at += MIB)
        yield { frame: { case: "chunk" as const, value: bytes.subarray(at, at + MIB) } };
    }
    await uploads.writeSegment(frames(), { headers });
  }
  const commit = {
    uploadId: upload!.uploadId,
    sizeBytes: BigInt(message.length),
    compositeSha256: compositeOf(segments),
  };
  t.is((await uploads.commitUpload(commit, { headers })).version!.number, 1n);
  t.is(connections.opened, 1);
  const other = createClient(SessionService, createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" }));
  t.truthy((await other.login({ username: "admin", password })).token);
  t.regex(server.log(), /"files":400,"connections":200,"per_address":50/);
  t.regex(server.log(), /connections are at their limit/);
});

test("more connections than the open files allow are refused at the start, with what to do", async (t) => {
  const started = startServerProcess(["--max-connections", "301", "--data", join(tmpdir(), "never")], {}, 400);
  await t.throwsAsync(started, { message: /--max-connections: expected at most 300/ });
});

/** A frame of HTTP/2 (RFC 9113, section 4.1). */
function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** `GET /` of a stream, and the word that it is given up. */
function givenUp(index: number): Buffer {
  // :method GET, :scheme http, :path / of the static table, and an :authority of one letter.
  const headers = Buffer.from([0x82, 0x86, 0x84, 0x01, 1, 0x78]);
  return Buffer.concat([frame(1, 5, 2 * index + 1, headers), frame(3, 0, 2 * index + 1, Buffer.from([0, 0, 0, 8]))]);
}

test("calls that are given up in the read that begins them are not looked at, and too many of them end the connection", async (t) => {
  let asked = 0;
  const listener = await listen(
    (_req, res) => {
      asked++;
      res.end();
    },
    "127.0.0.1",
    0,
  );
  t.teardown(async () => await listener.stop(0, () => {}));
  for (const { calls, ends } of [
    { calls: 60, ends: false },
    { calls: 200, ends: true },
  ]) {
    const socket = net.connect(listener.port, "127.0.0.1");
    t.teardown(() => socket.destroy());
    socket.on("error", () => {});
    let answer = Buffer.alloc(0);
    socket.on("data", (data: Buffer) => {
      answer = Buffer.concat([answer, data]);
    });
    const closed = once(socket, "close");
    const ping = frame(6, 0, 0, Buffer.from("12345678"));
    socket.write(
      Buffer.concat([
        Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        frame(4, 0, 0),
        ...Array.from({ length: calls }, (_, i) => givenUp(i)),
        ping,
      ]),
    );
    // GOAWAY with INTERNAL_ERROR, or the answer to the ping.
    const end = Buffer.from([0, 0, 0, 2]);
    if (ends) await closed;
    else while (!answer.includes("12345678")) await once(socket, "data");
    t.is(answer.includes(end), ends, answer.toString("hex"));
    t.is(asked, 0);
  }
});

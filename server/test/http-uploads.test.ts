/** How a body becomes a version over the HTTP API, or does not: its forms, its end, its client's end, and its memory. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { startHaproxy } from "@strongroom/testkit/peers/haproxy";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { BufferPool } from "../src/app/uploads/buffer-pool.ts";
import { DEFAULT_HTTP_UPLOADS } from "../src/server-options.ts";
import { collection, MIB, SETTINGS, TestClock, user } from "./support/harness.ts";
import { type LiveOptions, LiveServer } from "./support/live-server.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const KIB = 1024;
const pathOf = (name: string) => `/api/alpha/repository/collection/${name}/version`;
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** So long that no test lives to see it end. */
const FOREVER = { ...DEFAULT_HTTP_UPLOADS, commitGraceMs: 24 * 3_600_000 };

const test = (anyTest as TestFn<{ database: SqlDatabase }>).serial;

test.before(async (t) => {
  // At the time of each server's own clock, which no test here moves.
  const { now } = new TestClock();
  t.context.database = await openMemoryDatabase(() => now);
});
test.after.always(async (t) => await t.context.database?.close());

let opened = 0;

/** A server on the database of all tests here, with a collection of its own. */
async function open(t: ExecutionContext<{ database: SqlDatabase }>, options: LiveOptions = {}, parallel = 1) {
  const name = `db-${++opened}`;
  const users = [user("admin", { roles: ["systemAdmin"], passwordHash: "hash of right" })];
  const spec = { maxParallelUploads: parallel, maxBackupsCount: 4, maxCollectionSize: BigInt(2000 * MIB) };
  const live = await LiveServer.open(users, [collection(name, spec)], {
    ...options,
    database: t.context.database,
  });
  t.teardown(async () => await live.close());
  const { id, token } = await live.session("admin");
  const auth = { authorization: `Bearer ${token}` };
  const url = `${live.server.url}${pathOf(name)}`;
  const versions = async () =>
    (await live.clients.versions.listVersions({ collection: name }, { headers: auth })).versions;
  const stored = async () => {
    const response = await fetch(`${url}/latest`, { headers: auth });
    return sha256(new Uint8Array(await response.arrayBuffer()));
  };
  /** What became of the newest upload that is no version; waits until it has ended. */
  const ended = async () => {
    for (;;) {
      const { uploads } = await live.clients.uploads.listUploads({ collection: name }, { headers: auth });
      const health = await live.clients.collections.getCollectionHealth({ collection: name }, { headers: auth });
      if (uploads.length === 0 && health.lastFailedUpload !== undefined) return health.lastFailedUpload.reason;
      await sleep(20);
    }
  };
  /** Waits until an upload has begun. */
  const begun = async () => {
    while ((await live.clients.uploads.listUploads({ collection: name }, { headers: auth })).uploads.length === 0)
      await sleep(20);
  };
  /** Waits until every byte of the upload is stored, and it waits for its client. */
  const waits = async (segments = 1) => {
    for (;;) {
      const { uploads } = await live.clients.uploads.listUploads({ collection: name }, { headers: auth });
      const upload = uploads[0];
      if (upload !== undefined) {
        const { uploadId } = upload;
        const status = await live.clients.uploads.getUpload({ uploadId }, { headers: auth });
        if (status.segments.length >= segments) return;
      }
      await sleep(20);
    }
  };
  return { live, name, id, token, auth, url, versions, stored, ended, begun, waits };
}

/** A connection that has sent a whole upload, chunked or with a length, byte by byte as a client would. */
async function sendRaw(url: string, token: string, message: Uint8Array, chunked: boolean): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  await once(socket, "connect");
  const length = chunked ? "Transfer-Encoding: chunked" : `Content-Length: ${message.length}`;
  socket.write(
    `POST ${new URL(url).pathname} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n${length}\r\n\r\n`,
  );
  if (chunked) {
    socket.write(`${message.length.toString(16)}\r\n`);
    socket.write(message);
    socket.write("\r\n0\r\n\r\n");
  } else socket.write(message);
  return socket;
}

function form(file: Uint8Array, { before = "", after = "", boundary = "xyz", name = "file" } = {}): Buffer {
  return Buffer.concat([
    Buffer.from(before),
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"; filename="a.gpg"\r\n\r\n`),
    file,
    Buffer.from(`\r\n${after}--${boundary}--\r\n`),
  ]);
}

test("raw bodies of any content type and length, and forms, become the same bytes", async (t) => {
  const { url, auth, stored } = await open(t);
  const other = '--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n';
  for (const size of [200, MIB, 3 * MIB + 5]) {
    const message = openpgpMessage(size);
    const ways: readonly [string, Uint8Array | AsyncIterable<Uint8Array>, string | undefined][] = [
      ["no type", message, undefined],
      ["as curl --data-binary", message, "application/x-www-form-urlencoded"],
      ["json", message, "application/json"],
      [
        "chunked",
        (async function* () {
          yield message;
        })(),
        "application/octet-stream",
      ],
      ["form", form(message), "multipart/form-data; boundary=xyz"],
      ["form, more parts", form(message, { before: other, after: other }), 'multipart/form-data; boundary="xyz"'],
    ];
    for (const [way, body, type] of ways) {
      const headers = { ...auth, ...(type === undefined ? {} : { "content-type": type }) };
      const init = { method: "POST", headers, body, duplex: "half" } as RequestInit;
      const response = await fetch(url, init);
      t.is(response.status, 200, `${way}, ${size}: ${await response.text()}`);
      t.is(await stored(), sha256(message), `${way}, ${size}`);
    }
  }
});

test("forms that are none are refused, and none of them becomes a version", async (t) => {
  const { url, auth, versions } = await open(t);
  const message = openpgpMessage(5000);
  const whole = form(message);
  const cases: readonly [string, Uint8Array, string, RegExp][] = [
    ["other part", form(message, { name: "data" }), "multipart/form-data; boundary=xyz", /expected a part named file/],
    ["cut off", whole.subarray(0, -6), "multipart/form-data; boundary=xyz", /the form is cut off/],
    [
      "two files",
      Buffer.concat([whole.subarray(0, -4), Buffer.from("\r\n"), whole]),
      "multipart/form-data; boundary=xyz",
      /two/,
    ],
    ["no boundary", whole, "multipart/form-data", /expected a boundary/],
    [
      "long before",
      form(message, { before: "x".repeat(20 * KIB) }),
      "multipart/form-data; boundary=xyz",
      /around the file/,
    ],
    ["other boundary", whole, "multipart/form-data; boundary=abc", /around the file|cut off/],
  ];
  for (const [name, body, type, error] of cases) {
    const response = await fetch(url, {
      method: "POST",
      headers: { ...auth, "content-type": type },
      body: body as never,
    });
    t.is(response.status, 500, name);
    const json = (await response.json()) as { error: string };
    t.regex(json.error, /^cannot upload version\. cannot read file from multipart\/urlencoded form: /, name);
    t.regex(json.error, error, name);
  }
  t.deepEqual(await versions(), []);
});

for (const chunked of [true, false]) {
  const how = chunked ? "chunked" : "with a length";
  test(`a whole body ${how} whose client closes, half-closes or resets before the commit is no version`, async (t) => {
    const { url, token, versions, ended, waits } = await open(t, { httpUploads: FOREVER });
    for (const leave of ["destroy", "end", "resetAndDestroy"] as const) {
      const socket = await sendRaw(url, token, openpgpMessage(3000), chunked);
      await waits();
      socket[leave]();
      t.regex(await ended(), /the client was gone before its upload became a version/, leave);
      socket.destroy();
    }
    t.deepEqual(await versions(), []);
  });

  test(`a body ${how} that is cut short is no version`, async (t) => {
    const { url, token, versions, ended, begun } = await open(t);
    const message = openpgpMessage(3000);
    for (const leave of ["destroy", "end", "resetAndDestroy"] as const) {
      const { hostname, port } = new URL(url);
      const socket = connect(Number(port), hostname);
      socket.on("error", () => {});
      await once(socket, "connect");
      const length = chunked ? "Transfer-Encoding: chunked" : `Content-Length: ${message.length + 1}`;
      socket.write(
        `POST ${new URL(url).pathname} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n${length}\r\n\r\n`,
      );
      const sent = chunked ? Buffer.concat([Buffer.from("bb8\r\n"), message, Buffer.from("\r\n")]) : message;
      await new Promise((resolve) => socket.write(sent, resolve));
      await begun();
      socket[leave]();
      t.regex(await ended(), /broke off|was closed/, leave);
    }
    t.deepEqual(await versions(), []);
  });
}

test("a whole body with requests behind it is no version: the end of its client could not be seen", async (t) => {
  const { url, token, versions, ended } = await open(t, {
    httpUploads: { ...DEFAULT_HTTP_UPLOADS, commitGraceMs: 50 },
  });
  for (const behind of [1, 3000]) {
    const socket = await sendRaw(url, token, openpgpMessage(3000), false);
    socket.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(behind));
    t.regex(await ended(), /sent another request before its upload was answered/, `${behind}`);
    socket.destroy();
  }
  t.deepEqual(await versions(), []);
});

test("a whole body whose client is gone a while later is no version behind HAProxy", async (t) => {
  if (!hasPeers(t, "haproxy")) return;
  const { name, url, token, versions, ended, waits } = await open(t, { httpUploads: FOREVER });
  const haproxy = await startHaproxy(new URL(url).host, "http1", "option abortonclose");
  t.teardown(async () => await haproxy.remove());
  for (const chunked of [true, false]) {
    const socket = await sendRaw(`http://${haproxy.host}${pathOf(name)}`, token, openpgpMessage(3000), chunked);
    await waits();
    socket.destroy();
    t.regex(await ended(), /the client was gone before its upload became a version/);
  }
  t.deepEqual(await versions(), []);
});

test("a client that stays gets its version, also when it has more to ask on its connection", async (t) => {
  const { url, token, versions } = await open(t, { httpUploads: { ...DEFAULT_HTTP_UPLOADS, commitGraceMs: 50 } });
  const socket = await sendRaw(url, token, openpgpMessage(3000), true);
  const [answer] = (await once(socket, "data")) as [Buffer];
  t.regex(answer.toString(), /^HTTP\/1\.1 200 OK\r\n/);
  socket.destroy();
  t.is((await versions()).length, 1);
});

test("over HTTP/2: whole, cut short by a reset, and gone after the end", async (t) => {
  const message = openpgpMessage(2 * MIB + 3);
  const headers = (name: string) => ({ ":method": "POST", ":path": pathOf(name) });
  {
    const { live, name, auth, stored } = await open(t);
    const session = http2.connect(live.server.url);
    t.teardown(() => session.destroy());
    const stream = session.request({ ...headers(name), ...auth });
    stream.end(message);
    const [answer] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    stream.resume();
    t.is(answer[":status"] as unknown, 200);
    t.is(await stored(), sha256(message));
  }
  for (const [when, options] of [
    ["in the body", {}],
    ["after its end", { httpUploads: FOREVER }],
  ] as const) {
    const { live, name, auth, versions, ended, waits } = await open(t, options);
    for (const leave of ["reset", "session"] as const) {
      const session = http2.connect(live.server.url);
      session.on("error", () => {});
      const stream = session.request({ ...headers(name), ...auth });
      stream.on("error", () => {});
      if (when === "in the body") stream.write(message);
      else stream.end(message);
      await waits(when === "in the body" ? 2 : 3);
      if (leave === "reset") stream.close(http2.constants.NGHTTP2_CANCEL);
      else session.destroy();
      t.regex(await ended(), when === "in the body" ? /broke off|closed/ : /was gone|closed/, `${when}, ${leave}`);
      session.destroy();
    }
    t.deepEqual(await versions(), [], when);
  }
});

test("100 Continue is sent after every check that needs no body", async (t) => {
  const { url, auth, token } = await open(t, {}, 1);
  const asked = async (path: string, headers: Record<string, string>) => {
    const request = http.request(path, { method: "POST", headers: { ...headers, expect: "100-continue" } });
    request.on("error", () => {});
    const continued = once(request, "continue").then(() => 100);
    const answered = once(request, "response").then(([response]) => (response as http.IncomingMessage).statusCode);
    request.flushHeaders();
    return { request, first: await Promise.race([continued, answered]), answered };
  };
  t.is((await asked(url, { authorization: "Bearer none" })).first, 401);
  t.is((await asked(url.replace(/db-\d+/, "none"), auth)).first, 404);
  const { request, first, answered } = await asked(url, { authorization: `Bearer ${token}` });
  t.is(first, 100);
  t.is((await asked(url, auth)).first, 500);
  request.end(openpgpMessage(3000));
  t.is(await answered, 200);
});

test("a body that stops coming ends with 408, and gives its place back", async (t) => {
  const { url, auth, ended } = await open(t, { settings: { ...SETTINGS, segmentIdleMs: 100 } });
  const request = http.request(url, { method: "POST", headers: auth });
  request.on("error", () => {});
  request.write(openpgpMessage(3000).subarray(0, 100));
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  t.is(response.statusCode, 408);
  t.deepEqual(JSON.parse(Buffer.concat(await response.toArray()).toString()), {
    status: false,
    error: "Request took too long",
    data: {},
  });
  t.regex(await ended(), /nothing was received/);
  request.destroy();
});

test("a session that is ended meanwhile does not finish its upload", async (t) => {
  const { live, name, url, token, id, waits } = await open(t, { httpUploads: FOREVER });
  const auth = {
    headers: { authorization: `Bearer ${(await live.session("admin", { description: "other" })).token}` },
  };
  const request = http.request(url, { method: "POST", headers: { authorization: `Bearer ${token}` } });
  request.on("error", () => {});
  const message = openpgpMessage(2 * MIB + 1);
  request.write(message.subarray(0, MIB));
  const answered = once(request, "response");
  await waits();
  await live.clients.sessions.revokeSession({ sessionId: id }, auth);
  request.end(message.subarray(MIB));
  const [response] = (await answered) as [http.IncomingMessage];
  t.is(response.statusCode, 401);
  response.resume();
  t.deepEqual((await live.clients.versions.listVersions({ collection: name }, auth)).versions, []);
});

test("64 uploads at once wait for a pool that has four segments, and all of them are stored", async (t) => {
  t.timeout(600_000);
  const pool = new BufferPool(4 * MIB);
  const { url, auth, versions } = await open(t, { httpBuffers: pool }, 64);
  const message = openpgpMessage(MIB + 100);
  const answers = await Promise.all(
    Array.from({ length: 64 }, async () => {
      const body = (async function* () {
        for (let at = 0; at < message.length; at += 100 * KIB) yield message.subarray(at, at + 100 * KIB);
      })();
      const response = await fetch(url, { method: "POST", headers: auth, body, duplex: "half" } as RequestInit);
      return `${response.status} ${response.status === 200 ? "" : await response.text()}`;
    }),
  );
  t.deepEqual([...new Set(answers)], ["200 "]);
  t.true(pool.mostAllocated <= 4 * MIB, `${pool.mostAllocated}`);
  t.true(pool.mostAllocated > 0);
  t.is(pool.waiting, 0);
  t.is((await versions()).length, 4);
});

test("an allowance whose segment the pool has not is refused with the option's name; what is known to fit is taken", async (t) => {
  const pool = new BufferPool(MIB / 2);
  const { url, auth } = await open(t, { httpBuffers: pool });
  const send = async (body: unknown) => {
    const response = await fetch(url, { method: "POST", headers: auth, body, duplex: "half" } as RequestInit);
    return { status: response.status, json: (await response.json()) as { error: string } };
  };
  const message = openpgpMessage(3000);
  const { status, json } = await send(
    (async function* () {
      yield message;
    })(),
  );
  t.is(status, 500);
  t.regex(
    json.error,
    /^cannot upload version\. a segment of collection "db-\d+" takes a buffer of 1048576 bytes.*--http-buffer/,
  );
  t.is((await send(message)).status, 200);
  t.is((await send(openpgpMessage(MIB))).status, 500);
});

test("a pool gives its buffers in order, uses them again, and never has more than it may", async (t) => {
  const pool = new BufferPool(10);
  const { signal } = new AbortController();
  let owners = 0;
  const owner = () => `${++owners}`;
  const a = await pool.take(4, owner(), signal);
  const b = await pool.take(6, owner(), signal);
  const order: string[] = [];
  const c = pool.take(5, owner(), signal).then((buffer) => {
    order.push("c");
    return buffer;
  });
  const gone = new AbortController();
  const d = pool.take(1, owner(), gone.signal);
  const e = pool.take(4, owner(), signal).then((buffer) => {
    order.push("e");
    return buffer;
  });
  t.is(pool.waiting, 3);
  gone.abort(new Error("gone"));
  await t.throwsAsync(d, { message: "gone" });
  pool.giveBack(a, true);
  t.is(pool.waiting, 2, "the first in line needs more than is free");
  pool.giveBack(b, true);
  t.is(await c, b, "what fits is used again");
  t.is(await e, a);
  t.deepEqual(order, ["c", "e"]);
  pool.giveBack(await c, false);
  pool.giveBack(await e, true);
  t.is(pool.allocated, 4, "what somebody may still read is given to nobody");
  const whole = await pool.take(10, owner(), signal);
  t.is(whole.length, 10);
  t.is(a.length, 0, "its memory is free at once");
  t.is(pool.mostAllocated, 10);
  await t.throwsAsync(pool.take(11, owner(), signal), { message: /--http-buffer/ });
});

test("nobody holds more than a quarter of a pool, but one buffer always, and is passed over until then", async (t) => {
  let now = 0;
  const pool = new BufferPool(16, () => now);
  const { signal } = new AbortController();
  const mine: Buffer[] = [];
  for (let n = 0; n < 2; n++) mine.push(await pool.take(2, "me", signal));
  const third = pool.take(2, "me", signal);
  t.is(pool.waiting, 1);
  now = 5;
  const others = [await pool.take(4, "a", signal), await pool.take(8, "b", signal)];
  t.is(pool.waiting, 1, "an empty pool is no reason to give more of it");
  t.is(pool.pressedMs("me"), 5, "it waits for itself");
  t.is(pool.pressedMs("a"), undefined, "what it waits for is not a's");
  const fourth = pool.take(4, "c", signal);
  now = 9;
  t.is(pool.pressedMs("a"), 4);
  t.is(pool.waiting, 2);
  pool.giveBack(mine[0]!, true);
  pool.giveBack(await third, true);
  pool.giveBack(mine[1]!, true);
  pool.giveBack(await fourth, true);
  for (const buffer of others) pool.giveBack(buffer, true);
  t.is(pool.pressedMs("a"), undefined);
  t.is((await pool.take(16, "me", signal)).length, 16, "a segment that is larger than the share has its turn too");
});

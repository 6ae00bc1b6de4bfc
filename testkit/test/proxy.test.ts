import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { buffer, text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { AnswerFilter } from "../src/answer-filter.ts";
import { startProxy } from "../src/proxy.ts";
import {
  type Behaviour,
  cutAfter,
  delay,
  loseAnswers,
  observe,
  refuse,
  slow,
  stall,
  truncateAfter,
} from "../src/proxy-behaviours.ts";

const MIB = 1024 * 1024;

/** A server that keeps what it gets, a proxy in front of it, and a way to connect. */
async function setUp(t: ExecutionContext, ...behaviours: Behaviour[]) {
  const sockets: Socket[] = [];
  const chunks: Buffer[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  });
  const proxy = await startProxy(await listen(server), ...behaviours);
  const clients: Socket[] = [];
  t.teardown(async () => {
    await proxy.close();
    for (const socket of [...sockets, ...clients]) socket.destroy();
    server.close();
  });
  const open = async (): Promise<{ client: Socket; socket: Socket; code: Promise<string> }> => {
    const client = connect({ port: Number(new URL(proxy.url).port), allowHalfOpen: true });
    clients.push(client);
    const code = once(client, "error").then(([error]) => (error as NodeJS.ErrnoException).code ?? "");
    // Whoever does not expect an error does not look at it.
    code.catch(() => {});
    const before = sockets.length;
    while (sockets.length === before) await sleep(1);
    return { client, socket: sockets.at(-1)!, code };
  };
  const received = () => Buffer.concat(chunks);
  const until = async (bytes: number) => {
    while (received().length < bytes) await sleep(1);
  };
  return { proxy, open, received, until };
}

async function listen(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("without behaviours all passes in both directions, and an end does too", async (t) => {
  const { proxy, open, received } = await setUp(t);
  const { client, socket } = await open();
  const [there, back] = [randomBytes(9 * MIB), randomBytes(9 * MIB)];
  client.end(there);
  await once(socket, "end");
  t.true(received().equals(there));
  // The client has ended its direction only.
  socket.end(back);
  t.true((await buffer(client)).equals(back));
  t.is(proxy.connections, 1);
});

test("cut: the connection over which the last of the bytes passes is reset, once", async (t) => {
  const { proxy, open, until } = await setUp(t);
  proxy.behave(cutAfter(1500));
  const [one, other] = [await open(), await open()];
  one.client.write(Buffer.alloc(1000));
  await until(1000);
  other.client.write(Buffer.alloc(1000));
  t.is(await other.code, "ECONNRESET");
  t.is(proxy.fired("cut"), 1);
  const before = proxy.connections;
  one.client.write(Buffer.alloc(5000));
  await until(6000);
  t.is(proxy.connections, before);
});

test("truncate: an orderly end for both, after just so many bytes", async (t) => {
  const { proxy, open, received } = await setUp(t, truncateAfter(1500));
  const { client, socket } = await open();
  client.write(Buffer.alloc(4000));
  await Promise.all([once(socket, "end"), text(client)]);
  t.is(received().length, 1500);
  t.is(proxy.fired("truncate"), 1);
});

test("truncate on the way back", async (t) => {
  const { open, received, until } = await setUp(t, truncateAfter(10, "down"));
  const { client, socket } = await open();
  client.write(Buffer.alloc(100));
  await until(100);
  socket.write("twelve bytes");
  t.is(await text(client), "twelve byt");
  t.is(received().length, 100);
});

test("stall: nothing passes and nothing ends, until it is healed by a reset", async (t) => {
  const { proxy, open, received, until } = await setUp(t);
  const { client, code } = await open();
  proxy.behave(stall());
  client.write("lost");
  while (proxy.fired("stall") === 0) await sleep(1);
  const second = await open();
  second.client.write("lost too");
  while (proxy.fired("stall") === 1) await sleep(1);
  t.is(received().length, 0);
  t.false(client.destroyed);
  proxy.heal();
  t.is(await code, "ECONNRESET");
  t.is(await second.code, "ECONNRESET");
  (await open()).client.write("passes");
  await until(6);
  t.is(received().toString(), "passes");
});

test("stall of one direction leaves the other one", async (t) => {
  const { proxy, open, received, until } = await setUp(t, stall("down"));
  const { client, socket } = await open();
  client.write("there");
  await until(5);
  socket.write("back");
  while (proxy.fired("stall") === 0) await sleep(1);
  t.is(received().toString(), "there");
  t.is(client.bytesRead, 0);
});

test("lose answers: requests arrive and the connection lives, but no answer comes back", async (t) => {
  let requests = 0;
  const server = createHttp2Server();
  server.on("stream", (stream) => {
    requests++;
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    stream.end(Buffer.alloc(100_000));
  });
  const proxy = await startProxy(await listen(server));
  const call = (session: ReturnType<typeof connectHttp2>) => buffer(session.request({ ":path": "/" }));
  const session = connectHttp2(proxy.url);
  session.on("error", () => {});
  t.teardown(async () => {
    await proxy.close();
    server.close();
  });
  t.is((await call(session)).length, 100_000);
  proxy.behave(loseAnswers());
  const lost = call(session);
  while (proxy.fired("lose answers") === 0) await sleep(1);
  await new Promise<void>((resolve, reject) => session.ping((error) => (error === null ? resolve() : reject(error))));
  t.is(requests, 2);
  proxy.heal();
  await t.throwsAsync(lost);
  const fresh = connectHttp2(proxy.url);
  t.teardown(() => fresh.destroy());
  t.is((await call(fresh)).length, 100_000);
});

test("refuse: open connections are reset and new ones refused, until it ends", async (t) => {
  const { proxy, open, until } = await setUp(t);
  const { code } = await open();
  const end = proxy.behave(refuse());
  t.is(await code, "ECONNRESET");
  const refused = connect(Number(new URL(proxy.url).port));
  const [error] = (await once(refused, "error")) as [NodeJS.ErrnoException];
  t.is(error.code, "ECONNRESET");
  t.is(proxy.fired("refuse"), 1);
  end();
  (await open()).client.write("passes");
  await until(6);
});

test("slow: a direction waits for its bytes, and the other one does not", async (t) => {
  const { proxy, open, received, until } = await setUp(t);
  const end = proxy.behave(slow(1));
  const first = await open();
  first.client.write(Buffer.alloc(86_400));
  first.socket.write("back");
  t.is((await once(first.client, "data")).toString(), "back");
  t.is(received().length, 0, "they are a day on their way");
  end();
  proxy.behave(slow(10 * MIB));
  const { client } = await open();
  const bytes = randomBytes(MIB);
  client.write(bytes);
  await until(MIB);
  t.true(received().equals(bytes));
});

test("delay: all that is sent leaves at once and is on its way, in order", async (t) => {
  const never = await setUp(t, delay(1e9));
  const { client } = await never.open();
  await new Promise((resolve) => client.write(Buffer.alloc(64 * MIB), resolve));
  t.is(never.received().length, 0);

  const near = await setUp(t, delay(20));
  const there = await near.open();
  const bytes = randomBytes(5 * MIB);
  there.client.end(bytes);
  await once(there.socket, "end");
  t.true(near.received().equals(bytes));
});

test("behaviours are composed in their order, and may begin while bytes pass", async (t) => {
  let seen = 0;
  const { proxy, open, received } = await setUp(
    t,
    observe((bytes, direction) => {
      if (direction === "down") return;
      seen += bytes;
      if (seen >= 1000) proxy.behave(truncateAfter(0));
    }),
    delay(2),
    truncateAfter(100_000),
  );
  const { client, socket } = await open();
  client.write(Buffer.alloc(500));
  while (received().length < 500) await sleep(1);
  client.write(Buffer.alloc(700));
  await once(socket, "end");
  t.is(received().length, 500, "what made it begin does not pass");
  t.is(seen, 1200);
});

test("drop in order, a target that moves, and the protocol of its address", async (t) => {
  const answering = async (answer: string) => {
    const server = createServer((socket) => void socket.end(answer));
    t.teardown(() => server.close());
    return (await listen(server)).replace("http:", "https:");
  };
  let target = await answering("one");
  const proxy = await startProxy(() => target);
  t.teardown(() => proxy.close());
  const port = Number(new URL(proxy.url).port);
  t.is(new URL(proxy.url).protocol, "https:");
  t.is(await text(connect(port)), "one");
  target = await answering("two");
  t.is(await text(connect(port)), "two");
  target = "http://127.0.0.1:1";
  t.is(await text(connect(port)).catch((error: NodeJS.ErrnoException) => error.code), "");
  const { open, proxy: dropping } = await setUp(t);
  const { client } = await open();
  dropping.drop("orderly");
  t.is(await text(client), "");
});

test("the filter of answers, however the frames are cut", (t) => {
  const frame = (type: number, length: number) => {
    const bytes = Buffer.alloc(9 + length, type + 100);
    bytes.writeUIntBE(length, 0, 3);
    bytes[3] = type;
    return bytes;
  };
  // SETTINGS, HEADERS, DATA, PING, CONTINUATION, an empty SETTINGS.
  const frames = [frame(4, 12), frame(1, 20), frame(0, 30), frame(6, 8), frame(9, 3), frame(4, 0)];
  const all = Buffer.concat(frames);
  const kept = Buffer.concat(frames.filter((bytes) => ![0, 1, 9].includes(bytes[3]!)));
  for (let size = 1; size <= all.length; size++) {
    const through = (from: number) => {
      const filter = new AnswerFilter();
      const passed: Buffer[] = [];
      for (let at = 0; at < all.length; at += size) passed.push(filter.push(all.subarray(at, at + size), at >= from));
      return Buffer.concat(passed);
    };
    t.true(through(all.length).equals(all), `unharmed in pieces of ${size}`);
    t.true(through(0).equals(kept), `without answers in pieces of ${size}`);
    // From the middle of the HEADERS on: what has begun goes on to its end.
    const begun = Math.ceil(25 / size) * size;
    if (begun < 50) t.true(through(begun).equals(Buffer.concat([frames[0]!, frames[1]!, kept.subarray(21)])));
  }
});

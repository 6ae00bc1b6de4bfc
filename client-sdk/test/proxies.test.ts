/** Real proxies before a real server: what they speak, what they refuse, and a tunnel through one. */
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { startHaproxy } from "@strongroom/testkit/peers/haproxy";
import { type NginxPeer, startNginx } from "@strongroom/testkit/peers/nginx";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import { startProxy } from "@strongroom/testkit/proxy";
import { cutAfter } from "@strongroom/testkit/proxy-behaviours";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { type ClientOptions, StrongroomClient } from "../src/index.ts";
import { chunked, ciphertext } from "./support/bytes.ts";

const MIB = 1024 * 1024;
const none = { kind: "none" } as const;

interface Context {
  dir: string;
  password: string;
  token: string;
  server: ServerProcess;
  /** Undefined where nginx is not installed. */
  nginx: NginxPeer | undefined;
}

const test = anyTest as TestFn<Context>;

test.before(async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-proxies-"));
  const config = join(dir, "data", "config");
  const password = await initConfiguration(config, "db");
  const spec =
    "maxBackupsCount: 50, maxOneVersionSize: 100M, maxCollectionSize: 6G, encryption: any-of, maxParallelUploads: 16";
  await writeFile(join(config, "through.yaml"), collectionDocument("through", spec));
  const server = await startServerProcess(["--data", join(dir, "data"), "--segment-size", "4M"]);
  const client = new StrongroomClient({ url: server.url });
  const { token } = await client.login({ username: "admin", password });
  client.close();
  const upstream = `proxy_pass ${server.url};`;
  const streamed = "proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;";
  const nginx =
    findPeer("nginx") === undefined
      ? undefined
      : await startNginx({
          streamed: { speaks: "http2", directives: `client_max_body_size 0; location / { ${upstream} ${streamed} }` },
          buffered: { speaks: "http2", directives: `client_max_body_size 0; location / { ${upstream} }` },
          grpc: {
            speaks: "http2",
            directives: `client_max_body_size 0; location / { grpc_pass ${server.url.replace("http", "grpc")}; }`,
          },
          http1: { speaks: "http1", directives: `client_max_body_size 0; location / { ${upstream} ${streamed} }` },
          limited: { speaks: "http2", directives: `location / { ${upstream} ${streamed} }` },
          limited1: { speaks: "http1", directives: `location / { ${upstream} ${streamed} }` },
          redirect: {
            speaks: "http2",
            directives: "location / { return 302 https://sso.example.org/login?rd=secret; }",
          },
          page: {
            speaks: "http2",
            directives: 'location / { default_type text/html; return 200 "<html>hello</html>"; }',
          },
          login: { speaks: "http2", directives: "location / { return 401; }" },
          forbidden: { speaks: "http1", directives: "location / { return 403; }" },
          alone: { speaks: "http2", directives: "location / { proxy_pass http://127.0.0.1:9; }" },
        });
  t.context = { dir, password, token, server, nginx };
});
test.after.always(async (t) => {
  await t.context.nginx?.remove();
  await t.context.server?.end("SIGTERM");
  if (t.context.dir !== undefined) await rm(t.context.dir, { recursive: true, force: true });
});

function clientFor(t: ExecutionContext<Context>, options: ClientOptions): StrongroomClient {
  const client = new StrongroomClient({ token: t.context.token, ...options }, { retryBaseMs: 20, retryMaxMs: 100 });
  t.teardown(() => client.close());
  return client;
}

/** Logs in, stores a dump over a line that breaks once, and reads it back over one that breaks once. */
async function goesThrough(t: ExecutionContext<Context>, address: string): Promise<void> {
  const { password } = t.context;
  const session = await clientFor(t, { url: address }).login({ username: "admin", password });
  t.truthy(session.token);
  const bytes = ciphertext(10 * MIB);
  const up = await startProxy(address, cutAfter(6 * MIB));
  t.teardown(() => up.close());
  const client = clientFor(t, {
    url: up.url,
    // Only the first connection breaks.
    onRetry: () => up.heal(),
  });
  const stored = await client.upload({ collection: "through", source: chunked(bytes), encryption: none });
  t.true(stored.resumes > 0, "it was cut");
  const down = await startProxy(address, cutAfter(6 * MIB, "down"));
  t.teardown(() => down.close());
  const hash = createHash("sha256");
  const read = await clientFor(t, { url: down.url, onRetry: () => down.heal() }).download({
    collection: "through",
    number: stored.version.number,
    sink: (chunk) => void hash.update(chunk),
  });
  t.true(read.resumes > 0, "it was cut");
  t.is(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
  // An answer that comes before the segment has ended.
  const early = clientFor(t, { url: address, token: "no token" });
  await t.throwsAsync(early.upload({ collection: "through", source: chunked(bytes), encryption: none }), {
    name: "AuthenticationError",
  });
}

for (const name of ["streamed", "buffered", "grpc", "http1"] as const) {
  test(`login, upload, resume and restore through nginx (${name})`, async (t) => {
    if (!hasPeers(t, "nginx")) return;
    await goesThrough(t, t.context.nginx!.urls[name]!);
  });
}

for (const speaks of ["http2", "http1"] as const) {
  test(`login, upload, resume and restore through HAProxy (${speaks})`, async (t) => {
    if (!hasPeers(t, "haproxy")) return;
    const haproxy = await startHaproxy(new URL(t.context.server.url).host, speaks);
    t.teardown(() => haproxy.remove());
    await goesThrough(t, `http://${haproxy.host}`);
  });
}

const FINAL: readonly [server: string, message: RegExp][] = [
  ["limited", /nginx.*limits how large a request may be \(HTTP 413\).*client_max_body_size 0/],
  ["limited1", /nginx.*limits how large a request may be \(HTTP 413\).*client_max_body_size 0/],
  ["redirect", /nginx.*redirects to https:\/\/sso\.example\.org\/login \(HTTP 302\)/],
  ["page", /nginx.*is no Strongroom server: it sent content of type text\/html/],
  ["login", /nginx.*wants a login of its own \(HTTP 401\)/],
  ["forbidden", /nginx.*refuses the call \(HTTP 403\)/],
];

for (const [name, message] of FINAL) {
  test(`what a proxy would answer every time ends the upload at once, with the proxy's name (${name})`, async (t) => {
    if (!hasPeers(t, "nginx")) return;
    const retries: unknown[] = [];
    const client = clientFor(t, { url: t.context.nginx!.urls[name]!, onRetry: ({ error }) => retries.push(error) });
    const source = chunked(ciphertext(6 * MIB));
    await t.throwsAsync(client.upload({ collection: "through", source, encryption: none }), {
      name: "UnavailableError",
      message,
    });
    t.deepEqual(retries, []);
  });
}

test("a proxy without a server behind it is waited for", async (t) => {
  if (!hasPeers(t, "nginx")) return;
  let retries = 0;
  const client = clientFor(t, {
    url: t.context.nginx!.urls.alone!,
    giveUpAfterMs: 3000,
    onRetry: () => {
      retries += 1;
    },
  });
  await t.throwsAsync(client.upload({ collection: "through", source: chunked(ciphertext(MIB)), encryption: none }), {
    name: "UnavailableError",
    message: /nginx.*does not get to the Strongroom server behind it \(HTTP 502\)/,
  });
  t.true(retries > 1);
});

test("a page that stands in for a server that is away for a while costs a transfer nothing but time", async (t) => {
  const { port } = new URL(t.context.server.url);
  const open = new Set<Socket>();
  let isAway = false;
  let refused = 0;
  const front = createServer((socket) => {
    socket.on("error", () => undefined);
    if (isAway) {
      refused += 1;
      // In HTTP/1.1, as front ends do, whatever was asked for.
      socket.once("data", () => socket.end("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
      return;
    }
    open.add(socket);
    const upstream = connect(Number(port), "127.0.0.1");
    upstream.on("error", () => socket.destroy());
    socket.on("close", () => upstream.destroy());
    upstream.on("close", () => socket.destroy());
    socket.pipe(upstream);
    upstream.pipe(socket);
  });
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    for (const socket of open) socket.destroy();
    front.close();
  });
  const bytes = ciphertext(12 * MIB);
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 6 * MIB);
    isAway = true;
    for (const socket of open) socket.destroy();
    yield bytes.subarray(6 * MIB);
  }
  const client = clientFor(t, {
    url: `http://127.0.0.1:${(front.address() as AddressInfo).port}`,
    onRetry: () => {
      if (refused > 4) isAway = false;
    },
  });
  const { version } = await client.upload({ collection: "through", source: source(), encryption: none });
  const hash = createHash("sha256");
  const sink = (chunk: Uint8Array) => void hash.update(chunk);
  await client.download({ collection: "through", number: version.number, sink });
  t.is(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
});

/** A proxy that makes tunnels to this machine, whatever host is asked for, as long as the login is right. */
async function tunnelProxy(t: ExecutionContext<Context>, port: number) {
  const asked: string[] = [];
  const proxy = http.createServer((_, answer) => answer.writeHead(405).end());
  proxy.on("connect", (request, socket, head) => {
    asked.push(request.url ?? "");
    socket.on("error", () => undefined);
    const login = `Basic ${Buffer.from("up:down").toString("base64")}`;
    if (request.headers["proxy-authorization"] !== login) {
      socket.end("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    const upstream = connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      upstream.write(head);
      upstream.pipe(socket);
      socket.pipe(upstream);
    });
    upstream.on("error", () => socket.destroy());
    socket.on("close", () => upstream.destroy());
    upstream.on("close", () => socket.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return { asked, host: `127.0.0.1:${(proxy.address() as AddressInfo).port}` };
}

for (const speaks of ["http2", "http1"] as const) {
  test(`calls go through a tunnel of a proxy (${speaks})`, async (t) => {
    if (speaks === "http1" && !hasPeers(t, "nginx")) return;
    const address = speaks === "http2" ? t.context.server.url : t.context.nginx!.urls.http1!;
    const { asked, host } = await tunnelProxy(t, Number(new URL(address).port));
    const url = "http://backup.example.org:8080";
    const client = clientFor(t, { url, proxyEnvironment: { HTTP_PROXY: `http://up:down@${host}` } });
    const bytes = ciphertext(6 * MIB);
    const { version } = await client.upload({ collection: "through", source: chunked(bytes), encryption: none });
    const hash = createHash("sha256");
    const sink = (chunk: Uint8Array) => void hash.update(chunk);
    await client.download({ collection: "through", number: version.number, sink });
    t.is(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
    t.true(asked.length >= 2);
    t.true(asked.every((name) => name === "backup.example.org:8080"));
  });
}

test("a proxy that refuses the tunnel is named, without its login, and is not asked again", async (t) => {
  const { asked, host } = await tunnelProxy(t, 1);
  const environment = { http_proxy: `http://up:wrong@${host}` };
  const client = clientFor(t, { url: "http://backup.example.org", proxyEnvironment: environment });
  const error = await t.throwsAsync(
    client.upload({ collection: "through", source: chunked(ciphertext(MIB)), encryption: none }),
    {
      name: "UnavailableError",
      message: /the proxy http:\/\/127\.0\.0\.1:\d+ does not connect to backup\.example\.org:80 \(HTTP 407\)/,
    },
  );
  t.false(error!.message.includes("wrong"));
  t.is(asked.length, 1);
});

test("a proxy that is away is waited for, and what is no proxy is refused at once", async (t) => {
  const environment = { HTTP_PROXY: "http://127.0.0.1:9" };
  const client = clientFor(t, { url: "http://b.example.org", proxyEnvironment: environment, giveUpAfterMs: 200 });
  await t.throwsAsync(client.upload({ collection: "through", source: chunked(ciphertext(MIB)), encryption: none }), {
    message: /the proxy http:\/\/127\.0\.0\.1:9.*tried any longer/s,
  });
  const make = (proxyEnvironment: Record<string, string>) =>
    new StrongroomClient({ url: "https://b.example.org", proxyEnvironment });
  const error = t.throws(() => make({ HTTPS_PROXY: "socks5://up:down@10.0.0.1:1080" }), {
    name: "InvalidRequestError",
    message: /HTTPS_PROXY.*SOCKS.*NO_PROXY/,
  });
  t.false(error!.message.includes("down"));
  const unreadable = t.throws(() => make({ HTTPS_PROXY: "http://up:100%down@10.0.0.1:3128" }), {
    name: "InvalidRequestError",
    message: /HTTPS_PROXY.*%25/,
  });
  t.false(unreadable!.message.includes("down"));
  t.notThrows(() => make({ HTTPS_PROXY: "socks5://10.0.0.1:1080", NO_PROXY: ".example.org" }).close());
});

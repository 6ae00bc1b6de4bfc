/** TLS of the listener with real certificates and handshakes. */

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmod, copyFile, readFile, rename, rm, writeFile } from "node:fs/promises";
import http2 from "node:http2";
import https from "node:https";
import net from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";
import { Authority, type CertificateFiles } from "@strongroom/testkit/peers/certificates";
import { hasPeers, requirePeer } from "@strongroom/testkit/peers/programs";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { type CertificateFacts, type TlsEvents, TlsFileError, TlsFiles } from "../src/adapters/tls-files/tls-files.ts";
import { connectionOf, KNOWN_CALLER } from "../src/transport/connection.ts";
import { type Listener, type ListenOptions, listen, type RequestHandler } from "../src/transport/listener.ts";

interface Context {
  folder: string;
  authority: Authority;
  server: CertificateFiles;
}

const test = anyTest as TestFn<Context>;

/** A test that needs OpenSSL's program, with an authority and a certificate of it. */
function tlsTest(title: string, work: (t: ExecutionContext<Context>) => Promise<void>): void {
  test(title, async (t) => {
    if (!hasPeers(t, "openssl")) return;
    t.context.folder = await temporaryFolder(t);
    t.context.authority = await Authority.make(t.context.folder, "authority");
    t.context.server = await t.context.authority.issue("server");
    await work(t);
  });
}

/**
 * Says which protocol a request uses, over which TLS version, and whether its certificate is known. `/known` is an
 * authenticated call.
 */
const describe: RequestHandler = (req, res) => {
  if (req.url === "/known") connectionOf(req).authenticated();
  const session = "stream" in req ? (req.stream.session?.socket as tls.TLSSocket) : (req.socket as tls.TLSSocket);
  const facts = {
    http: req.httpVersion,
    address: session.remoteAddress,
    peer: session.getPeerCertificate?.().subject?.CN,
  };
  res.end(JSON.stringify(facts));
};

async function open(t: ExecutionContext<Context>, options: ListenOptions = {}): Promise<Listener> {
  const { server } = t.context;
  const [cert, key] = [await readFile(server.certificate), await readFile(server.key)];
  const listener = await listen(describe, "127.0.0.1", 0, { tls: { cert, key, ca: undefined }, ...options });
  t.teardown(async () => await listener.stop(0, () => {}));
  return listener;
}

async function trusting(t: ExecutionContext<Context>): Promise<tls.ConnectionOptions> {
  return { ca: await readFile(t.context.authority.certificate), host: "127.0.0.1", servername: "localhost" };
}

interface Facts {
  http: string;
  address: string;
  peer?: string;
}

async function overHttp2(port: number, options: http2.SecureClientSessionOptions): Promise<Facts> {
  const session = http2.connect(`https://127.0.0.1:${port}`, options);
  try {
    await once(session, "connect");
    return await request(session);
  } finally {
    session.destroy();
  }
}

async function request(session: http2.ClientHttp2Session): Promise<Facts> {
  const stream = session.request({ ":path": "/" });
  let text = "";
  for await (const chunk of stream) text += chunk;
  return JSON.parse(text) as Facts;
}

async function overHttp1(port: number, options: tls.ConnectionOptions): Promise<Facts> {
  return await new Promise((resolve, reject) => {
    https
      .get({ port, agent: false, ...options } as https.RequestOptions, async (res) => {
        let text = "";
        for await (const chunk of res) text += chunk;
        resolve(JSON.parse(text) as Facts);
      })
      .once("error", reject);
  });
}

/** The certificate that a new connection is shown. */
async function serialShown(port: number, options: tls.ConnectionOptions): Promise<string> {
  const socket = tls.connect({ port, ...options });
  await once(socket, "secureConnect");
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

async function gone(listener: Listener, most = 0): Promise<void> {
  while (listener.connections > most) await sleep(10);
}

tlsTest("HTTP/2 and HTTP/1.1 over TLS 1.2 and 1.3, with the caller's address; older TLS is refused", async (t) => {
  const { port } = await open(t);
  const client = await trusting(t);
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    const own = { ...client, minVersion: version, maxVersion: version };
    t.deepEqual(await overHttp2(port, own), { http: "2.0", address: "127.0.0.1" });
    t.deepEqual(await overHttp1(port, own), { http: "1.1", address: "127.0.0.1" });
    t.deepEqual(await overHttp1(port, { ...own, ALPNProtocols: ["http/1.1"] }), { http: "1.1", address: "127.0.0.1" });
  }
  const old = { ...client, minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const;
  await t.throwsAsync(serialShown(port, old), { message: /alert protocol version/ });
  await t.throwsAsync(serialShown(port, { ...client, ca: [] }), { message: /unable to (verify|get)|self-signed/ });
});

tlsTest(
  "the flow-control windows are those of the plaintext port, before and after the first known call",
  async (t) => {
    const { port } = await open(t);
    const session = http2.connect(`https://127.0.0.1:${port}`, await trusting(t));
    t.teardown(() => session.destroy());
    const nextSettings = async () =>
      await new Promise<http2.Settings>((resolve) => session.once("remoteSettings", resolve));
    t.like(await nextSettings(), { initialWindowSize: 65_535, maxConcurrentStreams: 32 });
    const raised = nextSettings();
    session.request({ ":path": "/known" }).resume();
    t.like(await raised, { initialWindowSize: KNOWN_CALLER.streamWindow, maxConcurrentStreams: KNOWN_CALLER.streams });
    await request(session);
    t.true((session.state.remoteWindowSize ?? 0) >= KNOWN_CALLER.sessionWindow - 65_535);
  },
);

tlsTest("plain HTTP on the TLS port is pointed to https, in both protocols", async (t) => {
  const listener = await open(t);
  const socket = net.connect(listener.port, "127.0.0.1");
  socket.write(`POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n${"x".repeat(100_000)}`);
  let answer = "";
  socket.on("error", () => {});
  socket.on("data", (data) => {
    answer += data;
  });
  await once(socket, "close");
  t.regex(
    answer,
    /^HTTP\/1\.1 400 [\s\S]*\r\n\r\n\{"code":"failed_precondition","message":"this port speaks TLS; .*https:\/\//,
  );
  t.is(answer.split("\r\n\r\n")[1]!.length, Number(/content-length: (\d+)/.exec(answer)![1]));

  const session = http2.connect(`http://127.0.0.1:${listener.port}`);
  session.on("error", () => {});
  const [code, , data] = (await once(session, "goaway")) as [number, number, Buffer];
  t.is(code, http2.constants.NGHTTP2_INADEQUATE_SECURITY);
  t.regex(data.toString(), /this port speaks TLS; .*https:\/\//);
  session.destroy();
  await gone(listener);
});

tlsTest("TLS on the plaintext port fails at once, in words that clients know", async (t) => {
  const listener = await open(t, { tls: undefined });
  const error = await t.throwsAsync(serialShown(listener.port, await trusting(t)));
  t.regex(error!.message, /wrong version number/i);
  await gone(listener);
});

tlsTest("silent connections, half handshakes, garbage and a flood of all of them leave nothing behind", async (t) => {
  const listener = await open(t, { firstBytesMs: 300, handshakeMs: 300 });
  const client = await trusting(t);
  // A real ClientHello, cut in the middle.
  const hello = await new Promise<Buffer>((resolve) => {
    const catcher = net.createServer((socket) => {
      socket.once("data", (data: Buffer) => {
        resolve(data);
        socket.destroy();
      });
    });
    catcher.listen(0, "127.0.0.1", () => {
      const { port } = catcher.address() as net.AddressInfo;
      tls
        .connect({ port, ...client })
        .on("error", () => {})
        .on("close", () => catcher.close());
    });
  });
  t.is(hello[0], 22);
  const starts = [
    Buffer.alloc(0),
    hello.subarray(0, 1),
    hello.subarray(0, 60),
    hello,
    Buffer.from([22, 3, 1, 0, 5, 1, 2, 3, 4, 5]),
  ];
  const sockets = Array.from({ length: 200 }, (_, i) => {
    const socket = net.connect(listener.port, "127.0.0.1");
    socket.on("error", () => {}).resume();
    socket.write(starts[i % starts.length]!);
    return once(socket, "close");
  });
  await Promise.all(sockets);
  await gone(listener);
  t.is((await overHttp2(listener.port, client)).http, "2.0");
});

tlsTest("calls under way may end when the server stops, and new connections are refused", async (t) => {
  const { server } = t.context;
  const [cert, key] = [await readFile(server.certificate), await readFile(server.key)];
  let finish = () => {};
  const arrived = Promise.withResolvers<void>();
  const slow: RequestHandler = (_req, res) => {
    finish = () => res.end('{"http":"slow"}');
    arrived.resolve();
  };
  const listener = await listen(slow, "127.0.0.1", 0, { tls: { cert, key, ca: undefined } });
  const client = await trusting(t);
  const call = overHttp2(listener.port, client);
  const idle = http2.connect(`https://127.0.0.1:${listener.port}`, client);
  await once(idle, "connect");
  await arrived.promise;
  const stopped = listener.stop(30_000, () => {});
  await t.throwsAsync(serialShown(listener.port, client), { code: "ECONNREFUSED" });
  finish();
  t.is((await call).http, "slow");
  await stopped;
  idle.destroy();
});

tlsTest("a dead client is noticed by a probe while a call waits for it; a living one is left alone", async (t) => {
  const { server } = t.context;
  const [cert, key] = [await readFile(server.certificate), await readFile(server.key)];
  let calls = 0;
  let release = () => {};
  const waiting: RequestHandler = (_req, res) => {
    calls++;
    release = () => res.end('{"http":"waited"}');
  };
  const credentials = { cert, key, ca: undefined };
  const listener = await listen(waiting, "127.0.0.1", 0, { tls: credentials, pingEveryMs: 100 });
  t.teardown(async () => await listener.stop(0, () => {}));
  const client = await trusting(t);
  // Reads nothing more once the call is there, and so answers no probe.
  const socket = tls.connect({ port: listener.port, ALPNProtocols: ["h2"], ...client });
  const dead = http2.connect(`https://127.0.0.1:${listener.port}`, { createConnection: () => socket });
  dead.on("error", () => {});
  dead.request({ ":path": "/" }).on("error", () => {});
  while (calls < 1) await sleep(10);
  const frozen = socket as unknown as { _handle: { readStop(): void } };
  frozen._handle.readStop();
  await gone(listener);
  dead.destroy();

  // Client and server share a thread here, so a probe needs some time to be answered.
  const patient = await listen(waiting, "127.0.0.1", 0, { tls: credentials, pingEveryMs: 1000 });
  t.teardown(async () => await patient.stop(0, () => {}));
  const living = overHttp2(patient.port, client);
  while (calls < 2) await sleep(10);
  await sleep(2500);
  release();
  t.is((await living).http, "waited");
});

tlsTest("with an authority of clients only its clients get in", async (t) => {
  const { authority, folder, server } = t.context;
  const clients = await Authority.make(folder, "clients");
  const files = await TlsFiles.open({ cert: server.certificate, key: server.key, clientCa: clients.certificate });
  const listener = await open(t, { tls: files.current });
  const base = await trusting(t);
  const own = async ({ certificate, key }: CertificateFiles) => ({
    ...base,
    cert: await readFile(certificate),
    key: await readFile(key),
  });
  const good = await own(await clients.issue("good"));
  t.deepEqual(await overHttp2(listener.port, good), { http: "2.0", address: "127.0.0.1", peer: "good" });
  t.is((await overHttp1(listener.port, good)).peer, "good");
  for (const bad of [base, await own(await authority.issue("stranger")), await own(await clients.issue("late", -1))]) {
    await t.throwsAsync(overHttp2(listener.port, bad));
    await t.throwsAsync(overHttp1(listener.port, bad));
    await t.throwsAsync(overHttp1(listener.port, { ...bad, maxVersion: "TLSv1.2" }));
  }
  await gone(listener);
});

/** Collects the reports of renewed files. */
function recorder() {
  const reports: string[] = [];
  const events: TlsEvents = {
    changed: (_material, { warning }: CertificateFacts) =>
      reports.push(`changed${warning === undefined ? "" : " with a warning"}`),
    rejected: (error) => reports.push(error.message),
  };
  return { reports, events };
}

tlsTest(
  "a renewed certificate is used for new connections; a broken pair is reported once and the old one stays",
  async (t) => {
    const { authority, folder, server } = t.context;
    const paths = { cert: join(folder, "live.pem"), key: join(folder, "live.key"), clientCa: undefined };
    const put = async (files: CertificateFiles) => {
      await copyFile(files.key, paths.key);
      await copyFile(files.certificate, paths.cert);
    };
    await put(server);
    const files = await TlsFiles.open(paths);
    const listener = await open(t, { tls: files.current });
    const { reports, events } = recorder();
    const both: TlsEvents = {
      ...events,
      changed(material, facts) {
        listener.renewTls(material);
        events.changed(material, facts);
      },
    };
    const client = await trusting(t);
    const running = http2.connect(`https://127.0.0.1:${listener.port}`, client);
    await once(running, "connect");
    const first = await serialShown(listener.port, client);
    await files.look(both);
    await files.look(both);
    t.deepEqual(reports, []);

    const second = await authority.issue("second");
    await put(second);
    await files.look(both);
    t.deepEqual(reports, [], "may be half of a renewal");
    await files.look(both);
    t.deepEqual(reports, ["changed"]);
    const renewed = await serialShown(listener.port, client);
    t.not(renewed, first);
    t.is((await request(running)).http, "2.0", "connections from before go on");

    const third = await authority.issue("third");
    await rename(third.key, paths.key);
    for (let i = 0; i < 4; i++) await files.look(both);
    t.is(reports.length, 2);
    t.regex(reports[1]!, /--tls-key .*live\.key does not belong to the first certificate in --tls-cert .*live\.pem/);
    t.is(await serialShown(listener.port, client), renewed);
    await rm(paths.cert);
    for (let i = 0; i < 4; i++) await files.look(both);
    t.regex(reports[2]!, /--tls-cert .*live\.pem does not exist/);
    t.is(await serialShown(listener.port, client), renewed);
    await rename(third.certificate, paths.cert);
    for (let i = 0; i < 2; i++) await files.look(both);
    t.deepEqual(reports.slice(3), ["changed"]);
    t.not(await serialShown(listener.port, client), renewed);
    await put(await authority.issue("expired", -1));
    for (let i = 0; i < 2; i++) await files.look(both);
    t.deepEqual(reports.slice(4), ["changed with a warning"]);
    t.is((await request(running)).http, "2.0");
    running.destroy();
  },
);

tlsTest("the files are watched until closed", async (t) => {
  const { authority, server } = t.context;
  const files = await TlsFiles.open({ cert: server.certificate, key: server.key, clientCa: undefined });
  const second = await authority.issue("second");
  const changed = new Promise<void>((resolve) => {
    // Between the two copies certificate and key do not fit together, which may be reported.
    files.watch({ changed: () => resolve(), rejected: () => {} }, 20);
  });
  await copyFile(second.key, server.key);
  await copyFile(second.certificate, server.certificate);
  await changed;
  files.close();
  t.pass();
});

tlsTest("files that cannot be used are refused with the option, the file and what to do", async (t) => {
  const { authority, folder, server } = t.context;
  const at = (name: string) => join(folder, name);
  const refused = async (expected: RegExp, change: Partial<{ cert: string; key: string; clientCa: string }>) => {
    const paths = { cert: server.certificate, key: server.key, clientCa: undefined, ...change };
    const error = await t.throwsAsync(TlsFiles.open(paths), { instanceOf: TlsFileError });
    t.regex(error!.message, expected);
    t.false(/BEGIN [A-Z ]*KEY-----\n/.test(error!.message));
  };
  await refused(/^--tls-cert .*none\.pem does not exist$/, { cert: at("none.pem") });
  await refused(/^--tls-key .* is a directory/, { key: folder });
  const other = await authority.issue("other");
  await refused(/^--tls-key .*other\.key does not belong to the first certificate/, { key: other.key });
  await refused(/^--tls-cert .*holds no certificate .*swapped/, { cert: server.key, key: server.certificate });
  await refused(/^--tls-key .*holds no private key/, { key: server.certificate });
  await writeFile(at("damaged.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  await refused(/^--tls-cert .*certificate 1 in it is damaged$/, { cert: at("damaged.pem") });
  await refused(/^--tls-client-ca .*certificate 1 in it is damaged$/, { clientCa: at("damaged.pem") });
  await refused(/^--tls-client-ca .*holds no certificate/, { clientCa: server.key });
  await writeFile(at("large.pem"), Buffer.alloc(1024 * 1024 + 1, "x"));
  await refused(/^--tls-cert .*is larger than 1 MiB$/, { cert: at("large.pem") });
  for (const form of [
    ["pkey", "-aes256"],
    ["ec", "-aes256"],
  ]) {
    const [kind = "", cipher = ""] = form;
    execFileSync(
      requirePeer("openssl"),
      [kind, cipher, "-passout", "pass:x", "-in", server.key, "-out", at("enc.key")],
      {
        stdio: "ignore",
      },
    );
    await refused(/^--tls-key .*is encrypted, .*openssl pkey/, { key: at("enc.key") });
  }
  execFileSync(
    requirePeer("openssl"),
    [
      "req",
      "-x509",
      "-newkey",
      "rsa:512",
      "-nodes",
      "-keyout",
      at("weak.key"),
      "-out",
      at("weak.pem"),
      "-subj",
      "/CN=weak",
    ],
    { stdio: "ignore" },
  );
  await refused(/^--tls-cert .*weak\.pem cannot be used: .*key too small/, {
    cert: at("weak.pem"),
    key: at("weak.key"),
  });
  if (process.getuid?.() !== 0) {
    await chmod(server.key, 0);
    await refused(/^--tls-key .*may not be read by the user/, {});
  }
});

tlsTest("an expired certificate is used with a warning", async (t) => {
  const expired = await t.context.authority.issue("expired", -1);
  const { facts } = await TlsFiles.open({ cert: expired.certificate, key: expired.key, clientCa: undefined });
  t.regex(facts.warning!, /expired\.pem expired at 20\d\d-/);
});

import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import http2 from "node:http2";
import { join } from "node:path";
import { Writable } from "node:stream";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { pino } from "pino";
import { Argon2Hasher } from "../src/adapters/argon2/argon2-hasher.ts";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import { processBudgets } from "../src/calls/budgets.ts";
import { beginCall } from "../src/calls/call.ts";
import { Calls, type CallsDeps } from "../src/calls/calls.ts";
import { NO_LIMITS, type RateLimits } from "../src/domain/rate-limit.ts";
import { type RunningServer, startServer } from "../src/main.ts";
import { httpDoor } from "../src/transport/http-endpoints.ts";
import { listen, type RequestHandler } from "../src/transport/listener.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { MIB, SETTINGS } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";
import { parseMetrics } from "./support/prometheus-text.ts";

const SECRET = "a secret & more=";
const DIGEST = createHash("sha256").update(SECRET).digest("hex");
const SESSION_MS = 3_600_000;

interface Running {
  readonly server: RunningServer;
  readonly store: FaultyBlobStore;
  readonly config: ConfigFilesSource;
  readonly dir: string;
  log(): string;
}

const COLLECTION = (name: string) => `
---
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: {name: ${name}}
spec: {maxBackupsCount: 2, maxOneVersionSize: 2M, maxCollectionSize: 10M, maxAge: 1h}
`;

async function start(t: ExecutionContext, secret: string | undefined, rateLimits?: RateLimits): Promise<Running> {
  const dir = await temporaryFolder(t);
  const passwords = new Argon2Hasher();
  await writeFile(
    join(dir, "users.yaml"),
    `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupUser
metadata: {name: admin}
spec: {email: a@example.org, roles: [systemAdmin], password: "${await passwords.hash("right password")}"}
`,
  );
  await writeFile(join(dir, "collections.yaml"), COLLECTION("db") + COLLECTION("empty"));
  const database = await openMemoryDatabase();
  const store = new FaultyBlobStore(new MemoryBlobStore());
  const config = await ConfigFilesSource.open(dir, { settle: async () => {} });
  let log = "";
  const out = new Writable({
    write(chunk, _encoding, done) {
      log += chunk;
      done();
    },
  });
  const server = await startServer(
    {
      database,
      store,
      config,
      passwords,
      tokens: await JoseSigner.fromDatabase(database),
      log: pino({ level: "trace" }, out),
      settings: SETTINGS,
      sessionMs: SESSION_MS,
      sessionLifetimeMs: 7 * 24 * 3_600_000,
      sweepMs: 3_600_000,
      monitoringSecretSha256: secret,
      rateLimits,
    },
    "127.0.0.1",
    0,
  );
  t.teardown(() => server.stop(1000));
  return { server, store, config, dir, log: () => log };
}

async function get(url: string, headers: Record<string, string> = {}, method = "GET") {
  const res = await fetch(url, { headers, method });
  return { status: res.status, headers: res.headers, text: await res.text() };
}

async function getHttp2(base: string, path: string, headers: Record<string, string>) {
  const session = http2.connect(base);
  try {
    const stream = session.request({ ":path": path, ...headers });
    const head = await new Promise<http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader>((resolve, reject) => {
      stream.once("response", resolve);
      stream.once("error", reject);
    });
    let text = "";
    for await (const chunk of stream.setEncoding("utf8")) text += chunk;
    return { status: head[":status"], text };
  } finally {
    session.close();
  }
}

async function probes(store: FaultyBlobStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list("strongroom-probe-")) keys.push(key);
  return keys;
}

test("liveness answers everybody, with the right methods, over HTTP/1.1 and HTTP/2", async (t) => {
  const { server } = await start(t, undefined);
  const health = await get(`${server.url}/health`);
  t.is(health.status, 200);
  t.regex(health.headers.get("content-type")!, /^application\/json/);
  t.like(JSON.parse(health.text), { status: true });
  t.truthy(JSON.parse(health.text).data.msg);
  const head = await get(`${server.url}/health?x=1`, {}, "HEAD");
  t.is(head.status, 200);
  t.is(head.text, "");
  t.is(head.headers.get("content-length"), String(health.text.length));
  const post = await fetch(`${server.url}/ready`, { method: "POST", body: "x".repeat(100_000) });
  t.is(post.status, 405);
  t.is(post.headers.get("allow"), "GET, HEAD");
  await post.text();
  t.deepEqual(await getHttp2(server.url, "/health", {}), { status: 200, text: health.text });
  t.is((await get(`${server.url}/healthy`)).status, 404);
  t.is((await get(`${server.url}/health/`)).status, 404);
});

test("without a secret readiness tells nothing but itself, and there are no metrics", async (t) => {
  const { server, store } = await start(t, undefined);
  t.deepEqual(JSON.parse((await get(`${server.url}/ready`)).text), { status: true, data: {} });
  const none = await get(`${server.url}/metrics?code=x`, { authorization: "Bearer x" });
  t.is(none.status, 404);
  t.deepEqual(await probes(store), []);
});

test("readiness: every check with its message for who has the secret, which appears in no log", async (t) => {
  const { server, store, config, dir, log } = await start(t, DIGEST);
  const url = `${server.url}/ready`;
  for (const headers of [{}, { authorization: "wrong" }, { authorization: "x".repeat(2000) }, { authorization: "" }]) {
    const refused = await get(url, headers as Record<string, string>);
    t.is(refused.status, 401);
    t.deepEqual(JSON.parse(refused.text).data, {});
  }
  t.is((await get(`${url}?code=`)).status, 401);
  t.is((await get(`${url}?code=${encodeURIComponent(DIGEST)}`)).status, 401, "the digest is not the secret");
  const ways = [
    await get(url, { authorization: SECRET }),
    await get(url, { authorization: `Bearer ${SECRET}` }),
    await get(`${url}?code=${encodeURIComponent(SECRET)}`),
    await get(`${url}?code=${encodeURIComponent(SECRET)}`, { authorization: "Basic of-a-proxy" }),
    await getHttp2(server.url, `/ready?a=b&code=${encodeURIComponent(SECRET)}`, {}),
  ];
  for (const { status, text } of ways) {
    t.is(status, 200);
    const { data } = JSON.parse(text);
    t.deepEqual(
      data.health.map(({ name, status, statusText }: Record<string, unknown>) => [name, status, statusText]),
      [
        ["DbValidator", true, "DbValidator=true"],
        ["StorageAvailabilityValidator", true, "StorageAvailabilityValidator=true"],
        ["ConfigurationProviderValidator", true, "ConfigurationProviderValidator=true"],
        ["ClockValidator", true, "ClockValidator=true"],
      ],
    );
  }
  t.deepEqual(await probes(store), [], "no probe is left");
  t.false(log().includes("a%20secret") || log().includes("a secret"), "the secret is in no log");
  await writeFile(join(dir, "collections.yaml"), COLLECTION("db").replace("10M", "1M"));
  t.is(await config.reload(), "refused");
});

test("secrets are guessed within the budget of health checks, and liveness costs nothing", async (t) => {
  const limits: RateLimits = { login: undefined, health: { count: 3, perMs: 3_600_000 }, requests: undefined };
  const { server } = await start(t, DIGEST, limits);
  for (const path of ["/ready", "/metrics", "/ready"]) t.is((await get(`${server.url}${path}?code=guess`)).status, 401);
  for (const path of ["/ready", "/metrics"]) {
    const refused = await get(`${server.url}${path}`, { authorization: SECRET });
    t.is(refused.status, 429, "also for who knows it: they share the address");
    t.true(Number(refused.headers.get("retry-after")) > 0);
  }
  t.is((await get(`${server.url}/health`)).status, 200);
});

test("a server that is stopping is not ready, and asks nobody", async (t) => {
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const calls = new Calls({ log, budgets: processBudgets(NO_LIMITS) } as unknown as CallsDeps);
  const ready = async () => await Promise.reject(new Error("asked"));
  const door = httpDoor({ hasSecret: false, stopping: () => true, ready, metrics: undefined }, calls);
  const handler: RequestHandler = (req, res) => {
    door(beginCall({ door: "http", method: "/ready", address: "127.0.0.1", requestId: undefined }), req, res);
  };
  const listener = await listen(handler, "127.0.0.1", 0);
  t.teardown(() => listener.stop(0, () => {}));
  const url = `http://127.0.0.1:${listener.port}`;
  const answer = await get(`${url}/ready`);
  t.is(answer.status, 500);
  t.is(JSON.parse(answer.text).error, "the server is stopping");
});

test("a metrics scrape shows what happened", async (t) => {
  const { server, config, dir, store } = await start(t, DIGEST);
  const transport = createConnectTransport({ baseUrl: server.url, httpVersion: "2" });
  const sessions = createClient(SessionService, transport);
  const { token } = await sessions.login({ username: "admin", password: "right password" });
  await t.throwsAsync(sessions.login({ username: "admin", password: "wrong" }));
  const auth = { headers: { authorization: `Bearer ${token}` } };
  const uploads = createClient(UploadService, transport);
  const { upload } = await uploads.createUpload({ collection: "db" }, auth);
  const message = openpgpMessage(MIB + 5);
  const segments = cutSegments(message, Number(upload!.segmentSizeBytes));
  for (const { index, size, sha256, framingIn, bytes } of segments) {
    const header = { uploadId: upload!.uploadId, index, sizeBytes: size, sha256, framingIn };
    await uploads.writeSegment(
      (async function* () {
        yield { frame: { case: "header" as const, value: header } };
        yield { frame: { case: "chunk" as const, value: bytes } };
      })(),
      auth,
    );
  }
  const sizeBytes = BigInt(message.length);
  await uploads.commitUpload({ uploadId: upload!.uploadId, sizeBytes, compositeSha256: compositeOf(segments) }, auth);
  let read = 0;
  for await (const { frame } of createClient(VersionService, transport).readVersion(
    { collection: "db", which: { case: "newest", value: true } },
    auth,
  ))
    if (frame.case === "chunk") read += frame.value.length;
  t.is(read, message.length);
  const error = await t.throwsAsync(uploads.createUpload({ collection: "none" }, auth), { instanceOf: ConnectError });
  t.is((error as ConnectError).code, Code.NotFound);

  const denied = await get(`${server.url}/metrics`);
  t.is(denied.status, 401);
  t.false(denied.text.includes("strongroom_"));
  await config.reload();
  const first = await get(`${server.url}/metrics`, { authorization: `Bearer ${SECRET}` });
  t.is(first.status, 200);
  t.regex(first.headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
  const metrics = parseMetrics(first.text);
  const value = (name: string, labels: Record<string, string> = {}) => metrics.value(`strongroom_${name}`, labels);
  t.is(value("requests_total", { method: "UploadService/CommitUpload", code: "ok" }), 1);
  t.is(value("requests_total", { method: "UploadService/CreateUpload", code: "not_found" }), 1);
  t.is(value("refusals_total", { reason: "COLLECTION_NOT_FOUND" }), 1);
  t.is(value("request_duration_seconds_count", { method: "UploadService/WriteSegment" }), segments.length);
  t.is(value("received_bytes_total"), message.length);
  t.is(value("sent_bytes_total"), message.length);
  t.is(value("segments_total"), segments.length);
  t.is(value("uploads_total", { event: "created" }), 1);
  t.is(value("uploads_total", { event: "committed" }), 1);
  t.is(value("uploads_total", { event: "expired" }), 0);
  t.is(value("logins_total", { outcome: "ok" }), 1);
  t.is(value("logins_total", { outcome: "failed" }), 1);
  t.is(value("store_operations_total", { operation: "writePart", outcome: "ok" }), segments.length);
  t.is(value("store_operation_duration_seconds_count", { operation: "complete" }), 1);
  t.is(value("database_errors_total"), 0);
  t.is(value("collection_bytes", { collection: "db", kind: "stored" }), message.length);
  t.is(value("collection_bytes", { collection: "db", kind: "reserved" }), 0);
  t.is(value("collection_limit_bytes", { collection: "empty" }), 10 * MIB);
  t.is(value("collection_versions", { collection: "db" }), 1);
  t.is(value("collection_newest_version_timestamp_seconds", { collection: "empty" }), 0);
  const newest = value("collection_newest_version_timestamp_seconds", { collection: "db" })!;
  t.true(Math.abs(newest - Date.now() / 1000) < 600);
  t.is(value("collection_newest_version_bytes", { collection: "db" }), message.length);
  t.is(value("collection_newest_version_bytes", { collection: "empty" }), 0);
  t.is(value("collection_health", { collection: "db" }), 0);
  t.is(value("collection_health", { collection: "empty" }), 2, "no version within maxAge");
  t.is(value("collections", { state: "configured" }), 2);
  t.is(value("collections", { state: "frozen" }), 0);
  t.is(value("config_valid"), 1);
  t.is(value("sweeps_total", { outcome: "ok" }), 1);
  t.is(metrics.types.get("strongroom_requests_total"), "counter");
  t.not(metrics.value("nodejs_eventloop_lag_p99_seconds", {}), undefined);
  t.not(metrics.value("process_resident_memory_bytes", {}), undefined);

  store.fail("put", { error: new BlobStoreError("no space left on the device") });
  await writeFile(join(dir, "collections.yaml"), "kind: [");
  await config.reload();
  const ready = await get(`${server.url}/ready`, { authorization: SECRET });
  t.is(ready.status, 500);
  const { health } = JSON.parse(ready.text).data;
  t.like(health[1], {
    status: false,
    statusText: "StorageAvailabilityValidator=false",
    message: "no space left on the device",
  });
  t.like(health[2], { status: false, statusText: "ConfigurationProviderValidator=false" });
  t.regex(health[2].message, /the last good state is in force: collections\.yaml:1: not valid YAML/);
  store.assertAllFired(t);
  const later = parseMetrics((await get(`${server.url}/metrics?code=${encodeURIComponent(SECRET)}`)).text);
  t.is(later.value("strongroom_config_valid", {}), 0);
  t.is(later.value("strongroom_config_reloads_total", { outcome: "refused" }), 1);
  t.is(later.value("strongroom_store_operations_total", { operation: "put", outcome: "error" }), 1);
});

/** Every row of the HTTP API's table: status and words, over the network, below both of its prefixes. */
import { createHash } from "node:crypto";
import http from "node:http";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import test from "ava";
import { sql } from "drizzle-orm";
import { HTTP_API_ROUTES } from "../src/calls/routes.ts";
import { NO_LIMITS } from "../src/domain/rate-limit.ts";
import { collection, MIB, user } from "./support/harness.ts";
import { LiveServer } from "./support/live-server.ts";

const KIB = 1024;
const HEALTH_SECRET = "monitoring secret";
const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");

const USERS = [
  user("admin", { roles: ["systemAdmin"], passwordHash: "hash of right", email: "admin@example.org" }),
  user("keeper", { roles: ["userManager"], passwordHash: "hash of right" }),
  user("unprivileged", { passwordHash: "hash of right" }),
  user("uploader", {
    passwordHash: "hash of right",
    accessKeys: [
      {
        name: "job",
        passwordHash: "hash of key",
        objects: [{ type: "collection", name: "db", roles: ["backupUploader"] }],
      },
    ],
  }),
  user("reader", { passwordHash: "hash of right" }),
];

const ACCESS = [
  { userName: "uploader", roles: ["backupUploader"] },
  { userName: "reader", roles: ["backupDownloader"] },
] as const;

const COLLECTIONS = [
  collection("db", {
    maxParallelUploads: 1,
    accessControl: ACCESS,
    healthSecretSha256: sha256(HEALTH_SECRET),
    filenameTemplate: "db-${version}.gpg",
  }),
  // Open for one minute of the 29th of February.
  collection("shut", { accessControl: ACCESS, windows: [{ from: "0 0 29 2 *", durationMs: 60_000 }] }),
];

let live: LiveServer;
test.before(async () => {
  live = await LiveServer.open(USERS, COLLECTIONS, { monitoringSecretSha256: sha256("ready secret") });
});
test.after.always(async () => await live?.close());

interface Answered {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: what the server answers is what is tested
  readonly json: any;
}

async function ask(method: string, path: string, init: RequestInit & { token?: string } = {}): Promise<Answered> {
  const headers = new Headers(init.headers);
  if (init.token !== undefined) headers.set("authorization", `Bearer ${init.token}`);
  const response = await fetch(`${live.server.url}${path}`, { ...init, method, headers });
  const text = await response.text();
  return { status: response.status, headers: response.headers, json: JSON.parse(text) };
}

const tokenOf = async (name: string, more = {}) => (await live.session(name, more)).token;

const loginBody = (username: string, password: string, more = {}) => ({
  body: JSON.stringify({ username, password, ...more }),
  headers: { "content-type": "application/json" },
});

for (const prefix of ["/api/stable", "/api/alpha"]) {
  test(`${prefix}/auth/login: JSON, a form, an access key, and a scope`, async (t) => {
    const { status, json } = await ask("POST", `${prefix}/auth/login`, loginBody("admin", "right"));
    t.is(status, 200);
    t.is(json.status, true);
    t.deepEqual(Object.keys(json.data).sort(), ["expire", "msg", "sessionId", "token"]);
    t.regex(json.data.expire, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    t.is(json.data.sessionId, sha256(json.data.token));

    const form = await ask("POST", `${prefix}/auth/login`, {
      body: new URLSearchParams({ username: "uploader$job", password: "key" }),
    });
    t.is(form.status, 200);
    const who = await ask("GET", `${prefix}/auth/whoami`, { token: form.json.data.token });
    t.is(who.json.data.grantedAccess.accessKeyName, "job");

    const scope = { elements: [{ type: "collection", name: "db", roles: ["backupDownloader"] }] };
    const narrowed = await ask("POST", `${prefix}/auth/login`, loginBody("admin", "right", { operationsScope: scope }));
    const denied = await ask("POST", `${prefix}/repository/collection/db/version`, {
      body: openpgpMessage(KIB),
      token: narrowed.json.data.token,
    });
    t.deepEqual([denied.status, denied.json.error], [403, "not authorized to upload versions to this collection"]);
    const bad = [{ elements: [{ type: "user", name: "x", roles: [] }] }, [], "all", { elements: 1 }, { element: [] }];
    const bodies: Record<string, unknown>[] = bad.map((one) => ({ operationsScope: one }));
    bodies.push({ operations_scope: scope }, { scope }, { operationsScope: scope, OperationsScope: {} });
    for (const body of bodies) {
      const refused = await ask("POST", `${prefix}/auth/login`, loginBody("admin", "right", body));
      t.is(refused.status, 400, JSON.stringify(body));
    }
    // The older server took names in any case.
    const elements = [{ Type: "collection", NAME: "db", Roles: ["backupDownloader"] }];
    for (const name of ["operationsScope", "OperationsScope", "operationsscope"]) {
      const body = loginBody("admin", "right", { [name]: { Elements: elements } });
      const { json } = await ask("POST", `${prefix}/auth/login`, body);
      const upload = { body: openpgpMessage(KIB), token: json.data.token };
      t.is((await ask("POST", `${prefix}/repository/collection/db/version`, upload)).status, 403, name);
    }
  });

  test(`${prefix}: a name with a control character is one that nobody has`, async (t) => {
    const login = await ask("POST", `${prefix}/auth/login`, loginBody("admin", "right"));
    const { token } = login.json.data;
    const body = openpgpMessage(KIB);
    const path = `${prefix}/repository/collection/d%00b`;
    t.is((await ask("POST", `${path}/version`, { body, token })).status, 404);
    for (const rest of ["version", "version/1", "health"])
      t.is((await ask("GET", `${path}/${rest}`, { token })).status, 404, rest);
  });

  test(`${prefix}/auth/login: a life that is asked for`, async (t) => {
    const { status, json } = await ask(
      "POST",
      `${prefix}/auth/login`,
      loginBody("reader", "right", { lifetime: "30m" }),
    );
    t.is(status, 200);
    t.is(Date.parse(json.data.expire), live.clock.now.getTime() + 30 * 60_000);
    for (const lifetime of ["400d", "long", 3600, "1s"]) {
      const refused = await ask("POST", `${prefix}/auth/login`, loginBody("reader", "right", { lifetime }));
      t.is(refused.status, 400, String(lifetime));
      t.regex(refused.json.error, /^lifetime: expected/);
    }
  });

  test(`${prefix}/auth/login: a refusal has one form, whoever is asked for`, async (t) => {
    for (const body of [loginBody("admin", "wrong"), loginBody("nobody", "wrong"), loginBody("uploader$x", "key")]) {
      const { status, json } = await ask("POST", `${prefix}/auth/login`, body);
      t.is(status, 401);
      t.deepEqual(json, { status: false, code: 401, message: "incorrect Username or Password", data: {} });
    }
    const { status, json } = await ask("POST", `${prefix}/auth/login`, { body: "no json" });
    t.deepEqual([status, json.message], [401, "missing Username or Password"]);
    const large = await ask("POST", `${prefix}/auth/login`, { body: "x".repeat(20 * KIB) });
    t.is(large.status, 413);
  });

  test(`${prefix}/auth/refresh_token: a new token, at the top and as at login`, async (t) => {
    const { status, json } = await ask("GET", `${prefix}/auth/refresh_token`, { token: await tokenOf("admin") });
    t.is(status, 200);
    t.deepEqual([json.code, json.token, json.expire], [200, json.data.token, json.data.expire]);
    t.is(json.data.sessionId, sha256(json.token));
    const refused = await ask("GET", `${prefix}/auth/refresh_token`, { token: "none" });
    t.is(refused.status, 401);
    t.like(refused.json, { status: false, code: 401, data: {} });
  });

  test(`${prefix}/auth/whoami: user and session`, async (t) => {
    const { id, token } = await live.session("admin");
    const { status, json } = await ask("GET", `${prefix}/auth/whoami`, { token });
    t.is(status, 200);
    const { email, permissions, sessionId, grantedAccess } = json.data;
    t.deepEqual([email, permissions, sessionId], ["admin@example.org", ["systemAdmin"], id]);
    t.deepEqual(Object.keys(grantedAccess), [
      "id",
      "expiresAt",
      "deactivated",
      "description",
      "requesterIP",
      "user",
      "accessKeyName",
      "CreatedAt",
      "UpdatedAt",
      "DeletedAt",
    ]);
    t.like(grantedAccess, { id, deactivated: false, requesterIP: "127.0.0.1", user: "admin", DeletedAt: null });
    t.is((await ask("GET", `${prefix}/auth/whoami`)).status, 401);
  });

  test(`${prefix}/auth/user/:name: oneself, and others for a userManager`, async (t) => {
    const admin = { email: "admin@example.org", permissions: ["systemAdmin"] };
    const cases = [
      ["admin", "admin", 200, admin],
      ["keeper", "admin", 200, admin],
      ["keeper", "nobody", 404, {}],
      ["reader", "reader", 200, { email: "reader@example.org", permissions: [] }],
      ["reader", "admin", 403, {}],
      ["reader", "nobody", 403, {}],
    ] as const;
    for (const [as, name, status, data] of cases) {
      const answer = await ask("GET", `${prefix}/auth/user/${name}`, { token: await tokenOf(as) });
      t.deepEqual([answer.status, answer.json.data], [status, data as object], `${as} asks for ${name}`);
      if (status === 403) t.is(answer.json.error, "no permissions to view that user account");
    }
  });

  test(`${prefix}/auth/logout: one's own session, or any for systemAdmin`, async (t) => {
    const own = await live.session("reader");
    const { status, json } = await ask("DELETE", `${prefix}/auth/logout`, { token: own.token });
    t.deepEqual([status, json.data], [200, { message: "JWT was revoked", sessionId: own.id }]);
    t.is((await ask("GET", `${prefix}/auth/whoami`, { token: own.token })).status, 401);

    const other = await live.session("uploader");
    const denied = await ask("DELETE", `${prefix}/auth/logout?sessionId=${other.id}`, {
      token: await tokenOf("reader"),
    });
    t.deepEqual(
      [denied.status, denied.json.error],
      [403, "you don't have permissions to revoke session of other user"],
    );
    const token = await tokenOf("admin");
    t.is((await ask("DELETE", `${prefix}/auth/logout?sessionId=${other.id}`, { token })).status, 200);
    t.is((await ask("GET", `${prefix}/auth/whoami`, { token: other.token })).status, 401);
    t.is((await ask("DELETE", `${prefix}/auth/logout?sessionId=${"0".repeat(64)}`, { token })).status, 404);
  });

  test(`${prefix}/auth/token: sessions of oneself, or of another for systemAdmin`, async (t) => {
    const { id, token } = await live.session("uploader", { description: "Login" });
    const { status, json } = await ask("GET", `${prefix}/auth/token`, { token });
    t.is(status, 200);
    t.true(json.data.grantedAccesses.some((access: { id: string }) => access.id === id));
    const admin = await tokenOf("admin");
    const others = await ask("GET", `${prefix}/auth/token?userName=uploader`, { token: admin });
    t.true(others.json.data.grantedAccesses.some((access: { id: string }) => access.id === id));
    const denied = await ask("GET", `${prefix}/auth/token?userName=admin`, { token });
    t.deepEqual([denied.status, denied.json.error], [403, "no permissions to act as other user"]);
  });

  test.serial(`${prefix}: an upload is downloaded, listed and healthy`, async (t) => {
    const message = openpgpMessage(2 * MIB + 17);
    const { id, token } = await live.session("uploader");
    const path = `${prefix}/repository/collection/db/version`;
    const { status, json } = await ask("POST", path, { body: message, token });
    t.is(status, 200, JSON.stringify(json));
    const { version } = json.data;
    t.deepEqual(Object.keys(version), [
      "id",
      "collectionId",
      "versionNumber",
      "filename",
      "filesize",
      "uploadedBySessionId",
      "user",
      "CreatedAt",
      "UpdatedAt",
      "DeletedAt",
    ]);
    const number = version.versionNumber;
    t.like(version, {
      collectionId: "db",
      filename: `db-${number}.gpg`,
      filesize: message.length,
      uploadedBySessionId: id,
      user: "uploader",
      DeletedAt: null,
    });

    const reader = await tokenOf("reader");
    const headers = { authorization: `Bearer ${reader}` };
    // The first of this version, since a read that comes again is only counted.
    const reads = async () =>
      await live.database.query(sql`select count(*) as n from audit_events where kind = 'version.read'`);
    const before = await reads();
    const head = await fetch(`${live.server.url}${path}/latest`, { method: "HEAD", headers });
    t.deepEqual([head.status, head.headers.get("content-length")], [200, `${message.length}`]);
    t.deepEqual(await reads(), before, "nothing was read");
    for (const name of ["latest", `${number}`, `v${number}`]) {
      const response = await fetch(`${live.server.url}${path}/${name}`, { headers });
      t.is(response.status, 200);
      t.is(response.headers.get("content-length"), `${message.length}`);
      t.is(response.headers.get("content-disposition"), `attachment; filename="db-${number}.gpg"`);
      t.regex(response.headers.get("strongroom-composite-sha256") ?? "", /^[0-9a-f]{64}$/);
      t.is(sha256(new Uint8Array(await response.arrayBuffer())), sha256(message));
    }
    const ranges = [
      ["bytes=0-9", 206, 0, 10],
      ["bytes=1048570-1048590", 206, 1048570, 1048591],
      [`bytes=${message.length - 5}-`, 206, message.length - 5, message.length],
      ["bytes=-7", 206, message.length - 7, message.length],
      ["bytes=0-1,3-4", 200, 0, message.length],
      ["lines=1-2", 200, 0, message.length],
    ] as const;
    for (const [range, status, from, to] of ranges) {
      const response = await fetch(`${live.server.url}${path}/latest`, { headers: { ...headers, range } });
      t.is(response.status, status, range);
      t.is(sha256(new Uint8Array(await response.arrayBuffer())), sha256(message.slice(from, to)), range);
      if (status === 206)
        t.is(response.headers.get("content-range"), `bytes ${from}-${to - 1}/${message.length}`, range);
    }
    for (const range of [`bytes=${message.length}-`, "bytes=-0"]) {
      const beyond = await ask("GET", `${path}/latest`, { token: reader, headers: { range } });
      t.deepEqual([beyond.status, beyond.headers.get("content-range")], [416, `bytes */${message.length}`], range);
    }
    for (const none of ["999", "v0", "newest", "1.5"])
      t.regex((await ask("GET", `${path}/${none}`, { token: reader })).json.error, /^cannot find specified version/);
    const denied = await ask("GET", `${path}/latest`, { token });
    t.deepEqual([denied.status, denied.json.error], [403, "not authorized to download versions from this collection"]);

    const listed = await ask("GET", path, { token: reader });
    t.is(listed.status, 200);
    t.deepEqual(listed.json.data.versions[0], version);
    const unlisted = await ask("GET", path, { token: await tokenOf("unprivileged") });
    t.deepEqual([unlisted.status, unlisted.json.error], [403, "not authorized to list versions"]);
  });

  test.serial(`${prefix}: a version of one segment has the digest of its bytes`, async (t) => {
    const message = openpgpMessage(3 * KIB);
    const path = `${prefix}/repository/collection/db/version`;
    const token = await tokenOf("admin");
    t.is((await ask("POST", path, { body: message, token })).status, 200);
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(`${live.server.url}${path}/latest`, { headers });
    const digest = createHash("sha256").update(message).digest("base64");
    t.is(response.headers.get("repr-digest"), `sha-256=:${digest}:`);
    const etag = response.headers.get("etag")!;
    await response.arrayBuffer();
    for (const [ifRange, status] of [
      [etag, 206],
      ['"other"', 200],
    ] as const) {
      const part = await fetch(`${live.server.url}${path}/latest`, {
        headers: { ...headers, range: "bytes=0-1", "if-range": ifRange },
      });
      await part.arrayBuffer();
      t.is(part.status, status);
    }
  });

  test.serial(`${prefix}: refusals of an upload, in the words that scripts look for`, async (t) => {
    const path = (name: string) => `${prefix}/repository/collection/${name}/version`;
    const uploader = await tokenOf("uploader");
    const admin = await tokenOf("admin");
    const body = openpgpMessage(KIB);
    const cases = [
      ["db", await tokenOf("unprivileged"), body, 403, /^not authorized to upload versions to this collection$/],
      ["none", uploader, body, 403, /^not authorized to upload versions to this collection$/],
      ["none", admin, body, 404, /^cannot find specified collection$/],
      ["shut", uploader, body, 403, /^backup window does not allow you to send a backup at this time\. You need/],
      [
        "db",
        uploader,
        "hello this is not a gpg data",
        500,
        /^cannot upload version\. cannot upload file, cannot copy stream, error: first chunk of uploaded data does not contain a valid GPG header/,
      ],
      [
        "db",
        uploader,
        openpgpMessage(KIB).slice(0, 1000),
        500,
        /^cannot upload version\. cannot upload file, cannot copy stream, error: end of stream does not contain a valid GPG footer/,
      ],
      ["db", uploader, "", 500, /^cannot upload version\. cannot upload file, sent empty data/],
      ["db", uploader, openpgpMessage(20 * MIB + 1), 500, /^cannot upload version\. .*20971520|20 ?MiB/],
    ] as const;
    for (const [name, token, bytes, status, error] of cases) {
      const answer = await ask("POST", path(name), { body: bytes, token });
      t.is(answer.status, status, `${name}: ${JSON.stringify(answer.json)}`);
      t.regex(answer.json.error, error);
      t.deepEqual([answer.json.status, answer.json.data], [false, {}]);
    }
    t.is((await ask("POST", path("db"), { body })).status, 401);
    const packed = await ask("POST", path("db"), { body, token: uploader, headers: { "content-encoding": "gzip" } });
    t.is(packed.status, 415);
  });

  test.serial(`${prefix}: a second upload to a collection while one is under way`, async (t) => {
    const token = await tokenOf("uploader");
    const path = `${prefix}/repository/collection/db/version`;
    const first = http.request(`${live.server.url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, expect: "100-continue" },
    });
    first.on("error", () => {});
    // Its place is taken by now: the body is asked for when every check that needs none was passed.
    await new Promise((resolve) => first.once("continue", resolve).flushHeaders());
    const second = await ask("POST", path, { body: openpgpMessage(KIB), token });
    t.deepEqual([second.status, second.json.error], [500, "cannot upload to same collection in parallel"]);
    first.destroy();
    // Until the server has seen that it is gone.
    for (let status = 0; status !== 200; ) ({ status } = await ask("POST", path, { body: openpgpMessage(KIB), token }));
    t.pass();
  });

  test(`${prefix}: health of a collection, for whoever has its secret`, async (t) => {
    const path = `${prefix}/repository/collection/db/health`;
    const right = [
      await ask("GET", path, { headers: { authorization: HEALTH_SECRET } }),
      await ask("GET", `${path}?code=${encodeURIComponent(HEALTH_SECRET)}`),
      await ask("GET", `${path}?code=${encodeURIComponent(HEALTH_SECRET)}`, {
        token: "of a proxy".replaceAll(" ", ""),
      }),
      await ask("GET", path, { token: await tokenOf("reader") }),
    ];
    for (const { status, json } of right) {
      t.is(status, 200, JSON.stringify(json));
      t.true(json.status);
      const size = json.data.health.find((check: { name: string }) => check.name === "VersionsSizeValidator");
      t.like(size, { status: true, statusText: "VersionsSizeValidator=true" });
      t.true(json.data.health.some((check: { name: string }) => check.name === "SumOfVersionsValidator"));
    }
    const wrong = "not authorized - invalid value of 'code' parameter in query string";
    for (const [asked, init] of [
      [path, {}],
      [path, { headers: { authorization: "wrong" } }],
      [`${path}?code=wrong`, {}],
      [path.replace("/db/", "/none/"), { headers: { authorization: HEALTH_SECRET } }],
      // Whoever has no secret to show is not let in by there being none.
      [path.replace("/db/", "/shut/"), {}],
    ] as const) {
      const { status, json } = await ask("GET", asked, init);
      t.deepEqual([status, json.error], [403, wrong], asked);
    }
    const shut = await ask("GET", path.replace("/db/", "/shut/"), { token: await tokenOf("admin") });
    t.is(shut.status, 500);
    t.is(shut.json.error, "one of checks failed");
    const window = shut.json.data.health.find((check: { name: string }) => check.name === "BackupWindowValidator");
    t.like(window, { status: false, statusText: "BackupWindowValidator=false" });
    t.is(typeof window.message, "string");
  });
}

test("what takes a session is answered 401 without one, before anything else", async (t) => {
  const routes = Object.entries(HTTP_API_ROUTES).filter(([, { who }]) => who === "session");
  t.is(routes.length, 8);
  for (const [route] of routes) {
    const [method, path] = route.replaceAll(/:\w+/g, "none").split(" ") as [string, string];
    for (const authorization of ["", "Bearer none", "none", "Basic bm9uZTpub25l"]) {
      const headers = authorization === "" ? {} : { authorization };
      const { status, json } = await ask(method, path.replace("/api/", "/api/alpha/"), { headers });
      t.is(status, 401, `${route}, ${authorization}`);
      t.like(json, { status: false, code: 401, data: {} });
    }
  }
});

test("liveness and readiness answer as before", async (t) => {
  const health = await ask("GET", "/health", { headers: { authorization: "no token" } });
  t.deepEqual([health.status, health.json.status, typeof health.json.data.msg], [200, true, "string"]);
  for (const init of [{ headers: { authorization: "ready secret" } }, {}] as const) {
    const ready = await ask("GET", init.headers === undefined ? "/ready?code=ready%20secret" : "/ready", init);
    t.is(ready.status, 200);
    const names = ready.json.data.health.map((check: { name: string }) => check.name);
    for (const name of ["DbValidator", "StorageAvailabilityValidator", "ConfigurationProviderValidator"])
      t.true(names.includes(name), name);
  }
});

test("paths and methods that are not there", async (t) => {
  for (const path of ["/api", "/api/", "/api/stable", "/api/beta/auth/whoami", "/api/stable/auth/whoami/x"]) {
    const answer = path === "/api" ? { status: 404 } : await ask("GET", path);
    t.is(answer.status, 404, path);
  }
  const { status, headers, json } = await ask("PUT", "/api/stable/repository/collection/db/version");
  t.deepEqual([status, headers.get("allow"), json.status], [405, "POST, GET", false]);
});

test("too many requests: 429 with the limit and what is left of it", async (t) => {
  const limit = { count: 3, perMs: 3_600_000 };
  const limited = await LiveServer.open(USERS, COLLECTIONS, {
    rateLimits: { ...NO_LIMITS, requests: limit, login: limit },
  });
  t.teardown(async () => await limited.close());
  const statuses: number[] = [];
  let last: Response | undefined;
  for (let i = 0; i < 4; i++) {
    last = await fetch(`${limited.server.url}/api/stable/auth/whoami`);
    statuses.push(last.status);
  }
  t.deepEqual(statuses, [401, 401, 401, 429]);
  t.is(last!.headers.get("x-ratelimit-limit"), "3");
  t.is(last!.headers.get("x-ratelimit-remaining"), "0");
  t.truthy(last!.headers.get("retry-after"));
  t.like(await last!.json(), { status: false, data: {} });
});

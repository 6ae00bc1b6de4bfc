/**
 * What changes while the server runs, restrictions by address over real connections, and how failed logins look from
 * outside.
 */
import { networkInterfaces } from "node:os";
import { ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import argon2 from "argon2";
import test, { type ExecutionContext } from "ava";
import { sql } from "drizzle-orm";
import { Argon2Hasher } from "../src/adapters/argon2/argon2-hasher.ts";
import type { User } from "../src/domain/configuration.ts";
import { costOf } from "../src/domain/password-cost.ts";
import { collection, MIB, TestClock, user } from "./support/harness.ts";
import { bearer, type Clients, clientsOf, framesOf, LiveServer, reasonOf } from "./support/live-server.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const KEY = {
  name: "key",
  passwordHash: "hash of key-password",
  objects: [{ type: "collection", name: "db", roles: ["collectionManager" as const] }],
};

const ann = (change: Partial<User> = {}) =>
  user("ann", { roles: ["collectionManager"], passwordHash: "hash of ann-password", accessKeys: [KEY], ...change });

// One database for all, since making one takes seconds; each test has a server of its own over it, as replicas have.
const database = await openMemoryDatabase(() => new TestClock().now);
test.after.always(async () => await database.close());

async function open(t: ExecutionContext, options: Parameters<typeof LiveServer.open>[2] = {}): Promise<LiveServer> {
  const wide = { maxOneVersionSize: BigInt(40 * MIB), maxCollectionSize: BigInt(400 * MIB), maxParallelUploads: 100 };
  await database.query(sql`delete from login_budgets`);
  const live = await LiveServer.open([ann()], [collection("db", wide)], { database, ...options });
  t.teardown(async () => await live.close());
  return live;
}

/** What takes the right away, and how the next call is refused. */
const changes: [title: string, accessKey: string, change: (live: LiveServer) => void, reason: string][] = [
  ["deactivated", "", (live) => live.putUser(ann({ deactivated: true })), "SESSION_INVALID"],
  ["deactivated, with an access key", "key", (live) => live.putUser(ann({ deactivated: true })), "SESSION_INVALID"],
  ["removed", "", (live) => live.removeUser("ann"), "SESSION_INVALID"],
  ["access key removed", "key", (live) => live.putUser(ann({ accessKeys: [] })), "SESSION_INVALID"],
  ["another address", "", (live) => live.putUser(ann({ restrictByIp: ["192.0.2.0/24"] })), "SESSION_INVALID"],
  ["role removed", "", (live) => live.putUser(ann({ roles: [] })), "COLLECTION_NOT_FOUND"],
  [
    "role of the access key removed",
    "key",
    (live) => live.putUser(ann({ accessKeys: [{ ...KEY, objects: [] }] })),
    "COLLECTION_NOT_FOUND",
  ],
  ["download only", "", (live) => live.putUser(ann({ roles: ["backupDownloader"] })), "ACCESS_DENIED"],
];

for (const [title, accessKey, change, reason] of changes) {
  test.serial(`in force with the next request, also in the middle of an upload: ${title}`, async (t) => {
    const live = await open(t);
    const { uploads, sessions, versions } = live.clients;
    const { token } = await live.session("ann", { accessKey });
    const message = openpgpMessage(2 * MIB + 1000);
    const segments = cutSegments(message, MIB);
    const { uploadId } = (await uploads.createUpload({ collection: "db" }, bearer(token))).upload!;
    await uploads.writeSegment(framesOf(uploadId, segments[0]!), bearer(token));
    change(live);
    const write = async () => await uploads.writeSegment(framesOf(uploadId, segments[1]!), bearer(token));
    t.is(await reasonOf(write()), reason);
    t.is(await reasonOf(uploads.renewUpload({ uploadId }, bearer(token))), reason);
    t.is(await reasonOf(uploads.abortUpload({ uploadId }, bearer(token))), reason);
    if (reason === "SESSION_INVALID") {
      t.is(await reasonOf(sessions.whoAmI({}, bearer(token))), reason);
      t.is(await reasonOf(sessions.refreshSession({}, bearer(token))), reason);
    }
    // Given back, the upload goes on where it was.
    live.putUser(ann());
    t.is(await reasonOf(write()), "ok");
    t.is((await uploads.getUpload({ uploadId }, bearer(token))).segments.length, 2);
    t.is(await reasonOf(versions.listVersions({ collection: "db" }, bearer(token))), "ok");
  });
}

test.serial("a segment on its way is not acknowledged to who was deactivated meanwhile", async (t) => {
  const live = await open(t);
  const { uploads } = live.clients;
  const { token } = await live.session("ann");
  const { uploadId } = (await uploads.createUpload({ collection: "db" }, bearer(token))).upload!;
  const [segment] = cutSegments(openpgpMessage(300_000), MIB);
  async function* frames(whenHalf: () => void) {
    const { index, size, sha256, framingIn, bytes } = segment!;
    yield { frame: { case: "header" as const, value: { uploadId, index, sizeBytes: size, sha256, framingIn } } };
    yield { frame: { case: "chunk" as const, value: bytes.subarray(0, 100_000) } };
    whenHalf();
    yield { frame: { case: "chunk" as const, value: bytes.subarray(100_000) } };
  }
  const deactivate = () => live.putUser(ann({ deactivated: true }));
  t.is(await reasonOf(uploads.writeSegment(frames(deactivate), bearer(token))), "SESSION_INVALID");
  live.putUser(ann());
  t.is((await uploads.getUpload({ uploadId }, bearer(token))).segments.length, 0);
  t.is(
    await reasonOf(
      uploads.writeSegment(
        frames(() => {}),
        bearer(token),
      ),
    ),
    "ok",
  );
});

for (const [title, change, reason] of [
  ["deactivated", { deactivated: true }, "SESSION_INVALID"],
  ["without the right any more", { roles: ["backupUploader"] }, "ACCESS_DENIED"],
] as [string, Partial<User>, string][]) {
  test.serial(`a download on its way ends for who is ${title}`, async (t) => {
    const live = await open(t);
    const { uploads, versions } = live.clients;
    const { token } = await live.session("ann");
    const { uploadId } = (await uploads.createUpload({ collection: "db" }, bearer(token))).upload!;
    // More than the windows of the connection hold, so that the server cannot have sent it all.
    const message = openpgpMessage(32 * MIB);
    const segments = cutSegments(message, MIB);
    for (const segment of segments) await uploads.writeSegment(framesOf(uploadId, segment), bearer(token));
    const commit = { uploadId, sizeBytes: BigInt(message.length), compositeSha256: compositeOf(segments) };
    await uploads.commitUpload(commit, bearer(token));
    let received = 0;
    const download = async () => {
      for await (const { frame } of versions.readVersion(
        { collection: "db", which: { case: "newest", value: true } },
        bearer(token),
      )) {
        if (frame.case !== "chunk") continue;
        received += frame.value.length;
        live.putUser(ann(change));
      }
    };
    t.is(await reasonOf(download()), reason);
    t.true(received > 0 && received < message.length, `${received}`);
  });
}

test.serial("a revoked session is refused with the next request", async (t) => {
  const live = await open(t);
  const [one, other] = [await live.session("ann"), await live.session("ann")];
  await live.clients.sessions.revokeSession({ sessionId: one.id }, bearer(other.token));
  t.is(await reasonOf(live.clients.sessions.whoAmI({}, bearer(one.token))), "SESSION_INVALID");
  t.is(await reasonOf(live.clients.sessions.whoAmI({}, bearer(other.token))), "ok");
});

// Over a dual-stack socket, which gives IPv4 addresses mapped into IPv6, and over one of each family.
const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === "::1"));
for (const host of ["::", "127.0.0.1", "::1"]) {
  const run = host === "127.0.0.1" || hasIpv6 ? test.serial : test.serial.skip;
  run(`restrictByIP over real connections to ${host}${hasIpv6 ? "" : " (this machine has no IPv6)"}`, async (t) => {
    const live = await open(t, { host });
    const { token } = await live.session("ann");
    const { port } = live.server.listener;
    const from: Record<string, Clients> = {};
    if (host !== "::1") from["127.0.0.1"] = clientsOf(`http://127.0.0.1:${port}`);
    if (host !== "127.0.0.1") from["::1"] = clientsOf(`http://[::1]:${port}`);
    const ranges: [string, string][] = [
      ["127.0.0.1", "127.0.0.1"],
      ["127.0.0.0/8", "127.0.0.1"],
      ["127.0.0.1/32", "127.0.0.1"],
      ["0.0.0.0/0", "127.0.0.1"],
      ["::ffff:127.0.0.1", "127.0.0.1"],
      ["::ffff:127.0.0.0/104", "127.0.0.1"],
      ["::1", "::1"],
      ["::1/128", "::1"],
      ["::/64", "::1"],
      ["::/0", "::1"],
      ["127.0.0.2", "none"],
      ["127.0.0.0/32", "none"],
      ["192.0.2.0/24", "none"],
      ["::/128", "none"],
      ["2001:db8::/32", "none"],
    ];
    for (const [range, allowed] of ranges) {
      live.putUser(ann({ restrictByIp: [range] }));
      for (const [address, { sessions }] of Object.entries(from)) {
        const may = address === allowed;
        const title = `${address} in ${range}`;
        t.is(await reasonOf(sessions.whoAmI({}, bearer(token))), may ? "ok" : "SESSION_INVALID", title);
        for (const [username, password] of [
          ["ann", "ann-password"],
          ["ann$key", "key-password"],
        ] as const) {
          const answer = await reasonOf(sessions.login({ username, password }));
          t.is(answer, may ? "ok" : "CREDENTIALS_INVALID", `${title}, login of ${username}`);
        }
      }
    }
    live.putUser(ann({ restrictByIp: ["127.0.0.1", "::1"] }));
    for (const [address, { sessions }] of Object.entries(from)) {
      t.is((await sessions.login({ username: "ann", password: "ann-password" })).session!.address, address);
    }
  });
}

test.serial("every failed login looks the same from outside and costs the same inside", async (t) => {
  const computed: string[] = [];
  const passwords = new Argon2Hasher(undefined, async (hash, password) => {
    computed.push(costOf(hash) ?? hash);
    return await argon2.verify(hash, password);
  });
  const cheap = { type: argon2.argon2id, memoryCost: 256, timeCost: 2, parallelism: 1 } as const;
  const lines: string[] = [];
  const live = await open(t, { passwords, log: (line) => lines.push(line) });
  const usual = await passwords.hash("right");
  const other = await argon2.hash("right", cheap);
  live.putUser(ann({ passwordHash: usual, accessKeys: [{ ...KEY, passwordHash: other }] }));
  live.putUser(user("other", { passwordHash: other }));
  live.putUser(user("deactivated", { passwordHash: usual, deactivated: true }));
  live.putUser(user("far", { passwordHash: usual, restrictByIp: ["192.0.2.0/24"] }));
  live.putUser(user("far-other", { passwordHash: other, restrictByIp: ["192.0.2.0/24"] }));
  live.putUser(user("none", { passwordHash: undefined }));
  live.putUser(user("broken", { passwordHash: "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA" }));
  live.putUser(user("foreign", { passwordHash: "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy" }));
  const failures: [username: string, password: string][] = [
    ["nobody", "right"],
    ["secret typed as a name", "right"],
    ["ann", "wrong"],
    ["ann", ""],
    ["ann$key", "wrong"],
    ["ann$nokey", "right"],
    ["nobody$key", "right"],
    ["ann$", "right"],
    ["other", "wrong"],
    ["deactivated", "right"],
    ["deactivated", "wrong"],
    ["far", "right"],
    ["far", "wrong"],
    ["far-other", "right"],
    ["none", ""],
    ["none", "right"],
    ["broken", "right"],
    ["foreign", "right"],
  ];
  const work = [costOf(usual)!, costOf(other)!].sort();
  const answers = new Set<string>();
  for (const [username, password] of failures) {
    const title = `${username}:${password}`;
    computed.length = 0;
    const error = (await t.throwsAsync(live.clients.sessions.login({ username, password }))) as ConnectError;
    t.deepEqual(computed, work, title);
    const details = error
      .findDetails(ErrorInfoSchema)
      .map(({ reason, domain, metadata }) => [reason, domain, metadata]);
    const kinds = error.details.map((d) => ("type" in d ? d.type : "")).sort();
    const headers = [...error.metadata.keys()].sort();
    answers.add(JSON.stringify([error.code, error.rawMessage, details, kinds, headers]));
    t.is(details[0]![0], "CREDENTIALS_INVALID", title);
  }
  t.is(answers.size, 1, [...answers].join("\n"));

  for (const username of ["ann", "ann$key", "other"]) {
    computed.length = 0;
    await live.clients.sessions.login({ username, password: "right" });
    t.deepEqual(computed, work, `${username} succeeds`);
  }
  const parsed = lines.map((line) => JSON.parse(line) as { msg: string; user?: string; address?: string });
  const failed = parsed.filter((line) => line.msg === "login failed");
  t.is(failed.length, failures.length);
  t.true(failed.every((line) => line.address === "127.0.0.1"));
  t.is(failed.filter((line) => line.user === "ann").length, 5);
  t.is(parsed.filter((line) => line.msg === "login").length, 3);
  t.false(
    lines.some((line) => /secret typed|"right"|"wrong"/.test(line)),
    "neither passwords nor names nobody has",
  );
});

test.serial("budgets over the network: login, health and the rest are apart, and the refusal says when", async (t) => {
  const limit = { count: 3, perMs: 3_600_000 };
  // Eleven logins are requests too.
  const requests = { ...limit, count: 11 + limit.count };
  const live = await open(t, { rateLimits: { login: limit, health: limit, requests } });
  const { sessions, health, versions, uploads } = live.clients;
  const { token } = await live.session("ann");
  const login = async (password: string) => await reasonOf(sessions.login({ username: "ann", password }));
  // Successes cost nothing, failures do.
  for (let i = 0; i < 5; i++) t.is(await login("ann-password"), "ok");
  for (let i = 0; i < 3; i++) t.is(await login("wrong"), "CREDENTIALS_INVALID");
  t.is(await login("wrong"), "RATE_LIMITED");
  t.is(await login("ann-password"), "RATE_LIMITED", "also who knows the password, since nobody looked at it");
  const error = (await t.throwsAsync(sessions.login({ username: "ann", password: "x" }))) as ConnectError;
  t.deepEqual({ ...error.findDetails(ErrorInfoSchema)[0]!.metadata }, { budget: "login", limit: "3/1h" });
  const delay = error.findDetails(RetryInfoSchema)[0]!.retryDelay!;
  t.true(delay.seconds > 0n && delay.seconds <= 1200n);

  t.is(await reasonOf(health.check({})), "ok");
  for (let i = 0; i < 2; i++) t.is(await reasonOf(health.list({})), "ok");
  t.is(await reasonOf(health.check({})), "RATE_LIMITED");
  const byHealth = live.clients.collections.getCollectionHealth({ collection: "db" }, bearer(token));
  t.is(await reasonOf(byHealth), "RATE_LIMITED");

  // Each of many frames is no call of its own; and a call without a session costs as much as one with.
  t.is(await reasonOf(versions.listVersions({ collection: "db" })), "AUTHENTICATION_REQUIRED");
  const { uploadId } = (await uploads.createUpload({ collection: "db" }, bearer(token))).upload!;
  const [segment] = cutSegments(openpgpMessage(1000), MIB);
  async function* frames() {
    const { index, size, sha256, framingIn, bytes } = segment!;
    yield { frame: { case: "header" as const, value: { uploadId, index, sizeBytes: size, sha256, framingIn } } };
    for (let at = 0; at < bytes.length; at += 10) {
      yield { frame: { case: "chunk" as const, value: bytes.subarray(at, at + 10) } };
    }
  }
  t.is(await reasonOf(uploads.writeSegment(frames(), bearer(token))), "ok");
  t.is(await reasonOf(uploads.renewUpload({ uploadId }, bearer(token))), "RATE_LIMITED");
  t.is(await reasonOf(sessions.whoAmI({}, bearer("garbage"))), "RATE_LIMITED", "before the session is looked at");
});

test.serial("a login whose client hangs up while it waits is not computed, and costs no budget", async (t) => {
  let computed = 0;
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const passwords = new Argon2Hasher({ running: 1, waiting: 64 }, async () => {
    computed++;
    await held;
    return false;
  });
  const limit = { count: 11, perMs: 3_600_000 };
  const live = await open(t, { passwords, rateLimits: { login: limit, health: undefined, requests: undefined } });
  const { sessions } = live.clients;
  const first = reasonOf(sessions.login({ username: "ann", password: "x" }));
  const until = async (reached: () => boolean | Promise<boolean>) => {
    while (!(await reached())) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await until(() => computed === 1);
  const leaving = new AbortController();
  const gone = Array.from({ length: 10 }, () =>
    sessions.login({ username: "ann", password: "x" }, { signal: leaving.signal }).catch((error: unknown) => error),
  );
  const spent = async () => {
    const [row] = await live.database.query(sql`select full_at_ms from login_budgets`);
    return Math.round((Number(row?.full_at_ms) - live.clock.now.getTime()) / (limit.perMs / limit.count));
  };
  await until(async () => (await spent()) === 11);
  t.is(await reasonOf(sessions.login({ username: "ann", password: "x" })), "RATE_LIMITED");
  leaving.abort();
  for (const outcome of await Promise.all(gone)) t.true(outcome instanceof ConnectError);
  await until(async () => (await spent()) === 1);
  release();
  t.is(await first, "CREDENTIALS_INVALID");
  t.is(computed, 1);
});

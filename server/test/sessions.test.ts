import { createHash } from "node:crypto";
import anyTest from "ava";
import { sql } from "drizzle-orm";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import type { SessionRow } from "../src/app/ports/database.ts";
import { listSessions, revokeSession, whoAmI } from "../src/app/sessions/manage-sessions.ts";
import {
  authenticate,
  type IssuedSession,
  type LoginInput,
  login,
  MAX_SESSIONS,
  refreshSession,
  type SessionDeps,
} from "../src/app/sessions/sessions.ts";
import { mayDo, type Principal } from "../src/domain/access.ts";
import type { CollectionSpec, ObjectGrant, User } from "../src/domain/configuration.ts";
import { DomainError, type Reason } from "../src/domain/errors.ts";
import { onEachDatabase, openDatabase } from "./support/databases.ts";

const HOUR = 3_600_000;
const SESSION_MS = 6 * HOUR;
const HOME = "192.0.2.7";
const ELSEWHERE = "203.0.113.9";

// All tests share one database and one clock, which only goes forward; they run one after another.
let now = new Date("2026-01-01T00:00:00.500Z");
const wait = (ms: number): void => {
  now = new Date(now.getTime() + ms);
};

// Those of the test that runs.
let database: SqlDatabase;
let deps: SessionDeps;

const test = onEachDatabase(anyTest, {
  open: async (kind) => {
    const opened = await openDatabase(kind, () => now);
    return { database: opened, tokens: await JoseSigner.fromDatabase(opened) };
  },
  use: async (_t, of) => {
    database = of.database;
    deps = { ...common, ...of };
    users.clear();
    put("ann");
    put("bob");
    put("root", { roles: ["systemAdmin"] });
    verified.length = 0;
    await database.query(sql`delete from sessions`);
    await database.query(sql`delete from audit_events`);
  },
  close: async (of) => await of.database.close(),
});

const users = new Map<string, User>();

function put(name: string, more: Partial<User> = {}): User {
  const user: User = {
    name,
    email: `${name}@example.org`,
    organization: "",
    about: "",
    deactivated: false,
    passwordHash: `hash of ${name}-password`,
    restrictByIp: [],
    roles: [],
    accessKeys: [],
    ...more,
  };
  users.set(name, user);
  return user;
}

const grant = (name: string, ...roles: ObjectGrant["roles"]): ObjectGrant => ({ type: "collection", name, roles });
const key = (name: string, password: string | undefined, ...objects: ObjectGrant[]) => ({
  name,
  passwordHash: password === undefined ? undefined : `hash of ${password}`,
  objects,
});

/** What the hasher was asked. */
const verified: [hash: string | undefined, password: string][] = [];

const common: Omit<SessionDeps, "database" | "tokens"> = {
  config: { current: () => ({ users, collections: new Map(), organizations: new Map() }) },
  passwords: {
    async verify(hash, password) {
      verified.push([hash, password]);
      return hash === `hash of ${password}`;
    },
    hash: async (password) => `hash of ${password}`,
  },
  logins: { giveBack: async () => {} },
  log: { debug() {}, info() {}, warn() {}, error() {} },
  sha256: (text) => createHash("sha256").update(text).digest("hex"),
  sessionMs: SESSION_MS,
  sessionLifetimeMs: 4 * SESSION_MS,
};

async function enter(username: string, more: Partial<LoginInput> = {}): Promise<IssuedSession> {
  const password = username.includes("$") ? `${username.split("$")[1]}-password` : `${username}-password`;
  return await login(deps, { username, password, description: "", scope: [], address: HOME, ...more });
}

async function principalOf({ token }: IssuedSession, address = HOME): Promise<Principal> {
  return await authenticate(deps, token, address);
}

async function error(promise: Promise<unknown>): Promise<DomainError> {
  try {
    await promise;
  } catch (caught) {
    if (caught instanceof DomainError) return caught;
    throw caught;
  }
  throw new Error("a refusal was expected");
}

async function reason(promise: Promise<unknown>): Promise<Reason> {
  return (await error(promise)).reason;
}

const valid = async (issued: IssuedSession, address = HOME): Promise<boolean> =>
  await authenticate(deps, issued.token, address).then(
    () => true,
    (caught: unknown) => {
      if (caught instanceof DomainError && caught.reason === "SESSION_INVALID") return false;
      throw caught;
    },
  );

async function list(principal: Principal, user = "", pageSize = 100) {
  return await listSessions(deps, principal, { user, after: undefined, pageSize });
}

const names = (sessions: readonly SessionRow[]) => sessions.map((s) => s.description);

test("login gives a session that is what was asked for", async (t) => {
  const issued = await enter("ann", { description: "nightly" });
  t.is(issued.session.userName, "ann");
  t.is(issued.session.accessKey, "");
  t.is(issued.session.address, HOME);
  t.is(issued.session.description, "nightly");
  t.deepEqual(issued.session.scope, []);
  t.deepEqual(issued.session.createdAt, now);
  t.is(issued.session.expiresAt.getTime(), Math.floor((now.getTime() + SESSION_MS) / 1000) * 1000);
  t.is(issued.session.revokedAt, null);
  t.is(issued.session.id, createHash("sha256").update(issued.token).digest("hex"));
  const principal = await principalOf(issued);
  t.is(principal.user, users.get("ann")!);
  t.is(principal.sessionId, issued.session.id);
  t.deepEqual(await whoAmI(deps, principal), { session: issued.session, rights: [] });
});

test("every login makes a session of its own", async (t) => {
  const [one, two] = [await enter("ann"), await enter("ann")];
  t.not(one.token, two.token);
  t.not(one.session.id, two.session.id);
  t.true(await valid(one));
  t.true(await valid(two));
});

interface Failure {
  readonly title: string;
  readonly username?: string;
  readonly password?: string;
  readonly address?: string;
  readonly setUp?: () => void;
  /** The hash that is checked. */
  readonly hash?: string;
}

const failures: readonly Failure[] = [
  { title: "an unknown user", username: "nobody", password: "nobody-password" },
  { title: "a wrong password", password: "wrong", hash: "hash of ann-password" },
  { title: "an empty password", password: "", hash: "hash of ann-password" },
  { title: "the hash as password", password: "hash of ann-password", hash: "hash of ann-password" },
  { title: "a deactivated user", setUp: () => put("ann", { deactivated: true }), hash: "hash of ann-password" },
  { title: "a user without a hash", setUp: () => put("ann", { passwordHash: undefined }) },
  {
    title: "a wrong address",
    setUp: () => put("ann", { restrictByIp: ["192.0.2.0/24"] }),
    address: ELSEWHERE,
    hash: "hash of ann-password",
  },
  {
    title: "an unknown address",
    setUp: () => put("ann", { restrictByIp: ["0.0.0.0/0"] }),
    address: "",
    hash: "hash of ann-password",
  },
  { title: "an unknown access key", username: "ann$nokey", password: "ann-password" },
  { title: "an access key of an unknown user", username: "nobody$key", password: "key-password" },
  { title: "an empty name of an access key", username: "ann$", password: "ann-password" },
  {
    title: "the user's password for an access key",
    setUp: () => put("ann", { accessKeys: [key("key", "key-password")] }),
    username: "ann$key",
    password: "ann-password",
    hash: "hash of key-password",
  },
  {
    title: "an access key's password for the user",
    setUp: () => put("ann", { accessKeys: [key("key", "key-password")] }),
    password: "key-password",
    hash: "hash of ann-password",
  },
  {
    title: "an access key without a hash",
    setUp: () => put("ann", { accessKeys: [key("key", undefined)] }),
    username: "ann$key",
    password: "undefined",
  },
  {
    title: "an access key of a deactivated user",
    setUp: () => put("ann", { deactivated: true, accessKeys: [key("key", "key-password")] }),
    username: "ann$key",
    password: "key-password",
    hash: "hash of key-password",
  },
  {
    title: "an access key from a wrong address",
    setUp: () => put("ann", { restrictByIp: ["192.0.2.0/24"], accessKeys: [key("key", "key-password")] }),
    username: "ann$key",
    password: "key-password",
    address: ELSEWHERE,
    hash: "hash of key-password",
  },
  { title: "an empty user name", username: "", password: "" },
  { title: "a name that every object has", username: "__proto__", password: "x" },
];

for (const { title, username = "ann", password = "ann-password", address = HOME, setUp, hash } of failures) {
  test(`login fails with the one answer: ${title}`, async (t) => {
    setUp?.();
    const refused = await error(login(deps, { username, password, description: "", scope: [], address }));
    t.is(refused.reason, "CREDENTIALS_INVALID");
    t.is(
      refused.message,
      "login failed: unknown user or access key, wrong password, deactivated user, or an address it may not come from",
    );
    t.deepEqual(refused.metadata, {});
    t.is(refused.retryAfterMs, undefined);
    t.is(refused.cause, undefined);
    // One check in every case, so that every failure takes as long.
    t.deepEqual(verified, [[hash, password]]);
    t.deepEqual(await database.query(sql`select id from sessions`), []);
  });
}

test("too many logins at a time get LOGIN_BUSY, not a refusal", async (t) => {
  const busy = new DomainError("LOGIN_BUSY", "later", { retryAfterMs: 3000 });
  const passwords = { ...deps.passwords, verify: async () => await Promise.reject(busy) };
  const input = { username: "ann", password: "ann-password", description: "", scope: [], address: HOME };
  t.is(await error(login({ ...deps, passwords }, input)), busy);
});

test("an access key logs in with its own name and password", async (t) => {
  put("ann", {
    roles: ["collectionManager"],
    accessKeys: [key("other", "other-password"), key("upload", "upload-password", grant("db", "backupUploader"))],
  });
  const issued = await enter("ann$upload");
  t.is(issued.session.userName, "ann");
  t.is(issued.session.accessKey, "upload");
  const principal = await principalOf(issued);
  t.is(principal.accessKey, "upload");
  const spec = { name: "db", accessControl: [] as CollectionSpec["accessControl"] } as CollectionSpec;
  t.true(mayDo(principal, spec, "upload"));
  t.false(mayDo(principal, spec, "download"));
});

test("an access key that is taken away ends its sessions at once, and gives back nothing", async (t) => {
  put("ann", { accessKeys: [key("upload", "upload-password")] });
  const issued = await enter("ann$upload");
  const own = await enter("ann");
  put("ann", { accessKeys: [] });
  t.false(await valid(issued));
  t.true(await valid(own), "the user's own go on");
});

test("rights are those of the configuration in force, not of the login", async (t) => {
  put("ann", { roles: ["backupUploader"] });
  const issued = await enter("ann");
  put("ann", { roles: [] });
  t.deepEqual((await principalOf(issued)).user.roles, []);
});

test("a scope narrows the session and is kept", async (t) => {
  put("ann", { roles: ["collectionManager"] });
  const scope = [grant("db", "backupUploader"), grant("files", "backupDownloader", "backupUploader"), grant("none")];
  const issued = await enter("ann", { scope });
  t.deepEqual(issued.session.scope, scope);
  const principal = await principalOf(issued);
  t.deepEqual(principal.scope, scope);
  const spec = (name: string) => ({ name, accessControl: [] as CollectionSpec["accessControl"] }) as CollectionSpec;
  t.true(mayDo(principal, spec("db"), "upload"));
  t.false(mayDo(principal, spec("db"), "download"));
  t.true(mayDo(principal, spec("files"), "download"));
  t.false(mayDo(principal, spec("none"), "upload"));
  t.false(mayDo(principal, spec("other"), "upload"));
});

test("refresh gives another session with the same key, scope and description; the old one goes on", async (t) => {
  put("ann", { accessKeys: [key("upload", "upload-password", grant("db", "backupUploader"))] });
  const scope = [grant("db", "backupUploader")];
  const old = await enter("ann$upload", { scope, description: "nightly" });
  wait(HOUR);
  const renewed = await refreshSession(deps, await principalOf(old), ELSEWHERE);
  t.not(renewed.token, old.token);
  t.not(renewed.session.id, old.session.id);
  t.is(renewed.session.userName, "ann");
  t.is(renewed.session.accessKey, "upload");
  t.is(renewed.session.description, "nightly");
  t.is(renewed.session.address, ELSEWHERE);
  t.deepEqual(renewed.session.scope, scope);
  t.is(renewed.session.expiresAt.getTime() - old.session.expiresAt.getTime(), HOUR);
  const principal = await principalOf(renewed);
  t.is(principal.accessKey, "upload");
  t.deepEqual(principal.scope, scope);
  t.true(await valid(old));
  wait(SESSION_MS - HOUR);
  t.false(await valid(old));
  t.true(await valid(renewed));
  t.is(verified.length, 1, "no password is needed");
});

test("a session ends when it says", async (t) => {
  const issued = await enter("ann");
  wait(issued.session.expiresAt.getTime() - now.getTime() - 1);
  t.true(await valid(issued));
  wait(1);
  t.false(await valid(issued));
  // The next test wants a time that is no whole second again.
  wait(500);
});

test("a row that lives longer than its token does not help", async (t) => {
  const issued = await enter("ann");
  await database.query(sql`update sessions set expires_at = expires_at + interval '1 year'`);
  wait(SESSION_MS);
  t.false(await valid(issued));
});

test("a revoked session is refused at once, also by a server with its own keys", async (t) => {
  const [issued, other] = [await enter("ann"), await enter("ann")];
  const principal = await principalOf(issued);
  t.is(await revokeSession(deps, principal, ""), issued.session.id, "nothing means one's own");
  t.false(await valid(issued));
  t.true(await valid(other));
  const replica = { ...deps, tokens: await JoseSigner.fromDatabase(database) };
  t.is(await reason(authenticate(replica, issued.token, HOME)), "SESSION_INVALID");
  t.is((await authenticate(replica, other.token, HOME)).user.name, "ann");
});

test("another session of one's own is revoked by its id, again without an error, and it is noted", async (t) => {
  const [issued, other] = [await enter("ann"), await enter("ann")];
  const principal = await principalOf(issued);
  t.is(await revokeSession(deps, principal, other.session.id), other.session.id);
  t.false(await valid(other));
  const revokedAt = async () =>
    (await database.transaction(async (tx) => await tx.sessions.find(other.session.id)))?.revokedAt;
  const first = await revokedAt();
  wait(1000);
  t.is(await revokeSession(deps, principal, other.session.id), other.session.id);
  t.deepEqual(await revokedAt(), first, "the time of the first is kept");
  const events = await database.query(
    sql`select kind, actor, details from audit_events where kind not like 'session.%ed' or kind = 'session.revoked'`,
  );
  t.deepEqual(events[0], {
    kind: "session.revoked",
    actor: "user:ann",
    details: { session_id: other.session.id, user: "ann" },
  });
});

test("somebody else's session and none at all have the same answer", async (t) => {
  const [anns, bobs] = [await enter("ann"), await enter("bob")];
  const principal = await principalOf(anns);
  const foreign = await error(revokeSession(deps, principal, bobs.session.id));
  const unknown = await error(revokeSession(deps, principal, "0".repeat(64)));
  t.is(foreign.reason, "SESSION_NOT_FOUND");
  t.deepEqual([foreign.reason, foreign.message, foreign.metadata], [unknown.reason, unknown.message, unknown.metadata]);
  t.true(await valid(bobs));
});

test("systemAdmin revokes any session, userManager does not", async (t) => {
  put("clerk", { roles: ["userManager", "collectionManager"] });
  const [anns, clerks, roots] = [await enter("ann"), await enter("clerk"), await enter("root")];
  t.is(await reason(revokeSession(deps, await principalOf(clerks), anns.session.id)), "SESSION_NOT_FOUND");
  t.is(await revokeSession(deps, await principalOf(roots), anns.session.id), anns.session.id);
  t.false(await valid(anns));
  t.is(await reason(revokeSession(deps, await principalOf(roots), "0".repeat(64))), "SESSION_NOT_FOUND");
});

test("deactivation and removal of a user end its sessions at once, and activation brings them back", async (t) => {
  const issued = await enter("ann");
  put("ann", { deactivated: true });
  t.false(await valid(issued));
  users.delete("ann");
  t.false(await valid(issued));
  put("ann");
  t.true(await valid(issued));
});

test("the address is checked with every call", async (t) => {
  const issued = await enter("ann");
  t.true(await valid(issued, ELSEWHERE), "without a restriction a session may move");
  put("ann", { restrictByIp: ["192.0.2.0/24", "2001:db8::/32"] });
  t.true(await valid(issued, HOME));
  t.true(await valid(issued, "2001:db8::1"));
  t.false(await valid(issued, ELSEWHERE));
  t.false(await valid(issued, ""));
  t.true(await valid(await enter("ann", { address: HOME })));
});

test("every way a token can be wrong has the same answer", async (t) => {
  const [issued, revoked, expired] = [await enter("ann"), await enter("ann"), await enter("ann")];
  const gone = await enter("bob");
  users.delete("bob");
  await revokeSession(deps, await principalOf(revoked), "");
  await database.query(
    sql`update sessions set expires_at = ${now.toISOString()}::timestamptz where id = ${expired.session.id}`,
  );
  // Signed here, but never issued as a session.
  const unknown = await deps.tokens.sign({ subject: "root", issuedAt: now, expiresAt: new Date(now.getTime() + HOUR) });
  // The row of a session whose token somebody else made.
  const foreign = JoseSigner.withSecret(Buffer.alloc(32, 1));
  const planted = await foreign.sign({ subject: "root", issuedAt: now, expiresAt: new Date(now.getTime() + HOUR) });
  await database.transaction(
    async (tx) => await tx.sessions.insert({ ...issued.session, id: deps.sha256(planted), userName: "root" }),
  );
  const answers = new Set<string>();
  for (const token of [
    revoked.token,
    expired.token,
    gone.token,
    unknown,
    planted,
    issued.session.id,
    `${issued.token}x`,
    "",
    "garbage",
  ]) {
    const { reason, message, metadata } = await error(authenticate(deps, token, HOME));
    t.is(reason, "SESSION_INVALID");
    answers.add(JSON.stringify([message, metadata]));
  }
  t.is(answers.size, 1);
  t.true(await valid(issued));
});

test("only the hash of a token is kept, nowhere the token", async (t) => {
  const issued = await enter("ann", { description: "d", scope: [grant("db", "backupUploader")] });
  const renewed = await refreshSession(deps, await principalOf(issued), HOME);
  await revokeSession(deps, await principalOf(renewed), issued.session.id).catch(() => {});
  const tables = await database.query(
    sql`select table_name as name from information_schema.tables where table_schema = 'public'`,
  );
  t.true(tables.some((row) => row.name === "sessions"));
  let text = "";
  for (const { name } of tables) {
    const rows = await database.query(sql`select t::text as row from ${sql.identifier(name as string)} t`);
    text += rows.map((r) => r.row).join("\n");
  }
  for (const { token, session } of [issued, renewed]) {
    t.true(text.includes(session.id), "the search finds what is there");
    t.is(session.id, createHash("sha256").update(token).digest("hex"));
    // Neither the token nor its signature, nor the password.
    for (const part of [token, token.split(".")[1]!, token.split(".")[2]!]) t.false(text.includes(part));
  }
  t.false(text.includes("ann-password"));
});

test("own sessions are listed, newest first, without those that ended", async (t) => {
  const early = await enter("ann", { description: "expires" });
  wait(SESSION_MS - HOUR);
  const revoked = await enter("ann", { description: "revoked" });
  wait(1000);
  await enter("ann", { description: "one" });
  wait(1000);
  await enter("bob", { description: "not ann's" });
  const last = await enter("ann", { description: "two" });
  await revokeSession(deps, await principalOf(last), revoked.session.id);
  t.deepEqual(names((await list(await principalOf(last))).sessions), ["two", "one", "expires"]);
  wait(HOUR);
  t.false(await valid(early));
  const { sessions, next } = await list(await principalOf(last), "ann");
  t.deepEqual(names(sessions), ["two", "one"]);
  t.is(next, undefined);
});

test("pages give every session once, in order, also of those made at the same time", async (t) => {
  const made: IssuedSession[] = [];
  for (let i = 0; i < 7; i++) {
    made.push(await enter("ann", { description: `${i}` }));
    if (i % 3 === 2) wait(1000);
  }
  const principal = await principalOf(made[0]!);
  for (const pageSize of [1, 2, 3, 6, 7, 8]) {
    const seen: SessionRow[] = [];
    let after: SessionRow | undefined;
    let pages = 0;
    do {
      const page = await listSessions(deps, principal, { user: "", after, pageSize });
      t.true(page.sessions.length <= pageSize);
      seen.push(...page.sessions);
      after = page.next;
      pages++;
    } while (after !== undefined && pages < 20);
    t.is(pages, Math.ceil(7 / pageSize));
    t.is(new Set(seen.map((s) => s.id)).size, 7);
    const sorted = [...seen].sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime() || (a.id < b.id ? 1 : -1));
    t.deepEqual(seen, sorted);
  }
});

test("systemAdmin lists the sessions of others, nobody else does", async (t) => {
  put("clerk", { roles: ["userManager"] });
  await enter("ann", { description: "ann's" });
  const root = await principalOf(await enter("root", { description: "root's" }));
  t.deepEqual(names((await list(root, "ann")).sessions), ["ann's"]);
  t.deepEqual(names((await list(root)).sessions), ["root's"]);
  t.is(await reason(list(root, "nobody")), "USER_NOT_FOUND");
  for (const user of ["bob", "clerk"]) {
    const principal = await principalOf(await enter(user));
    t.is(await reason(list(principal, "ann")), "ACCESS_DENIED", user);
    t.is(await reason(list(principal, "nobody")), "ACCESS_DENIED", "which users exist is not revealed");
  }
});

test("a narrowed session sees and ends only itself, also when its user is systemAdmin", async (t) => {
  for (const user of ["ann", "root"]) {
    const wide = await enter(user, { description: "wide" });
    const twin = await enter(user, { description: "twin", scope: [grant("db", "backupUploader")] });
    const narrow = await enter(user, { description: "narrow", scope: [grant("db", "backupUploader")] });
    const bobs = await enter("bob");
    const principal = await principalOf(narrow);
    t.deepEqual(names((await list(principal)).sessions), ["narrow"]);
    t.is(await reason(list(principal, "bob")), "ACCESS_DENIED");
    for (const other of [wide, twin, bobs]) {
      t.is(await reason(revokeSession(deps, principal, other.session.id)), "SESSION_NOT_FOUND");
      t.true(await valid(other));
    }
    await revokeSession(deps, principal, "");
    t.false(await valid(narrow));
  }
});

test("a session of an access key sees and ends those of its key only, also when its user is systemAdmin", async (t) => {
  for (const name of ["ann", "root"]) {
    const user = users.get(name)!;
    put(name, { roles: user.roles, accessKeys: [key("a", "a-password"), key("b", "b-password")] });
    const wide = await enter(name, { description: "wide" });
    const other = await enter(`${name}$b`, { description: "other" });
    const same = await enter(`${name}$a`, { description: "same" });
    wait(1000);
    const own = await principalOf(await enter(`${name}$a`, { description: "own" }));
    t.deepEqual(names((await list(own)).sessions), ["own", "same"]);
    t.is(await reason(list(own, "bob")), "ACCESS_DENIED");
    for (const foreign of [wide, other]) {
      t.is(await reason(revokeSession(deps, own, foreign.session.id)), "SESSION_NOT_FOUND");
      t.true(await valid(foreign));
    }
    await revokeSession(deps, own, same.session.id);
    t.false(await valid(same));
    // The user's own unnarrowed session may end what its keys do.
    t.deepEqual(names((await list(await principalOf(wide))).sessions).sort(), ["other", "own", "wide"]);
    await revokeSession(deps, await principalOf(wide), other.session.id);
    t.false(await valid(other));
  }
});

test("a session that was revoked while it was listed does not lead the next page astray", async (t) => {
  const made: IssuedSession[] = [];
  for (let i = 0; i < 4; i++) {
    made.push(await enter("ann", { description: `${i}` }));
    wait(1000);
  }
  const principal = await principalOf(made[0]!);
  const first = await list(principal, "", 2);
  t.deepEqual(names(first.sessions), ["3", "2"]);
  await revokeSession(deps, principal, first.sessions[1]!.id);
  const second = await listSessions(deps, principal, { user: "", after: first.next, pageSize: 2 });
  t.deepEqual(names(second.sessions), ["1", "0"]);
  t.is(second.next, undefined);
});

test("sessions of an access key are paged without repeating any", async (t) => {
  put("paged", { accessKeys: [key("a", "a-password"), key("b", "b-password")] });
  wait(1000);
  await enter("paged$a");
  wait(1000);
  const own = await principalOf(await enter("paged$a"));
  wait(1000);
  await enter("paged$b");
  const ids: string[] = [];
  for (let after: SessionRow | undefined; ; ) {
    const page = await listSessions(deps, own, { user: "", after, pageSize: 2 });
    ids.push(...page.sessions.map((s) => s.id));
    after = page.next;
    if (after === undefined) break;
  }
  t.is(ids.length, 2);
  t.is(new Set(ids).size, 2);
});

test("at the limit of sessions a login ends the oldest, a refresh the one it came from", async (t) => {
  const oldest = await enter("ann");
  wait(1000);
  const second = await enter("ann");
  wait(1000);
  // The rest, as they would come one by one.
  await database.query(sql`insert into sessions (id, user_name, access_key, fingerprint, chain_id, chain_began_at, scope,
      description, address, created_at, expires_at)
    select 's' || n, user_name, access_key, fingerprint, 's' || n, chain_began_at, scope, description, address,
      created_at + interval '500 ms', expires_at
    from sessions, generate_series(1, ${MAX_SESSIONS - 2}) n where id = ${second.session.id}`);
  t.true(await valid(oldest));
  const refreshed = await refreshSession(deps, await principalOf(second), HOME);
  t.deepEqual([await valid(oldest), await valid(second), await valid(refreshed)], [true, false, true]);
  wait(1000);
  const third = await enter("ann");
  t.deepEqual([await valid(oldest), await valid(refreshed), await valid(third)], [false, true, true]);
  t.true(await valid(await enter("bob")));
});

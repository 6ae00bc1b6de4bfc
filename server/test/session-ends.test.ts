/** What ends sessions: another password, the end of their chain, and whoever ends all of a user. */
import { createHash } from "node:crypto";
import anyTest from "ava";
import { sql } from "drizzle-orm";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import type { ConfigSource, ConfigStatus } from "../src/app/ports/config-source.ts";
import { CredentialWatch, HOLD_MS } from "../src/app/sessions/credential-watch.ts";
import { listSessions, revokeSession, revokeSessions } from "../src/app/sessions/manage-sessions.ts";
import {
  authenticate,
  type IssuedSession,
  login,
  refreshSession,
  type SessionDeps,
  stillStanding,
} from "../src/app/sessions/sessions.ts";
import type { Configuration, User } from "../src/domain/configuration.ts";
import { DomainError } from "../src/domain/errors.ts";
import { onEachDatabase, openDatabase } from "./support/databases.ts";
import { user } from "./support/harness.ts";

const HOUR = 3_600_000;
const SESSION_MS = 6 * HOUR;
const LIFETIME_MS = 24 * HOUR;
const HOME = "192.0.2.7";

let now = new Date("2026-01-01T00:00:00Z");
let monotonic = 0;
/** Time goes on, for the database and for the processes. */
const wait = (ms: number): void => {
  now = new Date(now.getTime() + ms);
  monotonic += ms;
};

let database: SqlDatabase;
let tokens: JoseSigner;

const test = onEachDatabase(anyTest, {
  open: async (kind) => {
    const opened = await openDatabase(kind, () => now);
    return { database: opened, tokens: await JoseSigner.fromDatabase(opened) };
  },
  use: async (_t, of) => {
    ({ database, tokens } = of);
    wait(1000);
    await database.query(sql`delete from sessions`);
    await database.query(sql`delete from audit_events`);
  },
  close: async (of) => await of.database.close(),
});

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const hashOf = (password: string) => `hash of ${password}`;
const key = (name: string, password: string, restrictByIp: readonly string[] = []) => ({
  name,
  passwordHash: hashOf(password),
  restrictByIp,
  objects: [],
});
const withPassword = (name: string, password: string, change: Partial<User> = {}) =>
  user(name, { passwordHash: hashOf(password), ...change });

/** A server with a directory of its own, over the one database. */
class Replica implements ConfigSource {
  #configuration: Configuration;
  readonly #listeners: ((configuration: Configuration) => void)[] = [];
  problem: string | undefined;
  refusals = 0;
  readonly deps: SessionDeps;
  readonly watch: CredentialWatch;

  constructor(...users: User[]) {
    this.#configuration = configurationOf(users);
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    this.deps = {
      database,
      tokens,
      log,
      config: this,
      passwords: { verify: async (hash, password) => hash === hashOf(password), hash: async (text) => hashOf(text) },
      logins: { giveBack: async () => {} },
      sha256,
      sessionMs: SESSION_MS,
      sessionLifetimeMs: LIFETIME_MS,
    };
    this.watch = new CredentialWatch({ config: this, database, log, sha256, monotonic: () => monotonic });
  }

  current = () => this.#configuration;
  status = (): ConfigStatus => ({ problem: this.problem, refusals: this.refusals, reloads: 0, loadedAt: now });

  /** A second later than what was before. */
  put(...users: User[]): void {
    wait(1000);
    this.#configuration = configurationOf(users);
    for (const listener of this.#listeners) listener(this.#configuration);
  }

  onChange(listener: (configuration: Configuration) => void): void {
    this.#listeners.push(listener);
  }

  async login(username: string, password: string, address = HOME): Promise<IssuedSession> {
    return await login(this.deps, { username, password, description: "", scope: [], address });
  }

  async principal({ token }: IssuedSession, address = HOME) {
    return await authenticate(this.deps, token, address);
  }

  async refresh(issued: IssuedSession): Promise<IssuedSession> {
    return await refreshSession(this.deps, await this.principal(issued), HOME);
  }

  async takes(issued: IssuedSession, address = HOME): Promise<boolean> {
    return (await refusal(this.principal(issued, address))) === undefined;
  }

  /** Looks every 5 s for as long. */
  async watchFor(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 5000) {
      await this.watch.look();
      wait(5000);
    }
    await this.watch.look();
  }
}

const configurationOf = (users: readonly User[]): Configuration => ({
  users: new Map(users.map((each) => [each.name, each])),
  collections: new Map(),
  organizations: new Map(),
});

async function refusal(promise: Promise<unknown>): Promise<string | undefined> {
  return await promise.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof DomainError) return error.reason;
      throw error;
    },
  );
}

const isRevoked = async ({ session }: IssuedSession) =>
  (await database.read(async (tx) => await tx.sessions.find(session.id)))!.revokedAt !== null;

test("a user that was removed and added again is another one: the old token stays refused", async (t) => {
  const server = new Replica(withPassword("ann", "old"));
  const issued = await server.login("ann", "old");
  const principal = await server.principal(issued);
  server.put();
  t.false(await server.takes(issued));
  server.put(withPassword("ann", "new"));
  t.false(await server.takes(issued));
  t.is(await refusal((async () => stillStanding(server, principal, HOME))()), "SESSION_INVALID", "also a running call");
  t.true(await server.takes(await server.login("ann", "new")));
  t.false(await isRevoked(issued), "a request writes nothing");
});

test("another password of an access key ends its sessions, and no others", async (t) => {
  const server = new Replica(withPassword("ann", "pw", { accessKeys: [key("a", "one"), key("b", "two")] }));
  const [own, a, b] = [
    await server.login("ann", "pw"),
    await server.login("ann$a", "one"),
    await server.login("ann$b", "two"),
  ];
  server.put(withPassword("ann", "pw", { accessKeys: [key("a", "other"), key("b", "two")] }));
  t.deepEqual([await server.takes(own), await server.takes(a), await server.takes(b)], [true, false, true]);
});

test("what differed for a minute is ended for good, also when the old password comes back", async (t) => {
  const server = new Replica(withPassword("ann", "old"), withPassword("bob", "pw"));
  const [anns, bobs] = [await server.login("ann", "old"), await server.login("bob", "pw")];
  await server.watchFor(2 * HOLD_MS);
  t.true(await server.takes(anns));
  server.put(withPassword("ann", "new"), withPassword("bob", "pw"));
  await server.watchFor(HOLD_MS - 5000);
  t.false(await isRevoked(anns), "not before");
  server.put(withPassword("ann", "old"), withPassword("bob", "pw"));
  t.true(await server.takes(anns), "a state that was gone within the minute ends nothing");
  server.put(withPassword("ann", "new"), withPassword("bob", "pw"));
  await server.watchFor(HOLD_MS);
  server.put(withPassword("ann", "old"), withPassword("bob", "pw"));
  t.false(await server.takes(anns));
  t.true(await server.takes(bobs));
  const events = await database.query(
    sql`select kind, actor, details from audit_events where kind not like 'session.%ed' or kind = 'session.revoked'`,
  );
  t.deepEqual(events, [
    { kind: "sessions.revoked", actor: "server", details: { user: "ann", access_key: "", sessions: "1" } },
  ]);
});

test("what changed while no server ran ends a minute after the start", async (t) => {
  const issued = await new Replica(withPassword("ann", "old")).login("ann", "old");
  wait(HOUR);
  const server = new Replica(withPassword("ann", "new"));
  t.false(await server.takes(issued));
  await server.watchFor(HOLD_MS);
  t.true(await isRevoked(issued));
});

test("a user that was there between two looks only is ended too", async (t) => {
  const server = new Replica(withPassword("bob", "pw"));
  await server.watch.look();
  server.put(withPassword("bob", "pw"), withPassword("ann", "old", { accessKeys: [key("a", "one")] }));
  wait(1000);
  const [anns, keys] = [await server.login("ann", "old"), await server.login("ann$a", "one")];
  server.put(withPassword("bob", "pw"));
  t.false(await server.takes(anns));
  await server.watchFor(HOLD_MS - 5000);
  t.false(await isRevoked(anns), "not before");
  await server.watchFor(10_000);
  t.true(await isRevoked(anns));
  t.true(await isRevoked(keys));
  server.put(withPassword("bob", "pw"), withPassword("ann", "old", { accessKeys: [key("a", "one")] }));
  t.false(await server.takes(anns), "put back");
});

test("a password that is changed while it is checked opens no session", async (t) => {
  const server = new Replica(withPassword("ann", "old"));
  const passwords = {
    ...server.deps.passwords,
    verify: async () => {
      server.put(withPassword("ann", "new"));
      return true;
    },
  };
  const of = { username: "ann", password: "old", description: "", scope: [], address: HOME };
  t.is(await refusal(login({ ...server.deps, passwords }, of)), "SESSION_INVALID");
  t.deepEqual(await database.query(sql`select id from sessions`), []);
});

test("a configuration problem stops the minute, and it begins again when it is mended", async (t) => {
  const server = new Replica(withPassword("ann", "old"));
  const issued = await server.login("ann", "old");
  await server.watch.look();
  server.put();
  await server.watchFor(HOLD_MS / 2);
  server.problem = "a.yaml:1: wrong";
  await server.watchFor(10 * HOLD_MS);
  server.problem = undefined;
  await server.watchFor(HOLD_MS / 2);
  server.refusals++; // One that came and went between two looks.
  await server.watchFor(HOLD_MS - 5000);
  t.false(await isRevoked(issued));
  await server.watchFor(10_000);
  t.true(await isRevoked(issued));
});

test("two replicas: a directory that is late, however long, ends no session of the newer one", async (t) => {
  const [old, young] = [withPassword("ann", "old"), withPassword("ann", "new")];
  const [early, late] = [new Replica(old), new Replica(old)];
  const before = await early.login("ann", "old");
  await early.watch.look();
  await late.watch.look();

  early.put(young);
  const after = await early.login("ann", "new");
  await late.watchFor(10 * HOLD_MS);
  t.true(await early.takes(after));
  t.false(await late.takes(after), "it refuses what it does not know");
  t.true(await late.takes(before));

  const restarted = new Replica(old);
  wait(1000);
  const second = await early.login("ann", "new");
  wait(1000);
  await restarted.watch.look();
  const third = await early.refresh(second);
  wait(1000);
  await restarted.watch.look();
  t.false(await isRevoked(third));

  await early.watchFor(HOLD_MS);
  t.deepEqual([await isRevoked(before), await isRevoked(after)], [true, false], "the newer one ends what is former");
  const stray = await late.login("ann", "old");
  late.put(young);
  t.false(await late.takes(stray));
  await late.watchFor(HOLD_MS);
  t.true(await isRevoked(stray), "and the late one what it issued itself, when it has caught up");
  t.true(await late.takes(after));
});

test("sessions from before there were fingerprints go on for as long as there is a password", async (t) => {
  const server = new Replica(withPassword("ann", "pw"), withPassword("bob", "pw"));
  const [anns, bobs] = [await server.login("ann", "pw"), await server.login("bob", "pw")];
  await database.query(sql`update sessions set fingerprint = null`);
  await server.watch.look();
  server.put(withPassword("ann", "other"));
  t.true(await server.takes(anns));
  t.false(await server.takes(bobs));
  await server.watchFor(2 * HOLD_MS);
  t.deepEqual([await isRevoked(anns), await isRevoked(bobs)], [false, true]);
  const renewed = await server.refresh(anns);
  server.put(withPassword("ann", "third"));
  t.false(await server.takes(renewed), "what is refreshed from it has one");
});

test("ending a session ends its chain, what was refreshed from it and what it came from", async (t) => {
  const server = new Replica(withPassword("ann", "pw"));
  const other = await server.login("ann", "pw");
  for (const ended of [0, 1, 2]) {
    const first = await server.login("ann", "pw");
    const second = await server.refresh(first);
    const chain = [first, second, await server.refresh(second)];
    await revokeSession(server.deps, await server.principal(other), chain[ended]!.session.id);
    for (const issued of chain) t.false(await server.takes(issued));
  }
  t.true(await server.takes(other));
});

test("a refresh at the moment its session is ended leads nowhere", async (t) => {
  const server = new Replica(withPassword("ann", "pw"));
  for (let round = 0; round < 10; round++) {
    const issued = await server.login("ann", "pw");
    const principal = await server.principal(issued);
    const [refreshed] = await Promise.allSettled([
      refreshSession(server.deps, principal, HOME),
      revokeSession(server.deps, principal, ""),
    ]);
    if (refreshed.status === "fulfilled") t.false(await server.takes(refreshed.value));
    else t.is((refreshed.reason as DomainError).reason, "SESSION_INVALID");
  }
});

test("a chain ends a time after its login, however often it is refreshed", async (t) => {
  const server = new Replica(withPassword("ann", "pw"));
  let last = await server.login("ann", "pw");
  const end = last.session.createdAt.getTime() + LIFETIME_MS;
  for (let hours = 5; hours < 24; hours += 5) {
    wait(5 * HOUR);
    last = await server.refresh(last);
    t.true(last.session.expiresAt.getTime() <= end);
  }
  t.is(last.session.expiresAt.getTime(), Math.floor(end / 1000) * 1000);
  t.is(await refusal(server.refresh(last)), "SESSION_INVALID", "another one would not last longer");
  t.true(await server.takes(last));
  wait(end - now.getTime());
  t.false(await server.takes(last));
});

test("all sessions of a user are ended by itself or by systemAdmin, those of a key by that key", async (t) => {
  const root = withPassword("root", "pw", { roles: ["systemAdmin"] });
  const ann = withPassword("ann", "pw", { accessKeys: [key("a", "a"), key("b", "b")] });
  const server = new Replica(root, ann, withPassword("bob", "pw"));
  const enter = async () => ({
    own: await server.login("ann", "pw"),
    a: await server.login("ann$a", "a"),
    b: await server.login("ann$b", "b"),
    bob: await server.login("bob", "pw"),
  });
  type Entered = Awaited<ReturnType<typeof enter>>;
  const left = async (of: Entered) => {
    const names: string[] = [];
    for (const [name, issued] of Object.entries(of)) if (await server.takes(issued)) names.push(name);
    return names.join(" ");
  };
  const revoke = async (by: IssuedSession, name: string) =>
    await revokeSessions(server.deps, await server.principal(by), name);
  const rootSession = await server.login("root", "pw");

  let of = await enter();
  t.is(await refusal(revoke(of.own, "bob")), "ACCESS_DENIED");
  t.is(await refusal(revoke(of.own, "nobody")), "ACCESS_DENIED", "who is unknown is not said to everybody");
  t.is(await refusal(revoke(of.a, "ann$b")), "ACCESS_DENIED");
  t.is(await left(of), "own a b bob");
  t.is(await revoke(of.a, ""), 1);
  t.is(await left(of), "own b bob");
  t.is(await revoke(of.b, "ann"), 1, "for a key its user is itself");
  t.is(await left(of), "own bob");
  t.is(await revoke(of.own, ""), 1);
  of = await enter();
  t.is(await revoke(rootSession, "ann$b"), 1);
  t.is(await left(of), "own a bob");
  t.is(await revoke(rootSession, "ann"), 2);
  t.is(await left(of), "bob");
  t.is(await revoke(rootSession, "ann"), 0);
  t.is(await refusal(revoke(rootSession, "ann$c")), "USER_NOT_FOUND");
  t.is(await refusal(revoke(rootSession, "nobody")), "USER_NOT_FOUND");
  server.put(root);
  t.is(await revoke(rootSession, "bob"), 2, "one that is gone may have sessions still");

  const narrow = await login(server.deps, {
    username: "root",
    password: "pw",
    description: "",
    scope: [{ type: "collection", name: "db", roles: [] }],
    address: HOME,
  });
  t.is(await refusal(revoke(narrow, "")), "ACCESS_DENIED");
});

test("sessions are listed of one access key and of all users, and an unknown name is said to be unknown", async (t) => {
  const ann = withPassword("ann", "pw", { accessKeys: [key("a", "a"), key("idle", "x")] });
  const server = new Replica(withPassword("root", "pw", { roles: ["systemAdmin"] }), ann);
  const roots = await server.principal(await server.login("root", "pw"));
  const anns = await server.principal(await server.login("ann", "pw"));
  await server.login("ann$a", "a");
  const list = async (by: typeof roots, name: string, allUsers = false) =>
    (await listSessions(server.deps, by, { user: name, allUsers, after: undefined, pageSize: 10 })).sessions
      .map(({ userName, accessKey }) => `${userName}$${accessKey}`)
      .sort();
  t.deepEqual(await list(roots, "ann$a"), ["ann$a"]);
  t.deepEqual(await list(roots, "ann$idle"), []);
  t.deepEqual(await list(roots, "", true), ["ann$", "ann$a", "root$"]);
  t.deepEqual(await list(anns, "ann$a"), ["ann$a"]);
  t.is(await refusal(list(anns, "", true)), "ACCESS_DENIED");
  t.is(await refusal(list(roots, "nobody")), "USER_NOT_FOUND");
  t.is(await refusal(list(roots, "ann$b")), "USER_NOT_FOUND");
  t.is(await refusal(list(anns, "nobody")), "ACCESS_DENIED");
});

test("an access key may be bound to addresses, beside those of its user", async (t) => {
  const bound = (userRanges: string[], keyRanges: string[]) =>
    withPassword("ann", "pw", { restrictByIp: userRanges, accessKeys: [key("a", "a", keyRanges), key("b", "b")] });
  const server = new Replica(bound([], ["192.0.2.0/24"]));
  t.is(await refusal(server.login("ann$a", "a", "203.0.113.9")), "CREDENTIALS_INVALID");
  const issued = await server.login("ann$a", "a");
  const principal = await server.principal(issued);
  t.true(await server.takes(issued));
  t.false(await server.takes(issued, "203.0.113.9"));
  t.true(await server.takes(await server.login("ann$b", "b", "203.0.113.9"), "203.0.113.9"), "another key is not");
  t.true(await server.takes(await server.login("ann", "pw", "203.0.113.9"), "203.0.113.9"), "nor is the user");
  server.put(bound(["192.0.2.0/25"], ["192.0.2.0/24"]));
  t.true(await server.takes(issued));
  t.false(await server.takes(issued, "192.0.2.200"), "both must allow it");
  server.put(bound([], ["198.51.100.0/24"]));
  t.is(await refusal((async () => stillStanding(server, principal, HOME))()), "SESSION_INVALID", "also a running call");
});

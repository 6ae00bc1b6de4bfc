/** How long sessions last whose login asked for a time. */

import { createHash } from "node:crypto";
import anyTest from "ava";
import { sql } from "drizzle-orm";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import {
  authenticate,
  type IssuedSession,
  login,
  refreshSession,
  type SessionDeps,
} from "../src/app/sessions/sessions.ts";
import type { User } from "../src/domain/configuration.ts";
import { DomainError } from "../src/domain/errors.ts";
import { onEachDatabase, openDatabase } from "./support/databases.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const SESSION_MS = 6 * HOUR;
const HOME = "192.0.2.7";

const START = new Date("2026-01-01T00:00:00.500Z");
let now = START;
const wait = (ms: number): void => {
  now = new Date(now.getTime() + ms);
};

let database: SqlDatabase;
let deps: SessionDeps;

const test = onEachDatabase(anyTest, {
  open: async (kind) => {
    now = START;
    const opened = await openDatabase(kind, () => now);
    return { database: opened, tokens: await JoseSigner.fromDatabase(opened) };
  },
  use: async (_t, of) => {
    database = of.database;
    deps = { ...common, ...of };
    await database.query(sql`delete from sessions`);
  },
  close: async (of) => await of.database.close(),
});

const ANN: User = {
  name: "ann",
  email: "ann@example.org",
  organization: "",
  about: "",
  deactivated: false,
  passwordHash: "hash",
  restrictByIp: [],
  roles: [],
  accessKeys: [],
};

let verifications = 0;
const common: Omit<SessionDeps, "database" | "tokens"> = {
  config: { current: () => ({ users: new Map([["ann", ANN]]), collections: new Map(), organizations: new Map() }) },
  passwords: {
    async verify() {
      verifications++;
      return true;
    },
    hash: async () => "hash",
  },
  logins: { giveBack: async () => {} },
  log: { debug() {}, info() {}, warn() {}, error() {} },
  sha256: (text) => createHash("sha256").update(text).digest("hex"),
  sessionMs: SESSION_MS,
  sessionLifetimeMs: 7 * DAY,
  sessionMaxMs: 90 * DAY,
};

async function enter(lifetimeMs?: number, of: SessionDeps = deps): Promise<IssuedSession> {
  return await login(of, { username: "ann", password: "pw", description: "", scope: [], address: HOME, lifetimeMs });
}

async function refresh(issued: IssuedSession): Promise<IssuedSession> {
  return await refreshSession(deps, await authenticate(deps, issued.token, HOME), HOME);
}

async function reason(work: Promise<unknown>): Promise<string | undefined> {
  return await work.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof DomainError) return error.reason;
      throw error;
    },
  );
}

const lasts = ({ session }: IssuedSession) => session.expiresAt.getTime() - Math.floor(now.getTime() / 1000) * 1000;

test("a session lasts as long as its login asks for, up to what the server allows", async (t) => {
  for (const ms of [60_000, HOUR, SESSION_MS, 30 * DAY, 90 * DAY]) t.is(lasts(await enter(ms)), ms);
  t.is(lasts(await enter()), SESSION_MS);
});

test("a longer, shorter or senseless life is refused before a password is hashed", async (t) => {
  const before = verifications;
  for (const ms of [90 * DAY + 1000, 59_999, 0, -1, Number.MAX_SAFE_INTEGER, Number.NaN])
    t.is(await reason(enter(ms)), "INVALID_REQUEST", `${ms}`);
  const error = await enter(91 * DAY).catch((caught: DomainError) => caught);
  t.regex((error as DomainError).message, /expected 1m to 90d, .*--session-duration-max.*, got 91d/);
  t.is(verifications, before);
});

test("without --session-duration-max nothing longer than the usual time is given", async (t) => {
  const usual: SessionDeps = { ...deps, sessionMaxMs: undefined };
  t.is(await reason(enter(SESSION_MS + 1000, usual)), "INVALID_REQUEST");
  t.is(lasts(await enter(SESSION_MS, usual)), SESSION_MS);
});

test("a long session works to its end, beyond the time that chains have otherwise", async (t) => {
  const issued = await enter(90 * DAY);
  wait(90 * DAY - 2000);
  t.is((await authenticate(deps, issued.token, HOME)).sessionId, issued.session.id);
  wait(2000);
  t.is(await reason(authenticate(deps, issued.token, HOME)), "SESSION_INVALID");
});

test("no refresh prolongs the life that was asked for", async (t) => {
  const short = await enter(10 * 60_000);
  wait(60_000);
  t.is(await reason(refresh(short)), "SESSION_INVALID", "a thief of a short session gets no longer one");
  const long = await enter(30 * DAY);
  let last = await refresh(long);
  t.is(lasts(last), SESSION_MS);
  wait(30 * DAY - HOUR);
  t.is(await reason(refresh(last)), "SESSION_INVALID", "it has ended");
  t.is(await reason(refresh(long)), "SESSION_INVALID", "another one would not last longer");
  const other = await enter(DAY);
  last = await refresh(other);
  while (lasts(last) === SESSION_MS && last.session.expiresAt < other.session.expiresAt) {
    wait(5 * HOUR);
    last = await refresh(last);
  }
  t.deepEqual(last.session.expiresAt, other.session.expiresAt);
});

test("a session that a clock was ahead for keeps the life that it was given, and no more", async (t) => {
  wait(400 * DAY);
  const issued = await enter(30 * DAY);
  wait(-400 * DAY);
  await authenticate(deps, issued.token, HOME);
  const healed = await database.read(async (tx) => await tx.sessions.find(issued.session.id));
  t.true(Math.abs(healed!.expiresAt.getTime() - now.getTime() - 30 * DAY) < 1000);
  t.is(healed!.chainEndsAt!.getTime() - now.getTime(), 30 * DAY);
});

import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { OptionValues } from "@strongroom/command-line/values";
import test from "ava";
import { NotLoggedInError } from "../src/errors.ts";
import { CredentialStore } from "../src/files/credentials.ts";
import { CONNECTION_OPTIONS } from "../src/options.ts";
import { RefreshingToken, tokenLife } from "../src/session/refreshing-token.ts";
import { isUnprotected, normalizeUrl, serverUrl } from "../src/session/server.ts";
import { withClient } from "../src/session/session.ts";
import { tokenPlace } from "../src/session/token-place.ts";
import { givenTexts, testContext } from "./support/context.ts";
import { at, fakeSdk, session } from "./support/fake-sdk.ts";

const options = (given: Readonly<Record<string, string | readonly string[]>>, env: NodeJS.ProcessEnv = {}) =>
  OptionValues.resolve(CONNECTION_OPTIONS, givenTexts(given), env);

/** A token that says when it ends, unsigned. */
function jwt(beganAt: number, endsAt: number, id = ""): string {
  return `e30.${Buffer.from(JSON.stringify({ iat: beganAt / 1000, exp: endsAt / 1000, id })).toString("base64url")}.s`;
}

test("addresses have one form", (t) => {
  t.is(normalizeUrl("HTTPS://Backup.Example.org/"), "https://backup.example.org");
  t.is(normalizeUrl("https://example.org/backup//"), "https://example.org/backup");
  for (const bad of ["example.org", "ftp://x", "http://u:p@x", "http://x/?token=1", "http://x/#a"])
    t.throws(() => normalizeUrl(bad), { instanceOf: UsageError });
  t.true(isUnprotected("http://backup.example.org"));
  for (const fine of ["https://backup.example.org", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"])
    t.false(isUnprotected(fine), fine);
});

test("the server: option, STRONGROOM_URL, BM_URL, last login, default", async (t) => {
  const { context } = await testContext(t);
  const env = { STRONGROOM_URL: "http://b", BM_URL: "http://c" };
  t.is(await serverUrl(context, options({ url: "http://a/" }, env)), "http://a");
  t.is(await serverUrl(context, options({}, env)), "http://b");
  t.is(await serverUrl(context, options({}, { BM_URL: "http://c" })), "http://c");
  t.is(await serverUrl(context, options({})), "http://127.0.0.1:8080");
  await new CredentialStore(context).save({
    url: "http://d",
    token: "x",
    user: "a",
    expiresAt: "2026-01-01T00:00:00Z",
    sessionId: "s",
  });
  t.is(await serverUrl(context, options({})), "http://d");
});

test("several addresses: repeated, with commas, each once", async (t) => {
  const { context } = await testContext(t);
  const both = "http://a,http://b";
  t.is(await serverUrl(context, options({ url: ["http://a/", "http://b", "http://a"] })), both);
  t.is(await serverUrl(context, options({}, { STRONGROOM_URL: "http://a, http://b/" })), both);
  const session = { token: "x", user: "a", expiresAt: "2026-01-01T00:00:00Z", sessionId: "s" };
  await new CredentialStore(context).save({ url: both, ...session });
  t.is(await serverUrl(context, options({})), both);
});

test("the token: --token-file, STRONGROOM_TOKEN, STRONGROOM_TOKEN_FILE, BM_AUTH_TOKEN, login", async (t) => {
  const place = async (given: Readonly<Record<string, string | readonly string[]>>, env: Record<string, string>) => {
    const { context } = await testContext(t, { env });
    return tokenPlace(context, options(given, env));
  };
  const all = { STRONGROOM_TOKEN: "own", STRONGROOM_TOKEN_FILE: "/file", BM_AUTH_TOKEN: "bm" };
  t.deepEqual(await place({ tokenFile: "/flag" }, all), { kind: "file", path: "/flag" });
  t.deepEqual(await place({}, all), { kind: "environment", token: "own" });
  t.deepEqual(await place({}, { STRONGROOM_TOKEN_FILE: "/file", BM_AUTH_TOKEN: "bm" }), {
    kind: "file",
    path: "/file",
  });
  t.deepEqual(await place({}, { BM_AUTH_TOKEN: "bm" }), { kind: "environment", token: "bm" });
  t.deepEqual(await place({}, {}), { kind: "stored", user: undefined });
});

test("a token file is read again before each call", async (t) => {
  const { load, opened } = fakeSdk({});
  const { context, dir } = await testContext(t, { sdk: load });
  const path = join(dir, "token");
  await writeFile(path, "first\n");
  await withClient(context, options({ tokenFile: path }), {}, async () => {
    const token = opened[0]!.token as () => Promise<string>;
    t.is((await token()).trim(), "first");
    await writeFile(path, "second\n");
    t.is((await token()).trim(), "second");
  });
  await rm(path);
  const error = await t.throwsAsync(() => withClient(context, options({ tokenFile: path }), {}, async () => {}));
  t.true(error.message.includes(path));
});

test("a session that has ended is reported before anything is sent", async (t) => {
  const { load, opened } = fakeSdk({});
  const { context } = await testContext(t, { sdk: load, now: () => Date.parse("2026-01-01T06:00:00Z") });
  const store = new CredentialStore(context);
  await store.save({ url: "http://a", token: "x", user: "alice", expiresAt: "2026-01-01T05:59:00Z", sessionId: "s" });
  const error = await t.throwsAsync(() => withClient(context, options({}), {}, async () => {}), {
    instanceOf: NotLoggedInError,
  });
  t.is(error.message, "The session of alice at http://a has ended.");
  t.is(opened.length, 0);
});

test("a session near its end is renewed once for all calls, and kept", async (t) => {
  const began = Date.parse("2026-01-01T00:00:00Z");
  const hours = 3_600_000;
  let now = began + hours;
  let renewals = 0;
  const fresh = jwt(now, now + 12 * hours);
  const { load, opened } = fakeSdk({
    sessions: {
      refreshSession: async () => {
        renewals++;
        return { token: fresh, session: session({ sessionId: "new", expiresAt: at("12:00:00") }) };
      },
    },
  });
  const { context } = await testContext(t, { sdk: load, now: () => now });
  const store = new CredentialStore(context);
  const old = jwt(began, began + 6 * hours);
  await store.save({ url: "http://a", token: old, user: "alice", expiresAt: "2026-01-01T06:00:00Z", sessionId: "old" });
  await withClient(context, options({}), {}, async () => {
    const token = opened[0]!.token as () => Promise<string>;
    t.is(await token(), old);
    t.is(renewals, 0);
    now = began + 6 * hours - 60_000;
    t.deepEqual(await Promise.all([token(), token(), token()]), [fresh, fresh, fresh]);
    t.is(renewals, 1);
  });
  const { sessions } = await store.read();
  t.deepEqual(sessions[0], {
    url: "http://a",
    token: fresh,
    user: "alice",
    sessionId: "new",
    expiresAt: "2026-01-01T12:00:00.000Z",
  });
});

test("a renewal that fails leaves the old token in use, and is not tried at every call", async (t) => {
  let now = 0;
  let tries = 0;
  const old = jwt(0, 100_000_000);
  const token = new RefreshingToken({
    read: async () => old,
    keep: async () => t.fail(),
    renew: async () => {
      tries++;
      throw new Error("no server");
    },
    now: () => now,
  });
  now = 99_900_000;
  t.is(await token.get(), old);
  t.is(await token.get(), old);
  t.is(tries, 1);
  now += 31_000;
  t.is(await token.get(), old);
  t.is(tries, 2);
});

test("a new token that cannot be kept is used all the same, and renewed in its turn", async (t) => {
  let now = 0;
  const lives = 100_000_000;
  const old = jwt(0, lives);
  let renewed = old;
  const token = new RefreshingToken({
    read: async () => old,
    keep: async () => {
      throw Object.assign(new Error("no space left on the device"), { code: "ENOSPC" });
    },
    renew: async (with_) => {
      t.is(with_, renewed);
      renewed = jwt(now, now + lives);
      return { token: renewed };
    },
    now: () => now,
  });
  for (let turn = 1; turn <= 3; turn++) {
    now = turn * lives - 100_000 * turn;
    const before = renewed;
    t.is(await token.get(), renewed);
    t.not(renewed, before);
    t.is(await token.get(), renewed);
  }
});

test("tokens that do not say when they end are left alone", (t) => {
  t.is(tokenLife("opaque"), undefined);
  t.is(tokenLife("a.e30.c"), undefined);
  t.deepEqual(tokenLife(jwt(1000, 2000)), { beganAt: 1000, endsAt: 2000 });
});

/** Whose session a command has: one of its own, or the kept one of the user it names, as it was when it began. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AuthenticationError, type ClientOptions, UnavailableError } from "@strongroom/client-sdk";
import { OptionValues } from "@strongroom/command-line/values";
import test, { type ExecutionContext } from "ava";
import { CredentialStore, type StoredSession } from "../src/files/credentials.ts";
import { CONNECTION_OPTIONS } from "../src/options.ts";
import { withClient } from "../src/session/session.ts";
import { tokenPlace } from "../src/session/token-place.ts";
import { type Choices, givenTexts, testContext } from "./support/context.ts";
import { fakeSdk, session } from "./support/fake-sdk.ts";

const values = (given: Readonly<Record<string, string>>, env: NodeJS.ProcessEnv = {}) =>
  OptionValues.resolve(CONNECTION_OPTIONS, givenTexts(given), env);

const kept = (user: string, url = "http://a", more: Partial<StoredSession> = {}): StoredSession => ({
  url,
  user,
  token: `kept-of-${user}`,
  expiresAt: "2099-01-01T00:00:00Z",
  sessionId: user,
  ...more,
});

const tokenOf = async (options: ClientOptions | undefined) =>
  await (options?.token as (() => Promise<string>) | undefined)?.();

/** A server that counts logins, and remembers with which tokens it was called. */
function server(whoAmI: () => unknown = () => ({ session: session(), email: "", roles: [], rights: [] })) {
  const logins: unknown[] = [];
  const ended: (string | undefined)[] = [];
  const called: (string | undefined)[] = [];
  const last = async () => {
    const { token } = sdk.opened.at(-1)!;
    return typeof token === "function" ? await token() : token;
  };
  const sdk = fakeSdk({
    login: async (given) => {
      logins.push(given);
      return { token: `own-${logins.length}`, session: session() };
    },
    sessions: {
      whoAmI: async () => {
        called.push(await last());
        return whoAmI();
      },
      revokeSession: async () => void ended.push(await last()),
    },
  });
  return { ...sdk, logins, ended, called };
}

async function withPasswordFile(t: ExecutionContext, choices: Choices) {
  const made = await testContext(t, choices);
  const file = join(made.dir, "password");
  await writeFile(file, "secret\n");
  return { ...made, args: ["--url", "http://a", "--username", "ann$cron", "--password-file", file] };
}

test("a user and a password file are a session of the command's own, ended with it and kept nowhere", async (t) => {
  const { load, logins, ended, called } = server();
  const { run, args, context, stderr } = await withPasswordFile(t, { sdk: load });
  await new CredentialStore(context).save(kept("bob"));
  t.is(await run("whoami", ...args), 0, stderr.text);
  t.deepEqual(logins, [{ username: "ann$cron", password: "secret", description: "strongroom CLI on test-host" }]);
  t.deepEqual([called, ended], [["own-1"], ["own-1"]]);
  t.deepEqual((await new CredentialStore(context).read()).sessions, [kept("bob")], "others are left alone");
});

test("it is ended when the command fails, and no failure to end it hides that", async (t) => {
  const refused = server(() => {
    throw new UnavailableError("no route");
  });
  const failing = await withPasswordFile(t, { sdk: refused.load });
  t.is(await failing.run("whoami", ...failing.args), 5);
  t.deepEqual(refused.ended, ["own-1"]);

  const unending = fakeSdk({
    login: async () => ({ token: "own", session: session() }),
    sessions: {
      whoAmI: async () => ({ session: session(), email: "", roles: [], rights: [] }),
      revokeSession: async () => {
        throw new UnavailableError("no route");
      },
    },
  });
  const well = await withPasswordFile(t, { sdk: unending.load });
  t.is(await well.run("whoami", ...well.args), 0);
});

for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const) {
  test(`it is ended on ${signal}, also where the command waits for an answer`, async (t) => {
    const { load, ended, called } = server(() => new Promise(() => {}));
    const { run, args, signals } = await withPasswordFile(t, { sdk: load });
    const running = run("whoami", ...args);
    while (called.length === 0) await sleep(5);
    signals.emit(signal);
    t.is(await running, code);
    t.deepEqual(ended, ["own-1"]);
  });
}

test("work that ends in order by itself keeps its session to its end", async (t) => {
  const { load, ended, opened } = server();
  const { context, signals, dir } = await testContext(t, { sdk: load });
  await writeFile(join(dir, "password"), "secret");
  const given = values({ url: "http://a", username: "ann", passwordFile: join(dir, "password") });
  await withClient(context, given, { interruption: { timeoutMs: undefined, onInterrupt: () => {} } }, async () => {
    signals.emit("SIGTERM");
    await sleep(20);
    t.is(await tokenOf(opened.at(-1)), "own-1", "an upload is still to be aborted with it");
    t.deepEqual(ended, []);
  });
  t.deepEqual(ended, ["own-1"]);
});

test("it logs in again where the server refuses its token, once for each", async (t) => {
  const { load, logins, opened } = server();
  const { context, dir } = await testContext(t, { sdk: load });
  await writeFile(join(dir, "password"), "secret");
  const given = values({ url: "http://a", username: "ann", passwordFile: join(dir, "password") });
  await withClient(context, given, {}, async () => {
    const token = opened.at(-1)!.token as (refused?: string) => Promise<string>;
    t.is(await token(), "own-1");
    t.deepEqual(await Promise.all([token("own-1"), token("own-1")]), ["own-2", "own-2"]);
    t.is(await token("own-1"), "own-2", "another connection was refused too");
    t.is(await token("own-2"), "own-3");
  });
  t.is(logins.length, 3);
});

for (const args of [
  ["backup", "db", "--encryption", "none", "-c", "echo x"],
  ["restore", "db", "--private-key", "key", "-c", "cat"],
]) {
  test(`--timeout counts from the login on: ${args[0]}`, async (t) => {
    const { load } = fakeSdk({ login: () => new Promise(() => {}) });
    const made = await withPasswordFile(t, { sdk: load });
    await writeFile(join(made.dir, "key"), "AGE-SECRET-KEY-1");
    const given = args.map((arg) => (arg === "key" ? join(made.dir, arg) : arg));
    t.is(await made.run(...given, ...made.args, "--timeout", "20ms"), 5);
    t.regex(made.stderr.text, /^strongroom: (?:backup of db: )?not finished within --timeout/m);
  });
}

test("a session that login cannot keep is ended, and the message names the file", async (t) => {
  const ended: unknown[] = [];
  const { load } = fakeSdk({
    login: async () => ({ token: "nobodys", session: session() }),
    sessions: { revokeSession: async (_, { headers }) => void ended.push(headers.authorization) },
  });
  const { run, args, dir, stderr } = await withPasswordFile(t, { sdk: load });
  const folder = join(dir, "folder");
  await mkdir(folder);
  t.is(await run("login", ...args, "--token-file", folder), 1);
  t.true(stderr.text.includes(folder), stderr.text);
  t.deepEqual(ended, ["Bearer nobodys"]);
});

test("a wrong password is told, and nothing is left to be ended", async (t) => {
  const sdk = fakeSdk({
    login: async () => {
      throw new AuthenticationError("login failed", { reason: "CREDENTIALS_INVALID" });
    },
  });
  const { run, args, stderr } = await withPasswordFile(t, { sdk: sdk.load });
  t.is(await run("whoami", ...args), 3);
  t.regex(stderr.text, /login failed/);
});

test("which session: arguments before variables, a password before what was kept", async (t) => {
  const place = async (given: Readonly<Record<string, string>>, env: Record<string, string> = {}) => {
    const { context } = await testContext(t, { env });
    return tokenPlace(context, values(given, env));
  };
  const own = { kind: "own", username: "ann" };
  const variables = { STRONGROOM_USERNAME: "ann", STRONGROOM_PASSWORD: "secret" };
  t.deepEqual(await place({ username: "ann", passwordFile: "/p" }), own);
  t.deepEqual(await place({ username: "ann", passwordFile: "/p" }, { STRONGROOM_TOKEN: "token" }), own);
  t.deepEqual(await place({}, variables), own);
  t.deepEqual(await place({}, { STRONGROOM_USERNAME: "ann", STRONGROOM_PASSWORD_FILE: "/p" }), own);
  t.deepEqual(await place({}, { ...variables, BM_AUTH_TOKEN: "bm" }), own);
  t.deepEqual(await place({}, { ...variables, STRONGROOM_TOKEN: "token" }), { kind: "environment", token: "token" });
  t.deepEqual(await place({ tokenFile: "/t" }, variables), { kind: "file", path: "/t" });
  t.deepEqual(await place({ username: "ann" }), { kind: "stored", user: "ann" });
  t.deepEqual(await place({}, { STRONGROOM_PASSWORD: "secret" }), { kind: "stored", user: undefined });
  await t.throwsAsync(place({ passwordFile: "/p" }), { message: /whose password\? Give --username NAME/ });
  await t.throwsAsync(place({ username: "ann", passwordFile: "/p", tokenFile: "/t" }), { message: /contradict/ });
});

test("--username chooses among kept sessions, and logout ends its own entry only", async (t) => {
  const { load, called, ended } = server();
  const { run, context, stderr } = await testContext(t, { sdk: load });
  const store = new CredentialStore(context);
  for (const user of ["ann", "bob", "cy"]) await store.save(kept(user));
  const users = async () => (await store.read()).sessions.map(({ user }) => user).join(" ");
  t.is(await run("whoami"), 0, stderr.text);
  t.is(await run("whoami", "--username", "ann"), 0);
  t.deepEqual(called, ["kept-of-cy", "kept-of-ann"]);
  t.is(await run("whoami", "--username", "dan"), 3);
  t.regex(stderr.text, /Not logged in to http:\/\/a as dan/);
  t.is(await run("logout", "--username", "bob"), 0);
  t.is(await users(), "cy ann");
  t.is(await run("logout"), 0);
  t.is(await users(), "ann");
  t.deepEqual(ended, ["kept-of-bob", "kept-of-cy"]);
});

test("a command keeps the session it began with, whoever logs in or out meanwhile", async (t) => {
  const { load, opened } = server();
  const { context } = await testContext(t, { sdk: load });
  const store = new CredentialStore(context);
  await store.save(kept("ann"));
  await withClient(context, values({}), {}, async () => {
    t.is(await tokenOf(opened[0]), "kept-of-ann");
    await store.save(kept("bob"));
    t.is(await tokenOf(opened[0]), "kept-of-ann");
    await store.save(kept("ann", "http://a", { token: "another", sessionId: "another" }));
    t.is(await tokenOf(opened[0]), "kept-of-ann");
    for (const each of (await store.read()).sessions) await store.forget(each);
    t.is(await tokenOf(opened[0]), "kept-of-ann");
  });
});

test("the TLS files of a login are kept with it, and used by later commands", async (t) => {
  const { load, opened } = server();
  const { run, context, dir, stderr } = await testContext(t, {
    sdk: load,
    env: { STRONGROOM_PASSWORD: "secret" },
    now: () => Date.parse("2026-01-01T00:00:00Z"),
  });
  const [ca, other] = [join(dir, "ca.pem"), join(dir, "other.pem")];
  await writeFile(ca, "authority");
  await writeFile(other, "other authority");
  const url = ["--url", "https://a"];
  t.is(await run("login", ...url, "--username", "ann", "--tls-ca", ca), 0, stderr.text);
  t.deepEqual((await new CredentialStore(context).read()).sessions[0]?.tls, { ca });
  const trusted = () => `${opened.at(-1)?.tls?.ca}`;
  t.is(await run("whoami"), 0, stderr.text);
  t.is(trusted(), "authority");
  t.is(await run("whoami", "--tls-ca", other), 0);
  t.is(trusted(), "other authority", "an argument wins");
  t.is(await run("whoami", ...url, "--username", "bob", "--password-file", ca), 0);
  t.is(trusted(), "authority", "also for a session of its own");
  t.is(await run("login", ...url, "--username", "bob"), 0);
  t.deepEqual((await new CredentialStore(context).read()).sessions[0]?.tls, { ca }, "and for the next login there");
  t.is(await run("login", "--url", "https://b", "--username", "bob"), 0);
  t.is(opened.at(-1)?.tls, undefined, "but for no other server");
});

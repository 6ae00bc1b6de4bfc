import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import {
  CredentialStore,
  configDirectory,
  findSession,
  type StoredSession,
  writePrivateFile,
} from "../src/files/credentials.ts";
import { withLock } from "../src/files/lock.ts";
import { testContext } from "./support/context.ts";

const session = (user: string, url = "http://a", sessionId = "s"): StoredSession => ({
  url,
  token: `token-of-${user}`,
  user,
  expiresAt: "2026-01-01T06:00:00.000Z",
  sessionId,
});

test("the folder each system expects", (t) => {
  const home = "/home/a";
  t.is(configDirectory({ platform: "linux", env: {}, home }), "/home/a/.config/strongroom");
  t.is(configDirectory({ platform: "linux", env: { XDG_CONFIG_HOME: "/etc/a" }, home }), "/etc/a/strongroom");
  t.is(
    configDirectory({ platform: "linux", env: { XDG_CONFIG_HOME: "relative" }, home }),
    "/home/a/.config/strongroom",
  );
  t.is(
    configDirectory({ platform: "darwin", env: { XDG_CONFIG_HOME: "/etc/a" }, home }),
    "/home/a/Library/Application Support/strongroom",
  );
  t.is(
    configDirectory({ platform: "win32", env: { APPDATA: "C:\\Data" }, home: "C:\\Users\\a" }),
    "C:\\Data\\strongroom",
  );
  t.is(
    configDirectory({ platform: "win32", env: {}, home: "C:\\Users\\a" }),
    "C:\\Users\\a\\AppData\\Roaming\\strongroom",
  );
});

test("only the owner can read what is kept, whatever the folder's mode was", async (t) => {
  const home = await temporaryFolder(t);
  const store = new CredentialStore({ platform: "linux", env: {}, home });
  await mkdir(dirname(store.file), { recursive: true });
  await chmod(dirname(store.file), 0o755);
  await store.save(session("alice"));
  t.is((await stat(dirname(store.file))).mode & 0o777, 0o700);
  t.is((await stat(store.file)).mode & 0o777, 0o600);
  t.deepEqual(await readdir(dirname(store.file)), ["credentials.json"], "no temporary file is left");
  await chmod(store.file, 0o644);
  await store.save(session("alice"));
  t.is((await stat(store.file)).mode & 0o777, 0o600);
});

const users = async (store: CredentialStore) =>
  (await store.read()).sessions.map(({ url, user, sessionId }) => `${user} ${url} ${sessionId}`);

test("one session for each server and user, the last login first", async (t) => {
  const store = new CredentialStore({ platform: "linux", env: {}, home: await temporaryFolder(t) });
  t.deepEqual(await store.read(), { sessions: [] });
  await store.save(session("alice"));
  await store.save(session("bob"));
  await store.save(session("alice", "http://b"));
  t.deepEqual(await users(store), ["alice http://b s", "bob http://a s", "alice http://a s"]);
  await store.replace(session("alice"), session("alice", "http://a", "renewed"));
  t.deepEqual(await users(store), ["alice http://b s", "bob http://a s", "alice http://a renewed"]);
  await store.forget(session("bob"));
  t.deepEqual(await users(store), ["alice http://b s", "alice http://a renewed"]);
  await store.replace(session("bob"), session("bob", "http://a", "late"));
  t.deepEqual(await users(store), ["alice http://b s", "alice http://a renewed"], "a renewal undoes no logout");
  await store.forget(session("alice"));
  t.deepEqual(await users(store), ["alice http://b s", "alice http://a renewed"], "nor a logout a login");
});

test("a session is found by address and user, the very address first", async (t) => {
  const credentials = {
    sessions: [session("bob", "http://a,http://b", "1"), session("alice", "http://b", "2"), session("alice", "", "3")],
  };
  const found = (url: string, user?: string) => findSession(credentials, url, user)?.sessionId;
  t.is(found("http://a"), "1");
  t.is(found("http://b"), "2", "the very address");
  t.is(found("http://b", "bob"), "1");
  t.is(found("http://c,http://b", "alice"), "2");
  t.is(found("http://a", "alice"), undefined);
  t.is(found("http://c"), undefined);
});

test("the file of earlier releases is read, and keeps its sessions when one is added", async (t) => {
  const store = new CredentialStore({ platform: "linux", env: {}, home: await temporaryFolder(t) });
  await mkdir(dirname(store.file), { recursive: true });
  const { url: _url, ...old } = session("alice");
  const servers = { "http://a": old, "http://b": { ...old, user: "bob" } };
  await writeFile(store.file, JSON.stringify({ version: 1, current: "http://b", servers }));
  t.deepEqual(await users(store), ["bob http://b s", "alice http://a s"]);
  await store.save(session("cy"));
  t.deepEqual(await users(store), ["cy http://a s", "bob http://b s", "alice http://a s"]);
});

test("logins at the same time all stay, and a lock whose holder died is taken away", async (t) => {
  const context = { platform: "linux", env: {}, home: await temporaryFolder(t) } as const;
  const { file } = new CredentialStore(context);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.lock`, "a process that was killed");
  const names = Array.from({ length: 20 }, (_, index) => `user-${index}`);
  await Promise.all(names.map(async (name) => await new CredentialStore(context).save(session(name))));
  const { sessions } = await new CredentialStore(context).read();
  t.deepEqual(sessions.map(({ user }) => user).sort(), names.sort());
  t.deepEqual(await readdir(dirname(file)), ["credentials.json"], "no lock is left");
});

test("a damaged file is reported, and not overwritten", async (t) => {
  const store = new CredentialStore({ platform: "linux", env: {}, home: await temporaryFolder(t) });
  await mkdir(dirname(store.file), { recursive: true });
  for (const content of [
    "",
    "{",
    "[]",
    '{"servers":[]}',
    '{"servers":{"http://a":{"token":1}}}',
    '{"version":3,"sessions":[]}',
  ]) {
    await writeFile(store.file, content);
    const error = await t.throwsAsync(() => store.save(session("alice")), { instanceOf: UsageError });
    t.true(error.message.includes(store.file));
    t.is(await readFile(store.file, "utf8"), content);
  }
});

test("a private file that cannot be put in place leaves nothing behind", async (t) => {
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "token", "x"), { recursive: true });
  await t.throwsAsync(() => writePrivateFile(join(dir, "token"), "secret"));
  t.deepEqual(await readdir(dir), ["token"]);
});

test("a holder of the lock that was taken for dead does not overwrite what others wrote meanwhile", async (t) => {
  const dir = await temporaryFolder(t);
  const [file, lock] = [join(dir, "file"), join(dir, "lock")];
  const written = await withLock(lock, async (isHeld) => {
    t.true(await isHeld());
    // What another process does while this one is stopped.
    await writeFile(lock, "another holder");
    await writeFile(file, "newer");
    return await writePrivateFile(file, "older", isHeld);
  });
  t.false(written);
  t.is(await readFile(file, "utf8"), "newer");
  t.deepEqual((await readdir(dir)).sort(), ["file", "lock"], "its lock stays, and nothing else");
});

test("a server that was logged out of stays the one that is meant, and its files of TLS are kept", async (t) => {
  const context = await testContext(t);
  const store = new CredentialStore({ platform: "linux", env: {}, home: await temporaryFolder(t) });
  const meant = { ...session("alice", "https://b"), tls: { ca: "/ca.pem" } };
  await store.save(session("alice"));
  await store.save(meant);
  await store.forget(meant);
  t.deepEqual((await store.read()).left, { url: "https://b", tls: { ca: "/ca.pem" } });
  await store.forget(session("alice"));
  t.is((await store.read()).left?.url, "https://b", "another logout changes nothing of that");
  await store.save(session("alice"));
  t.is((await store.read()).left, undefined);

  const own = new CredentialStore(context.context);
  const later = { expiresAt: "2999-01-01T00:00:00.000Z" };
  await own.save({ ...session("alice"), ...later });
  await own.save({ ...session("alice", "http://b"), ...later });
  await own.forget({ ...session("alice", "http://b"), ...later });
  t.is(await context.run("ls"), 3);
  t.regex(context.stderr.text, /Not logged in to http:\/\/b\. There is a session at http:\/\/a; --url means it/);
});

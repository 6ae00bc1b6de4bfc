import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { CredentialStore, configDirectory, type StoredSession, writePrivateFile } from "../src/files/credentials.ts";

const session = (user: string): StoredSession => ({
  token: `token-of-${user}`,
  user,
  expiresAt: "2026-01-01T06:00:00.000Z",
  sessionId: "s",
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
  await store.save("http://a", session("alice"));
  t.is((await stat(dirname(store.file))).mode & 0o777, 0o700);
  t.is((await stat(store.file)).mode & 0o777, 0o600);
  t.deepEqual(await readdir(dirname(store.file)), ["credentials.json"], "no temporary file is left");
  await chmod(store.file, 0o644);
  await store.save("http://a", session("alice"));
  t.is((await stat(store.file)).mode & 0o777, 0o600);
});

test("several servers, one of them current", async (t) => {
  const store = new CredentialStore({ platform: "linux", env: {}, home: await temporaryFolder(t) });
  t.deepEqual(await store.read(), { current: undefined, servers: {} });
  await store.save("http://a", session("alice"));
  await store.save("http://b", session("bob"));
  t.is((await store.read()).current, "http://b");
  await store.replace("http://a", session("alice2"));
  const { current, servers } = await store.read();
  t.is(current, "http://b");
  t.is(servers["http://a"]?.user, "alice2");
  await store.forget("http://b");
  t.is((await store.read()).current, "http://a");
  await store.replace("http://b", session("late"));
  t.deepEqual(Object.keys((await store.read()).servers), ["http://a"], "a renewal does not undo a logout");
  await store.forget("http://a");
  t.deepEqual(await store.read(), { current: undefined, servers: {} });
});

test("a damaged file is reported, and not overwritten", async (t) => {
  const store = new CredentialStore({ platform: "linux", env: {}, home: await temporaryFolder(t) });
  await mkdir(dirname(store.file), { recursive: true });
  for (const content of ["", "{", "[]", '{"servers":[]}', '{"servers":{"http://a":{"token":1}}}']) {
    await writeFile(store.file, content);
    const error = await t.throwsAsync(() => store.save("http://a", session("alice")), { instanceOf: UsageError });
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

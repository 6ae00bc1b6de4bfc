/** The program as a process in surroundings that are not as usual: ports, homes, paths, files and outputs. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { createServer as createProxy } from "node:http";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";

/** A port that answers every connection like a web server without HTTP/2, and ends it or leaves it open. */
async function http1Port(t: ExecutionContext, status: string, ends: boolean): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.write(`HTTP/1.1 ${status}\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n`);
      if (ends) socket.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

for (const ends of [true, false]) {
  test(`a port that speaks HTTP/1.1 only is named in one line (${ends ? "ends" : "keeps"} connections)`, async (t) => {
    const dir = await temporaryFolder(t);
    const url = await http1Port(t, "400 Bad Request", ends);
    const env = { ...personEnvironment(dir, url), STRONGROOM_TOKEN: "t" };
    for (const args of [
      ["whoami"],
      ["backup", "db", "--encryption", "none", "-c", "touch started; echo x"],
      ["restore", "db", "--private-key", join(dir, "key"), "-c", "cat"],
    ]) {
      await writeFile(join(dir, "key"), "AGE-SECRET-KEY-1");
      const { code, stderr } = await run(STRONGROOM, args, { env, cwd: dir });
      t.is(code, 5, stderr);
      t.regex(stderr, /^strongroom: .*nginx.*HTTP 400/);
      t.notRegex(stderr, /^ +at /m, "no stack trace");
    }
    t.false(existsSync(join(dir, "started")), "the dump was not begun");
  });
}

test("the program finds its way without HOME and PATH, and writes nothing where it was started", async (t) => {
  const dir = await temporaryFolder(t);
  const here = join(dir, "here");
  await mkdir(here);
  const url = "http://127.0.0.1:9";
  for (const env of [{ HOME: "" }, { HOME: "." }, { PATH: "" }, { PATH: "/nowhere" }, {}] as Record<string, string>[]) {
    const { code, stderr } = await run(STRONGROOM, ["whoami", "--url", url], {
      env: { PATH: process.env.PATH ?? "", STRONGROOM_TOKEN: "t", ...env },
      cwd: here,
    });
    t.is(code, 5, stderr);
    t.regex(stderr, /^strongroom: Cannot reach http:\/\/127\.0\.0\.1:9/);
  }
  t.deepEqual(await readdir(here), []);
});

test("a data directory that is a link to nowhere is named", async (t) => {
  const dir = await temporaryFolder(t);
  const link = join(dir, "link");
  await symlink(join(dir, "nowhere"), link);
  for (const command of ["serve", "init", "sweep", "check-config"]) {
    const { code, stderr } = await run(STRONGROOM, [command, "--data", link], { cwd: dir });
    t.is(code, 2, stderr);
    t.true(stderr.includes(`--data: ${link} is a link to ${join(dir, "nowhere")}, which is not there`), stderr);
  }
  t.deepEqual(await readdir(dir), ["link"]);
});

test("what was done decides the exit code, not what can be said about it", async (t) => {
  const dir = await temporaryFolder(t);
  const data = join(dir, "data");
  const password = await initConfiguration(join(data, "config"), "db");
  const server = await startServerProcess(["--data", data]);
  t.teardown(async () => void (await server.end("SIGKILL")));
  const env = personEnvironment(dir, server.url);
  // A shell, so that the output is the device itself.
  const into = async (device: string, args: readonly string[], input: string | Uint8Array = "") =>
    await run("/bin/sh", ["-c", `exec "$0" "$@" > ${device}`, STRONGROOM, ...args], { env, input, cwd: dir });
  // Editors put a mark before, and line ends after a password.
  await writeFile(join(dir, "password"), `\ufeff${password}\r\n\n`);
  const login = ["login", "--username", "admin", "--password-file", join(dir, "password"), "--json"];
  t.is((await into("/dev/full", login)).code, 0, "the session is kept");
  const backup = ["backup", "db", "--encryption", "none", "--json"];
  const stored = await into("/dev/full", backup, openpgpMessage(100_000));
  t.is(stored.code, 0, stored.stderr);
  t.regex(stored.stderr, /^strongroom: done, but the output could not be written: .*ENOSPC/m);
  const listed = await run(STRONGROOM, ["ls", "db", "--json"], { env });
  t.regex(listed.stdout.toString(), /"version":1\b/);
  t.is((await into("/dev/full", ["ls", "db", "--json"])).code, 1, "of a list, the output is all there is");
  const output = join(dir, "back");
  t.is((await into("/dev/full", ["download", "db", "--output", output, "--json"])).code, 0);
  t.is((await readFile(output)).length, 100_000);
  t.is((await into("/dev/full", ["keygen", "--name", "k", "--json"])).code, 0);
  t.is((await into("/dev/full", ["confirm", "db", "1", "--json"])).code, 0);
  t.is((await into("/dev/full", ["logout", "--json"])).code, 0);
  t.not((await run(STRONGROOM, ["whoami"], { env })).code, 0);
  // With a wrong TMPDIR too, and what it is needed for says so.
  t.is((await run(STRONGROOM, LOGIN, { env: { ...env, TMPDIR: "/nonexistent" }, input: password })).code, 0);
  const piped = await run(STRONGROOM, ["backup", "db", "--public-key", "k.pub.asc", "-c", "echo x > /dev/stdout"], {
    env: { ...env, TMPDIR: "/nonexistent" },
    cwd: dir,
  });
  t.true(piped.code === 0 || /set TMPDIR to a folder that exists/.test(piped.stderr), piped.stderr);
});

test("the program goes through the proxy that the environment names", async (t) => {
  const asked: (string | undefined)[] = [];
  const proxy = createProxy();
  proxy.on("connect", ({ url }, socket) => {
    asked.push(url);
    socket.end("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.teardown(() => void proxy.close());
  const at = `http://name:word@127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "password"), "secret");
  for (const args of [
    ["ls"],
    ["login", "--username", "ann", "--password-file", join(dir, "password")],
    ["backup", "db", "--username", "ann", "--password-file", join(dir, "password"), "--encryption", "none", "-c", "id"],
  ]) {
    const { code, stderr, stdout } = await run(STRONGROOM, [...args, "--json"], {
      env: { ...personEnvironment(dir, "https://backup.example.org"), STRONGROOM_TOKEN: "t", HTTPS_PROXY: at },
      cwd: dir,
    });
    t.is(code, 5, stderr);
    t.regex(stderr, /the proxy http:\/\/127\.0\.0\.1:\d+ does not connect to backup\.example\.org:443 \(HTTP 407\)/);
    t.is(JSON.parse(stdout.toString()).error.reason, "UNAVAILABLE", "it says nothing about rights");
    t.false(stderr.includes("word"));
  }
  t.deepEqual([...new Set(asked)], ["backup.example.org:443"]);
});

test("an error that nobody catches is one line and an exit code", async (t) => {
  const dir = await temporaryFolder(t);
  const hook = join(dir, "hook.mjs");
  await writeFile(hook, 'setTimeout(() => { throw new Error("lost"); }, 1500);');
  const url = "http://127.0.0.1:9";
  const args = ["backup", "db", "--url", url, "--encryption", "none", "-c", "echo", "--json"];
  const { code, stderr, stdout } = await run(STRONGROOM, args, {
    env: { PATH: process.env.PATH ?? "", HOME: dir, STRONGROOM_TOKEN: "t", NODE_OPTIONS: `--import=${hook}` },
    cwd: dir,
  });
  t.is(code, 1);
  t.like(JSON.parse(stdout.toString()), { error: { message: "unexpected: lost", exitCode: 1 } });
  t.regex(stderr, /^strongroom: unexpected: lost$/m);
  t.notRegex(stderr, /^ +at /m);
});

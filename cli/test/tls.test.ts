/** The real server and the real CLI over TLS. */

import { once } from "node:events";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";
import { initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { Authority, type CertificateFiles } from "@strongroom/testkit/peers/certificates";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { run, type ServerProcess, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";

/** Exit code for wrong usage, and for a server that cannot be reached. */
const USAGE = 2;

async function place(t: ExecutionContext) {
  const folder = await temporaryFolder(t);
  const password = await initConfiguration(join(folder, "config"), "db");
  const authority = await Authority.make(folder, "authority");
  const clients = await Authority.make(folder, "clients");
  const live: CertificateFiles = { certificate: join(folder, "live.pem"), key: join(folder, "live.key") };
  const use = async (files: CertificateFiles) => {
    await copyFile(files.certificate, live.certificate);
    await copyFile(files.key, live.key);
  };
  await use(await authority.issue("first"));
  const data = ["--config", join(folder, "config"), "--database", "pglite:memory", "--storage", "mem://"];
  const serve = async (...args: string[]): Promise<ServerProcess> => {
    const server = await startServerProcess([...data, "--tls-cert", live.certificate, "--tls-key", live.key, ...args]);
    t.teardown(async () => {
      await server.end("SIGTERM");
    });
    return server;
  };
  const strongroom = async (url: string, args: readonly string[], env: Record<string, string> = {}, input = "") =>
    await run(STRONGROOM, args, {
      input,
      env: { ...personEnvironment(folder, url), ...env },
      cwd: folder,
    });
  return { folder, data, password, authority, clients, live, use, serve, strongroom };
}

async function fingerprint(url: string, ca: string): Promise<string> {
  const socket = tls.connect({ host: "127.0.0.1", port: Number(new URL(url).port), ca, servername: "localhost" });
  await once(socket, "secureConnect");
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

test("login, backup and restore over TLS; a renewed certificate needs no restart", async (t) => {
  if (!hasPeers(t, "openssl")) return;
  const { authority, folder, password, live, use, serve, strongroom } = await place(t);
  const server = await serve();
  t.true(server.url.startsWith("https://127.0.0.1:"));
  const ca = { STRONGROOM_TLS_CA: authority.certificate };

  const unknown = await strongroom(server.url, LOGIN, {}, password);
  t.not(unknown.code, 0);
  t.regex(unknown.stderr, /its certificate comes from an unknown CA; name the CA \(--tls-ca/);
  const plain = await strongroom(server.url.replace("https", "http"), LOGIN, {}, password);
  t.regex(plain.stderr, /the server speaks TLS there; the address should begin with https:\/\//);
  const missing = await strongroom(server.url, [...LOGIN, "--tls-ca", "none.pem"], {}, password);
  t.is(missing.code, USAGE);
  t.regex(missing.stderr, /--tls-ca: the file cannot be read/);
  await writeFile(join(folder, "empty.pem"), "no certificate\n");
  t.regex((await strongroom(server.url, [...LOGIN, "--tls-ca", "empty.pem"], {}, password)).stderr, /expected PEM/);
  const half = await strongroom(server.url, [...LOGIN, "--tls-cert", live.certificate], ca, password);
  t.is(half.code, USAGE);
  t.regex(half.stderr, /--tls-cert and --tls-key belong together/);

  const good = await strongroom(server.url, [...LOGIN, "--tls-ca", authority.certificate], {}, password);
  t.is(good.code, 0, good.stderr);
  t.false(good.stderr.includes("not encrypted"));
  t.is((await strongroom(server.url, ["keygen", "--name", "k"])).code, 0);
  const text = "dump\n".repeat(100_000);
  const backup = await strongroom(server.url, ["backup", "db", "--public-key", "k.pub.asc"], ca, text);
  t.is(backup.code, 0, backup.stderr);

  const ca0 = await readFile(authority.certificate, "utf8");
  const before = await fingerprint(server.url, ca0);
  await use(await authority.issue("second"));
  while ((await fingerprint(server.url, ca0)) === before) await sleep(200);
  await writeFile(live.key, "broken");
  while (!/the new TLS files are not used, the old certificate stays: --tls-key/.test(server.log())) await sleep(200);

  const restore = await strongroom(server.url, ["restore", "db", "--private-key", "k.key.asc"], ca);
  t.is(restore.code, 0, restore.stderr);
  t.is(restore.stdout.toString(), text);
  t.is(await server.end("SIGTERM"), 0);
});

test("a server that takes only clients with a certificate", async (t) => {
  if (!hasPeers(t, "openssl")) return;
  const { authority, clients, password, serve, strongroom } = await place(t);
  const { url } = await serve("--tls-client-ca", clients.certificate);
  const login = [...LOGIN, "--tls-ca", authority.certificate];
  const none = await strongroom(url, login, {}, password);
  t.not(none.code, 0);
  t.regex(none.stderr, /the server takes only clients with a certificate; give one \(--tls-cert and --tls-key/);
  const stranger = await authority.issue("stranger");
  t.not((await strongroom(url, [...login, "--tls-cert", stranger.certificate, "--tls-key", stranger.key])).code, 0);
  const own = await clients.issue("own");
  const env = { STRONGROOM_TLS_CLIENT_CERT: own.certificate, STRONGROOM_TLS_CLIENT_KEY: own.key };
  const good = await strongroom(url, login, env, password);
  t.is(good.code, 0, good.stderr);
  const who = await strongroom(url, ["whoami", "--tls-ca", authority.certificate], env);
  t.is(who.code, 0, who.stderr);
});

test("serve says what is wrong with the files, and warns of an expired certificate", async (t) => {
  if (!hasPeers(t, "openssl")) return;
  const { authority, data, live, use, serve } = await place(t);
  const start = async (...args: string[]) =>
    await run(STRONGROOM, ["serve", "--listen", "127.0.0.1:0", ...data, ...args]);
  const missing = await start("--tls-cert", "/none.pem", "--tls-key", live.key);
  t.is(missing.code, 1);
  t.regex(missing.stderr, /^strongroom: cannot start: --tls-cert \/none\.pem does not exist$/m);
  const other = await authority.issue("other");
  const unfit = await start("--tls-cert", live.certificate, "--tls-key", other.key);
  t.is(unfit.code, 1);
  t.regex(unfit.stderr, /cannot start: --tls-key \S+other\.key does not belong to the first certificate/);
  t.is((await start("--tls-cert", live.certificate)).code, 2);
  await use(await authority.issue("expired", -1));
  const server = await serve();
  while (!/the certificate in \S+live\.pem expired at /.test(server.log())) await sleep(50);
});

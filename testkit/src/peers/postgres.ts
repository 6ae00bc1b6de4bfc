/** A real PostgreSQL server in a temporary folder. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endWithUs } from "../processes.ts";
import type { CertificateFiles } from "./certificates.ts";
import { freePort, requirePeer } from "./programs.ts";

/** A running PostgreSQL server of this process' own. */
export interface PostgresPeer {
  /** `postgres://` URL of an empty database, for the superuser. */
  readonly url: string;
  readonly port: number;
  /** Process id of the postmaster while it runs. */
  readonly pid: number | undefined;
  /** Makes another database, empty or like the one named, and returns its URL. */
  createDatabase(name: string, like?: string): Promise<string>;
  /** Ends the server: `fast` closes connections and shuts down in order, `kill` is kill -9 of the postmaster. */
  stop(how: "fast" | "kill"): Promise<void>;
  /** Starts it again on the same data and port, and waits until it takes connections. */
  start(): Promise<void>;
  /** Ends the server and deletes its data. */
  remove(): Promise<void>;
}

/** The user that PostgreSQL runs as, since it refuses root; undefined for the user of this process. */
function otherUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "nobody"]) {
    try {
      const id = (flag: string) => Number(execFileSync("id", [flag, name], { stdio: ["ignore", "pipe", "ignore"] }));
      return { uid: id("-u"), gid: id("-g") };
    } catch {
      // No such user; the next one.
    }
  }
  throw new Error("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody");
}

/**
 * Makes a database cluster and starts a server on a free port of loopback.
 * @param settings of the server, such as `{ max_connections: "20" }`. `fsync` is off unless asked for: the death of
 *   processes loses nothing without it.
 * @param tls switches TLS on with this certificate.
 * @param env variables that the server gets beside its own.
 */
export async function startPostgres(
  settings: Readonly<Record<string, string>> = {},
  tls?: CertificateFiles,
  env: Readonly<Record<string, string>> = {},
): Promise<PostgresPeer> {
  const user = otherUser();
  const folder = await mkdtemp(join(tmpdir(), "strongroom-postgres-"));
  if (user !== undefined) await chown(folder, user.uid, user.gid);
  const as = { ...user, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: "C.UTF-8", TZ: "UTC" } };
  const data = join(folder, "data");
  execFileSync(
    requirePeer("initdb"),
    ["-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"],
    { ...as, stdio: ["ignore", "ignore", "pipe"] },
  );
  const encryption = tls === undefined ? {} : await withCertificate(folder, tls, user);
  // As late as can be, since others choose ports too.
  const port = await freePort();
  const own = { fsync: "off", listen_addresses: "127.0.0.1", unix_socket_directories: folder };
  const all = { ...own, ...encryption, ...settings };
  const args = [
    "-D",
    data,
    "-p",
    String(port),
    ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ];
  let child: ChildProcess | undefined;
  let log = "";

  const start = async () => {
    const started = spawn(requirePeer("postgres"), args, {
      ...as,
      env: { ...as.env, ...env },
      stdio: ["ignore", "ignore", "pipe"],
    });
    child = started;
    endWithUs(started, "SIGQUIT");
    started.stderr.on("data", (chunk: Buffer) => {
      log = (log + chunk).slice(-20_000);
    });
    for (let waited = 0; waited < 60_000; waited += 50) {
      if (started.exitCode !== null || started.signalCode !== null) throw new Error(`PostgreSQL ended:\n${log}`);
      if (await takesConnections(port)) return;
      await sleep(50);
    }
    throw new Error(`PostgreSQL takes no connections after 60 s:\n${log}`);
  };
  const stop = async (how: "fast" | "kill") => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    const ended = once(running, "close");
    running.kill(how === "fast" ? "SIGINT" : "SIGKILL");
    await ended;
  };
  try {
    await start();
  } catch (error) {
    await stop("kill");
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
  const urlOf = (database: string) => `postgres://postgres@127.0.0.1:${port}/${database}`;
  return {
    url: urlOf("postgres"),
    port,
    get pid() {
      return child?.pid;
    },
    async createDatabase(name, like = "template1") {
      const server = ["-h", "127.0.0.1", "-p", String(port), "-U", "postgres"];
      execFileSync(requirePeer("createdb"), [...server, "-T", like, name], { stdio: ["ignore", "ignore", "pipe"] });
      return urlOf(name);
    },
    stop,
    start,
    async remove() {
      await stop("fast");
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Puts a certificate where the server can read it, with a key that nobody else can, as it demands. */
async function withCertificate(
  folder: string,
  tls: CertificateFiles,
  user: { uid: number; gid: number } | undefined,
): Promise<Record<string, string>> {
  const [certificate, key] = [join(folder, "server.crt"), join(folder, "server.key")];
  await copyFile(tls.certificate, certificate);
  await copyFile(tls.key, key);
  await chmod(key, 0o600);
  if (user !== undefined) for (const file of [certificate, key]) await chown(file, user.uid, user.gid);
  return { ssl: "on", ssl_cert_file: certificate, ssl_key_file: key };
}

async function takesConnections(port: number): Promise<boolean> {
  const probe = spawn(requirePeer("pg_isready"), ["-q", "-h", "127.0.0.1", "-p", String(port)], { stdio: "ignore" });
  const [code] = (await once(probe, "close")) as [number | null];
  return code === 0;
}

/** A real HAProxy in front of a server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endWithUs } from "../processes.ts";
import { freePort, requirePeer } from "./programs.ts";

/** A running HAProxy of this process' own. */
export interface HaproxyPeer {
  /** Where it listens: HTTP/2 without TLS. */
  readonly host: string;
  /** Ends it and deletes its files. */
  remove(): Promise<void>;
}

/** Starts an HAProxy that takes HTTP/2 without TLS and passes it on as such to one server, HOST:PORT. */
export async function startHaproxy(server: string): Promise<HaproxyPeer> {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-haproxy-"));
  const file = join(folder, "haproxy.cfg");
  const port = await freePort();
  await writeFile(
    file,
    `global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend all
  bind 127.0.0.1:${port} proto h2
  default_backend strongroom
backend strongroom
  server one ${server} proto h2
`,
  );
  const child = spawn(requirePeer("haproxy"), ["-db", "-f", file], { stdio: ["ignore", "ignore", "pipe"] });
  endWithUs(child, "SIGKILL");
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    log = (log + chunk).slice(-20_000);
  });
  const remove = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "close");
    }
    await rm(folder, { recursive: true, force: true });
  };
  for (let waited = 0; waited < 30_000; waited += 50) {
    if (child.exitCode !== null || child.signalCode !== null) break;
    if (await takesConnections(port)) return { host: `127.0.0.1:${port}`, remove };
    await sleep(50);
  }
  await remove();
  throw new Error(`HAProxy takes no connections:\n${log}`);
}

async function takesConnections(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  return (await new Promise((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  }).finally(() => socket.destroy())) as boolean;
}

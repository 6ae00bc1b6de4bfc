/** A real HAProxy in front of a server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endWithUs } from "../processes.ts";
import { freePort, requirePeer, takesConnections } from "./programs.ts";

/** A running HAProxy of this process' own. */
export interface HaproxyPeer {
  /** Where it listens, without TLS, as HOST:PORT. */
  readonly host: string;
  /** Ends it and deletes its files. */
  remove(): Promise<void>;
}

/**
 * Starts an HAProxy without TLS before one server, HOST:PORT.
 *
 * @param speaks - what it speaks to its clients and to the server
 * @param option - a line of its backend
 */
export async function startHaproxy(
  server: string,
  speaks: "http2" | "http1" = "http2",
  option = "",
): Promise<HaproxyPeer> {
  const proto = speaks === "http2" ? " proto h2" : " proto h1";
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
  bind 127.0.0.1:${port}${proto}
  default_backend strongroom
backend strongroom
  ${option}
  server one ${server}${proto}
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

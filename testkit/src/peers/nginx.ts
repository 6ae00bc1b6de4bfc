/** A real nginx in front of a server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endWithUs } from "../processes.ts";
import { freePort, requirePeer, takesConnections } from "./programs.ts";

/** A running nginx of this process' own. */
export interface NginxPeer {
  /** Address of each of its servers, by the name it was given. */
  readonly urls: Readonly<Record<string, string>>;
  /** Ends it and deletes its files. */
  remove(): Promise<void>;
}

/** One `server` of nginx. */
export interface NginxServer {
  /** What it speaks to its clients; without TLS. */
  readonly speaks: "http2" | "http1";
  /** Its directives but `listen`. */
  readonly directives: string;
}

/** Starts an nginx with these servers on ports of loopback. */
export async function startNginx(servers: Readonly<Record<string, NginxServer>>): Promise<NginxPeer> {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-nginx-"));
  await mkdir(join(folder, "logs"));
  const ports = new Map<string, number>();
  for (const name of Object.keys(servers)) ports.set(name, await freePort());
  const blocks = Object.entries(servers).map(
    ([name, { speaks, directives }]) =>
      `server { listen 127.0.0.1:${ports.get(name)}${speaks === "http2" ? " http2" : ""}; ${directives} }`,
  );
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join(" ");
  const file = join(folder, "nginx.conf");
  await writeFile(
    file,
    `${process.getuid?.() === 0 ? "user root;" : ""}
daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/logs/error.log info;
events { worker_connections 256; }
http { access_log off; ${temporary}
${blocks.join("\n")}
}
`,
  );
  const child = spawn(requirePeer("nginx"), ["-p", folder, "-c", file], { stdio: ["ignore", "ignore", "pipe"] });
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
    if ((await Promise.all([...ports.values()].map(takesConnections))).every(Boolean)) {
      const urls = Object.fromEntries([...ports].map(([name, port]) => [name, `http://127.0.0.1:${port}`]));
      return { urls, remove };
    }
    await sleep(50);
  }
  await remove();
  throw new Error(`nginx takes no connections:\n${log}`);
}

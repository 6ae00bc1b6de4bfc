/**
 * Programs of others that tests and benchmarks run against. No user of Strongroom needs them; `peers/install.sh`
 * installs them.
 */
import { accessSync, constants, readdirSync } from "node:fs";
import { connect, createServer } from "node:net";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import type { ExecutionContext } from "ava";

/** Folder that `peers/install.sh` fills, beside what the system has. */
export const PEERS_FOLDER = process.env.STRONGROOM_PEERS ?? join(homedir(), ".cache", "strongroom-peers");

/** PostgreSQL's programs are not on the path where several versions can be installed side by side. */
const POSTGRES_VERSIONS = "/usr/lib/postgresql";

function folders(): string[] {
  const path = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  let versions: string[] = [];
  try {
    versions = readdirSync(POSTGRES_VERSIONS).sort((a, b) => Number(b) - Number(a));
  } catch {
    // No PostgreSQL of Debian here.
  }
  return [
    join(PEERS_FOLDER, "bin"),
    join(PEERS_FOLDER, "python", "bin"),
    ...path,
    ...versions.map((version) => join(POSTGRES_VERSIONS, version, "bin")),
  ];
}

/** Where a program is; undefined when it is not installed. */
export function findPeer(name: string): string | undefined {
  for (const folder of folders()) {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return join(folder, name);
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/** Where a program is. @throws Error with how to install it. */
export function requirePeer(name: string): string {
  const found = findPeer(name);
  if (found === undefined) throw new Error(`${name} is not installed; run peers/install.sh`);
  return found;
}

/**
 * Whether all these programs are installed. Where one is not, the test says so loudly and passes, but fails under
 * CI=true, so that nobody believes that it was tried.
 */
export function hasPeers(t: ExecutionContext, ...names: string[]): boolean {
  const missing = names.filter((name) => findPeer(name) === undefined);
  if (missing.length === 0) return true;
  const message = `SKIPPED: ${t.title}: ${missing.join(" and ")} not installed; run peers/install.sh`;
  if (process.env.CI === "true") {
    t.fail(message);
    return false;
  }
  console.error(`!!! ${message}`);
  t.log(message);
  t.pass();
  return false;
}

/** A TCP port of loopback that nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

/** Whether somebody listens on a TCP port of loopback. */
export async function takesConnections(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  return await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  }).finally(() => socket.destroy());
}

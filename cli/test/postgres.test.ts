/**
 * The real server process on a real PostgreSQL server that dies and comes back.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initConfiguration } from "@strongroom/testkit/installation";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";

const PROGRAMS = ["postgres", "initdb", "createdb", "pg_isready"] as const;

test("a server survives the end of its PostgreSQL: unavailable meanwhile, then it goes on", async (t) => {
  if (!hasPeers(t, ...PROGRAMS)) return;
  const peer = await startPostgres();
  const dir = await mkdtemp(join(tmpdir(), "strongroom-postgres-"));
  const password = await initConfiguration(join(dir, "config"));
  // This server of PostgreSQL asks for no password; the secret must stay secret all the same.
  await writeFile(join(dir, "secret"), "hunter2\n", { mode: 0o600 });
  const server = await startServerProcess([
    "--data",
    dir,
    "--database",
    peer.url,
    "--database-password-file",
    join(dir, "secret"),
  ]);
  try {
    const health = async () => {
      const answer = await fetch(`${server.url}/grpc.health.v1.Health/Check`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: "{}",
      });
      return ((await answer.json()) as { status: string }).status;
    };
    const login = async () =>
      await fetch(`${server.url}/strongroom.v1.SessionService/Login`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ username: "admin", password }),
      });
    const until = async (status: string) => {
      while ((await health()) !== status);
    };
    t.is((await login()).status, 200);
    await peer.stop("kill");
    await until("NOT_SERVING");
    const refused = await login();
    t.is(refused.status, 503);
    const body = await refused.text();
    t.regex(body, /"code":"unavailable"/);
    t.regex(body, /RetryInfo/);
    await peer.start();
    await until("SERVING");
    t.is((await login()).status, 200);
    t.is(await server.end("SIGTERM"), 0);
    t.false(server.log().includes("hunter2"));
    const arguments_ = await run(STRONGROOM, [
      "serve",
      "--data",
      dir,
      "--database",
      "postgres://u:hunter2@localhost/x",
    ]);
    t.is(arguments_.code, 2);
    t.false(arguments_.stderr.includes("hunter2"));
    const missing = await run(STRONGROOM, [
      "serve",
      "--data",
      dir,
      "--database",
      peer.url.replace(/postgres$/, "none"),
    ]);
    t.is(missing.code, 1);
    t.regex(missing.stderr, /cannot use database "none" on 127\.0\.0\.1:\d+: database "none" does not exist/);
  } finally {
    await server.end("SIGKILL");
    await peer.remove();
    await rm(dir, { recursive: true, force: true });
  }
});

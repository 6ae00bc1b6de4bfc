/**
 * Changes of the configuration under a running server process, seen through the real CLI and plain HTTP.
 */

import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";

const SECRET = "for the monitoring";

/** The time limit is that of the test. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(50);
}

test("collections freeze and come back, users go at once, mistakes change nothing", async (t) => {
  const dir = await temporaryFolder(t);
  const config = join(dir, "config");
  const password = await initConfiguration(config, "db");
  const folder = join(config, "strongroom/backups.riotkit.org/v1alpha1");
  const admin = await readFile(join(folder, "backupusers/admin.yaml"), "utf8");
  const bob = join(config, "bob.yaml");
  await writeFile(bob, admin.replace(/name: "?admin"?/, "name: bob"));
  await writeFile(join(dir, "secret"), `${SECRET}\n`);
  const server = await startServerProcess(
    ["--data", dir, "--config", config, "--config-poll", "1s", "--monitoring-secret-file", join(dir, "secret")],
    {},
  );
  t.teardown(() => server.end("SIGKILL"));

  const as =
    (user: string) =>
    async (args: readonly string[], input: string | Uint8Array = "") => {
      const home = join(dir, `home-${user}`);
      await mkdir(home, { recursive: true, mode: 0o700 });
      const env = personEnvironment(home, server.url);
      return await run(STRONGROOM, args, { input, env, cwd: dir });
    };
  const [byAdmin, byBob] = [as("admin"), as("bob")];
  t.is((await byAdmin(LOGIN, password)).code, 0);
  t.is((await byBob(["login", "--username", "bob", "--password-stdin"], password)).code, 0);
  t.is((await byAdmin(["keygen", "--name", "k", "--out-dir", dir])).code, 0);
  const backup = () => byAdmin(["backup", "db", "--public-key", join(dir, "k.pub.asc")], "a dump");
  t.is((await backup()).code, 0);

  // Out of the directory by one rename, as an operator would do it.
  const object = join(folder, "backupcollections/db.yaml");
  await rename(object, join(dir, "db.yaml"));
  await until(async () => /frozen/.test((await byAdmin(["ls"])).stdout.toString()));
  t.like(JSON.parse((await byAdmin(["ls", "--json"])).stdout.toString()).collections[0], { name: "db", frozen: true });
  const refused = await backup();
  t.not(refused.code, 0);
  t.regex(refused.stderr, /not configured any more/);
  const health = await byAdmin(["health", "db"]);
  t.is(health.code, 8);
  t.regex(health.stdout.toString(), /frozen\s+failed/);
  const restored = await byAdmin(["restore", "db", "--private-key", join(dir, "k.key.asc"), "--output", "-"]);
  t.is(restored.stdout.toString(), "a dump", restored.stderr);
  await rename(join(dir, "db.yaml"), object);
  await until(async () => /open/.test((await byAdmin(["ls"])).stdout.toString()));
  t.is((await backup()).code, 0);
  t.regex((await byAdmin(["ls", "db"])).stdout.toString(), /^ +2 /m);

  t.is((await byBob(["ls"])).code, 0);
  await rm(bob);
  await until(async () => /BackupUser\/bob/.test(server.log()));
  await until(async () => (await byBob(["ls"])).code !== 0);
  t.regex((await byBob(["ls"])).stderr, /session/);

  const ready = async () => await fetch(`${server.url}/ready`, { headers: { authorization: SECRET } });
  t.is((await ready()).status, 200);
  const whole = await readFile(object, "utf8");
  await writeFile(object, whole.replace(/maxBackupsCount: \d+/, "maxBackupsCount: many"));
  await until(async () => /the last good state stays in force/.test(server.log()));
  t.regex(server.log(), /"file":"strongroom\/[^"]*\/db\.yaml","line":\d+,"path":"spec\.maxBackupsCount"/);
  t.is((await backup()).code, 0);
  await until(async () => (await ready()).status === 500);
  const refusals = () => server.log().match(/the last good state stays in force/g)!.length;
  const before = refusals();
  process.kill(server.child.pid!, "SIGHUP");
  await until(async () => refusals() === before + 1);
  await writeFile(object, whole);
  await until(async () => (await ready()).status === 200);
  t.false(server.log().includes("argon2"));
  t.is(await server.end("SIGTERM"), 0);
});

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  collectionDocument,
  initConfiguration,
  LOGIN,
  personEnvironment,
  succeeded,
} from "@strongroom/testkit/installation";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";

test("objects are applied, shown and deleted by the real program", async (t) => {
  t.timeout(300_000);
  const folder = await mkdtemp(join(tmpdir(), "strongroom-objects-"));
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "db");
  const server = await startServerProcess(["--config", config, "--database", "pglite:memory", "--storage", "mem://"]);
  t.teardown(async () => void (await server.end("SIGTERM")));
  const env = personEnvironment(folder, server.url);
  const strongroom = async (args: string[], input = "") => await run(STRONGROOM, args, { env, input });
  succeeded(t, await strongroom([...LOGIN], password));
  const file = join(folder, "new.yaml");
  await writeFile(file, collectionDocument("new", "maxBackupsCount: 2, maxOneVersionSize: 1M, maxCollectionSize: 10M"));
  const dry = succeeded(t, await strongroom(["apply", "-f", file, "--dry-run"]));
  t.regex(dry.stdout.toString(), /^\+kind: BackupCollection$/m);
  t.regex(succeeded(t, await strongroom(["apply", "-f", file])).stderr, /BackupCollection new: created/);
  const got = succeeded(t, await strongroom(["get", "BackupCollection", "new"])).stdout;
  t.regex(succeeded(t, await strongroom(["apply", "-f", "-"], got.toString())).stderr, /new: unchanged/);
  const listed = succeeded(t, await strongroom(["get", "BackupCollection", "--json"])).stdout.toString();
  t.deepEqual(
    (JSON.parse(listed) as { objects: { name: string }[] }).objects.map(({ name }) => name),
    ["db", "new"],
  );
  t.is((await strongroom(["delete", "BackupCollection", "new"])).code, 2, "it does not ask where nobody is");
  succeeded(t, await strongroom(["delete", "BackupCollection", "new", "--yes"]));
  t.not((await strongroom(["get", "BackupCollection", "new"])).code, 0);
  t.not((await strongroom(["delete", "BackupUser", "admin", "--yes"])).code, 0);
});

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

  // More than the details of an error have room for.
  const wrong = Array.from({ length: 40 }, (_, i) => collectionDocument(`c${i}`, `maxBackupsCount: ${"x".repeat(90)}`));
  await writeFile(file, wrong.join("\n---\n"));
  for (const args of [
    ["apply", "-f", file],
    ["apply", "-f", "-", "--dry-run"],
  ]) {
    const refusal = await strongroom(args, wrong.join("\n---\n"));
    t.is(refusal.code, 2, refusal.stderr);
    const place = args[2] === "-" ? "standard input" : file;
    const lines = refusal.stderr.split("\n").filter((line) => line.startsWith(`${place}:`));
    t.is(lines.filter((line) => /:\d+: spec\.maxBackupsCount: expected /.test(line)).length, 40, refusal.stderr);
  }
  const asJson = JSON.parse((await strongroom(["apply", "-f", file, "--json"])).stdout.toString()) as {
    error: { reason: string; findings: { line: number; path: string; reason: string }[] };
  };
  t.is(asJson.error.reason, "OBJECTS_INVALID");
  t.true(asJson.error.findings.length >= 40);
});

test("access keys and passwords are made and set by the real program, and work at once", async (t) => {
  t.timeout(300_000);
  const folder = await mkdtemp(join(tmpdir(), "strongroom-passwords-"));
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "db");
  const server = await startServerProcess(["--config", config, "--database", "pglite:memory", "--storage", "mem://"]);
  t.teardown(async () => void (await server.end("SIGTERM")));
  const env = personEnvironment(folder, server.url);
  const strongroom = async (args: string[], input = "") => await run(STRONGROOM, args, { env, input });
  const mayLogIn = async (name: string, secret: string) => {
    const args = ["login", "--username", name, "--password-stdin", "--token-file", join(folder, "token")];
    return (await strongroom(args, secret)).code;
  };
  succeeded(t, await strongroom([...LOGIN], password));
  const key = ["access-key", "admin", "nightly", "--for-collection", "db", "--role", "backupUploader"];
  const made = succeeded(t, await strongroom(key)).stdout.toString();
  t.regex(made, /^\S{26,}\n$/, "the password and nothing else");
  t.is(await mayLogIn("admin$nightly", made.trim()), 0);
  const again = await strongroom(key);
  t.is(again.code, 2);
  t.regex(again.stderr, /exists.*\n.*set-password/s);

  const set = succeeded(t, await strongroom(["set-password", "admin$nightly", "--json"])).stdout.toString();
  const answer = JSON.parse(set) as { username: string; password: string };
  t.is(answer.username, "admin$nightly");
  t.deepEqual([await mayLogIn("admin$nightly", made.trim()), await mayLogIn("admin$nightly", answer.password)], [3, 0]);
  t.is((await strongroom(["set-password", "admin", "--new-password-file", "-"], "too short\n")).code, 2);
  const given = await strongroom(["set-password", "admin", "--new-password-file", "-"], "long enough words\n");
  t.is(succeeded(t, given).stdout.toString(), "", "what was given is not shown");
  t.is(await mayLogIn("admin", "long enough words"), 0);
  t.is((await strongroom(["whoami"])).code, 3, "sessions of the password before are refused");
});

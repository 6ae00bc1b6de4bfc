import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { PROGRAM, runProcess } from "./support/process.ts";

test.serial("init makes a configuration that check-config finds valid, in the place where serve looks", async (t) => {
  const cwd = await temporaryFolder(t);
  const made = await runProcess(PROGRAM, ["init", "--collection", "pg-main", "--admin", "alice"], { cwd });
  t.is(made.code, 0, made.stderr);
  t.regex(made.stdout, /alice/);
  t.true((await readdir(join(cwd, "strongroom-data", "config"))).length > 0);
  const checked = await runProcess(PROGRAM, ["check-config"], { cwd });
  t.is(checked.code, 0, checked.stderr);
  const json = await runProcess(PROGRAM, ["check-config", "--json", join(cwd, "strongroom-data", "config")], {});
  t.like(JSON.parse(json.stdout), { valid: true });
  const again = await runProcess(PROGRAM, ["init"], { cwd });
  t.is(again.code, 2, "nothing is overwritten");
});

test.serial("simulate shows what stays of an imagined schedule and of real versions, from a pipe too", async (t) => {
  const cwd = await temporaryFolder(t);
  t.is((await runProcess(PROGRAM, ["init"], { cwd })).code, 0);
  const simulate = async (args: string[], input?: string) =>
    await runProcess(PROGRAM, ["simulate", ...args], input === undefined ? { cwd } : { cwd, input });
  const shown = await simulate(["default", "--schedule", "0 2 * * *", "--for", "30d"]);
  t.is(shown.code, 0, shown.stderr);
  t.regex(shown.stdout, /^version +begun +stays\n +30 +\d{4}-\d\d-\d\d 02:00 \w{3} +newest 1\n/);
  const versions = Array.from({ length: 9 }, (_, i) => ({
    version: 9 - i,
    size: 1,
    begunAt: new Date(Date.UTC(2026, 0, 9 - i)).toISOString(),
  }));
  const next = await simulate(["default", "--history", "-", "--json"], JSON.stringify({ versions }));
  const report = JSON.parse(next.stdout) as { versions: { version: number; stays: boolean }[] };
  t.deepEqual(
    report.versions.filter(({ stays }) => !stays).map(({ version }) => version),
    [3, 2, 1],
  );
  // Damage is read from there too: such a version takes no place, so that another one stays for it.
  const damaged = versions.map((one) => (one.version === 7 ? { ...one, damage: "its object is missing" } : one));
  const beside = await simulate(["default", "--history", "-"], JSON.stringify({ versions: damaged }));
  t.regex(beside.stdout, / 7 .* \(damaged, takes no place\)\n/);
  t.regex(beside.stdout, / 3 .*newest 7\n/);
  for (const args of [["default"], ["default", "--schedule", "x"], ["default", "--history", "nowhere.json"]]) {
    const wrong = await simulate(args);
    t.is(wrong.code, 2, `${args}: ${wrong.stderr}`);
  }
  t.is((await simulate(["nope", "--schedule", "0 2 * * *"])).code, 4);
});

test.serial("check-config names what is wrong", async (t) => {
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "a"));
  await writeFile(
    join(dir, "a", "broken.yaml"),
    "apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupUser\nmetadata: {}\n",
  );
  const { code, stderr } = await runProcess(PROGRAM, ["check-config"], { env: { STRONGROOM_CONFIG: dir } });
  t.is(code, 1);
  t.true(stderr.includes("broken.yaml"), stderr);
});

test.serial("hash-password takes the password from standard input, and never from an argument", async (t) => {
  const { code, stdout, stderr } = await runProcess(PROGRAM, ["hash-password"], {
    input: "correct horse\n",
  });
  t.is(code, 0, stderr);
  t.regex(stdout, /^\$argon2id\$/);
  const argument = await runProcess(PROGRAM, ["hash-password", "correct horse"], {});
  t.is(argument.code, 2);
  t.false(argument.stderr.includes("correct horse"), argument.stderr);
});

test.serial("serve says where its data is, and what of it nobody chose", async (t) => {
  const cwd = await temporaryFolder(t);
  t.is((await runProcess(PROGRAM, ["init"], { cwd })).code, 0);
  const storage = `STRONGROOM_STORAGE=file://${cwd}/dumps?x=1&y=2\n`;
  const firstLines = async (args: string[], env: Record<string, string> = {}) => {
    const line = `"${PROGRAM}" serve --listen 127.0.0.1:0 ${args.join(" ")} & pid=$!
      while ! grep -q listening log 2>/dev/null && kill -0 $pid; do sleep 0.1; done; kill $pid; wait $pid`;
    const script = line.replace(" & pid", " >out 2>log & pid");
    await writeFile(join(cwd, "log"), "");
    const { code, stderr } = await runProcess("/bin/sh", ["-c", script], { cwd, env });
    t.is(code, 0, `${stderr}${await readFile(join(cwd, "log"), "utf8")}`);
    const log = await readFile(join(cwd, "log"), "utf8");
    return { out: await readFile(join(cwd, "out"), "utf8"), log };
  };
  // What a shell makes of an unquoted & is seen at once: nobody chose that storage.
  await writeFile(join(cwd, "server.env"), storage);
  const lost = await firstLines(["--log-format", "json"], {});
  t.regex(
    lost.out,
    /^Strongroom listens on http:\S+ with the database pglite:\S+\/strongroom-data\/database \(default\) and the storage file:\S+\/strongroom-data\/storage \(default\)\n$/,
  );
  for (const made of ["config", "database", "storage"]) {
    const { mode } = await stat(join(cwd, "strongroom-data", made));
    t.is(mode & 0o077, 0, `docs/security.md: ${made} is for the server's user alone`);
  }
  const listening = lost.log
    .trim()
    .split("\n")
    .map((text) => JSON.parse(text) as { msg: string; storage?: string; database?: string })
    .find(({ msg }) => msg === "listening")!;
  t.regex(listening.storage!, /^file:/);
  t.regex(listening.database!, /^pglite:/);

  await writeFile(join(cwd, "server.env"), `STRONGROOM_STORAGE=file://${cwd}/dumps\nSTRONGROOM_LOG_FORMAT=text\n`);
  const chosen = await firstLines(["--env-file", "server.env"], { STRONGROOM_STORAGE: "mem://" });
  t.true(chosen.out.includes(`and the storage file://${cwd}/dumps\n`), chosen.out);
  t.regex(
    chosen.log,
    /^\d\d:\d\d:\d\d INFO {2}listening {2}url=http:\S+ database=pglite:\S+ storage=file:\S+ config=/m,
  );
});

test.serial("--env-file: an & needs no quotes, and a name that nothing reads is refused", async (t) => {
  const cwd = await temporaryFolder(t);
  const served = async (text: string) => {
    await writeFile(join(cwd, "server.env"), text);
    return await runProcess(PROGRAM, ["serve", "--env-file", "server.env"], { cwd });
  };
  const whole = await served("STRONGROOM_STORAGE=s3://bucket?region=r&nosuch=1\n");
  t.is(whole.code, 2);
  t.regex(whole.stderr, /nosuch/, "what stands after the & arrived");
  const typo = await served("STRONGROOM_STORGE=file:///backup\n");
  t.is(typo.code, 2);
  t.regex(typo.stderr, /server\.env: STRONGROOM_STORGE is no variable of strongroom/);
  t.regex((await served("STRONGROOM_LISTEN 1\n")).stderr, /server\.env:1: expected NAME=VALUE/);
  t.regex((await runProcess(PROGRAM, ["serve", "--env-file", "nosuch"], { cwd })).stderr, /nosuch: no such file/);
  t.is((await runProcess(PROGRAM, ["ls", "--env-file", "server.env"], { cwd })).code, 2, "of the server only");
});

test.serial("serve passes on its arguments and its exit code", async (t) => {
  const help = await runProcess(PROGRAM, ["serve", "--help"], {});
  t.is(help.code, 0, help.stderr);
  t.true(help.stdout.includes("--listen"), help.stdout);
  const wrong = await runProcess(PROGRAM, ["serve", "--json", "--listen", "nowhere"], {});
  t.is(wrong.code, 2, wrong.stderr);
});

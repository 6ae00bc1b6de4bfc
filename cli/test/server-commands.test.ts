import { mkdir, readdir, writeFile } from "node:fs/promises";
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

test.serial("serve passes on its arguments and its exit code", async (t) => {
  const help = await runProcess(PROGRAM, ["serve", "--help"], {});
  t.is(help.code, 0, help.stderr);
  t.true(help.stdout.includes("--listen"), help.stdout);
  const wrong = await runProcess(PROGRAM, ["serve", "--json", "--listen", "nowhere"], {});
  t.is(wrong.code, 2, wrong.stderr);
});

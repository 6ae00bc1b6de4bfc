import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { untilGone } from "./support/context.ts";
import { LOGGED_IN } from "./support/fake-sdk.ts";
import { runProcess } from "./support/process.ts";

const SCRIPT = fileURLToPath(new URL("./support/transfer.ts", import.meta.url));

const transfer = (end: string, args: string[]) =>
  runProcess(process.execPath, [SCRIPT, end, ...args], { env: { ...LOGGED_IN, BM_PASSPHRASE: "secret" } });

const backup = (command: string) => transfer("ok", ["backup", "pg-main", "--encryption", "none", "-c", command]);

test.serial("a command may open its streams by name", async (t) => {
  const stored = await backup("echo dump > /dev/stdout; echo words > /dev/stderr");
  t.is(stored.code, 0, stored.stderr);
  t.is(stored.stdout, "dump\ncommitted\n");
  t.true(stored.stderr.includes("words\n"), stored.stderr);
  const restored = await transfer("ok", ["restore", "pg-main", "-c", "cat /dev/stdin > /dev/stdout"]);
  t.is(restored.code, 0, restored.stderr);
  t.is(restored.stdout, "part one, part two\n");
});

test.serial("a large dump arrives whole, and its exit status decides", async (t) => {
  const { code, stdout } = await backup("head -c 30000000 /dev/zero | tr '\\0' x; exit 0");
  t.is(code, 0);
  t.is(stdout.length, 30_000_000 + "committed\n".length);
  const failed = await backup("echo half; false");
  t.is(failed.code, 7);
  t.false(failed.stdout.includes("committed"));
});

for (const before of ["", "trap '' TERM;"]) {
  test.serial(
    `a damaged version never ends a command's input${before === "" ? "" : ", also when it ignores SIGTERM"}`,
    async (t) => {
      const dir = await temporaryFolder(t);
      const command = `${before} echo $$ > '${dir}/pid'; cat > '${dir}/out'; touch '${dir}/eof'`;
      const { code, stderr } = await transfer("damaged", ["restore", "pg-main", "-c", command]);
      t.is(code, 6, stderr);
      t.is(await readFile(join(dir, "out"), "utf8"), "part one, part two\n");
      await untilGone(t, Number(await readFile(join(dir, "pid"), "utf8")));
      t.false(existsSync(join(dir, "eof")));
    },
  );
}

test.serial("a whole version does", async (t) => {
  const dir = await temporaryFolder(t);
  const { code, stderr } = await transfer("ok", ["restore", "pg-main", "-c", `cat > '${dir}/out'; touch '${dir}/eof'`]);
  t.is(code, 0, stderr);
  t.true(existsSync(join(dir, "eof")));
});

test.serial("a second Ctrl-C leaves no command behind, and ends no input", async (t) => {
  const dir = await temporaryFolder(t);
  const command = `trap '' TERM INT; echo $$ > '${dir}/pid'; while true; do sleep 0.05; done`;
  const child = spawn(process.execPath, [SCRIPT, "ok", "backup", "pg-main", "--encryption", "none", "-c", command], {
    env: { PATH: process.env.PATH ?? "", HOME: dir, ...LOGGED_IN },
    stdio: "ignore",
  });
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  while (!existsSync(join(dir, "pid"))) await sleep(20);
  await sleep(100);
  child.kill("SIGINT");
  await sleep(100);
  child.kill("SIGINT");
  t.is(await ended, 130);
  await untilGone(t, Number(await readFile(join(dir, "pid"), "utf8")));
});

test.serial("a command that leaves some of a dump that fits into the pipe has stopped reading too", async (t) => {
  // Elsewhere it cannot be known, as the documents say.
  if (process.platform !== "linux") {
    t.pass();
    return;
  }
  for (const command of ["true", "head -c 3 >/dev/null", "sleep 0.3"]) {
    const { code, stderr } = await transfer("ok", ["restore", "pg-main", "-c", command]);
    t.is(code, 7, command);
    // One that is quicker than the first write breaks the pipe instead.
    t.regex(stderr, /the command exited with 0, but stopped reading: it was given .*, and (did not read|more was)/);
  }
  for (const command of ["head -c 3 >/dev/null; cat >/dev/null", "sleep 0.3; cat >/dev/null"])
    t.is((await transfer("ok", ["restore", "pg-main", "-c", command])).code, 0, command);
});

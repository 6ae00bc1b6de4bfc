import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";

test("--ok-exit makes a version of a dump whose command warned, and marks it; other codes store nothing", async (t) => {
  const dir = await temporaryFolder(t);
  const password = await initConfiguration(join(dir, "config"));
  const server = await startServerProcess(["--data", join(dir, "data"), "--config", join(dir, "config")]);
  t.teardown(async () => void (await server.end("SIGTERM")));
  const env = personEnvironment(dir, server.url);
  const strongroom = async (...args: string[]) => await run(STRONGROOM, args, { env, cwd: dir });
  t.is((await run(STRONGROOM, LOGIN, { env, input: password })).code, 0);
  await writeFile(join(dir, "dump"), openpgpMessage(5000));
  const backup = async (code: number, ...more: string[]) =>
    await strongroom("backup", "default", "--encryption", "none", ...more, "-c", `cat dump; exit ${code}`);

  t.is((await backup(1)).code, 7);
  const warned = await backup(1, "--ok-exit", "0,1");
  t.is(warned.code, 0, warned.stderr);
  t.regex(warned.stderr, /Stored version 1 of default: .*; WARNING: the dump command exited with 1\n/);
  t.is((await backup(2, "--ok-exit", "0,1")).code, 7, "another code is a failure");
  const clean = await backup(0, "--ok-exit", "0,1", "--json");
  t.is(clean.code, 0, clean.stderr);
  t.is(JSON.parse(clean.stdout.toString()).warning, undefined);
  t.regex((await strongroom("ls", "default")).stdout.toString(), /^ +1 .* WARNING[, ].*$/m);
  const { versions } = JSON.parse((await strongroom("ls", "default", "--json")).stdout.toString());
  t.deepEqual(
    versions.map(({ warning }: { warning?: string }) => warning),
    [undefined, "the dump command exited with 1"],
  );
  t.is((await backup(0, "--ok-exit", "0,256")).code, 2);
});

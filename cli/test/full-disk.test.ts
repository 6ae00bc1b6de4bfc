/** A disk that is really full: a small file system in memory under the directory store of a real server. */

import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { collectionDocument, initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";

const MIB = 1024 * 1024;
const COLLECTION = collectionDocument("full", "maxBackupsCount: 5, maxOneVersionSize: 100M, maxCollectionSize: 1G");

test("a full disk refuses clearly, loses nothing acknowledged, and takes the dump when there is room", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-full-disk-"));
  const disk = join(dir, "disk");
  await mkdir(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m", "strongroom-test", disk], { stdio: "ignore" });
  } catch {
    await rm(dir, { recursive: true });
    const message =
      "SKIPPED: no small file system can be mounted here (that takes root); the injected ENOSPC stands for it";
    console.error(`!!! ${message}`);
    t.log(message);
    // Root that may not mount is the exception, and CI is root.
    if (process.env.CI === "true" && process.getuid?.() === 0) t.fail(message);
    else t.pass();
    return;
  }
  t.teardown(async () => {
    execFileSync("umount", [disk]);
    await rm(dir, { recursive: true, force: true });
  });
  const config = join(dir, "config");
  const password = await initConfiguration(config);
  await writeFile(join(config, "full.yaml"), COLLECTION);
  const storage = join(disk, "storage");
  const args = ["--data", join(dir, "data"), "--config", config, "--storage", `file://${storage}`];
  const server = await startServerProcess([
    ...args,
    "--segment-size",
    "1M",
    "--sweep-interval",
    "1s",
    "--disk-reserve",
    "0",
  ]);
  t.teardown(async () => void (await server.end("SIGKILL")));
  const env = personEnvironment(dir, server.url);
  const strongroom = async (args: readonly string[], input: string | Uint8Array = "") =>
    await run(STRONGROOM, args, { env, input, cwd: dir });
  t.is((await strongroom(LOGIN, password)).code, 0);
  const backup = ["backup", "full", "--encryption", "none", "--retry-for", "3s"];
  // The last piece of the first one, of 1 MiB at most, is larger than a page of the disk.
  const [first, second] = [openpgpMessage(5 * MIB - 100_000), openpgpMessage(10 * MIB)];
  t.is((await strongroom(backup, first)).code, 0);

  // Room for some segments of the next dump, not for all.
  const filler = join(disk, "filler");
  await writeFile(filler, Buffer.alloc(14 * MIB));
  const refused = await strongroom(backup, second);
  t.is(refused.code, 5, refused.stderr);
  t.regex(refused.stderr, /stor(e|age)/);
  t.regex(server.log(), /no space|ENOSPC/i, "the log says why");
  const fetch = async (number: string) => {
    const file = join(dir, `fetched-${number}`);
    const { code, stderr } = await strongroom(["download", "full", "--version", number, "--output", file, "--force"]);
    t.is(code, 0, stderr);
    return await readFile(file);
  };
  t.true((await fetch("1")).equals(first), "what was acknowledged is there");
  const listed = JSON.parse((await strongroom(["ls", "full", "--json"])).stdout.toString());
  t.is(listed.versions.length, 1, "nothing else became a version");

  await rm(filler);
  const again = await strongroom(backup, second);
  t.is(again.code, 0, again.stderr);
  t.true((await fetch("latest")).equals(second));
  // The sweeper frees what the upload that was given up had stored.
  while ((await readdir(join(storage, "pending"))).length > 0) await sleep(200);
  // A reader's disk with room for all but the end of the last piece: a short write must not be taken for a whole one.
  const { bavail, bsize } = await statfs(disk);
  await writeFile(filler, Buffer.alloc((bavail - Math.floor((first.length - 1) / bsize)) * bsize));
  const output = join(disk, "output");
  const redirected = await run(
    "sh",
    ["-c", `exec "$0" download full --version 1 --output - > '${output}'`, STRONGROOM],
    {
      env,
      cwd: dir,
    },
  );
  t.is(redirected.code, 1, redirected.stderr);
  t.regex(redirected.stderr, /standard output: no space left/);
  // Before the first byte, with the path.
  await rm(output);
  const target = join(disk, "restored");
  const tooLarge = await strongroom(["download", "full", "--version", "1", "--output", target]);
  t.is(tooLarge.code, 1, tooLarge.stderr);
  t.regex(tooLarge.stderr, /restored: expected at least 4\.9\d? MiB free on its file system, got \d/);
  t.false((await readdir(disk)).some((name) => name.startsWith("restored")));
  t.is(await server.end("SIGTERM"), 0);
});

/** A change of several configuration files is made whole after a death in its middle. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { writeFiles } from "../src/adapters/config-files/write-files.ts";
import type { PlannedFile } from "../src/objects/plan-change.ts";

const WRITER = fileURLToPath(new URL("../src/adapters/config-files/write-files.ts", import.meta.url));

const user = (name: string, about: string) =>
  `apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupUser\nmetadata: {name: ${name}}\nspec: {email: a@example.org, roles: [], about: ${about}}\n`;

/** Three that exist and one that does not; one of them goes. */
const BEFORE = { "a.yaml": user("a", "old"), "b.yaml": user("b", "old"), "gone.yaml": user("gone", "old") };
const AFTER = { "a.yaml": user("a", "new"), "b.yaml": user("b", "new"), "new.yaml": user("new", "new") };
const PLANNED: readonly PlannedFile[] = ["a.yaml", "b.yaml", "gone.yaml", "new.yaml"].map((file) => ({
  file,
  before: (BEFORE as Record<string, string>)[file],
  text: (AFTER as Record<string, string>)[file],
  isSecret: false,
}));

async function directory(t: ExecutionContext): Promise<string> {
  const dir = await temporaryFolder(t);
  for (const [file, text] of Object.entries(BEFORE)) await writeFile(join(dir, file), text);
  return dir;
}

async function filesOf(dir: string): Promise<Record<string, string>> {
  const names = (await readdir(dir)).sort();
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await readFile(join(dir, name), "utf8")])),
  );
}

/** Changes the files in a process that dies as soon as so many are moved. */
async function die(dir: string, moved: number): Promise<void> {
  const script = `
    import { writeFiles } from ${JSON.stringify(WRITER)};
    let moved = 0;
    const die = () => ++moved === ${moved} && process.kill(process.pid, "SIGKILL");
    await writeFiles(${JSON.stringify(dir)}, ${JSON.stringify(PLANNED)}, die);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "inherit" });
  const [, signal] = await once(child, "exit");
  if (signal !== "SIGKILL") throw new Error(`expected the writer to die by SIGKILL, got ${signal}`);
}

for (let moved = 1; moved <= PLANNED.length; moved++)
  test(`a server that died when ${moved} of 4 files were changed finds all of them changed when it starts`, async (t) => {
    const dir = await directory(t);
    await die(dir, moved);
    t.true((await readdir(dir)).some((name) => name.endsWith(".intent")));
    const source = await ConfigFilesSource.open(dir);
    t.deepEqual([...source.current().users.values()].map(({ name, about }) => `${name} ${about}`).sort(), [
      "a new",
      "b new",
      "new new",
    ]);
    t.deepEqual(await filesOf(dir), AFTER, "and nothing is left behind");
  });

test("a running server finishes it when it is asked to look, or makes the next change; a read-only one writes nothing", async (t) => {
  const dir = await directory(t);
  const source = await ConfigFilesSource.open(dir);
  const reader = await ConfigFilesSource.open(dir, { readOnly: true });
  await die(dir, 1);
  await reader.reload(true);
  t.true((await readdir(dir)).some((name) => name.endsWith(".intent")));
  await source.reload(true);
  t.deepEqual(await filesOf(dir), AFTER);
  const again = await directory(t);
  await die(again, 2);
  await writeFiles(again, [{ file: "c.yaml", before: undefined, text: user("c", "next"), isSecret: false }]);
  t.deepEqual(await filesOf(again), { ...AFTER, "c.yaml": user("c", "next") });
});

test("a file that somebody changed after the death stays as they made it", async (t) => {
  const dir = await directory(t);
  await die(dir, 1);
  await writeFile(join(dir, "b.yaml"), user("b", "by hand"));
  await writeFile(join(dir, "new.yaml"), user("new", "by hand"));
  await ConfigFilesSource.open(dir);
  t.deepEqual(await filesOf(dir), { ...AFTER, "b.yaml": user("b", "by hand"), "new.yaml": user("new", "by hand") });
});

test("another server that opens the directory in the middle of a change takes nothing from it", async (t) => {
  const dir = await directory(t);
  const opened: Promise<unknown>[] = [];
  await writeFiles(dir, PLANNED, () => void opened.push(ConfigFilesSource.open(dir)));
  await Promise.all(opened);
  t.deepEqual(await filesOf(dir), AFTER);
});

test("a change that fails before its first file is moved leaves nothing", async (t) => {
  const dir = await directory(t);
  await writeFile(join(dir, "new.yaml"), user("new", "meanwhile"));
  await t.throwsAsync(writeFiles(dir, PLANNED));
  t.deepEqual(await filesOf(dir), { ...BEFORE, "new.yaml": user("new", "meanwhile") });
});

test("what has the name of an intent and is none blocks no change, and changes nothing", async (t) => {
  const dir = await directory(t);
  const name = `.strongroom-${"0".repeat(16)}.intent`;
  for (const text of [
    "",
    "null",
    "{}",
    "[null, 7]",
    '[{"file": "../a.yaml", "temporary": null, "before": null}]',
    '[{"file": "a.yaml"}]',
  ]) {
    await writeFile(join(dir, name), text);
    await ConfigFilesSource.open(dir);
    t.deepEqual(await filesOf(dir), BEFORE, text);
  }
});

import { execFileSync } from "node:child_process";
import { closeSync, openSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { pinned } from "../src/app/ports/config-source.ts";
import type { Log } from "../src/app/settings.ts";

const user = (name: string, spec = "roles: []") => `
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupUser
metadata: {name: ${name}}
spec: {email: ${name}@example.org, ${spec}}
`;

const collection = (name: string, maxCollectionSize = "10M") => `
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: {name: ${name}}
spec: {maxBackupsCount: 2, maxOneVersionSize: 1M, maxCollectionSize: ${maxCollectionSize}}
`;

/** What was logged, a line each. */
class Lines implements Log {
  readonly all: { level: string; fields: Record<string, unknown>; message: string }[] = [];
  debug = () => {};
  info = (fields: Record<string, unknown>, message: string) => void this.all.push({ level: "info", fields, message });
  warn = (fields: Record<string, unknown>, message: string) => void this.all.push({ level: "warn", fields, message });
  error = (fields: Record<string, unknown>, message: string) => void this.all.push({ level: "error", fields, message });
  take = () => this.all.splice(0);
}

/** A source whose looks are asked for by the test; the poll is far away. */
async function opened(t: ExecutionContext, dir: string, settle: () => Promise<void> = async () => {}) {
  const source = await ConfigFilesSource.open(dir, { settle });
  const log = new Lines();
  source.watch({ pollMs: 3_600_000, log });
  t.teardown(() => source.close());
  return { source, log };
}

/** Waits for something that a notice or a poll brings about; the time limit is that of the test. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(10);
}

test("changes come into force as a whole, and the log names objects without values", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), [user("ann"), user("bob"), collection("db")].join("---"));
  const source = await ConfigFilesSource.open(dir, { settle: async () => {} });
  t.teardown(() => source.close());
  const before = source.current();
  t.is(await source.reload(), "unchanged");
  t.is(source.current(), before);

  const use = pinned({ config: source });
  const hash = "$argon2id$v=19$m=64,t=1,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
  const log = new Lines();
  source.watch({ pollMs: 3_600_000, log });
  await writeFile(
    join(dir, "a.yaml"),
    [user("ann", `roles: [], password: "${hash}"`), user("cy"), collection("db", "20M")].join("---"),
  );
  // Whether the notice or this look comes first does not matter: they run one after the other.
  await source.reload();
  await source.reload();
  t.deepEqual([...source.current().users.keys()], ["ann", "cy"]);
  t.is(source.current().collections.get("db")!.maxCollectionSize, 20n * 1024n * 1024n);
  t.is(use.config.current(), before, "a use case that runs keeps what it began with");
  const said = log.all.find((line) => line.message.startsWith("configuration: changes are in force"))!;
  t.deepEqual(said.fields, {
    added: ["BackupUser/cy"],
    changed: ["BackupUser/ann", "BackupCollection/db"],
    removed: ["BackupUser/bob"],
  });
  t.false(JSON.stringify(log.all).includes("argon2id"));
  t.like(source.status(), { problem: undefined, reloads: 1, refusals: 0 });
});

test("an invalid state is reported once, the last good one stays, and comes back with a correction", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), [user("ann"), collection("db")].join("---"));
  const { source, log } = await opened(t, dir);
  const good = source.current();
  await writeFile(join(dir, "a.yaml"), [user("ann"), collection("db", "1M")].join("---"));
  await source.reload();
  for (let poll = 0; poll < 3; poll++) t.is(await source.reload(), "unchanged");
  t.is(source.current(), good);
  t.regex(source.status().problem!, /^a\.yaml:10: spec\.maxCollectionSize: expected at least maxBackupsCount/);
  const reports = log.take().filter((line) => line.level === "error");
  t.is(reports.length, 2, "the problem and what follows from it");
  t.deepEqual(reports[0]!.fields, { file: "a.yaml", line: 10, path: "spec.maxCollectionSize" });
  t.regex(reports[1]!.message, /the last good state stays in force/);

  t.is(await source.reload(true), "refused", "an operator who asks gets the report again");
  t.is(log.take().length, 2);
  t.is(source.status().refusals, 2);

  await writeFile(join(dir, "a.yaml"), [user("ann"), collection("db")].join("---"));
  await source.reload();
  await source.reload();
  t.is(source.status().problem, undefined);
  t.regex(log.take().at(-1)!.message, /valid again, nothing changed/);
});

test("a file that is being written is waited for, and a half-written one matters until it is whole", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), user("ann"));
  const whole = [user("ann"), user("bob"), user("cy")].join("---");
  const steps = [whole.slice(0, 180), whole.slice(0, 200), whole];
  const source = await ConfigFilesSource.open(dir, {
    // Each wait for quiet sees the writer a step further.
    settle: async () => {
      const step = steps.shift();
      if (step !== undefined) await writeFile(join(dir, "a.yaml"), step);
    },
  });
  await writeFile(join(dir, "a.yaml"), whole.slice(0, 170));
  t.is(await source.reload(), "changed");
  t.deepEqual([...source.current().users.keys()], ["ann", "bob", "cy"]);
  t.is(source.status().refusals, 0);

  await writeFile(join(dir, "a.yaml"), `${whole}---\nkind: [`);
  t.is(await source.reload(), "refused");
  t.is(source.current().users.size, 3);
  await writeFile(join(dir, "a.yaml"), `${whole}---${user("dan")}`);
  t.is(await source.reload(), "changed");
  t.is(source.current().users.size, 4);
});

test("a directory that never comes to rest is left until the next look", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), user("ann"));
  let written = 0;
  const source = await ConfigFilesSource.open(dir, {
    settle: async () => await writeFile(join(dir, "a.yaml"), user(`u${written++}`)),
  });
  await writeFile(join(dir, "a.yaml"), user("bob"));
  t.is(await source.reload(), "unsettled");
  t.deepEqual([...source.current().users.keys()], ["ann"]);
});

test("a directory that is gone or lost all its files locks nobody out", async (t) => {
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "config"));
  await writeFile(join(dir, "config/a.yaml"), user("ann"));
  const source = await ConfigFilesSource.open(join(dir, "config"), { settle: async () => {} });
  await rm(join(dir, "config/a.yaml"));
  t.is(await source.reload(), "refused");
  t.regex(source.status().problem!, /expected configuration files, got none any more; is it mounted\?/);
  await rename(join(dir, "config"), join(dir, "elsewhere"));
  t.is(await source.reload(), "refused");
  t.regex(source.status().problem!, /expected a directory at .*, got nothing there/);
  t.deepEqual([...source.current().users.keys()], ["ann"]);
});

test("a ConfigMap's switch of ..data, an editor's rename and a new folder are noticed without a poll", async (t) => {
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "..one"));
  await writeFile(join(dir, "..one/users.yaml"), user("ann"));
  await symlink("..one", join(dir, "..data"));
  await symlink("..data/users.yaml", join(dir, "users.yaml"));
  const { source } = await opened(t, dir);

  await mkdir(join(dir, "..two"));
  await writeFile(join(dir, "..two/users.yaml"), [user("ann"), user("bob")].join("---"));
  await symlink("..two", join(dir, "..data_tmp"));
  await rename(join(dir, "..data_tmp"), join(dir, "..data"));
  await until(() => source.current().users.has("bob"));

  await writeFile(join(dir, ".collections.swp"), collection("db"));
  await rename(join(dir, ".collections.swp"), join(dir, "collections.yaml"));
  await until(() => source.current().collections.has("db"));

  await mkdir(join(dir, "team/x"), { recursive: true });
  await writeFile(join(dir, "team/x/cy.yaml"), user("cy"));
  await until(() => source.current().users.has("cy"));
  await writeFile(join(dir, "team/x/dan.yaml"), user("dan"));
  await until(() => source.current().users.has("dan"));
  t.deepEqual((await readdir(join(dir, "team/x"))).sort(), ["cy.yaml", "dan.yaml"]);
});

test("a change needs next to no turn of the loop that serves, however long each takes", async (t) => {
  const dir = await temporaryFolder(t);
  for (let file = 0; file < 5; file++) await writeFile(join(dir, `${file}.yaml`), user(`u${file}`));
  const { source } = await opened(t, dir);
  t.is(await source.reload(), "unchanged", "the thread is there");
  await writeFile(join(dir, "new.yaml"), user("ann"));
  const blocked = new Int32Array(new SharedArrayBuffer(4));
  let turns = 0;
  // Reading five files twice, step by step, takes more than thirty turns.
  while (!source.current().users.has("ann") && turns < 30) {
    Atomics.wait(blocked, 0, 0, 500);
    await new Promise((resolve) => setImmediate(resolve));
    turns++;
  }
  t.true(turns < 30);
});

test("a change is in force for who asks next, also when no turn of the loop comes", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), user("ann"));
  const source = await ConfigFilesSource.open(dir);
  t.teardown(() => source.close());
  source.watch({ pollMs: 100, log: new Lines() });
  await source.reload();
  writeFileSync(join(dir, "a.yaml"), user("bob"));
  const cell = new Int32Array(new SharedArrayBuffer(4));
  // Nothing else runs in this thread meanwhile; the bound is for the case that it never comes.
  for (let waits = 0; !source.current().users.has("bob") && waits < 6000; waits++) Atomics.wait(cell, 0, 0, 10);
  t.deepEqual([...source.current().users.keys()], ["bob"]);
});

(process.platform === "win32" ? test.skip : test)("a busy pool of threads holds no look up", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), user("ann"));
  const { source } = await opened(t, dir);
  await source.reload();
  // Opening a pipe that nobody writes to keeps a thread of the pool, as a hash of a password does.
  const pipe = join(dir, "..", `${basename(dir)}.pipe`);
  execFileSync("mkfifo", [pipe]);
  const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
  const readers = Array.from({ length: threads }, async () => await open(pipe, "r"));
  writeFileSync(join(dir, "a.yaml"), user("bob"));
  try {
    await until(() => source.current().users.has("bob"));
  } finally {
    const writer = openSync(pipe, "r+");
    for (const reader of await Promise.all(readers)) await reader.close();
    closeSync(writer);
    rmSync(pipe);
  }
  t.pass();
});

test("a thread that cannot be is told, and asked again later", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "a.yaml"), user("ann"));
  const { source, log } = await opened(t, dir);
  t.is(await source.reload(), "unchanged");
  await source.close();
  t.is(await source.reload(), "refused");
  t.regex(String(log.take()[0]?.fields.err), /the thread that reads the configuration: it has ended/);
  t.true(source.current().users.has("ann"));
});

test("the poll finds what the file system does not tell", async (t) => {
  const dir = await temporaryFolder(t);
  const elsewhere = await temporaryFolder(t);
  // The directory of a link's target is not watched, as a network file system would not be.
  await writeFile(join(elsewhere, "real.yaml"), user("ann"));
  await symlink(join(elsewhere, "real.yaml"), join(dir, "users.yaml"));
  const source = await ConfigFilesSource.open(dir, { settle: async () => {} });
  t.teardown(() => source.close());
  source.watch({ pollMs: 20, log: new Lines() });
  await writeFile(join(elsewhere, "real.yaml"), user("bob"));
  await until(() => source.current().users.has("bob"));
  t.pass();
});

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { acquireFileLock, FileLockedError } from "../src/adapters/file-lock/file-lock.ts";

const MODULE = new URL("../src/adapters/file-lock/file-lock.ts", import.meta.url).href;

/** Another process that tries to take the lock, reports the outcome on a line, and then waits to be killed. */
async function otherProcess(t: ExecutionContext, lock: string): Promise<{ child: ChildProcess; said: string }> {
  const program = `
    import { acquireFileLock } from ${JSON.stringify(MODULE)};
    try {
      await acquireFileLock(process.argv[1]);
      console.log("locked");
      setInterval(() => {}, 1000);
    } catch (error) {
      console.log(error.name + ": " + error.message);
    }`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, lock], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.teardown(() => child.kill("SIGKILL"));
  let complaints = "";
  child.stderr.on("data", (bytes) => {
    complaints += bytes;
  });
  const [said] = await once(createInterface(child.stdout), "line");
  // Experimental warnings would appear in every server's log.
  t.is(complaints, "");
  return { child, said };
}

test("a lock keeps other processes out until it is released", async (t) => {
  const directory = await temporaryFolder(t);
  const path = join(directory, ".lock");
  const lock = await acquireFileLock(path);
  const { said } = await otherProcess(t, path);
  t.true(said.startsWith("FileLockedError: "));
  t.true(said.includes(`The directory ${dirname(lock.path)} is in use by another server`), said);
  t.true(said.includes("Stop the other server, or give this one a directory of its own."), said);

  await lock.release();
  t.is((await otherProcess(t, path)).said, "locked");
  t.deepEqual(await readdir(directory), [".lock"], "nothing like a journal is left");
});

test("a lock goes with the process that holds it, however that ends", async (t) => {
  const path = join(await temporaryFolder(t), ".lock");
  for (let round = 0; round < 3; round++) {
    const { child, said } = await otherProcess(t, path);
    t.is(said, "locked");
    await t.throwsAsync(acquireFileLock(path), { instanceOf: FileLockedError });
    child.kill("SIGKILL");
    await once(child, "exit");
    const lock = await acquireFileLock(path);
    await lock.release();
  }
});

test("a lock keeps the same process out too, by whatever path", async (t) => {
  const directory = await temporaryFolder(t);
  await mkdir(join(directory, "real"));
  await symlink(join(directory, "real"), join(directory, "link"));
  const lock = await acquireFileLock(join(directory, "real", ".lock"));
  await symlink(join(directory, "real", ".lock"), join(directory, "lock-link"));
  for (const path of ["real/.lock", "link/.lock", "real/../link/.lock", "lock-link"]) {
    const error = await t.throwsAsync(acquireFileLock(join(directory, path)), { instanceOf: FileLockedError });
    t.true(error?.message.includes("another part of this same process"));
  }
  const other = await acquireFileLock(join(directory, ".lock"));
  t.true((await otherProcess(t, lock.path)).said.startsWith("FileLockedError"), "refusals did not drop the lock");
  await other.release();
  await lock.release();
});

test("a lock keeps other threads of the process out, which know nothing of it", async (t) => {
  const path = join(await temporaryFolder(t), ".lock");
  const lock = await acquireFileLock(path);
  const program = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(workerData.module)
      .then(({ acquireFileLock }) => acquireFileLock(workerData.path))
      .then(() => parentPort.postMessage("locked"), (error) => parentPort.postMessage(error.name));`;
  const worker = new Worker(program, { eval: true, workerData: { module: MODULE, path } });
  t.deepEqual(await once(worker, "message"), ["FileLockedError"]);
  await worker.terminate();
  t.true((await otherProcess(t, path)).said.startsWith("FileLockedError"), "the thread did not drop the lock");
  await lock.release();
});

test("of many at once exactly one gets the lock", async (t) => {
  const path = join(await temporaryFolder(t), ".lock");
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => acquireFileLock(path)));
  const got = results.filter((result) => result.status === "fulfilled");
  t.is(got.length, 1);
  await got[0]?.value.release();
});

test("releasing twice does not release what someone else acquired since", async (t) => {
  const path = join(await temporaryFolder(t), ".lock");
  const first = await acquireFileLock(path);
  await first.release();
  const second = await acquireFileLock(path);
  await first.release();
  t.true((await otherProcess(t, path)).said.startsWith("FileLockedError"));
  await second.release();
});

test("a lock that nobody refers to any more still holds", async (t) => {
  const path = join(await temporaryFolder(t), ".lock");
  await acquireFileLock(path);
  setFlagsFromString("--expose-gc");
  const collectGarbage: () => void = runInNewContext("gc");
  for (let round = 0; round < 5; round++) {
    collectGarbage();
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.true((await otherProcess(t, path)).said.startsWith("FileLockedError"));
});

test("what cannot be locked says why", async (t) => {
  const directory = await temporaryFolder(t);
  await t.throwsAsync(acquireFileLock(join(directory, "missing", ".lock")), {
    message: /does not exist or cannot be entered/,
  });
  await writeFile(join(directory, "other"), "some other program's file, longer than a header of SQLite ".repeat(50));
  const error = await t.throwsAsync(acquireFileLock(join(directory, "other")), {
    message: /Expected an empty file, or none/,
  });
  t.false(error instanceof FileLockedError);
  await access(join(directory, "other"));
});

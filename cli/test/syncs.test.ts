/**
 * What a real server asks of the system for one small backup, seen by strace: everything is on the disk before the
 * answer leaves.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { endWithUs, run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";

/** A system call that ended well; `path` is its file, a socket begins with "TCP:", of a rename it is the new name. */
interface Call {
  readonly name: string;
  readonly path: string;
}

test("a small backup: data, directories and database log are synced, in this order, before the answer", async (t) => {
  if (!hasPeers(t, "strace")) return;
  const dir = await mkdtemp(join(tmpdir(), "strongroom-syncs-"));
  t.teardown(async () => await rm(dir, { recursive: true, force: true }));
  const config = join(dir, "config");
  const init = await run(STRONGROOM, ["init", config, "--collection", "db"]);
  const password = /password\s+(\S+)/.exec(init.stdout.toString())![1]!;
  const data = join(dir, "data");
  const server = await startServerProcess(["--data", data, "--config", config]);
  t.teardown(async () => void (await server.end("SIGKILL")));
  const env = { HOME: dir, XDG_CONFIG_HOME: dir, STRONGROOM_URL: server.url };
  const strongroom = async (args: readonly string[], input = "") => {
    const outcome = await run(STRONGROOM, args, { env, input, cwd: dir });
    t.is(outcome.code, 0, outcome.stderr);
  };
  await strongroom(["login", "--username", "admin", "--password-stdin"], password);
  await strongroom(["keygen", "--name", "test", "--out-dir", dir]);

  const trace = join(dir, "trace");
  const strace = await startStrace(server.child.pid!, trace);
  await strongroom(["backup", "db", "--public-key", join(dir, "test.pub.asc")], "a small dump\n");
  strace.kill("SIGINT");
  await once(strace, "exit");
  await server.end("SIGTERM");
  const calls = parse(await readFile(trace, "utf8"), data);

  const isSync = ({ name }: Call) => name === "fsync" || name === "fdatasync";
  const isWrite = ({ name }: Call) => /^p?writev?(64)?$|^send/.test(name);
  const isLog = ({ path }: Call) => path.startsWith("database/data/pg_wal/");
  const isAnswer = (call: Call) => isWrite(call) && call.path.startsWith("TCP:");

  // Whatever the server sends, nothing that its database wrote to the log waits for a sync then.
  const unsynced = new Set<string>();
  let answers = 0;
  let commits = 0;
  for (const call of calls) {
    if (isWrite(call) && isLog(call)) unsynced.add(call.path);
    else if (isSync(call)) commits += Number(unsynced.delete(call.path));
    else if (isAnswer(call)) {
      t.deepEqual([...unsynced], []);
      answers++;
    }
  }
  t.true(answers >= 5 && commits >= 5, `${answers} answers, ${commits} syncs of the log`);

  // The dump, from the first byte to the answer of CommitUpload. Each step is looked for after the one before.
  let at = -1;
  const next = (what: string, wanted: (call: Call) => boolean): Call => {
    const found = calls.findIndex((call, index) => index > at && wanted(call));
    t.not(found, -1, `${what}, after ${at < 0 ? "the beginning" : JSON.stringify(calls[at])}`);
    at = found;
    return calls[found]!;
  };
  const part = next(
    "the segment's bytes",
    (call) => isWrite(call) && /^storage\/pending\/[^/]+\/data$/.test(call.path),
  );
  const folder = part.path.replace(/\/data$/, "");
  next("their sync", (call) => isSync(call) && call.path === part.path);
  next("the sync of the marker's directory", (call) => isSync(call) && call.path === folder);
  next("the row's sync", (call) => isSync(call) && isLog(call));
  next("the acknowledgement", isAnswer);
  const published = next(
    "the publication",
    (call) => call.name === "rename" && /^storage\/objects\/collections\/db\/[^/.]+$/.test(call.path),
  );
  const synced = (path: string) => (call: Call) => isSync(call) && call.path === path;
  for (const path of ["storage/objects/collections/db", "storage/objects/collections", "storage/objects"])
    next(`the sync of ${path}`, synced(path));
  next("the manifest", (call) => call.name === "rename" && call.path === `${published.path}.manifest.json`);
  next("its directory's sync", synced("storage/objects/collections/db"));
  next("the version's row", (call) => isWrite(call) && isLog(call));
  next("its sync", (call) => isSync(call) && isLog(call));
  next("the answer", isAnswer);
  t.false(
    calls
      .slice(0, at)
      .some((call, index) => index > calls.indexOf(published) && isWrite(call) && call.path === published.path),
    "nothing is written to a published object",
  );
});

/** Follows a process and its threads from now on. */
async function startStrace(pid: number, trace: string): Promise<ChildProcess> {
  const calls = "write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2";
  const args = ["-f", "-yy", "-s", "0", "-o", trace, "-e", `trace=${calls}`, "-p", `${pid}`];
  const strace = spawn(findPeer("strace")!, args, { stdio: ["ignore", "ignore", "pipe"] });
  endWithUs(strace, "SIGINT");
  let messages = "";
  await new Promise<void>((resolve, reject) => {
    strace.stderr.on("data", (chunk: Buffer) => {
      messages += chunk;
      if (messages.includes("attached")) resolve();
    });
    strace.once("close", () => reject(new Error(`strace ended: ${messages}`)));
  });
  return strace;
}

/**
 * The calls in the order of their ends; writes in that of their beginnings, where what they write may already leave.
 */
function parse(trace: string, data: string): Call[] {
  const calls: Call[] = [];
  const begun = new Map<string, Call>();
  for (const line of trace.split("\n")) {
    const resumed = /^(\d+) +<\.\.\. (\w+) resumed>.* = (-?\d+)/.exec(line);
    if (resumed !== null) {
      const call = begun.get(resumed[1]!);
      if (call?.name === resumed[2] && resumed[3] !== "-1" && !call!.name.includes("write")) calls.push(call!);
      continue;
    }
    const [, thread, name, rest] = /^(\d+) +(\w+)\((.*)$/.exec(line) ?? [];
    if (thread === undefined || name === undefined || rest === undefined) continue;
    const found = name.startsWith("rename")
      ? [...rest.matchAll(/"([^"]*)"/g)].at(-1)?.[1]
      : /^\d+<(.*?)>[,)]/.exec(rest.replace("->", "-"))?.[1];
    const path = (found ?? rest).replace(/ <unfinished.*/, "").replace(/^\d+<|>$/g, "");
    const call = {
      name: name.startsWith("rename") ? "rename" : name,
      path: path.startsWith(`${data}/`) ? path.slice(data.length + 1) : path,
    };
    const unfinished = rest.includes("<unfinished");
    if (unfinished) begun.set(thread, call);
    if (!unfinished || name.includes("write")) if (!/ = -1 /.test(rest)) calls.push(call);
  }
  return calls;
}

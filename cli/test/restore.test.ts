import { existsSync } from "node:fs";
import { readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ContentEncoding,
  DecryptionError,
  type DownloadOptions,
  EncryptionFormat,
  IntegrityError,
  type Version,
} from "@strongroom/client-sdk";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { FileDestination } from "../src/files/file-destination.ts";
import { type Choices, testContext, untilGone } from "./support/context.ts";
import { fakeSdk, LOGGED_IN, version } from "./support/fake-sdk.ts";

interface Plan {
  readonly chunks?: readonly string[];
  readonly version?: Version;
  /** Runs after the last byte and before the promise is settled: throwing is a failed verification. */
  readonly verify?: (dir: string) => Promise<void>;
}

async function prepared(t: ExecutionContext, plan: Plan = {}, choices: Choices = {}) {
  const state = { options: undefined as DownloadOptions | undefined, resolved: false, sent: 0 };
  const stored = plan.version ?? version();
  let dir = "";
  const download = async (options: DownloadOptions) => {
    state.options = options;
    await options.onVersion?.(stored);
    for (const chunk of plan.chunks ?? ["part one, ", "part two"]) {
      options.signal?.throwIfAborted();
      await options.sink?.(Buffer.from(chunk));
      state.sent++;
    }
    await plan.verify?.(dir);
    options.signal?.throwIfAborted();
    state.resolved = true;
    return { version: stored, outputBytes: 18n, resumes: 0 };
  };
  const surroundings = await testContext(t, {
    ...choices,
    sdk: fakeSdk({ download }).load,
    env: { ...LOGGED_IN, ...choices.env },
  });
  dir = surroundings.dir;
  return { ...surroundings, state };
}

/** Reads to the end of its input and then says so in a file. */
const reader = (dir: string, before = "") => `${before} echo $$ > '${dir}/pid'; cat > '${dir}/out'; touch '${dir}/eof'`;

const contentOf = async (path: string) => (existsSync(path) ? await readFile(path, "utf8") : "");

async function untilContent(path: string, content: string): Promise<void> {
  while ((await contentOf(path)) !== content) await sleep(10);
}

test("the command sees the end of its input only after the SDK has verified everything", async (t) => {
  const { run, dir, stderr } = await prepared(t, {
    verify: async (dir) => {
      await untilContent(join(dir, "out"), "part one, part two");
      await sleep(200);
      t.false(existsSync(join(dir, "eof")));
    },
  });
  t.is(await run("restore", "pg-main", "-c", reader(dir)), 0, stderr.text);
  t.true(existsSync(join(dir, "eof")));
  t.regex(
    stderr.text,
    /^Restored version 12 of pg-main to the command: 1\.2 GiB \(18 B decrypted and decompressed\) in .*; verified\n$/,
  );
});

for (const [words, before] of [
  ["", ""],
  [", also when it ignores SIGTERM", "trap '' TERM;"],
] as const) {
  for (const error of [new IntegrityError("a segment differs"), new DecryptionError("bad decrypt")]) {
    test(`${error.name}: the command is killed and never sees the end of its input${words}`, async (t) => {
      const { run, dir, stderr } = await prepared(t, {
        verify: async (dir) => {
          await untilContent(join(dir, "out"), "part one, part two");
          throw error;
        },
      });
      t.is(await run("restore", "pg-main", "-c", reader(dir, before)), 6);
      const pid = Number(await readFile(join(dir, "pid"), "utf8"));
      await untilGone(t, pid);
      await sleep(100);
      t.false(existsSync(join(dir, "eof")));
      t.true(stderr.text.includes(error.message));
    });
  }
}

test("a command that fails ends the transfer, with its exit code reported", async (t) => {
  const { run, state, stderr } = await prepared(t, { chunks: Array.from({ length: 1000 }, () => "x".repeat(1 << 16)) });
  t.is(await run("restore", "pg-main", "-c", "head -c 10 >/dev/null; exit 3"), 7);
  t.true(stderr.text.includes("the command exited with 3"), stderr.text);
  t.true(state.sent < 1000);
  t.false(state.resolved);
});

test("a command that fails while the network is silent is noticed at once", async (t) => {
  let aborted: unknown;
  const { load } = fakeSdk({
    download: async (options) => {
      await options.onVersion?.(version());
      await options.sink?.(Buffer.from("x"));
      return await new Promise((_resolve, reject) => {
        options.signal?.addEventListener("abort", () => {
          aborted = options.signal?.reason;
          reject(aborted);
        });
      });
    },
  });
  const { run, stderr } = await testContext(t, { sdk: load, env: LOGGED_IN });
  t.is(await run("restore", "pg-main", "-c", "head -c 1 >/dev/null; sleep 0.3; exit 9"), 7);
  t.true(stderr.text.includes("the command exited with 9"), stderr.text);
  t.truthy(aborted);
});

test("a command that fails after everything was verified is a failure too", async (t) => {
  const { run, stderr } = await prepared(t);
  t.is(await run("restore", "pg-main", "-c", "cat >/dev/null; exit 3"), 7);
  t.true(stderr.text.includes("the command exited with 3"));
});

test("a command that stops reading fails, though it exits with 0; one that reads the rest does not", async (t) => {
  const chunks = Array.from({ length: 50 }, () => "x".repeat(1 << 16));
  for (const command of ["head -c 10 >/dev/null", "exec <&-; sleep 0.2", "true"]) {
    const { run, state, stderr } = await prepared(t, { chunks });
    t.is(await run("restore", "pg-main", "-c", command), 7, command);
    t.regex(stderr.text, /the command exited with 0, but stopped reading: it was given .*, and more was to come/);
    t.false(stderr.text.includes("verified"), stderr.text);
    t.false(state.resolved);
  }
  const { run, state, stderr } = await prepared(t, { chunks });
  t.is(await run("restore", "pg-main", "-c", "head -c 10 >/dev/null; cat >/dev/null"), 0, stderr.text);
  t.true(state.resolved);
});

test("a command is not started before there is a byte to give it", async (t) => {
  const { run, dir } = await prepared(t, {
    chunks: [],
    verify: async () => {
      throw new DecryptionError("no secret key");
    },
  });
  t.is(await run("restore", "pg-main", "-c", `touch '${join(dir, "started")}'`), 6);
  t.false(existsSync(join(dir, "started")));
});

test("SIGINT: the command is killed, never sees the end, exit code 130", async (t) => {
  const { run, dir, signals } = await prepared(t, {
    verify: async (dir) => {
      await untilContent(join(dir, "out"), "part one, part two");
      signals.emit("SIGINT");
    },
  });
  t.is(await run("restore", "pg-main", "-c", reader(dir)), 130);
  await sleep(100);
  t.false(existsSync(join(dir, "eof")));
});

test("a command's output goes to standard output, with --json to standard error", async (t) => {
  const plain = await prepared(t);
  t.is(await plain.run("restore", "pg-main", "-c", "cat >/dev/null; echo done"), 0);
  t.is(plain.stdout.text, "done\n");
  const json = await prepared(t);
  t.is(await json.run("restore", "pg-main", "--json", "-c", "cat >/dev/null; echo done"), 0);
  t.like(JSON.parse(json.stdout.text), { version: 12, outputBytes: 18, contentEncoding: "zstd" });
  t.true(json.stderr.text.includes("done\n"));
});

test("a file has its name only when it is whole, and only its owner can read it", async (t) => {
  const { run, dir } = await prepared(t, {
    verify: async (dir) => {
      t.deepEqual((await readdir(dir)).sort(), ["app.sql.partial"]);
      t.is((await stat(join(dir, "app.sql.partial"))).mode & 0o777, 0o600);
    },
  });
  t.is(await run("restore", "pg-main", "--output", join(dir, "app.sql")), 0);
  t.deepEqual(await readdir(dir), ["app.sql"]);
  t.is(await readFile(join(dir, "app.sql"), "utf8"), "part one, part two");
  t.is((await stat(join(dir, "app.sql"))).mode & 0o777, 0o600);
});

test("a file that fails its verification leaves nothing, and the old one stays", async (t) => {
  const fail = async () => {
    throw new IntegrityError("differs");
  };
  const { run, dir } = await prepared(t, { verify: fail });
  await writeFile(join(dir, "app.sql"), "old");
  t.is(await run("restore", "pg-main", "--force", "--output", join(dir, "app.sql")), 6);
  t.deepEqual(await readdir(dir), ["app.sql"]);
  t.is(await readFile(join(dir, "app.sql"), "utf8"), "old");
});

test.serial("a process that ends in a hurry leaves no partial file behind, unless it is another's", async (t) => {
  const dir = await temporaryFolder(t);
  const destination = new FileDestination(join(dir, "out"), { force: false, decrypts: true });
  await destination.open(version());
  await destination.write(Buffer.from("half"));
  t.deepEqual(await readdir(dir), ["out.partial"]);
  // What Node calls when the process exits; serial, so that it is the last that was added.
  const [listener] = process.listeners("exit").slice(-1);
  (listener as () => void)();
  t.deepEqual(await readdir(dir), []);
  await writeFile(join(dir, "out.partial"), "another's");
  (listener as () => void)();
  await destination.discard().catch(() => undefined);
  t.is(await readFile(join(dir, "out.partial"), "utf8"), "another's");
});

test("existing files are not overwritten without --force; with it, links keep pointing", async (t) => {
  const { run, dir, state, stderr } = await prepared(t);
  await writeFile(join(dir, "real.sql"), "old");
  await symlink("real.sql", join(dir, "link.sql"));
  t.is(await run("restore", "pg-main", "--output", join(dir, "real.sql")), 2);
  t.is(state.options, undefined, "reported before anything is fetched");
  t.true(stderr.text.includes("--force"));
  t.is(await run("restore", "pg-main", "--force", "--output", join(dir, "link.sql")), 0);
  t.is(await readFile(join(dir, "real.sql"), "utf8"), "part one, part two");
  await writeFile(join(dir, "new.sql.partial"), "another restore's");
  t.is(await run("restore", "pg-main", "--output", join(dir, "new.sql")), 2);
  t.is(await readFile(join(dir, "new.sql.partial"), "utf8"), "another restore's");
  t.is(await run("restore", "pg-main", "--force", "--output", dir), 2);
  t.is(await run("restore", "pg-main", "--force", "--output", "/dev/null"), 2);
});

test("of two restores with --force to one file, one that lost its file fails, the other's is whole", async (t) => {
  const dir = await temporaryFolder(t);
  const [first, second] = [1, 2].map(() => new FileDestination(join(dir, "out"), { force: true, decrypts: true }));
  await first!.open(version());
  await first!.write(Buffer.from("of the first"));
  await second!.open(version());
  await second!.write(Buffer.from("of the "));
  await t.throwsAsync(first!.finish(), { message: /was replaced meanwhile/ });
  await first!.discard();
  await second!.write(Buffer.from("second"));
  await second!.finish();
  t.is(await readFile(join(dir, "out"), "utf8"), "of the second");
  t.deepEqual(await readdir(dir), ["out"]);
});

test("standard output: the dump and nothing else; never onto a terminal", async (t) => {
  const { run, stdout, stderr } = await prepared(t);
  t.is(await run("restore", "pg-main"), 0);
  t.is(stdout.text, "part one, part two");
  t.true(stderr.text.includes("to standard output"));
  const json = await prepared(t);
  t.is(await json.run("restore", "pg-main", "--json", "--output", "-"), 0);
  t.is(json.stdout.text, "part one, part two");
  t.like(JSON.parse(json.stderr.text), { version: 12 });
  const terminal = await prepared(t, {}, { stdoutIsTerminal: true });
  t.is(await terminal.run("restore", "pg-main"), 2);
  t.is(terminal.stdout.text, "");
});

test("a backup's command is not that of a restore, and a restore does not take standard output instead", async (t) => {
  const { run, stdout, stderr, dir } = await prepared(t, {}, { env: { BM_CMD: "exit 1" } });
  t.is(await run("restore", "pg-main"), 2);
  t.regex(stderr.text, /BM_CMD is for backup only[\s\S]*STRONGROOM_RESTORE_COMMAND/);
  t.is(stdout.text, "");
  t.is(await run("restore", "pg-main", "-c", `cat > '${join(dir, "f")}'`), 0);
  t.is(await readFile(join(dir, "f"), "utf8"), "part one, part two");
  const other = await prepared(t, {}, { env: { STRONGROOM_COMMAND: "exit 1" } });
  t.is(await other.run("restore", "pg-main"), 0);
  t.is(other.stdout.text, "part one, part two");
});

test("an argument wins over a command in the environment", async (t) => {
  const { run, dir } = await prepared(t, {}, { env: { STRONGROOM_RESTORE_COMMAND: "exit 1" } });
  t.is(await run("restore", "pg-main"), 7);
  t.is(await run("restore", "pg-main", "--output", join(dir, "f")), 0);
  t.is(await readFile(join(dir, "f"), "utf8"), "part one, part two");
});

test("--version: 7, v7, latest, BM_VERSION", async (t) => {
  for (const [args, env, number] of [
    [["--version", "7"], {}, 7n],
    [["--version", "v7"], { BM_VERSION: "8" }, 7n],
    [["--version", "latest"], {}, "newest"],
    [[], { BM_VERSION: "8" }, 8n],
    [[], { BM_VERSION: "8", STRONGROOM_VERSION: "9" }, 9n],
    [[], {}, "newest"],
  ] as Array<[string[], Record<string, string>, bigint | "newest"]>) {
    const { run, state } = await prepared(t, {}, { env });
    t.is(await run("restore", "pg-main", ...args), 0);
    t.is(state.options?.number, number);
  }
});

test("a key of the wrong kind is reported before the first byte", async (t) => {
  const { run, state, stderr } = await prepared(t, { version: version({ encryptionFormat: EncryptionFormat.AGE }) });
  t.is(await run("restore", "pg-main"), 2);
  t.is(state.sent, 0);
  t.true(stderr.text.includes("--identity FILE"), stderr.text);
});

test("download keeps the ciphertext under the version's name", async (t) => {
  const { run, state, stderr } = await prepared(t, {
    version: version({ filename: `../../x/pg-${process.pid}.sql.zst.gpg` }),
  });
  const file = `pg-${process.pid}.sql.zst.gpg`;
  t.is(await run("download", "pg-main"), 0, stderr.text);
  t.teardown(() => rm(file, { force: true }));
  t.is(await readFile(file, "utf8"), "part one, part two");
  t.deepEqual(state.options?.decryption, { kind: "none" });
  t.true(stderr.text.startsWith(`Downloaded version 12 of pg-main to ${file}: 1.2 GiB in `), stderr.text);
});

test("download with a key decrypts, and the name follows", async (t) => {
  const { run, state, dir, stderr } = await prepared(t, {
    version: version({
      filename: `${process.pid}.tar.zst.age`,
      encryptionFormat: EncryptionFormat.AGE,
      contentEncoding: ContentEncoding.ZSTD,
    }),
  });
  await writeFile(join(dir, "id"), "# a comment\nAGE-SECRET-KEY-1ABC\n");
  t.is(await run("download", "pg-main", "--identity", join(dir, "id")), 0, stderr.text);
  t.teardown(() => rm(`${process.pid}.tar`, { force: true }));
  t.true(existsSync(`${process.pid}.tar`));
  t.deepEqual(state.options?.decryption, { kind: "age", identities: ["AGE-SECRET-KEY-1ABC"], program: "auto" });
});

import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { MinSizeError, QuotaExceededError, SourceError, type UploadOptions } from "@strongroom/client-sdk";
import test, { type ExecutionContext } from "ava";
import { type Choices, testContext, untilGone } from "./support/context.ts";
import { fakeSdk, LOGGED_IN, version } from "./support/fake-sdk.ts";

/** A client that reads the source, waits for `beforeCommit` and commits, as the SDK promises to do. */
class FakeUpload {
  readonly received: Buffer[] = [];
  options: UploadOptions | undefined;
  committed = false;
  abortReason: string | undefined;

  readonly upload = async (options: UploadOptions) => {
    this.options = options;
    try {
      for await (const chunk of options.source) {
        this.received.push(Buffer.from(chunk));
        options.signal?.throwIfAborted();
      }
      const size = BigInt(this.bytes.length);
      if (size < (options.minSize ?? 1n)) throw new MinSizeError(size, options.minSize ?? 1n);
      options.onProgress?.({
        sourceBytes: size,
        acknowledgedBytes: size,
        sentBytes: size,
        spooledBytes: 0n,
        remainingBytes: 0n,
        uploadId: "u",
        resumes: 0,
      });
      await options.beforeCommit?.();
      options.signal?.throwIfAborted();
    } catch (error) {
      this.abortReason = error instanceof Error ? error.message : String(error);
      throw error instanceof MinSizeError || options.signal?.aborted
        ? error
        : new SourceError("the source failed", { cause: error });
    }
    this.committed = true;
    return {
      version: version({ sizeBytes: 2048n }),
      removedNumbers: [5n],
      sourceBytes: 4096n,
      sentBytes: 2048n,
      mostSpooledBytes: 0n,
      resumes: 0,
      compressed: true,
    };
  };

  get bytes(): Buffer {
    return Buffer.concat(this.received);
  }
}

async function prepared(
  t: ExecutionContext,
  choices: Choices & { upload?: (options: UploadOptions) => Promise<never> } = {},
) {
  const fake = new FakeUpload();
  const { load, opened } = fakeSdk({ upload: choices.upload ?? fake.upload });
  const surroundings = await testContext(t, { ...choices, sdk: load, env: { ...LOGGED_IN, ...choices.env } });
  return { ...surroundings, fake, opened };
}

const NONE = ["--encryption", "none"];

test("a command's output is stored when it exits with 0; its words on standard error are passed on", async (t) => {
  const { run, fake, stderr, stdout } = await prepared(t);
  t.is(await run("backup", "pg-main", ...NONE, "-c", "echo dump; echo working >&2"), 0);
  t.is(fake.bytes.toString(), "dump\n");
  t.true(fake.committed);
  t.true(stderr.text.includes("working\n"));
  t.regex(stderr.text, /Stored version 12 of pg-main: 2 KiB \(4 KiB before compression\) in .*; rotated out: 5\n$/);
  t.is(stdout.text, "");
});

test("a command that fails never becomes a version, and says how it ended", async (t) => {
  const cases: Array<[command: string, message: string]> = [
    ["echo half a dump; exit 3", "the dump command exited with 3"],
    ["false | cat; true", "the dump command exited with 1"],
    ["true", ""],
    ["false | cat", "the dump command exited with 1"],
    ["echo half | { cat; exit 2; } | cat", "the dump command exited with 2"],
    ["echo half a dump; kill -9 $$", "the dump command was ended by SIGKILL"],
    ["exit 4", "the dump command exited with 4"],
    ["echo half; exec 1>&-; sleep 0.2; exit 5", "the dump command exited with 5"],
  ];
  for (const [command, message] of cases) {
    const { run, fake, stderr } = await prepared(t);
    const code = await run("backup", "pg-main", ...NONE, "-c", command);
    t.false(fake.committed, command);
    if (message === "") {
      t.is(code, 4, "an empty dump of a command that succeeded is refused");
      continue;
    }
    t.is(code, 7, `${command}: ${stderr.text}`);
    t.is(fake.abortReason, message, command);
    t.true(stderr.text.includes(`strongroom: backup of pg-main: ${message}\n`), stderr.text);
    t.false(stderr.text.includes(command), "a command may hold a password, so it is not repeated");
  }
});

test("an upload that fails first ends the command and does not blame it", async (t) => {
  let pid = 0;
  const { run, stderr } = await prepared(t, {
    upload: async ({ source }) => {
      for await (const chunk of source) {
        pid = Number(Buffer.from(chunk).toString());
        break;
      }
      throw new QuotaExceededError("The upload does not fit.", {
        reason: "QUOTA_EXCEEDED",
        metadata: { remaining_bytes: "0" },
      });
    },
  });
  t.is(await run("backup", "pg-main", ...NONE, "-c", "echo $$; sleep 60 | sleep 60"), 4);
  t.true(stderr.text.includes("does not fit"), stderr.text);
  t.false(stderr.text.includes("dump command"), stderr.text);
  await untilGone(t, pid);
});

test("a command that ignores SIGTERM gets SIGKILL", async (t) => {
  let pid = 0;
  const { run } = await prepared(t, {
    upload: async ({ source }) => {
      for await (const chunk of source) {
        pid = Number(Buffer.from(chunk).toString());
        break;
      }
      throw new QuotaExceededError("full");
    },
  });
  t.is(await run("backup", "pg-main", ...NONE, "-c", "trap '' TERM; echo $$; sleep 60; sleep 60"), 4);
  await untilGone(t, pid);
});

for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const) {
  test(`${signal}: the upload is given up, the command ended, exit code ${code}`, async (t) => {
    const { run, fake, signals, stderr } = await prepared(t);
    const running = run("backup", "pg-main", ...NONE, "-c", "echo $$; while true; do echo x; sleep 0.05; done");
    while (fake.received.length === 0) await sleep(10);
    const pid = Number(fake.bytes.toString().split("\n")[0]);
    signals.emit(signal);
    t.is(await running, code);
    t.false(fake.committed);
    t.is(fake.abortReason, `ended by ${signal}`);
    await untilGone(t, pid);
    t.true(stderr.text.includes("nothing will be stored"));
    t.is(signals.listenerCount(signal), 0);
  });
}

test("a second signal ends the program at once", async (t) => {
  const { run, fake, signals, exits } = await prepared(t);
  const running = run("backup", "pg-main", ...NONE, "-c", "while true; do echo x; sleep 0.05; done");
  while (fake.received.length === 0) await sleep(10);
  signals.emit("SIGINT");
  signals.emit("SIGINT");
  t.deepEqual(exits, [130]);
  await running;
});

test("--timeout gives up in the same way", async (t) => {
  const { run, fake, stderr } = await prepared(t);
  t.is(
    await run("backup", "pg-main", ...NONE, "--timeout", "300ms", "-c", "while true; do echo x; sleep 0.05; done"),
    5,
  );
  t.false(fake.committed);
  t.true(stderr.text.includes("not finished within --timeout"), stderr.text);
});

test("standard input is the dump; an empty one is refused", async (t) => {
  const full = await prepared(t, { stdin: Readable.from([Buffer.from("from a "), Buffer.from("pipe")]) });
  t.is(await full.run("backup", "pg-main", ...NONE), 0);
  t.is(full.fake.bytes.toString(), "from a pipe");
  const empty = await prepared(t);
  t.is(await empty.run("backup", "pg-main", ...NONE), 4);
  t.true(empty.stderr.text.includes("the dump is empty"));
  const small = await prepared(t, { stdin: Readable.from([Buffer.from("x")]) });
  t.is(await small.run("backup", "pg-main", ...NONE, "--min-size", "1K"), 4);
  t.true(small.stderr.text.includes("less than --min-size, 1 KiB (1024 bytes)"));
});

test("standard input that breaks is no end of a dump", async (t) => {
  async function* broken() {
    yield Buffer.from("half");
    throw Object.assign(new Error("EIO: i/o error, read"), { code: "EIO", syscall: "read" });
  }
  const { run, fake } = await prepared(t, { stdin: Readable.from(broken()) });
  t.is(await run("backup", "pg-main", ...NONE), 7);
  t.false(fake.committed);
});

test("a terminal as standard input is a usage error with an example", async (t) => {
  const { run, stderr } = await prepared(t, { stdinIsTerminal: true });
  t.is(await run("backup", "pg-main", ...NONE), 2);
  t.true(stderr.text.includes('for example: strongroom backup pg-main --public-key backup.pub.asc -c "pg_dump app"'));
});

test("--json: one object on standard output, nothing else", async (t) => {
  const { run, stdout } = await prepared(t);
  t.is(await run("--json", "backup", "pg-main", ...NONE, "-c", "echo x"), 0);
  const report = JSON.parse(stdout.text) as Record<string, unknown>;
  t.like(report, {
    collection: "pg-main",
    version: 12,
    size: 2048,
    sourceBytes: 4096,
    compressed: true,
    rotatedOut: [5],
    encryption: "openpgp",
    contentEncoding: "zstd",
  });
  const failing = await prepared(t);
  t.is(await failing.run("backup", "pg-main", ...NONE, "--json", "-c", "exit 1"), 7);
  t.like(JSON.parse(failing.stdout.text), { error: { exitCode: 7, message: "the dump command exited with 1" } });
});

test("--quiet says nothing but what the command says", async (t) => {
  const { run, stdout, stderr } = await prepared(t);
  t.is(await run("backup", "pg-main", ...NONE, "--quiet", "-c", "echo x; echo warning >&2"), 0);
  t.is(stdout.text + stderr.text, "warning\n");
});

test("the command and its children get no secrets, but the rest of the environment", async (t) => {
  const env = {
    STRONGROOM_PASSPHRASE: "p1",
    BM_PASSPHRASE: "p2",
    BM_AUTH_TOKEN: "t",
    STRONGROOM_PASSWORD: "pw",
    PGHOST: "db",
  };
  const { run, fake } = await prepared(t, { env });
  t.is(await run("backup", "pg-main", ...NONE, "-c", "env"), 0);
  const names = fake.bytes
    .toString()
    .split("\n")
    .map((line) => line.split("=")[0]);
  t.true(names.includes("PGHOST"));
  for (const secret of [...Object.keys(env).slice(0, 4), "STRONGROOM_TOKEN"]) t.false(names.includes(secret), secret);
});

test("the names of Backup Maker are enough", async (t) => {
  const env = {
    BM_CMD: "echo from BM_CMD",
    BM_COLLECTION_ID: "iwa",
    BM_PASSPHRASE: "secret",
    BM_URL: "http://bm:1/",
    BM_AUTH_TOKEN: "bm",
  };
  const { run, fake, opened } = await prepared(t, { env: { ...env, STRONGROOM_URL: "", STRONGROOM_TOKEN: "" } });
  t.is(await run("backup"), 0);
  t.is(fake.options?.collection, "iwa");
  t.is(fake.bytes.toString(), "from BM_CMD\n");
  t.deepEqual(fake.options?.encryption, { kind: "openpgp", program: "auto", passphrase: "secret" });
  t.deepEqual(opened[0]?.urls, ["http://bm:1"]);
  t.is(await (opened[0]!.token as () => Promise<string>)(), "bm");
});

test("options reach the upload", async (t) => {
  const { run, fake } = await prepared(t);
  const given = [
    "--filename",
    "a.sql",
    "--label",
    "env=prod",
    "--label",
    "note=a=b",
    "--min-size",
    "1",
    "--parallel",
    "4",
    "--compress",
    "zstd",
  ];
  t.is(await run("backup", "pg-main", ...NONE, ...given, "-c", "echo x"), 0);
  t.like(fake.options, {
    filename: "a.sql",
    labels: { env: "prod", note: "a=b" },
    minSize: 1n,
    parallel: 4,
    compression: "zstd",
  });
  t.regex(fake.options?.clientMetadata?.program ?? "", /^strongroom-cli\/\d/);
});

test("--expect-size, --expect-sha256 and --trust-end reach the upload; a command's end is known", async (t) => {
  const { run, fake } = await prepared(t, { stdin: Readable.from([Buffer.from("x")]) as never });
  const digest = "ab".repeat(32);
  t.is(await run("backup", "pg-main", ...NONE, "--expect-size", "4096", "--expect-sha256", digest), 0);
  t.like(fake.options, { expectedSourceSize: 4096n, trustSourceEnd: false });
  t.is(Buffer.from(fake.options!.expectedSourceSha256!).toString("hex"), digest);
  t.is(await run("backup", "pg-main", ...NONE, "-c", "echo x"), 0);
  t.like(fake.options, { expectedSourceSize: undefined, trustSourceEnd: true });
  t.is(await run("backup", "pg-main", ...NONE, "--trust-end", "-c", "echo x"), 0);
  t.true(fake.options!.trustSourceEnd);
  t.is(await run("backup", "pg-main", ...NONE, "--expect-sha256", "abc", "-c", "echo x"), 2);
});

test("a passphrase from a file does not end with the line's end", async (t) => {
  const { run, fake, dir } = await prepared(t);
  await writeFile(join(dir, "pass"), "correct horse \r\n");
  t.is(await run("backup", "pg-main", "--passphrase-file", join(dir, "pass"), "-c", "echo x"), 0);
  t.like(fake.options?.encryption, { kind: "openpgp", passphrase: "correct horse " });
});

test("the command is not started when the client refuses before it reads", async (t) => {
  const { run, dir } = await prepared(t, {
    upload: async () => {
      throw new QuotaExceededError("full");
    },
  });
  t.is(await run("backup", "pg-main", ...NONE, "-c", `touch '${join(dir, "started")}'; echo x`), 4);
  t.false(existsSync(join(dir, "started")));
});

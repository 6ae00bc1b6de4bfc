import test from "ava";
import { storedLine } from "../src/commands/backup.ts";
import { formatAge, formatDuration } from "../src/terminal/format.ts";
import { Output } from "../src/terminal/output.ts";
import { formatRate, Progress, RateMeter } from "../src/terminal/progress.ts";
import { Recorder } from "./support/context.ts";
import { at, version } from "./support/fake-sdk.ts";

test("durations and ages", (t) => {
  t.is(formatDuration(400), "0.4 s");
  t.is(formatDuration(9_999), "10 s");
  t.is(formatDuration(21_000), "21 s");
  t.is(formatDuration(59_600), "1 min");
  t.is(formatDuration(185_000), "3 min 5 s");
  t.is(formatDuration(7_800_000), "2 h 10 min");
  t.is(formatDuration(5 * 86_400_000 + 3 * 3_600_000), "5 d 3 h");
  const now = Date.parse("2026-01-01T03:00:00Z");
  t.is(formatAge(at("02:59:30"), now), "now");
  t.is(formatAge(at("02:00:00"), now), "1 h");
  t.is(formatAge(at("03:00:30"), now), "now", "clocks differ a little");
  t.is(formatAge(at("03:05:00"), now), "in the future");
  t.is(formatAge(undefined, now), "-");
});

test("the line about a stored version", (t) => {
  const result = {
    version: version({ sizeBytes: 1_288_490_189n }),
    removedNumbers: [5n],
    sourceBytes: 3_650_722_202n,
    sentBytes: 1_288_490_189n,
    mostSpooledBytes: 0n,
    resumes: 0,
    compressed: true,
  };
  t.is(
    storedLine(result, 21_500),
    "Stored version 12 of pg-main: 1.2 GiB (3.4 GiB before compression) in 22 s, 161.93 MiB/s; rotated out: 5",
  );
  t.is(
    storedLine(
      {
        ...result,
        version: version({ sizeBytes: 512n }),
        sourceBytes: 512n,
        compressed: false,
        removedNumbers: [],
        resumes: 2,
      },
      1000,
    ),
    "Stored version 12 of pg-main: 512 B in 1 s, 512 B/s; resumed 2 times",
  );
  const shrunk = version({ sizeBytes: 1024n, usualSizeBytes: 4097n });
  t.regex(
    storedLine({ ...result, version: shrunk, removedNumbers: [] }, 1000),
    /; WARNING: far below the usual 4 KiB; look at what makes the dump$/,
  );
});

test("results go to standard output until it carries a dump", (t) => {
  const stdout = new Recorder();
  const stderr = new Recorder();
  const output = new Output(stdout, stderr, { json: true, quiet: false });
  output.json({ a: 1 });
  output.reserveStdout();
  output.json({ b: 2 });
  output.note("remark");
  t.is(stdout.text, '{"a":1}\n');
  t.is(stderr.text, '{"b":2}\nremark\n');
});

function progressOn(isTTY: boolean, quiet = false) {
  const stderr = new Recorder();
  stderr.isTTY = isTTY;
  let now = 0;
  const output = new Output(new Recorder(), stderr, { json: false, quiet });
  const progress = new Progress(
    output,
    () => now,
    () => "half",
  );
  return { stderr, progress, advance: (ms: number) => (now += ms) };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test("progress on a terminal is one line, which everything else gets out of the way", async (t) => {
  const { stderr, progress } = progressOn(true);
  progress.start(5);
  while (!stderr.text.includes("half")) await pause(5);
  progress.note("remark");
  progress.stop();
  t.true(stderr.text.startsWith("\r\u001b[2Khalf"));
  t.true(stderr.text.includes("\r\u001b[2Kremark\n"));
  t.true(stderr.text.endsWith("\n") || stderr.text.endsWith("\r\u001b[2K"));
});

test("progress elsewhere is whole lines; none with --quiet", async (t) => {
  const log = progressOn(false);
  log.progress.start(5);
  while (!log.stderr.text.includes("half")) await pause(5);
  log.progress.stop();
  t.regex(log.stderr.text, /^(half\n)+$/);
  const quiet = progressOn(false, true);
  quiet.progress.start(1);
  quiet.progress.retrying({
    operation: "WriteSegment",
    delayMs: 1000,
    leftMs: 60_000,
    begun: true,
    error: new Error("reset"),
  });
  await pause(20);
  quiet.progress.passThrough(Buffer.from("pg_dump: error\n"));
  quiet.progress.stop();
  t.is(quiet.stderr.text, "pg_dump: error\n", "what a command says is never swallowed");
});

test("a lost connection is reported once, though many segments notice it", (t) => {
  const { stderr, progress, advance } = progressOn(false);
  const event = {
    operation: "WriteSegment",
    delayMs: 2000,
    leftMs: 60_000,
    begun: true,
    error: new Error("reset"),
  };
  progress.retrying(event);
  progress.retrying(event);
  progress.resumed(1);
  t.is(stderr.text, "connection lost, going on in 2 s, for 1 min at most (WriteSegment: reset)\n");
  advance(61_000);
  progress.resumed(1);
  progress.resumed(2);
  t.true(stderr.text.endsWith("\ninterrupted, going on\n"), stderr.text);
});

test("only a connection that was there is lost", (t) => {
  const { stderr, progress, advance } = progressOn(false);
  const event = { operation: "GetCollection", delayMs: 2000, leftMs: 60_000, begun: false };
  progress.retrying({ ...event, error: new Error("refused") });
  advance(61_000);
  progress.retrying({
    ...event,
    begun: true,
    error: Object.assign(new Error("busy"), { reason: "STORE_UNAVAILABLE" }),
  });
  t.is(
    stderr.text,
    "no connection to the server, trying again in 2 s, for 1 min at most (GetCollection: refused)\n" +
      "the server cannot do it now, trying again in 2 s, for 1 min at most (GetCollection: busy)\n",
  );
});

test("it is said what an upload waits for", (t) => {
  const { stderr, progress } = progressOn(false);
  const opensAt = new Date("2026-01-01T02:00:00Z");
  progress.waiting("db", { reason: "busy", opensAt: undefined, timezone: undefined, leftMs: 7_200_000 });
  progress.waiting("db", { reason: "window", opensAt, timezone: "Europe/Warsaw", leftMs: 7_200_000 });
  t.is(
    stderr.text,
    "waiting for a place in db, which other backups hold, for 2 h at most\n" +
      "waiting for the upload window of db (2026-01-01 03:00 +01:00), for 2 h at most\n",
  );
});

test("rates", (t) => {
  t.is(formatRate(59_768_832n, 1000), "57 MiB/s");
  let now = 0;
  const meter = new RateMeter(() => now);
  t.is(meter.rate(0n), "");
  now = 2000;
  t.is(meter.rate(2_097_152n), "1 MiB/s");
  now = 20_000;
  meter.rate(2_097_152n);
  now = 40_000;
  t.is(meter.rate(2_097_152n), "0 B/s", "a stall shows");
});

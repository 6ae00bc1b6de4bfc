import * as sdk from "@strongroom/client-sdk";
import { InterruptedError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { TimeoutError } from "@strongroom/command-line/interruptible";
import test from "ava";
import { CommandFailedError, explain, NotLoggedInError, sdkExitCode } from "../src/errors.ts";

const load = async () => sdk;
const words = (error: unknown) => explain(error, "http://127.0.0.1:8080", load);

test("every error of the SDK has an exit code", (t) => {
  const cases: Array<[sdk.StrongroomError, ExitCode]> = [
    [new sdk.AuthenticationError("x"), 3],
    [new sdk.AccessDeniedError("x"), 4],
    [new sdk.NotFoundError("x"), 4],
    [new sdk.QuotaExceededError("x"), 4],
    [new sdk.PolicyRefusedError("x"), 4],
    [new sdk.MinSizeError(1n, 2n), 4],
    [new sdk.DumpMismatchError("another size"), 4],
    [new sdk.InvalidRequestError("x"), 2],
    [new sdk.EncryptionError("x"), 2],
    [new sdk.UnavailableError("x"), 5],
    [new sdk.IntegrityError("x"), 6],
    [new sdk.DecryptionError("x"), 6],
    [new sdk.SourceError("x"), 7],
    [new sdk.UnavailableError("x", { reason: "INTERNAL" }), 1],
    [new sdk.SpoolError("/tmp", new Error("x")), 1],
    [new sdk.StrongroomError("x"), 1],
  ];
  for (const [error, code] of cases) t.is(sdkExitCode(error, sdk), code, error.name);
  const classes = Object.values<unknown>(sdk).filter(
    (value) => typeof value === "function" && value.prototype instanceof sdk.StrongroomError,
  );
  const covered = new Set(cases.map(([error]) => error.constructor));
  for (const type of classes)
    t.true(covered.has(type as never), `${(type as { name: string }).name} has no exit code in this table`);
});

test("own errors keep their code, also deep inside those of the SDK", async (t) => {
  t.is((await words(new UsageError("x"))).exitCode, EXIT.usage);
  t.is((await words(new NotLoggedInError("x", "http://a"))).exitCode, EXIT.authentication);
  t.is((await words(new TimeoutError(5000))).exitCode, EXIT.network);
  t.is((await words(new InterruptedError("x", EXIT.terminated))).exitCode, EXIT.terminated);
  const failed = new CommandFailedError("the dump command exited with 3");
  const wrapped = new sdk.SourceError("the source failed", { cause: new Error("read", { cause: failed }) });
  const { message, exitCode } = await words(wrapped);
  t.is(message, "the dump command exited with 3");
  t.is(exitCode, EXIT.commandFailed);
});

test("the facts of a quota are said once, in the server's words", async (t) => {
  const metadata = {
    limit: "collection",
    limit_bytes: "10485760",
    received_bytes: "0",
    requested_bytes: "20971520",
    remaining_bytes: "6291456",
  };
  const { message, reason } = await words(
    new sdk.QuotaExceededError("the upload does not fit (limit of the collection 10 MiB, left 6 MiB)", {
      reason: "QUOTA_EXCEEDED",
      metadata,
    }),
  );
  t.is(message, "the upload does not fit (limit of the collection 10 MiB, left 6 MiB)");
  t.is(reason, "QUOTA_EXCEEDED");
});

test("reasons are one kind of word", async (t) => {
  const errors = [
    new UsageError("x"),
    new TimeoutError(5),
    new CommandFailedError("x"),
    new NotLoggedInError("x", "http://a"),
    new sdk.DecryptionError("x"),
    new sdk.QuotaExceededError("x", { reason: "QUOTA_EXCEEDED" }),
    new TypeError("x"),
  ];
  const reasons = await Promise.all(errors.map(async (error) => (await words(error)).reason));
  t.deepEqual(reasons, [
    "USAGE",
    "TIMEOUT",
    "COMMAND_FAILED",
    "NOT_LOGGED_IN",
    "DECRYPTION",
    "QUOTA_EXCEEDED",
    "UNEXPECTED",
  ]);
});

test("hints say what to do", async (t) => {
  const hint = async (error: unknown) => (await words(error)).hint ?? "";
  t.regex(await hint(new sdk.AuthenticationError("x")), /strongroom login --url http:\/\/127\.0\.0\.1:8080/);
  t.is(await hint(new sdk.AuthenticationError("x", { reason: "CREDENTIALS_INVALID" })), "");
  t.regex(
    await hint(new sdk.PolicyRefusedError("x", { metadata: { next_window_at: "2026-01-01T02:00:00.000Z" } })),
    /opens at 2026-01-01 02:00 UTC/,
  );
  const metadata = { next_window_at: "2026-01-01T01:00:00.000Z", timezone: "Europe/Warsaw" };
  t.regex(await hint(new sdk.PolicyRefusedError("x", { metadata })), /opens at 2026-01-01 02:00 \+01:00/);
  t.regex(await hint(new sdk.PolicyRefusedError("x", { retryAfterMs: 90_000 })), /try again in 1 min 30 s/);
  t.regex(await hint(new sdk.IntegrityError("x")), /must not be used/);
  t.is(await hint(new sdk.IntegrityError("make a new backup", { reason: "UPLOAD_LOST" })), "", "none were received");
  t.regex(await hint(new sdk.UnavailableError("x", { uploadId: "u-1" })), /uploads COLLECTION --abort u-1/);
  const undecided = await hint(new sdk.UnavailableError("x", { uploadId: "u-1", isUndecided: true }));
  t.regex(undecided, /look with `strongroom ls COLLECTION` before/);
  t.notRegex(undecided, /--abort/, "which is refused while it is being committed");
  t.regex((await words(new sdk.MinSizeError(0n, 1n))).message, /the dump is empty/);
  t.regex(
    (await words(new sdk.MinSizeError(2048n, 4096n))).message,
    /2 KiB \(2048 bytes\), less than --min-size, 4 KiB \(4096 bytes\)/,
  );
});

test("errors of the system name the file; anything else is a fault of ours and says so", async (t) => {
  const system = Object.assign(new Error("ENOSPC: no space left on device, write"), {
    code: "ENOSPC",
    syscall: "write",
    path: "/srv/x",
  });
  t.deepEqual(await words(system), {
    message: "/srv/x: no space left on the device",
    exitCode: EXIT.unexpected,
    reason: "ENOSPC",
  });
  const { message, exitCode } = await words(new TypeError("undefined is not a function"));
  t.is(exitCode, EXIT.unexpected);
  t.true(message.startsWith("unexpected: "));
});

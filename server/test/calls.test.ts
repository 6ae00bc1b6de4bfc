import test from "ava";
import fc from "fast-check";
import { processBudgets } from "../src/calls/budgets.ts";
import { beginCall, type Call } from "../src/calls/call.ts";
import { type Ending, logCall } from "../src/calls/call-log.ts";
import { Calls, type CallsDeps } from "../src/calls/calls.ts";
import { HeldBytes, HOLDER_PART, MAX_HELD_BYTES, UNREAD_BYTES } from "../src/calls/held-bytes.ts";
import { plainError, plainText } from "../src/calls/plain-text.ts";
import { largestMessage, ROUTES, routeOf } from "../src/calls/routes.ts";
import { NO_LIMITS } from "../src/domain/rate-limit.ts";
import { decodeGrpcMessage, encodeGrpcMessage } from "../src/transport/grpc-message.ts";
import { refused } from "./support/harness.ts";

const KIB = 1024;
const LOGIN = "strongroom.v1.SessionService/Login";
const WHO_AM_I = "strongroom.v1.SessionService/WhoAmI";

const callTo = (method: string, address = "192.0.2.1"): Call =>
  beginCall({ door: "connect", method, address, requestId: undefined });

/** Largest bodies in KiB that differ from the usual. */
const LARGEST_KIB: Readonly<Record<string, number>> = {
  Login: 16,
  CreateUpload: 256,
  CheckUpload: 256,
  ApplyObjects: 1024,
  SetPassword: 16,
};

test("the largest bodies, and how long they may take", (t) => {
  const size = (method: string) => largestMessage(ROUTES[method]!, 1024 * KIB, 64 * KIB);
  for (const [method, { message, bodyMs, gzip, who }] of Object.entries(ROUTES)) {
    const name = method.replace(/.*\//, "");
    const isStream = ["WriteSegment", "ServerReflectionInfo"].includes(name);
    t.is(bodyMs, isStream ? undefined : 10_000, method);
    t.is(gzip, !isStream && name !== "ReadVersion", method);
    if (name === "WriteSegment") {
      t.is(message, "chunk");
      t.is(who, "session");
    } else t.is(size(method), (LARGEST_KIB[name] ?? 64) * KIB, method);
  }
  const written = size("strongroom.v1.UploadService/WriteSegment");
  t.true(written >= Buffer.alloc(1024 * KIB).toString("base64").length + '{"chunk":""}'.length);
});

test("what nobody serves has no route, and neither has what every object has", (t) => {
  for (const method of ["toString", "__proto__", "", "strongroom.v1.SessionService/login", "/healthy"])
    t.is(routeOf(method), undefined, method);
  t.is(routeOf("/health")?.who, "anonymous");
});

test("one holder gets an eighth of the bytes of unknown callers, and a whole IPv6 network counts as one", (t) => {
  const held = new HeldBytes(8000);
  t.truthy(held.hold("192.0.2.1", 600, true));
  t.is(held.hold("192.0.2.1", 401, true), undefined);
  const release = held.hold("192.0.2.1", 400, true)!;
  t.is(held.hold("192.0.2.1", 1, false), undefined);
  t.truthy(held.hold("192.0.2.2", 1000, true), "others are not in its way");
  release();
  release();
  t.is(held.total, 1600, "released once");
  t.truthy(held.hold("192.0.2.1", 400, true));
  t.truthy(held.hold("2001:db8::1", 600, true));
  t.is(held.hold("2001:db8::2", 600, true), undefined);
  t.truthy(held.hold("2001:db8:0:1::2", 600, true));
});

test("many holders together get no more than the bound, and a quarter is kept for calls with a session", (t) => {
  const held = new HeldBytes(8000);
  const taken = (isAnonymous: boolean, from: number) =>
    Array.from({ length: 20 }, (_, i) => held.hold(`192.0.2.${from + i}`, 1000, isAnonymous)).filter(
      (release) => release !== undefined,
    );
  const anonymous = taken(true, 1);
  t.is(anonymous.length, 6);
  t.is(taken(false, 100).length, 2);
  t.is(held.total, 8000);
  for (const release of anonymous) release();
  t.is(held.total, 2000);
});

/** Calls whose only limit is what they hold. */
function callsOver(held: HeldBytes): Calls {
  const deps = {
    log: { debug() {}, info() {}, warn() {}, error() {} },
    metrics: undefined,
    budgets: processBudgets(NO_LIMITS),
    logins: { take: async () => {} },
  };
  return new Calls(deps as unknown as CallsDeps, held);
}

test("unfinished bodies of unknown callers are counted until they are read, refused, or known", async (t) => {
  const held = new HeldBytes(8 * 3 * (UNREAD_BYTES + 16 * KIB));
  const calls = callsOver(held);
  const header = () => undefined;
  const admit = async (call: Call, bodyBytes: number | undefined) =>
    await calls.admit(call, { header, query: "", bodyBytes });
  const open = [callTo(LOGIN), callTo(LOGIN), callTo(LOGIN)];
  for (const call of open) await admit(call, undefined);
  const error = await refused(t, "RATE_LIMITED", admit(callTo(LOGIN), undefined));
  t.deepEqual(error.metadata, { budget: "unfinished" });
  await admit(callTo(LOGIN), 0);
  await admit(callTo(LOGIN, "192.0.2.2"), undefined);
  calls.bodyRead(open[0]!);
  const announced = callTo(LOGIN);
  await admit(announced, 1000);
  t.is(held.total, 3 * (UNREAD_BYTES + 16 * KIB) + 1000, "an announced size counts as it is");
  calls.end(announced, { code: "ok", message: "", isFault: false });
  calls.end(open[1]!, { code: "canceled", message: "", isFault: false });
  const unknown = callTo(WHO_AM_I);
  await refused(t, "AUTHENTICATION_REQUIRED", admit(unknown, undefined));
  calls.end(unknown, { code: "unauthenticated", message: "", isFault: false });
  t.is(held.total, 2 * (UNREAD_BYTES + 16 * KIB));
  t.true(MAX_HELD_BYTES / HOLDER_PART >= 400 * (UNREAD_BYTES + 16 * KIB), "400 logins at once from one address fit");
});

test("a stream for somebody unknown is counted until it ends, whatever its question takes", async (t) => {
  const held = new HeldBytes(8 * 2 * 128 * KIB);
  const calls = callsOver(held);
  for (const method of ["grpc.health.v1.Health/Watch", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]) {
    const watch = () => callTo(method);
    const admit = async (call: Call) => await calls.admit(call, { header: () => undefined, query: "", bodyBytes: 5 });
    const open = [watch(), watch()];
    for (const call of open) {
      await admit(call);
      calls.bodyRead(call);
    }
    await refused(t, "RATE_LIMITED", admit(watch()));
    for (const call of open) calls.end(call, { code: "canceled", message: "", isFault: false });
    t.is(held.total, 0);
  }
});

test("a text of a caller becomes one bounded line", (t) => {
  t.is(plainText("a\r\nb\u2028c\u0000d\u001b[31m"), "a b c d [31m");
  t.is(plainText("\ud800"), "\ufffd");
  t.is(plainText("x".repeat(1e6)).length, 500);
  t.is(plainText("x".repeat(1e6), 20), `${"x".repeat(17)}...`);
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 2000 }), (text) => {
      const plain = plainText(text);
      t.true(plain.length <= 500 && plain.isWellFormed() && !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(plain));
    }),
  );
});

test("a probe that is answered is a line at debug, one that is refused and any other call a line at info", (t) => {
  const levels: string[] = [];
  const at = (level: string) => () => void levels.push(level);
  const log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  const answered: Ending = { code: "ok", message: "", isFault: false };
  for (const method of ["/health", "/ready", "/metrics", "grpc.health.v1.Health/Check"])
    logCall(log, callTo(method), answered);
  t.deepEqual(levels.splice(0), ["debug", "debug", "debug", "debug"]);
  logCall(log, callTo("/ready"), { code: "unauthenticated", message: "no secret", isFault: false });
  logCall(log, callTo(LOGIN), answered);
  t.deepEqual(levels, ["info", "info"]);
});

test("a log line is one bounded line, whatever the message and the error are", (t) => {
  const lines: string[] = [];
  const write = (fields: Record<string, unknown>, message: string) =>
    void lines.push(JSON.stringify({ ...fields, message }));
  const log = { debug: write, info: write, warn: write, error: write };
  const long = "line\n".repeat(200_000);
  const cause = new Error(long, { cause: new Error(long) });
  const endings: Ending[] = [
    { code: "not_found", message: long, isFault: false },
    { code: "unavailable", message: long, error: new Error(long, { cause }), isFault: false },
    { code: "internal", message: long, error: cause, isFault: true },
    { code: "internal", message: long, error: long, isFault: true },
  ];
  for (const ending of endings) logCall(log, callTo(LOGIN), ending);
  t.is(lines.length, endings.length);
  for (const line of lines) t.true(line.length < 25_000, String(line.length));
  t.like(plainError(cause), { type: "Error", cause: { type: "Error" } });
  t.regex(String(plainError(new Error("x")).stack), /^ {4}at /);
});

test("grpc-message: bytes 0x20 to 0x7E but % are plain, all others are encoded", (t) => {
  t.is(encodeGrpcMessage("expected a, got b: c"), "expected a, got b: c");
  t.is(encodeGrpcMessage("100% of \u00fc\n~"), "100%25 of %C3%BC%0A~");
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (message) => {
      const encoded = encodeGrpcMessage(message);
      t.regex(encoded, /^[\x20-\x7e]*$/);
      t.is(decodeGrpcMessage(encoded), message.toWellFormed());
      t.notRegex(encoded, /%(?:2[0-46-9A-F]|[3-6][0-9A-F]|7[0-9A-E])/, "nothing is encoded that need not be");
    }),
  );
  t.is(decodeGrpcMessage("50% off"), "50% off");
});

import { createServer } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorReason } from "@strongroom/gen/strongroom/v1/error_reason_pb";
import test from "ava";
import { StrongroomClient } from "../src/client.ts";
import { toStrongroomError } from "../src/connection/error-mapping.ts";
import { retryKind } from "../src/connection/retry-kind.ts";
import { tokenFromFile } from "../src/connection/token.ts";
import * as errors from "../src/errors.ts";
import { FakeServer, refusal } from "./support/server.ts";

const {
  AccessDeniedError,
  AuthenticationError,
  IntegrityError,
  InvalidRequestError,
  NotFoundError,
  PolicyRefusedError,
  QuotaExceededError,
  UnavailableError,
} = errors;

/** Every reason of the contract: its code, the class it becomes, and how it is retried. */
const TABLE: Record<
  Exclude<keyof typeof ErrorReason, "UNSPECIFIED">,
  [Code, new (...args: never[]) => Error, string]
> = {
  INVALID_REQUEST: [Code.InvalidArgument, InvalidRequestError, "no"],
  PAGE_TOKEN_INVALID: [Code.InvalidArgument, InvalidRequestError, "no"],
  AUTHENTICATION_REQUIRED: [Code.Unauthenticated, AuthenticationError, "session"],
  CREDENTIALS_INVALID: [Code.Unauthenticated, AuthenticationError, "no"],
  SESSION_INVALID: [Code.Unauthenticated, AuthenticationError, "session"],
  ACCESS_DENIED: [Code.PermissionDenied, AccessDeniedError, "no"],
  LOGIN_BUSY: [Code.ResourceExhausted, UnavailableError, "patient"],
  RATE_LIMITED: [Code.ResourceExhausted, UnavailableError, "patient"],
  COLLECTION_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  VERSION_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  UPLOAD_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  SESSION_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  USER_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  WINDOW_CLOSED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  WINDOW_FULL: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  VERSION_TOO_SOON: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  VERSION_TOO_SMALL: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  UPLOAD_TOO_OLD: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  COLLECTION_BUSY: [Code.Aborted, PolicyRefusedError, "open"],
  COLLECTION_FROZEN: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  QUOTA_EXCEEDED: [Code.ResourceExhausted, QuotaExceededError, "no"],
  ROTATION_BLOCKED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  REQUEST_ID_REUSED: [Code.AlreadyExists, InvalidRequestError, "no"],
  UPLOAD_NOT_OPEN: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  SEGMENT_FRAMES_INVALID: [Code.InvalidArgument, InvalidRequestError, "few"],
  SEGMENT_SIZE_MISMATCH: [Code.InvalidArgument, InvalidRequestError, "few"],
  SEGMENT_DIGEST_MISMATCH: [Code.InvalidArgument, InvalidRequestError, "few"],
  SEGMENT_CONFLICT: [Code.AlreadyExists, InvalidRequestError, "no"],
  SEGMENT_SUPERSEDED: [Code.Aborted, UnavailableError, "few"],
  SEGMENT_IDLE: [Code.DeadlineExceeded, UnavailableError, "patient"],
  PREVIOUS_SEGMENT_MISSING: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  FRAMING_STATE_INVALID: [Code.InvalidArgument, InvalidRequestError, "no"],
  CIPHERTEXT_REFUSED: [Code.InvalidArgument, PolicyRefusedError, "no"],
  SEGMENTS_INCOMPLETE: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  COMMIT_MISMATCH: [Code.InvalidArgument, InvalidRequestError, "no"],
  UPLOAD_EMPTY: [Code.InvalidArgument, InvalidRequestError, "no"],
  ORGANIZATION_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  ORGANIZATION_CLOSED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  PURGE_REFUSED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  KEY_ROTATION_REFUSED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  VERSION_PROTECTED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  RANGE_INVALID: [Code.OutOfRange, InvalidRequestError, "no"],
  VERSION_DAMAGED: [Code.DataLoss, IntegrityError, "no"],
  UPLOAD_LOST: [Code.DataLoss, IntegrityError, "no"],
  OBJECT_NOT_FOUND: [Code.NotFound, NotFoundError, "no"],
  OBJECTS_INVALID: [Code.InvalidArgument, InvalidRequestError, "no"],
  OBJECT_EXISTS: [Code.AlreadyExists, InvalidRequestError, "no"],
  CONFIGURATION_CONFLICT: [Code.Aborted, PolicyRefusedError, "no"],
  CONFIGURATION_READ_ONLY: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  NO_ADMIN_LEFT: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  SERVER_OUTDATED: [Code.FailedPrecondition, PolicyRefusedError, "no"],
  STORE_UNAVAILABLE: [Code.Unavailable, UnavailableError, "patient"],
  DATABASE_UNAVAILABLE: [Code.Unavailable, UnavailableError, "patient"],
  CONFIGURATION_OUTDATED: [Code.Unavailable, UnavailableError, "patient"],
  CALL_UNKNOWN: [Code.Unimplemented, InvalidRequestError, "no"],
  CALL_MALFORMED: [Code.InvalidArgument, InvalidRequestError, "few"],
  CALL_TOO_LARGE: [Code.ResourceExhausted, InvalidRequestError, "no"],
  SHUTTING_DOWN: [Code.Unavailable, UnavailableError, "patient"],
  INTERNAL: [Code.Internal, UnavailableError, "few"],
};

const SAID = /(^|It said: )refused with .*\(request req-1\)$/;

test("every reason of the contract has its class and its way of retrying", (t) => {
  const names = Object.keys(ErrorReason).filter((name) => Number.isNaN(Number(name)) && name !== "UNSPECIFIED");
  t.deepEqual(names.sort(), Object.keys(TABLE).sort());
  for (const [reason, [code, type, kind]] of Object.entries(TABLE)) {
    const wire = refusal(code, reason, { metadata: { a: "b" }, retryAfterMs: 1500 });
    const error = toStrongroomError(wire);
    t.is(error.constructor, type, reason);
    t.is(error.reason, `${reason}`);
    t.deepEqual(error.metadata, { a: "b" });
    t.is(error.requestId, "req-1");
    t.is(error.retryAfterMs, 1500);
    t.is(error.cause, wire);
    t.is(error.name, type.name);
    // What a server does not know is said in the program's own words: which of the two is older.
    const said = code === Code.Unimplemented ? /does not know this call.*\(request req-1\)$/ : SAID;
    t.regex(error.message, said, reason);
    t.is(retryKind(wire), kind as never, reason);
  }
});

test("codes have their names", (t) => {
  t.is(toStrongroomError(new ConnectError("x", Code.PermissionDenied)).code, "permission_denied");
  t.is(toStrongroomError(new ConnectError("x", Code.Unavailable)).code, "unavailable");
  t.is(toStrongroomError(new ConnectError("x", Code.DataLoss)).code, "data_loss");
});

test("errors that no server made", (t) => {
  const connect = (code: Code, message = "x"): ConnectError => new ConnectError(message, code);
  t.is(retryKind(connect(Code.Unavailable)), "patient");
  t.is(retryKind(connect(Code.Aborted)), "patient");
  t.is(retryKind(connect(Code.Internal)), "patient");
  t.is(retryKind(connect(Code.Canceled)), "patient");
  t.is(retryKind(connect(Code.ResourceExhausted)), "patient");
  t.is(retryKind(connect(Code.InvalidArgument, "protocol error: missing EndStreamResponse")), "patient");
  t.is(retryKind(connect(Code.DeadlineExceeded)), "patient");
  t.is(retryKind(connect(Code.InvalidArgument)), "no");
  t.is(retryKind(connect(Code.Unimplemented)), "no");
  t.is(retryKind(connect(Code.PermissionDenied)), "no");
  t.is(retryKind(connect(Code.Unauthenticated)), "no");
  t.is(retryKind(new Error("bug")), "no");
  const notThere = toStrongroomError(connect(Code.Unimplemented, "HTTP 404"), { url: "http://h" });
  t.true(notThere instanceof errors.UnavailableError, "what a proxy does not know says nothing about the call");
  t.regex(notThere.message, /Expected a Strongroom server at http:\/\/h/);
  t.regex(
    toStrongroomError(connect(Code.Unimplemented), { url: "http://h" }).message,
    /Expected a Strongroom server at http:\/\/h/,
  );
});

test("other values keep their cause", (t) => {
  const own = new errors.MinSizeError(3n, 10n);
  t.is(toStrongroomError(own), own);
  t.regex(own.message, /ended after 3 bytes, expected at least 10/);
  const bug = new TypeError("oops");
  t.is(toStrongroomError(bug).cause, bug);
  t.is(toStrongroomError("text").message, "text");
  t.is(toStrongroomError(new DOMException("stop", "AbortError")).code, "canceled");
});

test("a server that is not there is named", async (t) => {
  const port = await freePort();
  const client = new StrongroomClient({ url: `http://127.0.0.1:${port}` });
  const error = await t.throwsAsync(client.login({ username: "u", password: "p" }), { name: "UnavailableError" });
  t.regex(
    error!.message,
    new RegExp(`Cannot reach http://127.0.0.1:${port}: the connection was refused.*ECONNREFUSED`),
  );
  client.close();
});

test("login gives a token, and a refusal has its class; the client's own token stays away from it", async (t) => {
  const server = await FakeServer.start();
  const client = new StrongroomClient({ url: server.url, token: "stale" });
  const { token, session } = await client.login({ username: "u", password: "secret" });
  t.is(token, "token-1");
  t.is(session.user, "u");
  await t.throwsAsync(client.login({ username: "u", password: "wrong" }), {
    name: "AuthenticationError",
    message: /request req-1/,
  });
  t.true(server.calls.every(({ headers }) => !headers.has("authorization")));
  client.close();
  await server.stop();
});

test("every call carries the token and an id of its own; errors without the server's id have this one", async (t) => {
  let asked = 0;
  const server = await FakeServer.start({
    onCall: () => {
      if (asked > 1) throw new ConnectError("from a proxy", Code.PermissionDenied);
    },
  });
  const client = new StrongroomClient({ url: server.url, token: async () => `t${++asked}\n` });
  await client.sessions.whoAmI({});
  const error = toStrongroomError(await t.throwsAsync(client.sessions.whoAmI({})));
  const [first, second] = server.calls.map(({ headers }) => headers);
  t.is(first!.get("authorization"), "Bearer t1");
  t.is(second!.get("authorization"), "Bearer t2");
  t.truthy(first!.get("x-request-id"));
  t.not(first!.get("x-request-id"), second!.get("x-request-id"));
  t.is(error.requestId, second!.get("x-request-id")!);
  client.close();
  await server.stop();
});

test("a malformed token is refused without being repeated", async (t) => {
  const client = new StrongroomClient({ url: "http://127.0.0.1:1", token: "tok en\u0000secret" });
  const error = toStrongroomError(await t.throwsAsync(client.sessions.whoAmI({})));
  t.true(error instanceof AuthenticationError);
  t.notRegex(error.message, /secret/);
  const missing = new StrongroomClient({ url: "http://127.0.0.1:1", token: tokenFromFile("/nowhere/token") });
  const other = toStrongroomError(await t.throwsAsync(missing.sessions.whoAmI({})));
  t.true(other instanceof AuthenticationError);
  t.regex(other.message, /\/nowhere\/token/);
});

test("addresses that are none, or hold a password, are refused without being repeated", (t) => {
  for (const url of ["", "backups.example.org", "ftp://h", "http://user:hunter2@h"]) {
    const error = t.throws(() => new StrongroomClient({ url }), { name: "InvalidRequestError" });
    t.notRegex(error!.message, /hunter2/);
  }
  t.is(new StrongroomClient({ url: "https://h.example/base/" }).url, "https://h.example/base");
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

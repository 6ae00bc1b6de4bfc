import { readFile } from "node:fs/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@strongroom/gen/google/rpc/error_details_pb";
import { ErrorReason, ErrorReasonSchema } from "@strongroom/gen/strongroom/v1/error_reason_pb";
import { ERROR_DOMAIN, REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import test from "ava";
import fc from "fast-check";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import { BodyBrokenError } from "../src/app/uploads/segment-body.ts";
import { CODES } from "../src/calls/codes.ts";
import { collectionNotFound, DomainError, invalidField, type Reason } from "../src/domain/errors.ts";
import { isFault, toConnectError } from "../src/transport/error-map.ts";

/** What the contract says: names without their prefix, with the code in brackets at the beginning of their comments. */
async function readContract(): Promise<Map<string, string | undefined>> {
  const path = new URL("../../proto/strongroom/v1/error_reason.proto", import.meta.url);
  const reasons = new Map<string, string | undefined>();
  let code: string | undefined;
  for (const line of (await readFile(path, "utf8")).split("\n")) {
    code = /^\s*\/\/ \[([A-Z_]+)\]/.exec(line)?.[1] ?? code;
    const name = /^\s*ERROR_REASON_([A-Z_]+) = \d+;/.exec(line)?.[1];
    if (name === undefined) continue;
    reasons.set(name, code);
    code = undefined;
  }
  return reasons;
}

const contract = await readContract();
const REQUEST_ID = "request-1";
const REASONS = Object.keys(CODES) as Reason[];

/** The name of a code as gRPC writes it. */
function codeName(code: Code): string {
  return Code[code]!.replace(/(?<=.)([A-Z])/g, "_$1").toUpperCase();
}

test("every reason of the contract has a code and an example", async (t) => {
  t.is(contract.get("UNSPECIFIED"), undefined, "never sent");
  t.true(contract.size > 30);
  const source = await readFile(new URL("../../proto/strongroom/v1/error_reason.proto", import.meta.url), "utf8");
  const text = source.replace(/\n\s*\/\/ /g, " ");
  for (const [reason, code] of contract) {
    if (reason === "UNSPECIFIED") continue;
    t.truthy(code, reason);
    t.true(text.includes(`Example: {"reason":"${reason}"`), reason);
  }
});

test("the server knows exactly the reasons of the contract", (t) => {
  const sent = [...contract.keys()].filter((reason) => reason !== "UNSPECIFIED" && reason !== "INTERNAL");
  t.deepEqual([...REASONS].sort(), sent.sort());
});

test("the generated code has exactly the reasons of the contract", (t) => {
  t.deepEqual(
    ErrorReasonSchema.values.map((value) => value.name).sort(),
    [...contract.keys()].map((reason) => `ERROR_REASON_${reason}`).sort(),
  );
  t.is(ErrorReason.UNSPECIFIED, 0);
});

for (const reason of REASONS) {
  test(`${reason} has the code of the contract and says who, why and under which request`, (t) => {
    const cause = new Error("inside");
    const metadata = { collection: "db", number: "7" };
    const error = toConnectError(new DomainError(reason, "what to do", { metadata, cause }), REQUEST_ID);
    t.is(codeName(error.code), contract.get(reason)!);
    t.is(error.rawMessage, "what to do");
    t.is(error.metadata.get(REQUEST_ID_HEADER), REQUEST_ID);
    const [info, ...more] = error.findDetails(ErrorInfoSchema);
    t.is(info?.reason, reason);
    t.is(info?.domain, ERROR_DOMAIN);
    t.deepEqual({ ...info?.metadata }, metadata);
    t.is(more.length, 0);
    t.deepEqual(
      error.findDetails(RequestInfoSchema).map((d) => d.requestId),
      [REQUEST_ID],
    );
    t.is(error.findDetails(RetryInfoSchema).length, 0);
    t.is(error.findDetails(QuotaFailureSchema).length, reason === "QUOTA_EXCEEDED" ? 1 : 0);
    t.is(error.findDetails(BadRequestSchema).length, reason === "INVALID_REQUEST" ? 1 : 0);
    t.false(isFault(new DomainError(reason, "")));
  });
}

test("a metadata-free error has an empty map", (t) => {
  const error = toConnectError(new DomainError("UPLOAD_EMPTY", "nothing was received"), REQUEST_ID);
  t.deepEqual({ ...error.findDetails(ErrorInfoSchema)[0]?.metadata }, {});
});

test("QuotaFailure names the limit and says it in words", (t) => {
  const metadata = { limit: "collection", remaining_bytes: "5" };
  const error = toConnectError(new DomainError("QUOTA_EXCEEDED", "5 B are left", { metadata }), REQUEST_ID);
  const [failure] = error.findDetails(QuotaFailureSchema);
  t.deepEqual(
    failure?.violations.map(({ subject, description }) => [subject, description]),
    [["collection", "5 B are left"]],
  );
});

test("BadRequest names the field", (t) => {
  const error = toConnectError(invalidField("sha256", "expected 32 bytes"), REQUEST_ID);
  t.is(error.code, Code.InvalidArgument);
  const [bad] = error.findDetails(BadRequestSchema);
  t.deepEqual(
    bad?.fieldViolations.map(({ field, description }) => [field, description]),
    [["sha256", "sha256: expected 32 bytes"]],
  );
  t.is(error.findDetails(ErrorInfoSchema)[0]?.metadata.field, "sha256");
});

test("a collection that is not there and one that may not be seen have the same answer", (t) => {
  const error = toConnectError(collectionNotFound("db"), REQUEST_ID);
  t.is(error.code, Code.NotFound);
  t.regex(error.rawMessage, /does not exist, or you may not see it/);
});

test("texts and facts are one bounded line each, whatever is in them", (t) => {
  const long = "a\n".repeat(100_000);
  for (const reason of ["INVALID_REQUEST", "QUOTA_EXCEEDED", "COLLECTION_NOT_FOUND"] as const) {
    const error = toConnectError(new DomainError(reason, long, { metadata: { field: long, limit: "x" } }), REQUEST_ID);
    const texts = [
      error.rawMessage,
      error.findDetails(ErrorInfoSchema)[0]!.metadata.field,
      ...error.findDetails(BadRequestSchema).flatMap((d) => d.fieldViolations.flatMap((v) => [v.field, v.description])),
      ...error.findDetails(QuotaFailureSchema).flatMap((d) => d.violations.map((v) => v.description)),
    ];
    for (const text of texts) t.true(text!.length <= 1000 && !/[\r\n]/.test(text!), reason);
  }
});

test("RetryInfo says when, to the millisecond", (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 * 24 * 3_600_000 }), (retryAfterMs) => {
      const error = toConnectError(new DomainError("COLLECTION_BUSY", "later", { retryAfterMs }), REQUEST_ID);
      const details = error.findDetails(RetryInfoSchema);
      t.is(details.length, 1);
      const delay = details[0]!.retryDelay!;
      t.is(Number(delay.seconds) * 1000 + delay.nanos / 1e6, retryAfterMs);
      t.true(delay.nanos >= 0 && delay.nanos < 1e9);
    }),
  );
});

const faults: [string, unknown][] = [
  ["an Error", new Error("SELECT secret FROM /var/lib/strongroom failed")],
  ["a TypeError with a cause", new TypeError("secret", { cause: new Error("secret") })],
  ["an error of the store that no use case translated", new BlobStoreError("secret at /var/lib")],
  ["a text", "secret"],
  ["nothing", undefined],
  ["null", null],
  ["an object that looks like a domain error", { name: "DomainError", reason: "ACCESS_DENIED", message: "secret" }],
  ["an object with a code", Object.assign(new Error("secret"), { code: Code.NotFound, rawMessage: "secret" })],
];

for (const [title, fault] of faults) {
  test(`${title} is a fault of the server, and the answer says nothing of the inside`, (t) => {
    t.true(isFault(fault));
    const error = toConnectError(fault, REQUEST_ID);
    t.is(error.code, Code.Internal);
    t.is(codeName(error.code), contract.get("INTERNAL")!);
    t.true(error.rawMessage.includes(REQUEST_ID), "the log has it under this id");
    t.is(error.findDetails(ErrorInfoSchema)[0]?.reason, "INTERNAL");
    t.is(error.findDetails(RequestInfoSchema)[0]?.requestId, REQUEST_ID);
    t.is(error.cause, undefined);
    const details = error.details.map((d) => JSON.stringify("desc" in d ? d.value : d));
    const said = [error.message, error.rawMessage, ...details, ...[...error.metadata].flat()].join("\n");
    t.notRegex(said, /secret|SELECT|\/var/);
  });
}

test("errors of the transport pass as they are, with the request id", (t) => {
  const original = new ConnectError("unknown service", Code.NotFound, { "x-more": "1" });
  const error = toConnectError(original, REQUEST_ID);
  t.is(error, original);
  t.is(error.code, Code.NotFound);
  t.is(error.metadata.get(REQUEST_ID_HEADER), REQUEST_ID);
  t.is(error.metadata.get("x-more"), "1");
  t.false(isFault(original));
});

test("a connection that broke off is no fault of the server", (t) => {
  const broken = new BodyBrokenError("the connection broke off", { cause: new Error("secret") });
  t.false(isFault(broken));
  const error = toConnectError(broken, REQUEST_ID);
  t.is(error.code, Code.Canceled);
  t.is(error.metadata.get(REQUEST_ID_HEADER), REQUEST_ID);
});

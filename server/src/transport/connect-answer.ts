import { create, toBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { ErrorInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { ERROR_DOMAIN } from "@strongroom/protocol/headers";
import type { Door } from "../calls/call.ts";
import type { CodeName } from "../calls/codes.ts";
import { MAX_ERROR_LENGTH, plainText } from "../calls/plain-text.ts";
import type { Reason } from "../domain/errors.ts";
import { codeName, connectCode } from "./error-map.ts";
import { decodeGrpcMessage, encodeGrpcMessage } from "./grpc-message.ts";

/** How an answer ended: `ok`, or the code and message of the error in it. */
export interface AnswerEnd {
  readonly code: CodeName | "ok";
  readonly message: string;
}

const OK: AnswerEnd = { code: "ok", message: "" };

/** Flags of the envelopes that end a stream in the Connect protocol and in gRPC-Web. */
const CONNECT_END = 0x02;
const GRPC_WEB_END = 0x80;

/** What is said to requests that are no call, by HTTP status; the library answers them without a body. */
const BARE_ANSWERS: Readonly<Record<number, AnswerEnd>> = {
  400: { code: "invalid_argument", message: "expected a Host header that names a host, got none" },
  404: { code: "unimplemented", message: "there is no such method or path here" },
  405: { code: "unimplemented", message: "expected the method POST, got another one" },
  415: {
    code: "unimplemented",
    message:
      "expected a Content-Type of Connect (application/json, application/proto), gRPC or gRPC-Web, got another one",
  },
  429: { code: "resource_exhausted", message: "too many requests from this address; wait as long as Retry-After says" },
  505: { code: "unimplemented", message: "expected HTTP/2, which streams in both directions need, got HTTP/1.1" },
};

const JSON_TYPE = /^application\/json\b/;

/**
 * Reads from an answer how its call ended, whatever in the library made it an error, and mends the error on its way:
 * its text is one bounded line, a message that cannot be parsed is the caller's mistake, and gRPC's message is encoded
 * as its specification says.
 * @param whenDone - called once, when the answer is complete.
 */
export async function mendedAnswer(
  answer: UniversalServerResponse,
  door: Door,
  whenDone: (end: AnswerEnd) => void,
): Promise<UniversalServerResponse> {
  if (answer.status !== 200) return await mendedUnaryError(answer, whenDone);
  if (answer.body === undefined) {
    whenDone(OK);
    return answer;
  }
  return { ...answer, body: mendedStream(answer, answer.body, door, whenDone) };
}

async function* mendedStream(
  answer: UniversalServerResponse,
  body: AsyncIterable<Uint8Array>,
  door: Door,
  whenDone: (end: AnswerEnd) => void,
): AsyncGenerator<Uint8Array> {
  let end = OK;
  const isStream = answer.header?.get("content-type")?.startsWith("application/connect+") === true;
  for await (const piece of body) {
    // Each piece is one envelope.
    const flags = piece[0] ?? 0;
    if (isStream && (flags & CONNECT_END) !== 0) {
      const mended = mendedEnd(piece);
      end = mended.end;
      yield mended.piece;
    } else if (door === "grpc-web" && (flags & GRPC_WEB_END) !== 0) {
      const mended = mendedTrailers(piece);
      end = mended.end;
      yield mended.piece;
    } else yield piece;
  }
  if (answer.trailer !== undefined) end = mendTrailer(answer.trailer);
  whenDone(end);
}

interface ErrorJson {
  code?: string;
  message?: string;
  details?: { type: string; value: string }[];
}

/** The reasons of refusals that the library makes by itself: they are none of a service. */
const OWN_REASONS: Readonly<Partial<Record<string, Reason>>> = {
  unimplemented: "CALL_UNKNOWN",
  invalid_argument: "CALL_MALFORMED",
  resource_exhausted: "CALL_TOO_LARGE",
};

function detailJson(reason: Reason): { type: string; value: string } {
  const info = create(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN });
  return { type: ErrorInfoSchema.typeName, value: base64(toBinary(ErrorInfoSchema, info)) };
}

/** `grpc-status-details-bin` of such a refusal. */
function ownDetails({ code, message }: AnswerEnd): string | undefined {
  const reason = OWN_REASONS[code];
  if (reason === undefined) return undefined;
  const detail = { desc: ErrorInfoSchema, value: { reason, domain: ERROR_DOMAIN } };
  const error = new ConnectError(message, connectCode(code as CodeName), undefined, [detail]);
  const trailers = new Headers();
  setTrailerStatus(trailers, error);
  return trailers.get("grpc-status-details-bin") ?? undefined;
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

/** Mends the code and the text of an error in JSON. */
function mendJson(error: ErrorJson): AnswerEnd {
  const end = mendedEndOf((error.code ?? "unknown") as CodeName, error.message ?? "");
  error.code = end.code;
  if (error.message !== undefined) error.message = end.message;
  const reason = (error.details ?? []).length > 0 ? undefined : OWN_REASONS[end.code];
  if (reason !== undefined) error.details = [detailJson(reason)];
  return end;
}

function mendedEndOf(code: CodeName, message: string): AnswerEnd {
  const mended = plainText(ownWords(message), MAX_ERROR_LENGTH);
  // The library says "internal" of a message in binary that it cannot parse.
  return {
    code: code === "internal" && message.startsWith("parse binary:") ? "invalid_argument" : code,
    message: mended,
  };
}

/** Says what the library says of a message that is too large as everything else here is said. */
function ownWords(message: string): string {
  const [, got, most] = /^message size (\d+) is larger than configured readMaxBytes (\d+)/.exec(message) ?? [];
  return got === undefined ? message : `expected at most ${most} bytes in a message of this call, got ${got}`;
}

/**
 * The answer to a unary call of the Connect protocol that failed; and those without a body, to requests that are none.
 */
async function mendedUnaryError(
  answer: UniversalServerResponse,
  whenDone: (end: AnswerEnd) => void,
): Promise<UniversalServerResponse> {
  const { body, header, status } = answer;
  if (body === undefined || header === undefined || !JSON_TYPE.test(header.get("content-type") ?? "")) {
    const end = BARE_ANSWERS[status] ?? { code: "unknown", message: `HTTP status ${status}` };
    const headers = new Headers(header);
    headers.set("content-type", "application/json");
    // RFC 9110, section 15.5.6.
    if (status === 405) headers.set("allow", "POST");
    const error: ErrorJson = { ...end };
    // The budget is used up; see `drawnFor` of the door.
    const reason = status === 429 ? "RATE_LIMITED" : OWN_REASONS[end.code];
    if (reason !== undefined) error.details = [detailJson(reason)];
    return jsonAnswer({ status, header: headers }, error, end, whenDone);
  }
  const pieces: Uint8Array[] = [];
  for await (const piece of body) pieces.push(piece);
  const error = JSON.parse(Buffer.concat(pieces).toString()) as ErrorJson;
  const before = error.code;
  const end = mendJson(error);
  return jsonAnswer({ ...answer, header, status: end.code === before ? status : 400 }, error, end, whenDone);
}

function jsonAnswer(
  { status, header }: { readonly status: number; readonly header: Headers },
  error: ErrorJson,
  end: AnswerEnd,
  whenDone: (end: AnswerEnd) => void,
): UniversalServerResponse {
  const bytes = Buffer.from(JSON.stringify(error));
  header.set("content-length", String(bytes.length));
  async function* body() {
    yield bytes;
    whenDone(end);
  }
  return { status, header, body: body() };
}

/** The end of a stream of the Connect protocol. */
function mendedEnd(piece: Uint8Array): { end: AnswerEnd; piece: Uint8Array } {
  const json = JSON.parse(Buffer.from(piece.subarray(5)).toString()) as { error?: ErrorJson };
  if (json.error === undefined) return { end: OK, piece };
  const end = mendJson(json.error);
  return { end, piece: envelope(CONNECT_END, JSON.stringify(json)) };
}

/**
 * The trailers of gRPC-Web, which are the last piece of its body. Their message stays encoded as browsers expect it.
 */
function mendedTrailers(piece: Uint8Array): { end: AnswerEnd; piece: Uint8Array } {
  const lines = Buffer.from(piece.subarray(5)).toString("latin1").split("\r\n");
  const value = (name: string) =>
    lines
      .find((line) => line.toLowerCase().startsWith(`${name}:`))
      ?.slice(name.length + 1)
      .trim();
  const status = Number(value("grpc-status") ?? 0);
  if (status === 0) return { end: OK, piece };
  const end = mendedEndOf(codeName(status), decodeGrpcMessage(value("grpc-message") ?? ""));
  const mended = lines.map((line) => {
    if (/^grpc-status:/i.test(line)) return `grpc-status: ${connectCode(end.code as CodeName)}`;
    return /^grpc-message:/i.test(line) ? `grpc-message: ${encodeURIComponent(end.message)}` : line;
  });
  const details = value("grpc-status-details-bin") === undefined ? ownDetails(end) : undefined;
  // Before the end of the last line.
  if (details !== undefined) mended.unshift(`grpc-status-details-bin: ${details}`);
  return { end, piece: envelope(GRPC_WEB_END, mended.join("\r\n")) };
}

/** The trailers of gRPC. */
function mendTrailer(trailer: Headers): AnswerEnd {
  const status = Number(trailer.get("grpc-status") ?? 0);
  if (status === 0) return OK;
  const end = mendedEndOf(codeName(status), decodeGrpcMessage(trailer.get("grpc-message") ?? ""));
  trailer.set("grpc-status", String(connectCode(end.code as CodeName)));
  trailer.set("grpc-message", encodeGrpcMessage(end.message));
  const details = trailer.has("grpc-status-details-bin") ? undefined : ownDetails(end);
  if (details !== undefined) trailer.set("grpc-status-details-bin", details);
  return end;
}

function envelope(flags: number, text: string): Uint8Array {
  const data = Buffer.from(text, "utf8");
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(data.length, 1);
  return Buffer.concat([head, data]);
}

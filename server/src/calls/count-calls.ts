import { DomainError } from "../domain/errors.ts";
import type { Call } from "./call.ts";
import type { Ending } from "./call-log.ts";
import type { Metrics, UploadEvent } from "./metrics.ts";
import { routeOf } from "./routes.ts";

const PREFIX = "strongroom.v1.";

/** What an answered call of these methods means for uploads. */
const UPLOAD_EVENTS: Readonly<Record<string, readonly UploadEvent[]>> = {
  "UploadService/CreateUpload": ["created"],
  "UploadService/CommitUpload": ["committed"],
  "UploadService/AbortUpload": ["aborted"],
  "POST /api/repository/collection/:id/version": ["created", "committed"],
};

const LOGINS: ReadonlySet<string> = new Set(["SessionService/Login", "POST /api/auth/login"]);

/** Counts a call that ended: it, its refusal, its segment, upload or login. */
export function countCall(metrics: Metrics, call: Call, ending: Ending): void {
  // What nobody serves has one label, or strangers could make as many as they like.
  const method = routeOf(call.method) === undefined ? "other" : call.method.replace(PREFIX, "");
  const answered = ending.code === "ok";
  metrics.called(method, ending.code, answered ? "" : reasonOf(ending), (performance.now() - call.startedAt) / 1000);
  const reason = ending.error instanceof DomainError ? ending.error.reason : undefined;
  if (LOGINS.has(method)) {
    if (answered) metrics.login("ok");
    else if (reason === "LOGIN_BUSY") metrics.login("busy");
    else if (reason === "CREDENTIALS_INVALID") metrics.login("failed");
  }
  if (reason === "CIPHERTEXT_REFUSED") metrics.upload("refused");
  if (!answered) return;
  if (method === "UploadService/WriteSegment") metrics.segmentStored();
  for (const event of UPLOAD_EVENTS[method] ?? []) metrics.upload(event);
}

/** A reason of the contract, or how else a call ended. */
function reasonOf({ error, code, isFault }: Ending): string {
  if (error instanceof DomainError) return error.reason;
  return isFault ? "INTERNAL" : code === "canceled" ? "CANCELED" : "PROTOCOL";
}

/** Passes messages on and counts the bytes of chunks in them. */
export async function* countChunks<T>(messages: AsyncIterable<T>, count: (bytes: number) => void): AsyncGenerator<T> {
  for await (const message of messages) {
    const { frame } = message as { frame?: { case?: string; value?: unknown } };
    if (frame?.case === "chunk" && frame.value instanceof Uint8Array) count(frame.value.length);
    yield message;
  }
}

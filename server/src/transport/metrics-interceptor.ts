import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { DomainError } from "../domain/errors.ts";
import { toConnectError } from "./error-map.ts";
import type { Metrics, UploadEvent } from "./metrics.ts";

const PREFIX = "strongroom.v1.";

/** What an answered call of these methods means for uploads. */
const UPLOAD_EVENTS: Readonly<Record<string, UploadEvent>> = {
  "UploadService/CreateUpload": "created",
  "UploadService/CommitUpload": "committed",
  "UploadService/AbortUpload": "aborted",
};

/** Counts calls, refusals, bytes, segments, uploads and logins. Stands inside the call log, which turns errors into Connect errors. */
export function metricsInterceptor(metrics: Metrics): Interceptor {
  return (next) => async (req) => {
    const started = performance.now();
    const method = `${req.service.typeName}/${req.method.name}`.replace(PREFIX, "");
    const finish = (error?: unknown) => {
      const code = error === undefined ? "ok" : Code[toConnectError(error, "").code];
      metrics.called(method, snakeCase(code), error === undefined ? "" : reasonOf(error), seconds(started));
      outcome(metrics, method, error);
    };
    const isUpload = req.method === UploadService.method.writeSegment;
    const call = isUpload && req.stream ? { ...req, message: counted(req.message, (n) => metrics.received(n)) } : req;
    try {
      const res = await next(call as typeof req);
      if (!res.stream) {
        finish();
        return res;
      }
      const isDownload = req.method === VersionService.method.readVersion;
      const message = isDownload ? counted(res.message, (n) => metrics.sent(n)) : res.message;
      return { ...res, message: watched(message, finish) };
    } catch (error) {
      finish(error);
      throw error;
    }
  };
}

function outcome(metrics: Metrics, method: string, error: unknown): void {
  const reason = error instanceof DomainError ? error.reason : undefined;
  if (method === "SessionService/Login") {
    if (error === undefined) metrics.login("ok");
    else if (reason === "LOGIN_BUSY") metrics.login("busy");
    else if (reason === "CREDENTIALS_INVALID") metrics.login("failed");
  }
  if (reason === "CIPHERTEXT_REFUSED") metrics.upload("refused");
  if (error !== undefined) return;
  if (method === "UploadService/WriteSegment") metrics.segmentStored();
  const event = UPLOAD_EVENTS[method];
  if (event !== undefined) metrics.upload(event);
}

/** A reason of the contract, or how else a call ended. */
function reasonOf(error: unknown): string {
  if (error instanceof DomainError) return error.reason;
  return error instanceof ConnectError
    ? "PROTOCOL"
    : toConnectError(error, "").code === Code.Canceled
      ? "CANCELED"
      : "INTERNAL";
}

function snakeCase(code: string | undefined): string {
  return (code ?? "unknown").replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
}

function seconds(started: number): number {
  return (performance.now() - started) / 1000;
}

/** Passes messages on and counts the bytes of chunks in them. */
async function* counted<T>(messages: AsyncIterable<T>, count: (bytes: number) => void): AsyncGenerator<T> {
  for await (const message of messages) {
    const { frame } = message as { frame?: { case?: string; value?: unknown } };
    if (frame?.case === "chunk" && frame.value instanceof Uint8Array) count(frame.value.length);
    yield message;
  }
}

async function* watched<T>(messages: AsyncIterable<T>, finish: (error?: unknown) => void): AsyncGenerator<T> {
  let end: { error: unknown } | undefined = { error: new ConnectError("the client went away", Code.Canceled) };
  try {
    yield* messages;
    end = undefined;
  } catch (error) {
    end = { error };
    throw error;
  } finally {
    finish(end?.error);
  }
}

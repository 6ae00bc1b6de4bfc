import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { ContentEncoding } from "@strongroom/gen/strongroom/v1/resources_pb";
import type {
  CreateUploadRequest,
  UploadService,
  WriteSegmentRequest,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import type { ChunkDetour } from "@strongroom/protocol/chunk-detour";
import {
  MAX_DESCRIPTION_LENGTH,
  MAX_LABEL_VALUE_LENGTH,
  MAX_METADATA_VALUE_LENGTH,
  MAX_REASON_LENGTH,
  MAX_REQUEST_ID_LENGTH,
  MAX_SEGMENTS,
  PAGE,
  SEGMENTS_PAGE,
} from "@strongroom/protocol/limits";
import { timezoneOf } from "../app/ports/config-source.ts";
import { stillStanding } from "../app/sessions/sessions.ts";
import { type CommitDeps, commitUpload } from "../app/uploads/commit-upload.ts";
import { type CreateUploadInput, checkUpload, createUpload } from "../app/uploads/create-upload.ts";
import { abortUpload, getUpload, listUploads, renewUpload } from "../app/uploads/manage-uploads.ts";
import { BodyBrokenError } from "../app/uploads/segment-body.ts";
import type { UploadView } from "../app/uploads/upload-deps.ts";
import { writeSegment } from "../app/uploads/write-segment.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import { addressOf, callerOf, detourOf } from "./connect-calls.ts";
import { segmentMessage, time, uploadMessage, versionMessage } from "./messages.ts";
import {
  byteCountOf,
  collectionNameOf,
  filenameOf,
  mapOf,
  pagePosition,
  pageSizeOf,
  pageToken,
  requireSmall,
  sha256Of,
  textOf,
  uploadIdOf,
} from "./shapes.ts";

/** The use cases' ports, and the bounds of streams. */
export interface UploadServiceDeps extends CommitDeps {
  /** Throws when the server is stopping: nothing new may begin. */
  readonly refuseWhileStopping: () => void;
  /** Called when something ended and the sweeper has work. */
  readonly onEnded: () => void;
}

/** UploadService of the contract. */
export function uploadService(deps: UploadServiceDeps): ServiceImpl<typeof UploadService> {
  const message = (view: UploadView) =>
    uploadMessage(view, deps.settings.maxChunkSize, timezoneOf(deps.config, view.upload.collectionName));
  return {
    async createUpload(req, context) {
      deps.refuseWhileStopping();
      const view = await createUpload(deps, callerOf(context.values), createInputOf(req));
      return { upload: message(view) };
    },

    async checkUpload(req, context) {
      deps.refuseWhileStopping();
      if (req.upload === undefined) throw invalidField("upload", "expected the upload to check");
      const isOpen = req.upload.contentEncoding === ContentEncoding.UNSPECIFIED;
      const input = { ...createInputOf(req.upload), ...(isOpen ? { contentEncoding: undefined } : {}) };
      return { remainingBytes: await checkUpload(deps, callerOf(context.values), input) };
    },

    async writeSegment(requests, context) {
      deps.refuseWhileStopping();
      const frames = classifyBrokenStream(requests)[Symbol.asyncIterator]();
      try {
        const header = await headerOf(frames, deps.settings.segmentIdleMs);
        const accepted = await writeSegment(
          deps,
          callerOf(context.values),
          {
            uploadId: uploadIdOf(header.uploadId),
            index: indexOf("index", header.index),
            size: sizeOf(header.sizeBytes),
            sha256: sha256Of("sha256", header.sha256),
            framingIn: header.framingIn,
          },
          chunksOf(frames, detourOf(context.values), () => {
            stillStanding(deps.config, callerOf(context.values), addressOf(context.values));
          }),
          context.signal,
        );
        const leaseExpiresAt = time(accepted.leaseExpiresAt);
        return { segment: segmentMessage(accepted), remainingBytes: accepted.remaining, leaseExpiresAt };
      } catch (error) {
        if (error instanceof DomainError && error.reason === "CIPHERTEXT_REFUSED") deps.onEnded();
        throw error;
      } finally {
        void frames.return?.(undefined).catch(() => {});
      }
    },

    async renewUpload(req, context) {
      const upload = await renewUpload(deps, callerOf(context.values), uploadIdOf(req.uploadId));
      return { leaseExpiresAt: time(upload.leaseExpiresAt), expiresAt: time(upload.expiresAt) };
    },

    async getUpload(req, context) {
      const from = pagePosition("segments", req.pageToken, /^\d{1,7}$/);
      const status = await getUpload(deps, callerOf(context.values), {
        uploadId: uploadIdOf(req.uploadId),
        fromIndex: from === undefined ? indexOf("first_index", req.firstIndex) : Number(from),
        pageSize: pageSizeOf(req.pageSize, SEGMENTS_PAGE),
      });
      return {
        upload: message(status),
        segments: status.segments.map(segmentMessage),
        nextPageToken: pageToken("segments", status.nextIndex?.toString()),
      };
    },

    async listUploads(req, context) {
      const from = pagePosition("uploads", req.pageToken, /^\d{1,6}$/);
      const { uploads, next } = await listUploads(deps, callerOf(context.values), {
        collection: collectionNameOf(req.collection),
        from: from === undefined ? 0 : Number(from),
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return {
        uploads: uploads.map(message),
        nextPageToken: pageToken("uploads", next?.toString()),
      };
    },

    async commitUpload(req, context) {
      const outcome = await commitUpload(deps, callerOf(context.values), {
        uploadId: uploadIdOf(req.uploadId),
        size: byteCountOf("size_bytes", req.sizeBytes),
        compositeSha256: sha256Of("composite_sha256", req.compositeSha256),
        warning: textOf("warning", req.warning, MAX_DESCRIPTION_LENGTH),
      });
      return {
        version: versionMessage(outcome.version, timezoneOf(deps.config, outcome.version.collectionName)),
        removedNumbers: [...outcome.removedNumbers],
      };
    },

    async abortUpload(req, context) {
      const view = await abortUpload(deps, callerOf(context.values), {
        uploadId: uploadIdOf(req.uploadId),
        reason: textOf(
          "reason",
          req.reason
            .slice(0, MAX_REASON_LENGTH)
            .toWellFormed()
            .replace(/\p{Cc}+/gu, " "),
          MAX_REASON_LENGTH,
        ),
      });
      deps.onEnded();
      return { upload: message(view) };
    },
  };
}

function createInputOf(req: CreateUploadRequest): CreateUploadInput {
  const labels = mapOf("labels", req.labels, MAX_LABEL_VALUE_LENGTH);
  const clientMetadata = mapOf("client_metadata", req.clientMetadata, MAX_METADATA_VALUE_LENGTH);
  requireSmall(labels, clientMetadata);
  return {
    collection: collectionNameOf(req.collection),
    requestId: textOf("request_id", req.requestId, MAX_REQUEST_ID_LENGTH),
    expectedSize: byteCountOf("expected_size_bytes", req.expectedSizeBytes),
    filename: filenameOf(req.filename),
    contentEncoding: contentEncodingOf(req.contentEncoding),
    labels,
    clientMetadata,
  };
}

function contentEncodingOf(value: ContentEncoding): "none" | "zstd" {
  if (value === ContentEncoding.ZSTD) return "zstd";
  if (value === ContentEncoding.NONE || value === ContentEncoding.UNSPECIFIED) return "none";
  throw invalidField("content_encoding", "expected CONTENT_ENCODING_NONE or CONTENT_ENCODING_ZSTD");
}

function indexOf(field: string, value: number): number {
  if (value < 0 || value > MAX_SEGMENTS) throw invalidField(field, `expected 0 to ${MAX_SEGMENTS}, got ${value}`);
  return value;
}

function sizeOf(value: bigint): bigint {
  if (value <= 0n)
    throw invalidField("size_bytes", `expected the size of the segment in bytes, at least 1, got ${value}`);
  return value;
}

const framesInvalid = (message: string) => new DomainError("SEGMENT_FRAMES_INVALID", message);

async function headerOf(frames: AsyncIterator<WriteSegmentRequest>, idleMs: number) {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new DomainError("SEGMENT_IDLE", `no header was received for ${idleMs / 1000} s`)),
      idleMs,
    );
  });
  try {
    const first = await Promise.race([frames.next(), silence]);
    if (first.done === true || first.value.frame.case !== "header") {
      throw framesInvalid("expected the header as the first frame of WriteSegment");
    }
    return first.value.frame.value;
  } finally {
    clearTimeout(timer);
  }
}

/** The chunks after the header; before each, and at the end, `check` may refuse to go on. */
async function* chunksOf(
  frames: AsyncIterator<WriteSegmentRequest>,
  detour: ChunkDetour | undefined,
  check: () => void,
): AsyncGenerator<Uint8Array> {
  for (let next = await frames.next(); next.done !== true; next = await frames.next()) {
    const { frame } = next.value;
    if (frame.case !== "chunk") throw framesInvalid("after the header only chunks may follow");
    check();
    const pieces = detour?.chunk();
    if (pieces === undefined) yield frame.value;
    else yield* unlessBroken(pieces);
  }
  check();
}

async function* unlessBroken(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* pieces;
  } catch (error) {
    throw bodyBroken(error);
  }
}

const bodyBroken = (cause: unknown) =>
  new BodyBrokenError("the connection broke off in the middle of a segment", { cause });

/**
 * What the library says of frames that it cannot read; "internal" is of a compressed one and of binary that is no
 * message. A connection that broke off is none of its errors.
 */
const FRAME_CODES: ReadonlySet<Code> = new Set([Code.ResourceExhausted, Code.InvalidArgument, Code.Internal]);

/** Says of what goes wrong with incoming messages whether they are malformed or the connection is gone. */
async function* classifyBrokenStream<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    if (error instanceof ConnectError && FRAME_CODES.has(error.code)) {
      if (error.rawMessage.startsWith("received compressed envelope"))
        throw framesInvalid("expected a frame without compression, got a compressed one; send this call uncompressed");
      throw framesInvalid(`a frame is malformed or too large: ${error.rawMessage}`);
    }
    throw bodyBroken(error);
  }
}

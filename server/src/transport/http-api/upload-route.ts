import type { BlobStore } from "../../app/ports/blob-store.ts";
import { requireStanding } from "../../app/sessions/sessions.ts";
import { type ReceiveDeps, receiveVersion } from "../../app/uploads/receive-version.ts";
import { callerOf } from "../../calls/call.ts";
import { codeOf } from "../../calls/codes.ts";
import { DomainError } from "../../domain/errors.ts";
import { announcedBytes } from "../request-body.ts";
import { type ApiAnswer, success } from "./answers.ts";
import type { ApiCall, ApiRoute } from "./api-call.ts";
import { versionObject } from "./collection-routes.ts";
import type { DownloadRouteDeps } from "./download-route.ts";
import { boundaryOf, filePart } from "./multipart.ts";
import { peerStays } from "./peer.ts";
import { uploadBody } from "./upload-body.ts";
import { collectionWording } from "./wording.ts";

/** The ports and bounds of uploads over the HTTP API. */
export interface UploadRouteDeps extends ReceiveDeps, DownloadRouteDeps {
  readonly store: BlobStore;
  /** How long a peer has to stay after its body before that becomes a version, in milliseconds. */
  readonly httpCommitGraceMs: number;
  /** Throws when the server is stopping: nothing new may begin. */
  readonly refuseWhileStopping: () => void;
  /** Called when something ended and the sweeper has work. */
  readonly onEnded: () => void;
}

/** Uploads: one body, or the part `file` of a form. */
export function uploadRoute(deps: UploadRouteDeps): ApiRoute {
  return {
    answer: async (apiCall) => await upload(deps, apiCall),
    wording:
      ({ call, params }) =>
      (error) =>
        uploadWording(error) ??
        collectionWording(error, call, params.id!, "not authorized to upload versions to this collection") ?? {
          status: 500,
          error: `cannot upload version. ${reasonOf(error)}`,
        },
  };
}

async function upload(deps: UploadRouteDeps, { call, params, req, res, signal }: ApiCall): Promise<ApiAnswer> {
  deps.refuseWhileStopping();
  const boundary = boundaryOf(req.headers["content-type"]);
  const raw = uploadBody(req, deps.settings.segmentIdleMs);
  const announced = boundary === undefined ? announcedBytes(req) : undefined;
  // Whoever waits for memory or for the store is not read, and is not silent for that; silence is watched in the body.
  const socket = "stream" in req ? undefined : req.socket;
  const silentMs = socket?.timeout ?? 0;
  socket?.setTimeout(0);
  try {
    const version = await receiveVersion(deps, callerOf(call), {
      collection: params.id!,
      size: announced === undefined ? undefined : BigInt(announced),
      body: boundary === undefined ? raw : filePart(raw, boundary),
      stands: async () => await requireStanding(deps, callerOf(call), call.address),
      confirmed: async () => await peerStays([req, res], deps.httpCommitGraceMs, signal),
      onSegment: (bytes) => {
        deps.metrics?.received(bytes);
        deps.metrics?.segmentStored();
      },
      signal,
    });
    return success({ version: versionObject(version) });
  } catch (error) {
    deps.onEnded();
    throw error;
  } finally {
    socket?.setTimeout(silentMs);
  }
}

function uploadWording(error: Error): { status: number; error: string } | undefined {
  if (!(error instanceof DomainError)) return undefined;
  if (error.reason === "WINDOW_CLOSED")
    return {
      status: 403,
      error:
        "backup window does not allow you to send a backup at this time. You need a token that has a special " +
        `permission 'uploadsAnytime': ${error.message}`,
    };
  if (error.reason === "COLLECTION_BUSY" && error.metadata.max_parallel_uploads !== undefined)
    return { status: 500, error: "cannot upload to same collection in parallel" };
  return undefined;
}

/** What went wrong, in the words of the older server where its clients look for them. */
function reasonOf(error: Error): string {
  if (error instanceof DomainError && error.reason === "UPLOAD_EMPTY")
    return `cannot upload file, sent empty data: ${error.message}`;
  if (error instanceof DomainError && error.reason === "CIPHERTEXT_REFUSED") {
    const { violation } = error.metadata;
    const known =
      violation === "truncated"
        ? "end of stream does not contain a valid GPG footer, suspecting a data corruption: "
        : violation === "not-ciphertext"
          ? "first chunk of uploaded data does not contain a valid GPG header: "
          : "";
    return `cannot upload file, cannot copy stream, error: ${known}${error.message}`;
  }
  if (codeOf(error) === "invalid_argument" && !(error instanceof DomainError))
    return `cannot read file from multipart/urlencoded form: ${error.message}`;
  return error.message;
}

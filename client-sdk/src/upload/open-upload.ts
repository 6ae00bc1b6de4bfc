/** An upload on the server: its calls, each with its retries. */
import { create } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { type Upload, UploadState } from "@strongroom/gen/strongroom/v1/resources_pb";
import {
  type CommitUploadResponse,
  type CreateUploadRequest,
  CreateUploadRequestSchema,
  UploadService,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { orAborted } from "../abort.ts";
import type { TransferContext } from "../connection/transfer-context.ts";
import { InvalidRequestError, UnavailableError } from "../errors.ts";
import { LeaseKeeper, renewalInterval } from "./lease.ts";
import { writeSegment } from "./segment-writer.ts";
import type { PreparedSegment } from "./segments.ts";

/** The most of a reason that is sent, in characters. */
const REASON_LIMIT = 300;

/** What is asked of the server when an upload is created. */
export type CreateRequest = Omit<CreateUploadRequest, "$typeName" | "$unknown">;

/** An upload that is open on the server. Create it with {@link OpenUpload.create}; end it with `commit` or `abort`. */
export class OpenUpload {
  /** What the server answered to CreateUpload. */
  readonly upload: Upload;
  /** Whether a commit was sent: from then on its outcome may be unknown, and nothing is aborted any more. */
  commitSent = false;

  readonly #context: TransferContext;
  readonly #client: Client<typeof UploadService>;
  readonly #signal: AbortSignal;
  #lease: LeaseKeeper | undefined;

  private constructor(
    context: TransferContext,
    client: Client<typeof UploadService>,
    upload: Upload,
    signal: AbortSignal,
  ) {
    this.#context = context;
    this.#client = client;
    this.#signal = signal;
    this.upload = upload;
  }

  /**
   * Creates the upload; its `request_id` makes retries safe.
   *
   * @param signal - ends the upload's calls, but not `abort`
   */
  static async create(context: TransferContext, request: CreateRequest, signal: AbortSignal): Promise<OpenUpload> {
    const { connection, retrier, timings } = context;
    const client = createClient(UploadService, connection.transport);
    const message = create(CreateUploadRequestSchema, request);
    const response = await retrier.run("CreateUpload", signal, () =>
      client.createUpload(message, { signal, timeoutMs: timings.unaryTimeoutMs }),
    );
    const upload = response.upload;
    if (
      upload === undefined ||
      upload.uploadId === "" ||
      upload.segmentSizeBytes <= 0n ||
      upload.maxChunkSizeBytes <= 0n
    ) {
      throw new UnavailableError(
        `Expected an upload with id, segment size and chunk size from ${connection.url}, but the answer lacks ` +
          "them; check the server's version.",
      );
    }
    if (upload.state !== UploadState.OPEN && upload.state !== UploadState.UNSPECIFIED) {
      const { uploadId, versionNumber } = upload;
      const became = versionNumber === 0n ? "has ended" : `became version ${versionNumber}`;
      throw new InvalidRequestError(
        `The request id was used before: upload ${uploadId} of it ${became}. Give every backup a request id of ` +
          "its own.",
        {
          code: "already_exists",
          metadata: { upload_id: uploadId, version_number: String(versionNumber) },
        },
      );
    }
    retrier.opened(upload.uploadId);
    return new OpenUpload(context, client, upload, signal);
  }

  /**
   * Renews the lease from now on whenever nothing was acknowledged for a while.
   * @param fail - called when the lease is lost
   */
  keepLease(fail: (error: unknown) => void): void {
    const { timings, retrier } = this.#context;
    const { begunAt, leaseExpiresAt, uploadId } = this.upload;
    const everyMs = renewalInterval(begunAt, leaseExpiresAt, timings.renewEveryMs);
    const renew = async (): Promise<void> => {
      await retrier.run("RenewUpload", this.#signal, () =>
        this.#client.renewUpload({ uploadId }, { signal: this.#signal, timeoutMs: timings.unaryTimeoutMs }),
      );
    };
    this.#lease = new LeaseKeeper(everyMs, renew, fail);
  }

  /** Ends the renewals. */
  releaseLease(): void {
    this.#lease?.stop();
  }

  /**
   * Sends a segment until it is acknowledged. Before every attempt but the first the server is asked whether it has the
   * segment already: only the answer may have been lost.
   *
   * @param onResume - called before every attempt but the first
   * @param onSent - called with how many of its bytes are handed to the network
   * @returns bytes that the quota would let in on top
   */
  async write(segment: PreparedSegment, onResume: () => void, onSent: (bytes: number) => void): Promise<bigint> {
    const { retrier, timings } = this.#context;
    const target = {
      client: this.#client,
      uploadId: this.upload.uploadId,
      maxChunkSize: Number(this.upload.maxChunkSizeBytes),
      timings,
      onSent,
    };
    const remaining = await retrier.run("WriteSegment", this.#signal, async (attempt) => {
      if (attempt > 1) {
        onResume();
        const known = await this.#remainingIfStored(segment);
        if (known !== undefined) return known;
      }
      return (await writeSegment(target, segment, this.#signal)).remainingBytes;
    });
    retrier.progress();
    this.#lease?.extended();
    return remaining;
  }

  /** What the quota would let in on top, if the server has this segment; else undefined. */
  async #remainingIfStored({ index, sha256 }: PreparedSegment): Promise<bigint | undefined> {
    const { uploadId } = this.upload;
    const { upload, segments } = await this.#client.getUpload(
      { uploadId, firstIndex: index, pageSize: 1 },
      { signal: this.#signal, timeoutMs: this.#context.timings.unaryTimeoutMs },
    );
    const isStored = segments.some((stored) => stored.index === index && Buffer.from(stored.sha256).equals(sha256));
    return isStored ? (upload?.remainingBytes ?? 0n) : undefined;
  }

  /**
   * Publishes the upload. A repeated commit returns the same version, so an unknown outcome is cleared up by asking
   * again.
   */
  async commit(size: bigint, compositeSha256: Uint8Array, warning: string): Promise<CommitUploadResponse> {
    const { retrier, timings } = this.#context;
    const { uploadId } = this.upload;
    retrier.committing();
    this.commitSent = true;
    return retrier.run("CommitUpload", this.#signal, () =>
      this.#client.commitUpload(
        { uploadId, sizeBytes: size, compositeSha256, warning },
        { signal: this.#signal, timeoutMs: timings.commitTimeoutMs },
      ),
    );
  }

  /**
   * Gives the upload up, as far as the server can be reached within a few seconds; otherwise its lease ends by itself.
   * Never throws.
   */
  async abort(reason: string): Promise<void> {
    const request = { uploadId: this.upload.uploadId, reason: reason.slice(0, REASON_LIMIT) };
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), this.#context.timings.abortTimeoutMs);
    try {
      // The connection may be the one that just broke; the second attempt opens another.
      for (let attempt = 1; attempt <= 2 && !limit.signal.aborted; attempt++) {
        const call = this.#client.abortUpload(request, { signal: limit.signal }).then(
          () => true,
          () => false,
        );
        if (await orAborted(call, limit.signal).catch(() => true)) return;
      }
    } finally {
      clearTimeout(timer);
      limit.abort();
    }
  }
}

/** A small implementation of the contract in memory, on a real HTTP/2 port, with faults that a test scripts. */
import { createHash, randomUUID } from "node:crypto";
import { createServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { FramingMachine } from "@strongroom/framing";
import { ErrorInfoSchema, RequestInfoSchema, RetryInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import {
  type Upload,
  UploadSchema,
  UploadState,
  type Version,
  VersionSchema,
  VersionState,
} from "@strongroom/gen/strongroom/v1/resources_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import {
  type CommitUploadRequest,
  type CreateUploadRequest,
  type SegmentHeader,
  UploadService,
  type WriteSegmentRequest,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { type ReadVersionRequest, VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";

export const MIB = 1024 * 1024;

/** An error as the server makes it. */
export function refusal(
  code: Code,
  reason: string,
  details: { message?: string; metadata?: Record<string, string>; retryAfterMs?: number } = {},
): ConnectError {
  const { message = `refused with ${reason}`, metadata = {}, retryAfterMs } = details;
  const error = new ConnectError(message, code);
  error.details.push(
    { desc: ErrorInfoSchema, value: { reason, domain: "strongroom", metadata } },
    { desc: RequestInfoSchema, value: { requestId: "req-1" } },
  );
  if (retryAfterMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryAfterMs / 1000)), nanos: (retryAfterMs % 1000) * 1e6 };
    error.details.push({ desc: RetryInfoSchema, value: { retryDelay } });
  }
  return error;
}

/** What a segment's handler is at. */
export interface SegmentMoment {
  header: SegmentHeader;
  /** Number of calls for this index, from 1. */
  attempt: number;
  /** Bytes received so far. */
  received: number;
}

/** What a test can do to the server; each may throw, wait, or drop the connections. */
export interface Faults {
  /** Before any call is handled. */
  onCall?: (method: string, context: HandlerContext) => void | Promise<void>;
  /** After the header (received = 0) and after every chunk. */
  onSegmentBytes?: (moment: SegmentMoment) => void | Promise<void>;
  /** After the segment was stored, before it is acknowledged. */
  onSegmentStored?: (moment: SegmentMoment) => void | Promise<void>;
  /** After the version was published, before the answer. */
  onCommitted?: () => void | Promise<void>;
  /** Before every chunk of a download; may return other bytes, or "end" to end the stream. */
  onRead?: (moment: {
    offset: number;
    attempt: number;
    chunk: Uint8Array;
  }) => Uint8Array | "end" | undefined | Promise<void>;
}

interface StoredUpload {
  upload: Upload;
  request: CreateUploadRequest;
  segments: Map<number, { bytes: Buffer; sha256: Uint8Array; framingIn: Uint8Array; framingOut: Uint8Array }>;
}

export interface ServerOptions extends Faults {
  segmentSize?: number;
  maxChunkSize?: number;
  leaseMs?: number;
  token?: string;
  /** Whether it knows CheckUpload, which onCall may refuse; else it is one of an older version. */
  checks?: boolean;
  /** What GetCollection says; default: a place is free and uploads may begin. */
  collection?: () => { openUploads?: number; acceptsUploadsNow?: boolean };
}

export class FakeServer {
  readonly uploads = new Map<string, StoredUpload>();
  readonly versions: { version: Version; bytes: Buffer; digests: Uint8Array[] }[] = [];
  /** Every call with its headers. */
  readonly calls: { method: string; headers: Headers }[] = [];
  readonly aborted: { uploadId: string; reason: string }[] = [];
  readonly sessions = new Set<ServerHttp2Session>();
  /** Connections that were ever opened. */
  connections = 0;
  /** Most WriteSegment calls at the same time. */
  mostParallel = 0;
  readonly options: ServerOptions;
  #parallel = 0;
  #attempts = new Map<string, number>();
  #reads = 0;
  #server: Http2Server;

  private constructor(options: ServerOptions) {
    this.options = options;
    this.#server = createServer(
      { settings: { initialWindowSize: MIB } },
      connectNodeAdapter({ routes: (router) => this.#routes(router), readMaxBytes: MIB + 65536 }),
    );
    this.#server.on("session", (session) => {
      this.connections += 1;
      this.sessions.add(session);
      session.on("close", () => this.sessions.delete(session));
      session.on("error", () => undefined);
      session.setLocalWindowSize(2 * MIB);
    });
  }

  static async start(options: ServerOptions = {}): Promise<FakeServer> {
    const server = new FakeServer(options);
    await server.listen(0);
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
  }

  /** Destroys every connection, as a crash would. */
  dropConnections(): void {
    for (const session of this.sessions) session.destroy();
  }

  /** Stops to listen, and drops the connections; `listen` starts it again. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.dropConnections();
    await closed;
  }

  count(method: string): number {
    return this.calls.filter((call) => call.method === method).length;
  }

  /** Puts a version there, as an upload would. */
  publish(bytes: Buffer, init: MessageInitShape<typeof VersionSchema> = {}, segmentSize = this.#segmentSize): Version {
    const digests: Uint8Array[] = [];
    for (let offset = 0; offset < bytes.length; offset += segmentSize) {
      digests.push(sha256(bytes.subarray(offset, offset + segmentSize)));
    }
    const version = create(VersionSchema, {
      versionId: randomUUID(),
      collection: "pg",
      number: BigInt(this.versions.length + 1),
      filename: "pg.gpg",
      sizeBytes: BigInt(bytes.length),
      segmentSizeBytes: BigInt(segmentSize),
      segmentCount: digests.length,
      compositeSha256: sha256(Buffer.concat(digests)),
      state: VersionState.LIVE,
      ...init,
    });
    this.versions.push({ version, bytes, digests });
    return version;
  }

  get #segmentSize(): number {
    return this.options.segmentSize ?? MIB;
  }

  async #call(method: string, context: HandlerContext): Promise<void> {
    this.calls.push({ method, headers: context.requestHeader });
    await this.options.onCall?.(method, context);
    const { token } = this.options;
    if (token !== undefined && method !== "Login" && context.requestHeader.get("authorization") !== `Bearer ${token}`) {
      throw refusal(Code.Unauthenticated, "SESSION_INVALID");
    }
  }

  #open(uploadId: string): StoredUpload {
    const stored = this.uploads.get(uploadId);
    if (stored === undefined) throw refusal(Code.NotFound, "UPLOAD_NOT_FOUND");
    return stored;
  }

  #lease(): { leaseExpiresAt: ReturnType<typeof timestampFromMs>; expiresAt: ReturnType<typeof timestampFromMs> } {
    const now = Date.now();
    return {
      leaseExpiresAt: timestampFromMs(now + (this.options.leaseMs ?? 900_000)),
      expiresAt: timestampFromMs(now + 86_400_000),
    };
  }

  #routes(router: ConnectRouter): void {
    const check = {
      checkUpload: async (_: unknown, context: HandlerContext) => {
        await this.#call("CheckUpload", context);
        return { remainingBytes: 1n << 40n };
      },
    };
    router.service(UploadService, {
      ...(this.options.checks === true ? check : {}),
      createUpload: async (request, context) => {
        await this.#call("CreateUpload", context);
        for (const stored of this.uploads.values()) {
          if (stored.request.requestId === request.requestId) return { upload: stored.upload };
        }
        const upload = create(UploadSchema, {
          uploadId: randomUUID(),
          collection: request.collection,
          state: UploadState.OPEN,
          segmentSizeBytes: BigInt(this.#segmentSize),
          maxChunkSizeBytes: BigInt(this.options.maxChunkSize ?? MIB),
          remainingBytes: 1n << 40n,
          begunAt: timestampFromMs(Date.now()),
          ...this.#lease(),
        });
        this.uploads.set(upload.uploadId, { upload, request, segments: new Map() });
        return { upload };
      },
      writeSegment: async (frames, context) => {
        await this.#call("WriteSegment", context);
        this.#parallel += 1;
        this.mostParallel = Math.max(this.mostParallel, this.#parallel);
        try {
          return await this.#writeSegment(frames);
        } finally {
          this.#parallel -= 1;
        }
      },
      renewUpload: async ({ uploadId }, context) => {
        await this.#call("RenewUpload", context);
        this.#open(uploadId);
        return this.#lease();
      },
      getUpload: async ({ uploadId, firstIndex, pageSize }, context) => {
        await this.#call("GetUpload", context);
        const { upload, segments } = this.#open(uploadId);
        const stored = [...segments.entries()].filter(([index]) => index >= firstIndex).sort(([a], [b]) => a - b);
        return {
          upload,
          segments: stored
            .slice(0, pageSize || 1000)
            .map(([index, { bytes, sha256 }]) => ({ index, sizeBytes: BigInt(bytes.length), sha256 })),
        };
      },
      commitUpload: async (request, context) => {
        await this.#call("CommitUpload", context);
        return this.#commit(request);
      },
      abortUpload: async ({ uploadId, reason }, context) => {
        await this.#call("AbortUpload", context);
        const { upload } = this.#open(uploadId);
        upload.state = UploadState.ABORTED;
        this.aborted.push({ uploadId, reason });
        return { upload };
      },
    });
    router.service(VersionService, {
      getVersion: async ({ which }, context) => {
        await this.#call("GetVersion", context);
        return { version: this.#version(which).version };
      },
      listSegmentDigests: async ({ which, pageToken }, context) => {
        await this.#call("ListSegmentDigests", context);
        const { digests } = this.#version(which);
        const first = Number(pageToken || "0");
        const next = first + 2;
        return {
          firstIndex: first,
          sha256: digests.slice(first, next),
          nextPageToken: next < digests.length ? String(next) : "",
        };
      },
      readVersion: (request, context) => this.#read(request, context),
    });
    router.service(CollectionService, {
      getCollection: async ({ collection: name }, context) => {
        await this.#call("GetCollection", context);
        const { openUploads = 0, acceptsUploadsNow = true } = this.options.collection?.() ?? {};
        return { collection: { name, acceptsUploadsNow, limits: { maxParallelUploads: 1 }, usage: { openUploads } } };
      },
    });
    router.service(SessionService, {
      login: async ({ username, password }, context) => {
        await this.#call("Login", context);
        if (password !== "secret") throw refusal(Code.Unauthenticated, "CREDENTIALS_INVALID");
        return { token: "token-1", session: { sessionId: "s1", user: username } };
      },
      whoAmI: async (_, context) => {
        await this.#call("WhoAmI", context);
        return { email: "a@example.org" };
      },
    });
  }

  async #writeSegment(frames: AsyncIterable<WriteSegmentRequest>) {
    let header: SegmentHeader | undefined;
    const moment = (): SegmentMoment => ({ header: header!, attempt, received });
    const chunks: Uint8Array[] = [];
    let attempt = 0;
    let received = 0;
    for await (const { frame } of frames) {
      if (frame.case === "header") {
        header = frame.value;
        const key = `${header.uploadId} ${header.index}`;
        attempt = (this.#attempts.get(key) ?? 0) + 1;
        this.#attempts.set(key, attempt);
        const { upload, segments } = this.#open(header.uploadId);
        if (upload.state !== UploadState.OPEN) throw refusal(Code.FailedPrecondition, "UPLOAD_NOT_OPEN");
        await this.options.onSegmentBytes?.(moment());
        const known = segments.get(header.index);
        if (known !== undefined) {
          if (!Buffer.from(known.sha256).equals(header.sha256)) throw refusal(Code.AlreadyExists, "SEGMENT_CONFLICT");
          return this.#acknowledge(header);
        }
      } else if (frame.case === "chunk") {
        if (frame.value.length === 0 || frame.value.length > (this.options.maxChunkSize ?? MIB)) {
          throw refusal(Code.InvalidArgument, "SEGMENT_FRAMES_INVALID");
        }
        chunks.push(frame.value);
        received += frame.value.length;
        await this.options.onSegmentBytes?.(moment());
      }
    }
    if (header === undefined) throw refusal(Code.InvalidArgument, "SEGMENT_FRAMES_INVALID");
    const bytes = Buffer.concat(chunks);
    if (BigInt(bytes.length) !== header.sizeBytes) throw refusal(Code.InvalidArgument, "SEGMENT_SIZE_MISMATCH");
    if (!Buffer.from(sha256(bytes)).equals(header.sha256)) {
      throw refusal(Code.InvalidArgument, "SEGMENT_DIGEST_MISMATCH");
    }
    const machine = new FramingMachine({ formats: ["openpgp", "age"] }, header.framingIn);
    machine.push(bytes);
    const { segments, upload } = this.#open(header.uploadId);
    if (upload.state !== UploadState.OPEN) throw refusal(Code.FailedPrecondition, "UPLOAD_NOT_OPEN");
    segments.set(header.index, {
      bytes,
      sha256: header.sha256,
      framingIn: header.framingIn,
      framingOut: machine.encodeState(),
    });
    await this.options.onSegmentStored?.(moment());
    return this.#acknowledge(header);
  }

  #acknowledge(header: SegmentHeader) {
    const { index, sizeBytes, sha256 } = header;
    return {
      segment: { index, sizeBytes, sha256 },
      remainingBytes: 1000n,
      leaseExpiresAt: this.#lease().leaseExpiresAt,
    };
  }

  async #commit({ uploadId, sizeBytes, compositeSha256 }: CommitUploadRequest) {
    const { upload, request, segments } = this.#open(uploadId);
    const known = this.versions.find(({ version }) => version.versionId === uploadId);
    if (known === undefined) {
      if (upload.state !== UploadState.OPEN) throw refusal(Code.FailedPrecondition, "UPLOAD_NOT_OPEN");
      const ordered = [...segments.keys()].sort((a, b) => a - b).map((index) => segments.get(index)!);
      for (const [index, segment] of ordered.entries()) {
        const before = ordered[index - 1];
        const expected = before?.framingOut ?? new FramingMachine({ formats: ["age"] }).encodeState();
        if (!Buffer.from(segment.framingIn).equals(expected)) {
          throw refusal(Code.InvalidArgument, "FRAMING_STATE_INVALID");
        }
      }
      const bytes = Buffer.concat(ordered.map((segment) => segment.bytes));
      const composite = sha256(Buffer.concat(ordered.map((segment) => segment.sha256)));
      if (BigInt(bytes.length) !== sizeBytes || !Buffer.from(composite).equals(compositeSha256)) {
        throw refusal(Code.InvalidArgument, "COMMIT_MISMATCH");
      }
      upload.state = UploadState.COMMITTED;
      const { collection, contentEncoding, labels, filename } = request;
      this.publish(bytes, { versionId: uploadId, collection, contentEncoding, labels, filename });
    }
    await this.options.onCommitted?.();
    const { version } = this.versions.find((stored) => stored.version.versionId === uploadId)!;
    return { version, removedNumbers: [1n] };
  }

  #version(which: ReadVersionRequest["which"]) {
    const found =
      which.case === "newest"
        ? this.versions.at(-1)
        : this.versions.find(({ version }) => version.number === which.value);
    if (found === undefined) throw refusal(Code.NotFound, "VERSION_NOT_FOUND");
    return found;
  }

  async *#read({ which, offsetBytes: offset }: ReadVersionRequest, context: HandlerContext) {
    await this.#call("ReadVersion", context);
    const attempt = ++this.#reads;
    const { version, bytes } = this.#version(which);
    if (offset > version.sizeBytes) throw refusal(Code.OutOfRange, "RANGE_INVALID");
    yield {
      frame: {
        case: "header" as const,
        value: { version, offsetBytes: offset, lengthBytes: version.sizeBytes - offset },
      },
    };
    for (let at = Number(offset); at < bytes.length; at += 100_000) {
      const chunk = bytes.subarray(at, at + 100_000);
      const other = await this.options.onRead?.({ offset: at, attempt, chunk });
      if (other === "end") return;
      yield { frame: { case: "chunk" as const, value: other ?? chunk } };
    }
  }
}

export function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}

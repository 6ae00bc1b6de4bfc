/**
 * Uploading a dump of unknown length: source -> zstd -> encryption -> segments -> server.
 *
 * **Memory.** Whatever the dump's size: as many segments as `memoryLimit` has room for (by default 64 MiB, and at least
 * `parallel + 1` segments, so three of 16 MiB or four; a segment is larger only in collections whose versions may pass
 * some 150 GiB), one of them being filled, the others kept until they are acknowledged. Besides: about 1 MiB for each
 * segment under way in the layers below, 5 MiB for zstd, a few hundred KiB for pipes, and 32 bytes for each segment
 * sent. When that memory is full, segments go to a temporary file as long as `spoolLimit` lets them (by default not at
 * all), and then the source is read no faster than segments are acknowledged.
 *
 * **What can go wrong.** A broken connection, a stopping server or a failing store cost the segments under way, which
 * are sent again. Whatever cannot be retried, an error of the source, and the caller's signal abort the upload on the
 * server, so that its place is free at once. Only the explicit commit, after the source has ended and `beforeCommit`
 * has returned, makes a version.
 */
import { randomUUID } from "node:crypto";
import { ContentEncoding, type Version } from "@strongroom/gen/strongroom/v1/resources_pb";
import { compositeSha256 } from "@strongroom/protocol/digests";
import { LinkedController, orAborted } from "../abort.ts";
import type { TransferContext } from "../connection/transfer-context.ts";
import { COMPRESSION_SAMPLE_BYTES, type Compression, compressed, compressionPays } from "../encryption/compression.ts";
import type { Encryption } from "../encryption/options.ts";
import { encryptionStage } from "../encryption/stages.ts";
import { InvalidRequestError, UnavailableError } from "../errors.ts";
import { peek } from "../peek.ts";
import { DumpSource } from "./dump-source.ts";
import { type CreateRequest, OpenUpload } from "./open-upload.ts";
import { SegmentQueue } from "./segment-queue.ts";
import { cutSegments, type PreparedSegment, SegmentBuffers } from "./segments.ts";
import { Spool } from "./spool.ts";
import { Turn, type UploadWait } from "./turn.ts";

/** How far an upload is. */
export interface UploadProgress {
  /** Bytes read from the source. */
  sourceBytes: bigint;
  /** Bytes of ciphertext that the server acknowledged: they are stored for good. */
  acknowledgedBytes: bigint;
  /** Bytes of ciphertext handed to the network, with those that had to be sent again. */
  sentBytes: bigint;
  /** Bytes of ciphertext in the temporary file at this moment. */
  spooledBytes: bigint;
  /**
   * Bytes that the quota would let in on top of what is reserved, as the server last said; undefined until it has said
   * it, which is when the upload is created.
   */
  remainingBytes: bigint | undefined;
  /** The upload's id; empty until it is created. */
  uploadId: string;
  /** How often sending a segment had to be begun again. */
  resumes: number;
}

/** What the program that made a dump warned of; nothing when there is no text. */
// biome-ignore lint/suspicious/noConfusingVoidType: a function that returns nothing is one of them
export type Warning = string | undefined | void;

/** Characters that the server takes of a warning. */
const WARNING_LIMIT = 255;

/** A dump to upload. */
export interface UploadOptions {
  /** Name of the collection. */
  collection: string;
  /**
   * The dump: plain, or already ciphertext with encryption `none`. It is not read before the server has said that it
   * would take the upload, so one that begins when it is read does not begin in vain. An error it throws aborts the
   * upload. When the upload ends before the source does, the source is notified with `return()`, and with `destroy()`
   * where it is a Node stream.
   */
  source: AsyncIterable<Uint8Array>;
  /** How to encrypt it. */
  encryption: Encryption;
  /** Whether to compress it before; default `auto`, which looks at the first MiB. Never with encryption `none`. */
  compression?: Compression;
  /** File name of the version; default: made by the server from the collection's template. */
  filename?: string;
  /** Short names and values for people and selectors. */
  labels?: Record<string, string>;
  /** Facts about the client and the source. */
  clientMetadata?: Record<string, string>;
  /** Unique for each backup, so that a retry of the creation is safe; default a random UUID. */
  requestId?: string;
  /** Fewest bytes the source must have, before compression and encryption; default 1, which refuses an empty dump. */
  minSize?: bigint;
  /** Bytes the source must have, no more and no fewer, before compression and encryption. */
  expectedSourceSize?: bigint;
  /** SHA-256 of the whole source, 32 bytes, before compression and encryption. */
  expectedSourceSha256?: Uint8Array;
  /**
   * Takes a binary age file with encryption `none` although neither size nor digest is declared. Such a file looks
   * whole wherever it is cut, so a program that dies while it writes it would leave a version that does not open. Set
   * it where the end is known from elsewhere, such as an exit status that `beforeCommit` looks at; OpenPGP messages and
   * armored age files show their end themselves. Default false.
   */
  trustSourceEnd?: boolean;
  /** Segments under way at once; default 2, at most 64. */
  parallel?: number;
  /**
   * The most memory for segments, in bytes: at least two segments are held whatever it says. Default 64 MiB, or
   * `parallel + 1` segments if that is more.
   */
  memoryLimit?: number;
  /**
   * The largest temporary file for segments that do not fit into memory, in bytes, so that the source can go on while
   * the server is away; at least one segment unless it is 0. Default 0: no file, and the source waits.
   */
  spoolLimit?: number;
  /** Folder of the temporary file; default the system's (`TMPDIR`). */
  spoolDirectory?: string;
  /**
   * How long to wait for a collection whose places are all taken, or whose window is closed, in milliseconds; default
   * 0: that is an error at once. It waits before the source is read, as far as it can be known then.
   */
  waitMs?: number;
  /** Called when such a wait begins, and when what is waited for changes. */
  onWait?: (wait: UploadWait) => void;
  /**
   * Called after the last segment was acknowledged; the commit waits for it. What it throws aborts the upload, and is
   * thrown by it unchanged. A text that it returns is kept with the version as its warning, `clientMetadata.warning`;
   * 255 characters of it.
   */
  beforeCommit?: () => Warning | Promise<Warning>;
  /**
   * Called with how far the upload is: after every acknowledgement and resumption, and now and then while bytes are
   * read. What it throws aborts the upload.
   */
  onProgress?: (progress: UploadProgress) => void;
  /**
   * Aborts the upload, which then rejects with the signal's reason. After the commit was sent, whether it took effect
   * is not known.
   */
  signal?: AbortSignal;
}

/** A dump that became a version. */
export interface UploadResult {
  /** The version. */
  version: Version;
  /** Numbers of the versions that rotation removed for it. */
  removedNumbers: bigint[];
  /** Bytes the source had. */
  sourceBytes: bigint;
  /** Bytes of ciphertext handed to the network; what exceeds the version's size was sent again. */
  sentBytes: bigint;
  /** The most bytes of ciphertext that were in the temporary file at once. */
  mostSpooledBytes: bigint;
  /** How often sending a segment had to be begun again. */
  resumes: number;
  /** Whether the dump was compressed. */
  compressed: boolean;
}

/** How a binary age file begins. */
const BINARY_AGE = Buffer.from("age-encryption.org/v1\n");

/** The most segments under way at once. */
const MAX_PARALLEL = 64;

/** Memory for segments unless the caller says otherwise, in bytes: a stall of a second or two on a fast line. */
const MEMORY_BYTES = 64 * 1024 * 1024;

/**
 * Uploads a dump.
 *
 * @param context - connection and retries, for this upload alone
 * @throws the errors of `errors.ts`, the signal's reason, or what a callback threw
 */
export async function upload(context: TransferContext, options: UploadOptions): Promise<UploadResult> {
  const ending = new LinkedController(options.signal);
  const run = new UploadRun(context, options, ending);
  try {
    return await run.run();
  } catch (error) {
    // Stops the source, the stages and the segments under way. The first reason stays: the others follow from it.
    ending.abort(error);
    await run.abort(ending.signal.reason);
    throw ending.signal.reason;
  } finally {
    ending.unlink();
    context.connection.reset();
    await run.close();
  }
}

/** How many segments are held in memory. A limit that was given counts for more than `parallel`. */
function bufferCount(memoryLimit: number | undefined, segmentSize: number, parallel: number): number {
  const fitting = Math.floor((memoryLimit ?? MEMORY_BYTES) / segmentSize);
  return Math.max(fitting, memoryLimit === undefined ? parallel + 1 : 2);
}

class UploadRun {
  readonly #context: TransferContext;
  readonly #options: UploadOptions;
  readonly #ending: LinkedController;
  readonly #source: DumpSource;
  readonly #turn: Turn;
  readonly #digests: Uint8Array[] = [];
  #upload: OpenUpload | undefined;
  #spool: Spool | undefined;
  #queue: SegmentQueue | undefined;
  #acknowledged = 0n;
  #sent = 0n;
  #mostSpooled = 0;
  #remaining: bigint | undefined;
  #resumes = 0;
  #reportedAt = Number.NEGATIVE_INFINITY;

  constructor(context: TransferContext, options: UploadOptions, ending: LinkedController) {
    this.#context = context;
    this.#options = options;
    this.#ending = ending;
    this.#turn = new Turn(context, {
      collection: options.collection,
      waitMs: options.waitMs ?? 0,
      onWait: options.onWait,
      signal: ending.signal,
    });
    this.#source = new DumpSource(options.source, {
      minSize: options.minSize ?? 1n,
      expectedSize: options.expectedSourceSize,
      expectedSha256: options.expectedSourceSha256,
      signal: ending.signal,
      onRead: () => this.#reportNowAndThen(),
    });
  }

  async run(): Promise<UploadResult> {
    const { signal } = this.#ending;
    const { parallel = 2, memoryLimit, spoolLimit = 0, spoolDirectory = "", beforeCommit } = this.#options;
    if (!Number.isInteger(parallel) || parallel < 1 || parallel > MAX_PARALLEL) {
      throw new InvalidRequestError(`Expected 1 to ${MAX_PARALLEL} segments in parallel, got ${parallel}.`, {
        code: "invalid_argument",
      });
    }
    for (const [name, bytes] of Object.entries({ memoryLimit, spoolLimit })) {
      if (bytes !== undefined && !(bytes >= 0 && bytes <= Number.MAX_SAFE_INTEGER)) {
        throw new InvalidRequestError(`Expected a number of bytes for ${name}, got ${bytes}.`, {
          code: "invalid_argument",
        });
      }
    }
    const encrypt = encryptionStage(this.#options.encryption);
    // A folder that cannot be written to is reported before anything is begun.
    if (spoolLimit > 0) await (await Spool.open(spoolDirectory, 1, 1)).close();
    const request = this.#request();
    await this.#turn.come(request);
    // The server has to know before the first byte whether the dump is compressed.
    const { plain, compress } = await this.#chooseCompression();
    const contentEncoding = compress ? ContentEncoding.ZSTD : ContentEncoding.NONE;
    const upload = await this.#create({ ...request, contentEncoding });
    const ciphertext = encrypt(compress ? compressed(plain) : plain, signal);
    const segmentSize = Number(upload.upload.segmentSizeBytes);
    const buffers = new SegmentBuffers(bufferCount(memoryLimit, segmentSize, parallel), segmentSize, signal);
    if (spoolLimit > 0) {
      this.#spool = await Spool.open(spoolDirectory, segmentSize, Math.max(1, Math.floor(spoolLimit / segmentSize)));
    }
    const queue = new SegmentQueue({
      parallel,
      buffers,
      spool: this.#spool,
      deliver: (segment) => this.#deliver(upload, segment),
      fail: (error) => this.#ending.abort(error),
    });
    this.#queue = queue;
    for await (const segment of cutSegments(ciphertext, buffers)) {
      if (signal.aborted) {
        segment.release();
        break;
      }
      await queue.add(segment);
      this.#mostSpooled = Math.max(this.#mostSpooled, queue.spooledBytes);
    }
    await queue.finish();
    signal.throwIfAborted();
    const warning = beforeCommit === undefined ? undefined : await orAborted(beforeCommit(), signal);
    upload.releaseLease();
    const { version, removedNumbers } = await upload.commit(
      this.#acknowledged,
      compositeSha256(this.#digests),
      (warning ?? "").slice(0, WARNING_LIMIT),
    );
    if (version === undefined) {
      throw new UnavailableError(
        `Upload ${upload.upload.uploadId} was committed, but the answer has no version; check the server's version.`,
      );
    }
    return {
      version,
      removedNumbers,
      sourceBytes: this.#source.bytes,
      sentBytes: this.#sent,
      mostSpooledBytes: BigInt(this.#mostSpooled),
      resumes: this.#resumes,
      compressed: compress,
    };
  }

  /** Ends what is under way here, and gives the upload up on the server. Never throws. */
  async abort(error: unknown): Promise<void> {
    const upload = this.#upload;
    upload?.releaseLease();
    this.#source.close();
    await this.#queue?.close();
    if (upload === undefined) return;
    // A commit that was not refused may still be carried out; an abort could only get in its way.
    const undecided =
      upload.commitSent && (error instanceof UnavailableError || this.#options.signal?.aborted === true);
    if (!undecided) await upload.abort(error instanceof Error ? error.message : String(error));
  }

  async #chooseCompression(): Promise<{ plain: AsyncIterable<Uint8Array>; compress: boolean }> {
    const { encryption, compression = "auto" } = this.#options;
    const auto = compression === "auto" && encryption.kind !== "none";
    // Also without a choice to make: a source that is empty or fails at once leaves no trace on the server.
    const { head, stream } = await peek(this.#source, auto ? COMPRESSION_SAMPLE_BYTES : BINARY_AGE.length);
    if (encryption.kind === "none") this.#requireKnownEnd(Buffer.concat(head));
    const compress = auto ? await compressionPays(head) : compression === "zstd" && encryption.kind !== "none";
    return { plain: stream, compress };
  }

  /** @throws InvalidRequestError for a source whose end proves nothing, where nothing else does */
  #requireKnownEnd(head: Uint8Array): void {
    const { expectedSourceSize, expectedSourceSha256, trustSourceEnd = false } = this.#options;
    if (expectedSourceSize !== undefined || expectedSourceSha256 !== undefined || trustSourceEnd) return;
    if (!BINARY_AGE.equals(head.subarray(0, BINARY_AGE.length))) return;
    throw new InvalidRequestError(
      "The dump is a binary age file that another program encrypts, and such a file looks whole wherever it is " +
        "cut: if that program dies, the version would not open. Declare its size or its SHA-256, make it with " +
        "armor (age -a), let it be encrypted here, or accept the risk.",
      { code: "invalid_argument", metadata: { missing: "expectedSourceSize, expectedSourceSha256 or trustSourceEnd" } },
    );
  }

  #request(): CreateRequest {
    const { collection, requestId = randomUUID(), filename = "", labels = {}, clientMetadata = {} } = this.#options;
    const contentEncoding = ContentEncoding.UNSPECIFIED;
    return { collection, requestId, expectedSizeBytes: 0n, filename, contentEncoding, labels, clientMetadata };
  }

  async #create(request: CreateRequest): Promise<OpenUpload> {
    const upload = await this.#turn.take(() => OpenUpload.create(this.#context, request, this.#ending.signal));
    this.#upload = upload;
    this.#remaining = upload.upload.remainingBytes;
    upload.keepLease((error) => this.#ending.abort(error));
    this.#report();
    return upload;
  }

  /** Frees what the run holds on this machine. */
  async close(): Promise<void> {
    await this.#spool?.close();
  }

  async #deliver(upload: OpenUpload, segment: PreparedSegment): Promise<void> {
    const onResume = (): void => {
      this.#resumes += 1;
      this.#report();
    };
    const onSent = (bytes: number): void => {
      this.#sent += BigInt(bytes);
    };
    this.#remaining = await upload.write(segment, onResume, onSent);
    this.#digests[segment.index] = segment.sha256;
    this.#acknowledged += BigInt(segment.size);
    this.#report();
  }

  #reportNowAndThen(): void {
    if (performance.now() - this.#reportedAt >= this.#context.timings.progressEveryMs) this.#report();
  }

  #report(): void {
    this.#reportedAt = performance.now();
    this.#options.onProgress?.({
      sourceBytes: this.#source.bytes,
      acknowledgedBytes: this.#acknowledged,
      sentBytes: this.#sent,
      spooledBytes: BigInt(this.#queue?.spooledBytes ?? 0),
      remainingBytes: this.#remaining,
      uploadId: this.#upload?.upload.uploadId ?? "",
      resumes: this.#resumes,
    });
  }
}

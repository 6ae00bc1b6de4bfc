/**
 * Downloading a version: server -> verification -> decryption -> zstd -> sink.
 *
 * **What is verified when.** The list of segment digests is checked against the version's digest before the first byte.
 * Each segment is checked at its end; its bytes are handed on as they come, since a segment may have hundreds of MiB.
 * So the sink may have seen bytes that turn out to be wrong, and must not treat its input as whole before
 * {@link download} resolves: that is after every byte was received, every segment was right, and decryption and
 * decompression reached their own ends.
 *
 * **Memory.** 4 MiB under way on the connection, a few chunks of at most 1 MiB, 32 bytes for each segment, and what
 * decryption and zstd take. The server sends no faster than the sink takes.
 */
import { createClient } from "@connectrpc/connect";
import { ContentEncoding, EncryptionFormat, type Version } from "@strongroom/gen/strongroom/v1/resources_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { LinkedController, orAborted } from "../abort.ts";
import type { TransferContext } from "../connection/transfer-context.ts";
import { decompressed } from "../encryption/compression.ts";
import type { Decryption } from "../encryption/options.ts";
import { decryptionStage } from "../encryption/stages.ts";
import { DecryptionError, InvalidRequestError } from "../errors.ts";
import { loadDigests, nameOf, SegmentVerifier } from "./segment-digests.ts";
import { resolveVersion, VerifiedSource } from "./verified-source.ts";

/** How far a download is. */
export interface DownloadProgress {
  /** Bytes of ciphertext received. */
  receivedBytes: bigint;
  /** Bytes of ciphertext the version has. */
  totalBytes: bigint;
  /** Bytes given to the sink. */
  outputBytes: bigint;
  /** How often the download was taken up again. */
  resumes: number;
}

/** What to download. */
export interface DownloadOptions {
  /** Name of the collection. */
  collection: string;
  /** Number of the version; default `newest`. */
  number?: bigint | "newest";
  /**
   * How to decrypt it; default `none`, which gives the ciphertext as it is stored. Otherwise compression is undone,
   * too, as recorded. A passphrase alone, given for OpenPGP, also opens an age file that was made with one.
   */
  decryption?: Decryption;
  /**
   * Takes the bytes, and is waited for. There is no call at the end: that the bytes are whole and right is known when
   * the download resolves, not before. What it throws ends the download, and is thrown by it unchanged.
   */
  sink?: (chunk: Uint8Array) => void | Promise<void>;
  /**
   * Instead of `sink`: takes the bytes in the pieces in which they were received, some at once, which saves a copy. Made
   * for what writes several at once, as `writev` and corked streams do: of a version that is not decrypted, a piece has
   * 16 KiB at most, as a rule.
   */
  sinkPieces?: (pieces: readonly Uint8Array[]) => void | Promise<void>;
  /** Called with the version, before the first byte. What it throws ends the download. */
  onVersion?: (version: Version) => void | Promise<void>;
  /**
   * Called with how far the download is, at most every half second, at resumptions and at the end. What it throws ends
   * the download.
   */
  onProgress?: (progress: DownloadProgress) => void;
  /** Ends the download, which then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** A download that is whole and verified. */
export interface DownloadResult {
  /** The version. */
  version: Version;
  /** Bytes given to the sink. */
  outputBytes: bigint;
  /** How often the download was taken up again. */
  resumes: number;
}

/**
 * Downloads a version.
 *
 * @param context - connection and retries, for this download alone
 * @throws IntegrityError when the bytes are not those that were stored
 * @throws DecryptionError when they are, but cannot be decrypted or decompressed
 * @throws the other errors of `errors.ts`, the signal's reason, or what a callback threw
 */
export async function download(context: TransferContext, options: DownloadOptions): Promise<DownloadResult> {
  const ending = new LinkedController(options.signal);
  try {
    return await run(context, options, ending);
  } catch (error) {
    ending.abort(error);
    throw ending.signal.reason;
  } finally {
    ending.unlink();
    context.connection.reset();
  }
}

async function run(
  context: TransferContext,
  options: DownloadOptions,
  ending: LinkedController,
): Promise<DownloadResult> {
  const { retrier, timings, connection } = context;
  const { signal } = ending;
  const { onProgress } = options;
  const sink = sinkOf(options);
  // What makes no sense is said before anything is asked of the server.
  decryptionStage(options.decryption ?? { kind: "none" });
  signal.throwIfAborted();
  const client = createClient(VersionService, connection.transport);
  const version = await resolveVersion(
    { client, retrier, timings, signal },
    options.collection,
    options.number ?? "newest",
  );
  const decryption = fitting(options.decryption ?? { kind: "none" }, version);
  const decrypt = decryptionStage(decryption);
  const unpack = decryption.kind !== "none" && isCompressed(version);
  const verifier = new SegmentVerifier(version, await loadDigests(client, version, retrier, timings, signal));
  await orAborted(options.onVersion?.(version), signal);

  let outputBytes = 0;
  let resumes = 0;
  let reportedAt = Number.NEGATIVE_INFINITY;
  const report = (): void => {
    reportedAt = performance.now();
    onProgress?.({
      receivedBytes: verifier.offset,
      totalBytes: version.sizeBytes,
      outputBytes: BigInt(outputBytes),
      resumes,
    });
  };
  const source = new VerifiedSource(version, verifier, {
    client,
    retrier,
    timings,
    signal,
    onResume: () => {
      resumes += 1;
      report();
    },
    onChunk: () => {
      if (performance.now() - reportedAt >= timings.progressEveryMs) report();
    },
  });
  const decrypting = new StreamWithEnd(decrypt(source, signal));
  try {
    const plain = decrypting.stream();
    const output = unpack ? decompressed(plain) : plain;
    const isAsReceived = decryption.kind === "none" && options.sinkPieces !== undefined;
    for await (const pieces of isAsReceived ? piecesOf(source) : onePieceEach(output)) {
      for (const piece of pieces) outputBytes += piece.length;
      try {
        const taken = sink(pieces);
        if (taken === undefined) signal.throwIfAborted();
        else await orAborted(taken, signal);
      } catch (error) {
        // Before the loop is left, which waits for a stage that may wait for the network.
        ending.abort(error);
        throw error;
      }
    }
    // A program may be content before the last byte was read.
    await source.drain();
    report();
    return { version, outputBytes: BigInt(outputBytes), resumes };
  } catch (error) {
    let cause = error;
    // Damaged bytes look like a wrong key to whoever decrypts them.
    if (error instanceof DecryptionError && !signal.aborted) {
      await source.diagnose().catch((damage: unknown) => {
        cause = damage;
      });
    }
    ending.abort(cause);
    throw cause;
  } finally {
    await source.close();
    // The keys are gone before the caller is notified, who may end the process then.
    await decrypting.ended;
  }
}

/**
 * One of the two sinks, as the other.
 * @throws InvalidRequestError when it is not one
 */
function sinkOf({ sink, sinkPieces }: DownloadOptions): (pieces: readonly Uint8Array[]) => void | Promise<void> {
  if ((sink === undefined) === (sinkPieces === undefined)) {
    throw new InvalidRequestError("Expected one of sink and sinkPieces; give where the bytes are to go.", {
      code: "invalid_argument",
    });
  }
  return sinkPieces ?? (([chunk]) => sink!(chunk!));
}

async function* piecesOf(source: VerifiedSource): AsyncGenerator<readonly Uint8Array[]> {
  for await (const { pieces } of source.received()) yield pieces;
}

async function* onePieceEach(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Uint8Array[]> {
  for await (const chunk of chunks) yield [chunk];
}

/** A passphrase alone does not say what it opens: an OpenPGP message, or what `age -p` made. */
function fitting(decryption: Decryption, version: Version): Decryption {
  const isAge = version.encryptionFormat === EncryptionFormat.AGE;
  if (!isAge || decryption.kind !== "openpgp" || decryption.passphrase === undefined) return decryption;
  if ((decryption.privateKeys ?? []).length > 0 || decryption.program === "gpg") return decryption;
  return { kind: "age", identities: [], passphrase: decryption.passphrase, program: decryption.program ?? "auto" };
}

/** A stream whose end can be waited for, also when its reader is a pipeline that does not. */
class StreamWithEnd {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #ended = Promise.withResolvers<void>();
  #begun = false;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source;
  }

  async *stream(): AsyncGenerator<Uint8Array> {
    this.#begun = true;
    try {
      yield* this.#source;
    } finally {
      this.#ended.resolve();
    }
  }

  /** When it has cleaned up; at once when nobody began to read. */
  get ended(): Promise<void> {
    return this.#begun ? this.#ended.promise : Promise.resolve();
  }
}

function isCompressed(version: Version): boolean {
  switch (version.contentEncoding) {
    case ContentEncoding.ZSTD:
      return true;
    case ContentEncoding.NONE:
    case ContentEncoding.UNSPECIFIED:
      return false;
    default:
      throw new DecryptionError(
        `${nameOf(version)} was made with a content encoding (${version.contentEncoding}) that this client ` +
          "does not know; use a newer one.",
      );
  }
}

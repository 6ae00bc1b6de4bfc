/**
 * Compression before encryption, with Zstandard (RFC 8878) from Node itself.
 *
 * gpg's own compression is sixteen times slower than its encryption, and ciphertext does not compress, so this is the
 * one place for it.
 */

import { promisify } from "node:util";
import { constants, createZstdCompress, createZstdDecompress, type ZstdDecompress, zstdCompress } from "node:zlib";
import { DecryptionError, StrongroomError } from "../errors.ts";
import { through } from "../streams.ts";

/** What a caller can ask for: to decide by the first MiB, to compress, or to leave the dump as it is. */
export type Compression = "auto" | "zstd" | "none";

/** How much of a dump `auto` looks at, in bytes. */
export const COMPRESSION_SAMPLE_BYTES = 1024 * 1024;

/** `auto` compresses when the sample shrinks at least by this share; less is not worth the time of a restore. */
const LEAST_SAVING = 0.1;

/** zstd's own default: several hundred MiB/s, window of 2 MiB. */
const LEVEL = 3;

/** `zstd -d` and {@link decompressed} check the dump with it. */
const PARAMS = { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 };

/**
 * Decides whether a dump is worth compressing.
 *
 * @param head - its beginning; the first {@link COMPRESSION_SAMPLE_BYTES} count
 * @returns true when the sample, compressed, has at most 90 % of its size
 */
export async function compressionPays(head: readonly Uint8Array[]): Promise<boolean> {
  const sample = Buffer.concat(head).subarray(0, COMPRESSION_SAMPLE_BYTES);
  if (sample.length === 0) return false;
  const compressed = await promisify(zstdCompress)(sample, { params: PARAMS });
  return compressed.length <= sample.length * (1 - LEAST_SAVING);
}

/** The stream, compressed with zstd. It holds about 5 MiB. */
export function compressed(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  return through(
    source,
    createZstdCompress({ params: PARAMS }),
    (cause) => new StrongroomError("The dump could not be compressed.", { code: "internal", cause }),
  );
}

/**
 * The stream, decompressed. It holds what the compressor's window asks for: about 5 MiB for dumps made by
 * {@link compressed}, never more than 128 MiB.
 *
 * Frames that follow each other are one dump (RFC 8878, section 3.1). Node's compressor adds an empty one when its
 * output was not read fast enough at the end, and its decompressor stops after the first when both are in one chunk.
 *
 * @throws DecryptionError when it is not zstd, is cut short, or is followed by something else
 */
export async function* decompressed(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const input = source[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array();
  try {
    do {
      const frame = createZstdDecompress();
      const given = new GivenBytes(rest, input, frame);
      yield* through(given.chunks(), frame, notDecompressed, true);
      rest = given.unused();
    } while (rest.length > 0);
  } finally {
    // Not waited for: the source may be silent.
    void input.return?.().catch(() => undefined);
  }
}

function notDecompressed(cause: unknown): DecryptionError {
  return new DecryptionError(
    "The version is recorded as compressed with zstd, but what was decrypted cannot be decompressed: " +
      `${cause instanceof Error ? cause.message : String(cause)}.`,
    { cause },
  );
}

/** What a decompressor was given, so that the next one can go on where it ended. */
class GivenBytes {
  readonly #first: Uint8Array;
  readonly #input: AsyncIterator<Uint8Array>;
  readonly #frame: ZstdDecompress;
  /** Chunks that are not used up, in order; the first begins at `#from` of everything given. */
  readonly #kept: Uint8Array[] = [];
  #from = 0;
  #ended = false;

  constructor(first: Uint8Array, input: AsyncIterator<Uint8Array>, frame: ZstdDecompress) {
    this.#first = first;
    this.#input = input;
    this.#frame = frame;
    frame.once("end", () => {
      this.#ended = true;
    });
  }

  /** The bytes left over by the one before, then the input, until the decompressor has ended. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    if (this.#first.length > 0) yield this.#keep(this.#first);
    while (!this.#ended) {
      const next = await this.#input.next();
      if (next.done === true) return;
      if (next.value.length > 0) yield this.#keep(next.value);
    }
  }

  /** What the decompressor did not use. */
  unused(): Uint8Array {
    this.#forgetUsed();
    return this.#kept.length === 0
      ? new Uint8Array()
      : Buffer.concat(this.#kept).subarray(this.#frame.bytesWritten - this.#from);
  }

  #keep(chunk: Uint8Array): Uint8Array {
    this.#forgetUsed();
    this.#kept.push(chunk);
    return chunk;
  }

  #forgetUsed(): void {
    for (let [first] = this.#kept; first !== undefined; [first] = this.#kept) {
      if (this.#from + first.length > this.#frame.bytesWritten) return;
      this.#from += first.length;
      this.#kept.shift();
    }
  }
}

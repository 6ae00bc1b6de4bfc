/**
 * Compression before encryption, with Zstandard (RFC 8878) from Node itself.
 *
 * gpg's own compression is sixteen times slower than its encryption, and ciphertext does not compress, so this is the
 * one place for it.
 */

import { promisify } from "node:util";
import { constants, createZstdCompress, createZstdDecompress, zstdCompress } from "node:zlib";
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
 * @throws DecryptionError when it is not zstd, or is cut short
 */
export function decompressed(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  return through(
    source,
    createZstdDecompress(),
    (cause) =>
      new DecryptionError(
        "The version is recorded as compressed with zstd, but what was decrypted cannot be decompressed: " +
          `${cause instanceof Error ? cause.message : String(cause)}.`,
        { cause },
      ),
  );
}

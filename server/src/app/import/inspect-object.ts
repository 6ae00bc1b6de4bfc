import { createHash } from "node:crypto";
import { type CiphertextFormat, FramingError, FramingMachine } from "@strongroom/framing";
import type { Version } from "../../domain/version.ts";
import type { BlobReader } from "../ports/blob-store.ts";

/** What one reading of an object tells. */
export interface Inspection {
  /** SHA-256 of each segment. */
  readonly digests: readonly Uint8Array[];
  /** Why it is not known to be ciphertext of an accepted form; empty when it is. */
  readonly unchecked: string;
  /** As far as it was recognized; OpenPGP where it was not, the only form that Backup Repository knew. */
  readonly format: CiphertextFormat;
  readonly armored: boolean;
  readonly recipients: Version["recipients"];
}

/** Most characters of what is said of an unchecked version. */
const MOST_WORDS = 500;

/**
 * Reads an object once, from its beginning to its end, and checks it as an upload is checked, whatever the collection
 * accepts. Holds one chunk of it and a digest of each segment.
 * @param onBytes called with the number of bytes that were just read.
 * @throws BlobStoreError, the signal's reason
 */
export async function inspectObject(
  store: BlobReader,
  { key, size }: { readonly key: string; readonly size: bigint },
  segmentSize: bigint,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<Inspection> {
  const machine = new FramingMachine({ formats: ["openpgp", "age"] });
  let refusal: string | undefined;
  const digests: Uint8Array[] = [];
  let hash = createHash("sha256");
  let left = segmentSize;
  const endSegment = () => {
    digests.push(new Uint8Array(hash.digest()));
    hash = createHash("sha256");
    left = segmentSize;
  };
  for await (const chunk of store.read(key, 0n, size, signal)) {
    refusal ??= refusalOf(() => machine.push(chunk));
    for (let start = 0; start < chunk.length; ) {
      const rest = chunk.length - start;
      const piece = chunk.subarray(start, start + (left < BigInt(rest) ? Number(left) : rest));
      hash.update(piece);
      start += piece.length;
      left -= BigInt(piece.length);
      if (left === 0n) endSegment();
    }
    onBytes(chunk.length);
  }
  if (left < segmentSize) endSegment();
  refusal ??= refusalOf(() => machine.finish());
  return {
    digests,
    unchecked: refusal ?? "",
    format: machine.format ?? "openpgp",
    armored: machine.armored,
    recipients: machine.recipients ?? null,
  };
}

function refusalOf(step: () => void): string | undefined {
  try {
    step();
    return undefined;
  } catch (error) {
    if (!(error instanceof FramingError)) throw error;
    return `${error.violation}: ${error.message}`.slice(0, MOST_WORDS);
  }
}

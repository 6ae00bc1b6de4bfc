import { createHash, type Hash } from "node:crypto";
import { splitDigests } from "@strongroom/protocol/digests";
import { DomainError } from "../../domain/errors.ts";
import { bytesEqual } from "../../domain/segments.ts";
import { objectOf } from "../../domain/version.ts";
import type { Verification, VersionRow } from "../ports/database.ts";
import { recordVerification, type VerifyDeps, verifyObject, verifySegment } from "./verify-version.ts";

/** Digests read from the database at once. */
const PAGE = 1000;

/**
 * Streams bytes of a version. Segments that pass whole are compared with their digests on the way. Where the store
 * breaks off or gives other bytes, the segment is looked at again: a version that is damaged is marked, so that health
 * says so, and its reader told not to try again.
 * @throws DomainError VERSION_DAMAGED, or STORE_UNAVAILABLE when the store as a whole does not answer.
 */
export async function* storedBytes(
  deps: VerifyDeps,
  version: VersionRow,
  offset: bigint,
  length: bigint,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const passing = new PassingSegments(deps, version, offset);
  let failure: unknown;
  try {
    for await (const chunk of deps.store.read(objectOf(version), offset, length, signal)) {
      if (!(await passing.take(chunk))) break;
      yield chunk;
    }
    if (!passing.differs) return;
  } catch (error) {
    if (signal.aborted || error instanceof DomainError) throw error;
    failure = error;
  }
  const metadata = { collection: version.collectionName, number: String(version.number) };
  const result = await examine(deps, version, await passing.current(), signal).catch((error) => {
    signal.throwIfAborted();
    failure ??= error;
  });
  if (result === undefined || result.damage === "")
    throw new DomainError("STORE_UNAVAILABLE", "the object store failed while reading; go on from the offset reached", {
      metadata,
      cause: failure,
      retryAfterMs: 1000,
    });
  throw new DomainError(
    "VERSION_DAMAGED",
    `version ${version.number} is damaged: ${withoutCause(result)}; notify the operator`,
    { metadata: { ...metadata, damage_reason: result.damageReason }, cause: failure },
  );
}

/** Readers learn what is wrong, not what the store said, which may name its own things. */
function withoutCause({ damage, damageReason }: Verification): string {
  return damageReason === "unreadable" ? damage.split(": ", 1).join() : damage;
}

async function examine(
  deps: VerifyDeps,
  version: VersionRow,
  { index, digest }: { readonly index: number; readonly digest: Uint8Array | undefined },
  signal: AbortSignal,
): Promise<Verification> {
  let result = await verifyObject(deps, version);
  if (result.damage === "" && digest !== undefined)
    result = await verifySegment(deps, version, index, digest, { signal });
  if (result.damage !== "") await recordVerification(deps, version, result);
  return result;
}

/** Which segment passes, and whether those that passed whole were what was acknowledged. */
class PassingSegments {
  readonly #deps: Pick<VerifyDeps, "database">;
  readonly #version: VersionRow;
  #at: bigint;
  #hash: Hash | undefined;
  #page: { readonly first: number; readonly digests: readonly Uint8Array[] } = { first: 0, digests: [] };
  #differs = false;

  constructor(deps: Pick<VerifyDeps, "database">, version: VersionRow, offset: bigint) {
    this.#deps = deps;
    this.#version = version;
    this.#at = offset;
  }

  /** Whether the last segment that ended had other bytes. */
  get differs(): boolean {
    return this.#differs;
  }

  /** Takes the next bytes. Returns false when a segment that ends in them has other bytes than were acknowledged. */
  async take(chunk: Uint8Array): Promise<boolean> {
    const { segmentSize, size } = this.#version;
    for (let from = 0; from < chunk.length; ) {
      const into = this.#at % segmentSize;
      if (into === 0n) this.#hash = createHash("sha256");
      const begun = this.#at - into;
      const end = begun + segmentSize < size ? begun + segmentSize : size;
      const left = Number(end - this.#at);
      const part = chunk.subarray(from, from + left);
      this.#hash?.update(part);
      from += part.length;
      if (part.length === left) {
        const hash = this.#hash;
        this.#hash = undefined;
        const { digest } = await this.current();
        this.#differs = hash !== undefined && digest !== undefined && !bytesEqual(hash.digest(), digest);
        if (this.#differs) return false;
      }
      this.#at += BigInt(part.length);
    }
    return true;
  }

  /** The segment that passes now, and its digest. */
  async current(): Promise<{ readonly index: number; readonly digest: Uint8Array | undefined }> {
    const { id, segmentSize } = this.#version;
    const index = Number(this.#at / segmentSize);
    const { first, digests } = this.#page;
    if (index < first || index >= first + digests.length) {
      const bytes = await this.#deps.database.read(async (tx) => await tx.versions.segmentDigests(id, index, PAGE));
      this.#page = { first: index, digests: splitDigests(bytes) };
    }
    return { index, digest: this.#page.digests[index - this.#page.first] };
  }
}

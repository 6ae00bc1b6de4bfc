import { createHash } from "node:crypto";
import { setImmediate as yieldToOthers } from "node:timers/promises";
import { compositeSha256, splitDigests } from "@strongroom/protocol/digests";
import { bytesEqual } from "../../domain/segments.ts";
import { isSameInstallation } from "../installation.ts";
import { BlobNotFoundError, type BlobReader, BlobStoreError } from "../ports/blob-store.ts";
import type { Database, Verification, VersionRow } from "../ports/database.ts";
import type { Log } from "../settings.ts";

/** What the verification of stored versions needs. */
export interface VerifyDeps {
  readonly database: Database;
  readonly store: BlobReader;
  readonly log: Log;
}

/** How a verification goes on. */
export interface VerifyOptions {
  readonly signal: AbortSignal;
  /** Called with the number of bytes that were just read; may wait, to keep to a rate. */
  readonly onBytes?: (bytes: number) => Promise<void> | void;
}

const WHOLE: Verification = { damage: "", damageReason: "", damagedSegment: null };

/** Digests read from the database at once. */
const PAGE = 1000;

/**
 * Reads a version's object back from the store and compares it with what was acknowledged: its size, the digest of
 * every segment, and the composite digest. Changes nothing.
 * @returns what is wrong with the object.
 * @throws BlobStoreError when the store does not answer; that says nothing of the version.
 */
export async function verifyVersion(
  deps: VerifyDeps,
  version: VersionRow,
  options: VerifyOptions,
): Promise<Verification> {
  const stat = await deps.store.stat(version.key);
  if (stat === undefined) return await missing(deps);
  if (stat.size !== version.size) {
    return {
      damage: `the object has ${stat.size} bytes; ${version.size} were acknowledged`,
      damageReason: "size-differs",
      damagedSegment: null,
    };
  }
  const digests: Uint8Array[] = [];
  while (digests.length < version.segmentCount) {
    const page = splitDigests(
      await deps.database.transaction(async (tx) => await tx.versions.segmentDigests(version.id, digests.length, PAGE)),
    );
    if (page.length === 0) throw new Error(`version ${version.id} has only ${digests.length} segment digests`);
    digests.push(...page);
  }
  if (!bytesEqual(compositeSha256(digests), version.compositeSha256)) {
    const damage = "its record in the database contradicts itself (composite digest)";
    return { damage, damageReason: "record-inconsistent", damagedSegment: null };
  }
  for (const [index, expected] of digests.entries()) {
    try {
      if (bytesEqual(await digestOfSegment(deps, version, index, options), expected)) continue;
      // Once more, since the bytes may have been wrong on the way only.
      if (bytesEqual(await digestOfSegment(deps, version, index, options), expected)) continue;
    } catch (error) {
      if (error instanceof BlobNotFoundError) return await missing(deps);
      throw error;
    }
    return {
      damage:
        `segment ${index} (from byte ${BigInt(index) * version.segmentSize}) has other bytes than were ` +
        "acknowledged",
      damageReason: "bytes-differ",
      damagedSegment: index,
    };
  }
  return WHOLE;
}

/** The object is missing, or the whole store is another one: a disk that is not mounted is no damage. */
async function missing(deps: VerifyDeps): Promise<Verification> {
  if (await isSameInstallation(deps.database, deps.store)) {
    return { damage: "the object is missing in the store", damageReason: "object-missing", damagedSegment: null };
  }
  throw new BlobStoreError("the store does not carry the installation id of the database; is another one mounted?");
}

async function digestOfSegment(
  { store }: VerifyDeps,
  version: VersionRow,
  index: number,
  { signal, onBytes }: VerifyOptions,
): Promise<Uint8Array> {
  const offset = BigInt(index) * version.segmentSize;
  const rest = version.size - offset;
  const hash = createHash("sha256");
  const length = rest < version.segmentSize ? rest : version.segmentSize;
  for await (const chunk of store.read(version.key, offset, length, signal)) {
    hash.update(chunk);
    await onBytes?.(chunk.length);
    // A chunk has at most 1 MiB, so calls wait a few milliseconds at most.
    await yieldToOthers();
  }
  return new Uint8Array(hash.digest());
}

/**
 * Notes the result of a verification with its version, and says aloud what changed. A version that was removed
 * meanwhile is left alone.
 */
export async function recordVerification(deps: VerifyDeps, version: VersionRow, result: Verification): Promise<void> {
  await deps.database.transaction(async (tx) => {
    const current = await tx.versions.findById(version.id);
    if (current === undefined || current.state !== "live") return;
    await tx.versions.recordVerification(version.id, tx.now, result);
    if (current.damage === result.damage) return;
    await tx.audit({
      kind: result.damage === "" ? "version.repaired" : "version.damaged",
      actor: "server",
      collectionName: version.collectionName,
      details: { number: String(version.number), key: version.key, damage: result.damage },
    });
  });
  const fields = { collection: version.collectionName, number: String(version.number), key: version.key };
  if (result.damage !== "") deps.log.error({ ...fields, damage: result.damage }, "verification: a version is damaged");
  else if (version.damage !== "") deps.log.warn(fields, "verification: a version that was damaged is whole again");
}

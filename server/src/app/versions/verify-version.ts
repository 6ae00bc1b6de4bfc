import { createHash } from "node:crypto";
import { setTimeout as sleep, setImmediate as yieldToOthers } from "node:timers/promises";
import { compositeSha256, splitDigests } from "@strongroom/protocol/digests";
import { bytesEqual } from "../../domain/segments.ts";
import { objectOf } from "../../domain/version.ts";
import { isSameInstallation } from "../installation.ts";
import { BlobNotFoundError, type BlobReader, BlobStoreError } from "../ports/blob-store.ts";
import type { Database, Verification, VersionRow } from "../ports/database.ts";
import type { Log } from "../settings.ts";

/** What the verification of stored versions needs. */
export interface VerifyDeps {
  readonly database: Database;
  readonly store: BlobReader;
  readonly log: Log;
  /** Waits between the tries of a segment that the store does not give, in milliseconds; by default 100 and 400. */
  readonly readWaitsMs?: readonly number[];
}

/** What {@link verifyVersion} needs. */
export type VerifyReadDeps = Omit<VerifyDeps, "log">;

/** How a verification goes on. */
export interface VerifyOptions {
  readonly signal: AbortSignal;
  /** Called with the number of bytes that were just read; may wait, to keep to a rate. */
  readonly onBytes?: (bytes: number) => Promise<void> | void;
}

const WHOLE: Verification = { damage: "", damageReason: "", damagedSegment: null };

/** Digests read from the database at once. */
const PAGE = 1000;

/** Waits before the second and third try to read a segment that the store did not give, in milliseconds. */
const WAITS_MS = [100, 400];

/** Other versions that are tried, and bytes of each, to see whether only one version cannot be read. */
const SAMPLES = 3;
const SAMPLE_BYTES = 64n * 1024n;

/**
 * Reads a version's object back from the store and compares it with what was acknowledged: its size, the digest of
 * every segment, and the composite digest. Changes nothing.
 * @returns what is wrong with the object; also that the store cannot read it while it reads others.
 * @throws BlobStoreError when the store does not answer; that says nothing of the version.
 */
export async function verifyVersion(
  deps: VerifyReadDeps,
  version: VersionRow,
  options: VerifyOptions,
): Promise<Verification> {
  const found = await verifyObject(deps, version);
  if (found.damage !== "") return found;
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
    const segment = await verifySegment(deps, version, index, expected, options);
    if (segment.damage !== "") return segment;
  }
  return WHOLE;
}

/**
 * Whether the store has the version's object, of the size that was acknowledged. Reads nothing of it.
 * @throws BlobStoreError when the store does not answer, or is another one.
 */
export async function verifyObject(
  deps: Pick<VerifyDeps, "database" | "store">,
  version: VersionRow,
): Promise<Verification> {
  const stat = await deps.store.stat(objectOf(version));
  if (stat === undefined) return await missing(deps);
  if (stat.size === version.size) return WHOLE;
  return {
    damage: `the object has ${stat.size} bytes; ${version.size} were acknowledged`,
    damageReason: "size-differs",
    damagedSegment: null,
  };
}

/**
 * Reads one segment and compares it; twice, since the bytes may have been wrong on the way only. A segment that the
 * store does not give, again and again, is damage when the store reads other versions well.
 * @throws BlobStoreError when the store as a whole does not answer.
 */
export async function verifySegment(
  deps: VerifyReadDeps,
  version: VersionRow,
  index: number,
  expected: Uint8Array,
  options: VerifyOptions,
): Promise<Verification> {
  const where = `segment ${index} (from byte ${BigInt(index) * version.segmentSize})`;
  try {
    if (bytesEqual(await digestOfSegment(deps, version, index, options), expected)) return WHOLE;
    if (bytesEqual(await digestOfSegment(deps, version, index, options), expected)) return WHOLE;
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof BlobNotFoundError) return await missing(deps);
    if (!(error instanceof BlobStoreError) || !(await readsOthers(deps, version, options.signal))) throw error;
    const damage = `the store cannot read ${where}, while it reads others well: ${error.message}`;
    return { damage, damageReason: "unreadable", damagedSegment: index };
  }
  const damage = `${where} has other bytes than were acknowledged`;
  return { damage, damageReason: "bytes-differ", damagedSegment: index };
}

/** The object is missing, or the whole store is another one: a disk that is not mounted is no damage. */
async function missing(deps: Pick<VerifyDeps, "database" | "store">): Promise<Verification> {
  if (await isSameInstallation(deps.database, deps.store)) {
    return { damage: "the object is missing in the store", damageReason: "object-missing", damagedSegment: null };
  }
  throw new BlobStoreError("the store does not carry the installation id of the database; is another one mounted?");
}

/** Whether the store is the right one, and gives the beginning of another version, where there is one. */
async function readsOthers(deps: VerifyReadDeps, version: VersionRow, signal: AbortSignal): Promise<boolean> {
  const { database, store } = deps;
  try {
    if (!(await isSameInstallation(database, store))) return false;
  } catch {
    return false;
  }
  const others = await database.read(async (tx) => await tx.versions.undamagedSample(version.id, SAMPLES));
  if (others.length === 0) return true;
  for (const other of others) {
    const { size } = other;
    try {
      for await (const _ of store.read(objectOf(other), 0n, size < SAMPLE_BYTES ? size : SAMPLE_BYTES, signal));
      return true;
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof BlobStoreError)) throw error;
    }
  }
  return false;
}

/** Tries again what the store does not give, for a moment. */
async function digestOfSegment(
  deps: VerifyReadDeps,
  version: VersionRow,
  index: number,
  options: VerifyOptions,
): Promise<Uint8Array> {
  for (const wait of deps.readWaitsMs ?? WAITS_MS) {
    try {
      return await readSegment(deps, version, index, options);
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof BlobStoreError) || error instanceof BlobNotFoundError) throw error;
    }
    if (wait > 0) await sleep(wait, undefined, { signal: options.signal });
  }
  return await readSegment(deps, version, index, options);
}

async function readSegment(
  { store }: VerifyReadDeps,
  version: VersionRow,
  index: number,
  { signal, onBytes }: VerifyOptions,
): Promise<Uint8Array> {
  const offset = BigInt(index) * version.segmentSize;
  const rest = version.size - offset;
  const hash = createHash("sha256");
  const length = rest < version.segmentSize ? rest : version.segmentSize;
  for await (const chunk of store.read(objectOf(version), offset, length, signal)) {
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
      object: version.id,
      details: { number: String(version.number), key: objectOf(version), damage: result.damage },
    });
  });
  const fields = { collection: version.collectionName, number: String(version.number), key: objectOf(version) };
  if (result.damage !== "") deps.log.error({ ...fields, damage: result.damage }, "verification: a version is damaged");
  else if (version.damage !== "") deps.log.warn(fields, "verification: a version that was damaged is whole again");
}

import { createHash, randomUUID } from "node:crypto";
import { COPYING_KEY, INSTALLATION_KEY, manifestKey, meaningOf } from "../../domain/object-keys.ts";
import { bytesEqual, chooseSegmentSize } from "../../domain/segments.ts";
import { installationIdOf } from "../installation.ts";
import {
  type BlobLister,
  type BlobReader,
  type BlobStat,
  type BlobStore,
  BlobStoreError,
  type ListedBlob,
} from "../ports/blob-store.ts";
import { decodeAdopted, decodeDigests, type ManifestDigests } from "../versions/manifest.ts";
import { storedCollections } from "./stored-versions.ts";

/** What {@link copyStorage} needs. */
export interface CopyDeps {
  readonly from: BlobReader & BlobLister;
  readonly to: BlobStore;
  readonly signal: AbortSignal;
  /**
   * Leaves behind what is damaged in the source or cannot be read there, and completes the copy without it. Its
   * manifest comes over, so that the version is known there as one without its bytes.
   */
  readonly leaveDamaged?: boolean;
  /** Called after each object. */
  readonly onObject: (object: CopiedObject) => void;
}

/** What became of one object. */
export interface CopiedObject {
  readonly key: string;
  /** Bytes. */
  readonly size: bigint;
  /** `copied`, `present` (it was there), `failed`, or `left` (behind, since the source has it damaged). */
  readonly outcome: "copied" | "present" | "failed" | "left";
  /** Whether the bytes were compared with digests of a manifest; else with the size only. */
  readonly verified: boolean;
  /** Why it failed. */
  readonly problem?: string;
}

/** What a copy did. */
export interface CopyReport {
  readonly installation: string;
  copied: number;
  present: number;
  failed: number;
  left: number;
  /** Bytes of copied objects. */
  bytes: bigint;
  /** Unfinished objects in the source, which are not copied. */
  pending: number;
}

/** The copy cannot begin; the message says why and what to do. */
export class CopyRefusedError extends Error {
  override name = "CopyRefusedError";
}

/** Most bytes of objects that are not made of parts: manifests and markers. A manifest of 10,000 digests has 700 KB. */
const SMALL_BYTES = 128 * 1024 * 1024;
const LEAST_PART = 16n * 1024n * 1024n;

/**
 * Copies everything of an installation to another store: objects with their upload, manifests, and at the end the
 * installation's marker. What is there already is passed over, so it may be repeated, also after it was broken off.
 * Bytes are compared with the segment digests of the manifests while they pass; an object whose bytes differ does not
 * appear in the target. Unfinished uploads stay behind.
 * @throws CopyRefusedError, BlobStoreError
 */
export async function copyStorage(deps: CopyDeps): Promise<CopyReport> {
  const { from, to } = deps;
  const installation = await begin(from, to);
  const report: CopyReport = { installation, copied: 0, present: 0, failed: 0, left: 0, bytes: 0n, pending: 0 };
  const adopted = await adoptedObjects(from);
  for await (const object of from.list("")) {
    deps.signal.throwIfAborted();
    if (meaningOf(object.key).kind === "marker") continue;
    const done = await copyOrSay(deps, object, adopted.get(object.key));
    report[done.outcome]++;
    if (done.outcome === "copied") report.bytes += done.size;
    deps.onObject(done);
  }
  for await (const pending of from.listPending()) report.pending += pending.key === "" ? 0 : 1;
  if (report.failed > 0) return report;
  await to.put(INSTALLATION_KEY, (await from.get(INSTALLATION_KEY, SMALL_BYTES))!);
  await to.delete(COPYING_KEY);
  return report;
}

/**
 * Marks the target as being copied to, so that a copy can go on and no server starts on half of it. Returns the id of
 * the installation.
 */
async function begin(from: BlobReader, to: BlobStore): Promise<string> {
  const marker = await from.get(INSTALLATION_KEY, SMALL_BYTES);
  if (marker === undefined) {
    throw new CopyRefusedError(
      `the source has no ${INSTALLATION_KEY}, so it is not the storage of an installation; check the URL given ` +
        "as --from",
    );
  }
  const id = installationIdOf(marker);
  const there = (await to.get(INSTALLATION_KEY, SMALL_BYTES)) ?? (await to.get(COPYING_KEY, SMALL_BYTES));
  if (there !== undefined) {
    const other = installationIdOf(there);
    if (other === id) return id;
    throw new CopyRefusedError(
      `the target belongs to the installation ${other}, the source to ${id}; choose another bucket, prefix or ` +
        "directory",
    );
  }
  for await (const { key } of to.list("")) {
    throw new CopyRefusedError(
      `the target is not empty (it has ${key}) and does not say whose it is; choose an empty prefix or directory`,
    );
  }
  await to.put(COPYING_KEY, marker);
  return id;
}

/** What went wrong with an object, apart from what the target did. */
interface SourceTrouble {
  damaged: boolean;
  unreadable: boolean;
}

/**
 * The manifests of versions whose object is not beside them, since it was adopted, by the object's key. Only such
 * manifests are read.
 */
async function adoptedObjects(from: BlobReader & BlobLister): Promise<ReadonlyMap<string, AdoptedObject>> {
  const adopted = new Map<string, AdoptedObject>();
  for await (const { objects, manifests } of storedCollections(from)) {
    for (const objectKey of manifests) {
      if (objects.has(objectKey)) continue;
      const key = manifestKey(objectKey);
      const manifest = await from.get(key, SMALL_BYTES);
      const found = manifest && decodeAdopted(manifest);
      if (found !== undefined) adopted.set(found.adoptedKey, { manifest: key, uploadId: found.id });
    }
  }
  return adopted;
}

/** How an adopted object is copied: as one of this program's own. */
interface AdoptedObject {
  readonly manifest: string;
  readonly uploadId: string;
}

async function copyOrSay(
  deps: CopyDeps,
  { key, size }: ListedBlob,
  adopted: AdoptedObject | undefined,
): Promise<CopiedObject> {
  const trouble: SourceTrouble = { damaged: false, unreadable: false };
  try {
    return ["manifest", "audit", "organization"].includes(meaningOf(key).kind)
      ? await copySmall(deps, key, size)
      : await copyObject(deps, { key, size }, trouble, adopted);
  } catch (error) {
    deps.signal.throwIfAborted();
    // A source that is away altogether must not become an empty target.
    const isLeft = trouble.damaged || (trouble.unreadable && (await canBeRead(deps.from)));
    if (deps.leaveDamaged === true && isLeft)
      return { key, size, outcome: "left", verified: false, problem: (error as Error).message };
    // A store that fails for one object may be back for the next; what did not come over is reported and makes the copy
    // fail.
    const problem = error instanceof Error ? error.message : String(error);
    return { key, size, outcome: "failed", verified: false, problem };
  }
}

async function canBeRead(from: BlobReader): Promise<boolean> {
  return await from.get(INSTALLATION_KEY, SMALL_BYTES).then(
    (marker) => marker !== undefined,
    () => false,
  );
}

async function copySmall({ from, to }: CopyDeps, key: string, size: bigint): Promise<CopiedObject> {
  const bytes = await from.get(key, SMALL_BYTES);
  if (bytes === undefined) return { key, size, outcome: "present", verified: false };
  const there = await to.get(key, SMALL_BYTES);
  if (there !== undefined && bytesEqual(there, bytes)) return { key, size, outcome: "present", verified: true };
  await to.put(key, bytes);
  return { key, size, outcome: "copied", verified: false };
}

async function copyObject(
  deps: CopyDeps,
  { key, size }: Pick<ListedBlob, "key" | "size">,
  trouble: SourceTrouble,
  adopted: AdoptedObject | undefined,
): Promise<CopiedObject> {
  const { from, to, signal } = deps;
  const [found, target] = await Promise.all([from.stat(key), to.stat(key)]);
  // Deleted since it was listed.
  if (found === undefined) return { key, size, outcome: "present", verified: false };
  const uploadId = found.uploadId ?? adopted?.uploadId;
  if (uploadId === undefined && found.size <= BigInt(SMALL_BYTES)) return await copySmall(deps, key, size);
  if (uploadId === undefined) return await copyForeign(deps, found, target);
  const source = { ...found, uploadId };
  if (target !== undefined) return { ...alreadyThere(source, target), outcome: "present", verified: false };
  const manifest = await from.get(adopted?.manifest ?? manifestKey(key), SMALL_BYTES);
  const digests = manifest === undefined ? undefined : decodeDigests(manifest);
  const body = verified(from.read(key, 0n, source.size, signal), source, digests, trouble);
  // The manifest's own segments where they fit, so that S3's composite checksum is the version's.
  const least = digests?.segmentSize ?? LEAST_PART;
  const partSize = chooseSegmentSize(source.size, least, to.capabilities);
  await to.putStream({ key, uploadId, partSize, signal }, body);
  return { key, size: source.size, outcome: "copied", verified: digests !== undefined };
}

/** A large object of another program, of which nothing is known but its size. */
async function copyForeign(
  { from, to, signal }: CopyDeps,
  { key, size }: BlobStat,
  target: BlobStat | undefined,
): Promise<CopiedObject> {
  if (target?.size === size) return { key, size, outcome: "present", verified: false };
  const partSize = chooseSegmentSize(size, LEAST_PART, to.capabilities);
  await to.putStream({ key, uploadId: randomUUID(), partSize, signal }, from.read(key, 0n, size, signal));
  return { key, size, outcome: "copied", verified: false };
}

function alreadyThere(source: BlobStat, target: BlobStat): { key: string; size: bigint } {
  if (source.size === target.size && source.uploadId === target.uploadId) return { key: source.key, size: source.size };
  throw new BlobStoreError(
    `${source.key} is in the target already, but is another object: ${target.size} bytes instead of ` +
      `${source.size}. Delete it there, or choose an empty target.`,
  );
}

/**
 * Passes an object on and compares its segments with their digests. The chunk that ends a segment is passed on only
 * when the digest is right, so a wrong object never becomes whole.
 */
async function* verified(
  body: AsyncIterable<Uint8Array>,
  { key, size }: BlobStat,
  digests: ManifestDigests | undefined,
  trouble: SourceTrouble,
): AsyncGenerator<Uint8Array> {
  const source = noticed(body, trouble);
  if (digests === undefined) return yield* source;
  if (digests.size !== size) {
    trouble.damaged = true;
    throw new BlobStoreError(`${key} has ${size} bytes, but its manifest says ${digests.size}. It is damaged.`);
  }
  let hash = createHash("sha256");
  let left = digests.segmentSize < size ? digests.segmentSize : size;
  let segment = 0;
  let position = 0n;
  for await (const chunk of source) {
    for (let start = 0; start < chunk.length; ) {
      const piece = chunk.subarray(start, left < BigInt(chunk.length - start) ? start + Number(left) : chunk.length);
      hash.update(piece);
      start += piece.length;
      left -= BigInt(piece.length);
      position += BigInt(piece.length);
      if (left === 0n) {
        const digest = digests.segments[segment];
        if (digest === undefined || !bytesEqual(hash.digest(), digest)) {
          trouble.damaged = true;
          throw new BlobStoreError(
            `Segment ${segment} of ${key} does not have the digest of its manifest. The source is damaged.`,
          );
        }
        segment += 1;
        hash = createHash("sha256");
        left = digests.segmentSize < size - position ? digests.segmentSize : size - position;
      }
      yield piece;
    }
  }
}

/** Passes on what is read, and notes when it is the source that fails. */
async function* noticed(body: AsyncIterable<Uint8Array>, trouble: SourceTrouble): AsyncGenerator<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await chunks.next().catch((error: unknown) => {
        trouble.unreadable = true;
        throw error;
      });
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await chunks.return?.();
  }
}

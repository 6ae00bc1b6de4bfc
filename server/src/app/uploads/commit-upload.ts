import { inspectFramingState } from "@strongroom/framing";
import { compositeSha256 } from "@strongroom/protocol/digests";
import type { Principal } from "../../domain/access.ts";
import type { AuditActor } from "../../domain/audit.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError, type Reason } from "../../domain/errors.ts";
import { versionFilename } from "../../domain/filename.ts";
import { manifestKey } from "../../domain/object-keys.ts";
import { rulesInForce } from "../../domain/policy-guard.ts";
import { quotaLimits, victimsOf } from "../../domain/quota.ts";
import { goesByTime } from "../../domain/rotation.ts";
import { bytesEqual } from "../../domain/segments.ts";
import { PUBLISHED } from "../../domain/version.ts";
import { clockDoubt } from "../clock-doubt.ts";
import { requireOwnUpload, requireUploadAccess, requireUploadAccessIfConfigured, uploadNotOpen } from "../guards.ts";
import { pinned } from "../ports/config-source.ts";
import type { SegmentRow, Transaction, UploadRow, VersionRow } from "../ports/database.ts";
import type { LiveVersion } from "../ports/live-versions.ts";
import type { Log } from "../settings.ts";
import { keptSums, livePlan, usualSizeIn } from "../versions/live-plan.ts";
import { encodeManifest } from "../versions/manifest.ts";
import { comingVersions, givingWay, moveUsage, removeVersion } from "../versions/removal.ts";
import { requirePace, requireSize } from "./admission.ts";
import { withRoom } from "./clean-upload.ts";
import { noteLoss, whileCompleting } from "./lost-upload.ts";
import { refuseUpload } from "./manage-uploads.ts";
import { lockOwnUpload, noteUsage, renewLease } from "./reservations.ts";
import { type LockedCollection, requireRoom, roomFor } from "./room.ts";
import { storeFailure } from "./store-failure.ts";
import type { UploadDeps } from "./upload-deps.ts";

/** The ports of a commit: those of uploads, and a log, for commits that the store did not confirm. */
export interface CommitDeps extends UploadDeps {
  readonly log: Log;
  /** What has to succeed before a version gets a number; nothing when left out. `require` throws where it does not. */
  readonly startComparison?: { readonly ready: boolean; require(): Promise<void> } | undefined;
}

/** What the client says it sent. */
export interface CommitInput {
  readonly uploadId: string;
  /** Bytes. */
  readonly size: bigint;
  /** 32 bytes. */
  readonly compositeSha256: Uint8Array;
  /** What the program that made the dump warned of; empty or left out for nothing. */
  readonly warning?: string;
}

/** A published version. */
export interface CommitOutcome {
  readonly version: VersionRow;
  /** Numbers of the versions that rotation removed for it. */
  readonly removedNumbers: readonly bigint[];
}

/** Segments read from the database at once. */
const PAGE = 1000;

/**
 * Turns an upload into a version: prepare (every check, the number), complete the object, write the manifest, publish.
 * Every refusal happens in the first step; from there it only goes forward, and a death between any two steps is
 * finished by the next commit or by the sweeper.
 */
export async function commitUpload(deps: CommitDeps, principal: Principal, input: CommitInput): Promise<CommitOutcome> {
  if (deps.startComparison?.ready === false) {
    // Not before it is known that this caller may ask.
    await deps.database.read(async (tx) => {
      requireUploadAccessIfConfigured(deps.config, principal, await requireOwnUpload(tx, principal, input.uploadId));
    });
    await deps.startComparison.require();
  }
  const prepared = await withRoom(deps, async (tx) => await prepare(tx, pinned(deps), principal, input));
  if ("refusal" in prepared) {
    // No further segment can follow, and neither its bytes nor its beginning change: it can never become a version.
    const { reason, message } = prepared.refusal;
    const ciphertext = reason === "CIPHERTEXT_REFUSED" ? "the ciphertext was refused: " : "";
    await refuseUpload(deps, input.uploadId, `${ciphertext}${message}`);
    throw prepared.refusal;
  }
  if ("version" in prepared) return prepared;
  return await complete(deps, prepared, principal);
}

/** What goes forward only: an upload in the state `committing`, its segments, and the version it becomes. */
interface PreparedCommit {
  readonly committing: UploadRow;
  readonly segments: readonly SegmentRow[];
  /** Undefined when another server has published it meanwhile, which leaves no segments. */
  readonly draft: VersionRow | undefined;
}

type Prepared = CommitOutcome | PreparedCommit | { readonly refusal: DomainError };

async function prepare(tx: Transaction, deps: CommitDeps, principal: Principal, input: CommitInput): Promise<Prepared> {
  const { collection, ...found } = await lockOwnUpload(tx, principal, input.uploadId, (upload) =>
    requireUploadAccessIfConfigured(deps.config, principal, upload),
  );
  let { upload } = found;
  if (upload.state === "committed") return await alreadyCommitted(tx, upload, input);
  const segments = await allSegments(tx, upload.id);
  if (upload.state === "committing") {
    requireStated(segments, input);
    return draftOf(deps, tx, upload, segments);
  }
  if (upload.state !== "open") throw uploadNotOpen(upload);
  const spec = requireUploadAccess(deps.config, principal, upload);
  upload = (await renewLease(tx, deps, spec, collection, upload)).upload;

  requireWhole(segments, upload);
  requireStated(segments, input);
  const end = inspectFramingState(segments.at(-1)!.framingOut!);
  if (!end.complete) return { refusal: truncated(end, input.size) };
  const refusal = await refusalOf(async () => {
    requireSize(spec, input.size);
    await requirePace(tx, spec, deps.settings, collection, upload.begunAt);
  });
  if (refusal !== undefined) return { refusal };
  // What its size is judged by is fixed here, so that rotation does at its publication what room was looked for here.
  const usual = await usualSizeIn(tx, collection.row.id, spec);
  const own = { number: collection.row.lastNumber + 1n, size: input.size, usualSize: usual, confirmedAt: null };
  const room = await roomFor(tx, deps.config, spec, collection, upload.id, own);
  requireRoom(tx, collection, upload.id, room, 0n, input.size);

  const versionNumber = await tx.collections.nextNumber(collection.row.id);
  const { warning = "" } = input;
  const clientMetadata = warning === "" ? upload.clientMetadata : { ...upload.clientMetadata, warning };
  const prepared = { state: "committing", versionNumber, usualSize: usual, clientMetadata } as const;
  await tx.uploads.update(upload.id, "open", prepared);
  return draftOf(deps, tx, { ...upload, ...prepared }, segments);
}

/** The version that a prepared upload becomes, as the configuration in force says. */
function draftOf(
  deps: CommitDeps,
  tx: Transaction,
  committing: UploadRow,
  segments: readonly SegmentRow[],
): PreparedCommit {
  const spec = deps.config.current().collections.get(committing.collectionName);
  const draft = segments.length === 0 ? undefined : draftVersion(committing, segments, spec, tx.now);
  return { committing, segments, draft };
}

/** Refusals that are final for the upload are returned; every other error goes on. */
async function refusalOf(check: () => Promise<void>): Promise<DomainError | undefined> {
  try {
    await check();
    return undefined;
  } catch (error) {
    if (error instanceof DomainError && FINAL_REFUSALS.has(error.reason)) return error;
    throw error;
  }
}

const FINAL_REFUSALS: ReadonlySet<Reason> = new Set<Reason>(["VERSION_TOO_SMALL", "WINDOW_FULL"]);

async function alreadyCommitted(tx: Transaction, upload: UploadRow, input: CommitInput): Promise<CommitOutcome> {
  const version = (await tx.versions.findById(upload.id))!;
  if (version.size !== input.size || !bytesEqual(version.compositeSha256, input.compositeSha256)) {
    throw version.size !== input.size
      ? commitMismatch("size", String(version.size), String(input.size))
      : commitMismatch("digest", hex(version.compositeSha256), hex(input.compositeSha256));
  }
  return { version, removedNumbers: await removedNumbers(tx, version.id) };
}

async function removedNumbers(tx: Transaction, versionId: string): Promise<bigint[]> {
  return (await tx.versions.removedBy(versionId)).map((v) => v.number);
}

async function allSegments(tx: Transaction, uploadId: string): Promise<SegmentRow[]> {
  const all: SegmentRow[] = [];
  for (;;) {
    const page = await tx.segments.list(uploadId, all.length === 0 ? 0 : all.at(-1)!.index + 1, PAGE);
    all.push(...page);
    if (page.length < PAGE) return all;
  }
}

/** Contiguous from 0, all stored, all but the last full, the framing chain unbroken. */
function requireWhole(segments: readonly SegmentRow[], upload: UploadRow): void {
  if (segments.length === 0) {
    throw new DomainError(
      "UPLOAD_EMPTY",
      "nothing was sent; an empty backup is no backup. Check that the dump command writes to its output",
    );
  }
  const hole = segments.findIndex((s, i) => s.index !== i || s.state !== "stored");
  if (hole >= 0) {
    throw new DomainError("SEGMENTS_INCOMPLETE", `segment ${hole} is missing; send it and commit again`, {
      metadata: { missing_index: String(hole) },
    });
  }
  const short = segments.findIndex((s, i) => s.size !== upload.segmentSize && i < segments.length - 1);
  const broken = segments.findIndex((s, i) => i > 0 && !bytesEqual(s.framingIn, segments[i - 1]!.framingOut!));
  if (short >= 0 || broken >= 0) {
    throw new DomainError(
      "FRAMING_STATE_INVALID",
      `the segments do not form one stream (at segment ${short >= 0 ? short : broken}); create a new upload`,
      {
        metadata: { index: String(short >= 0 ? short : broken) },
      },
    );
  }
}

function requireStated(segments: readonly SegmentRow[], input: CommitInput): void {
  const size = segments.reduce((sum, s) => sum + s.size, 0n);
  if (size !== input.size) throw commitMismatch("size", String(size), String(input.size));
  const received = compositeSha256(segments.map((s) => s.sha256));
  if (!bytesEqual(received, input.compositeSha256))
    throw commitMismatch("digest", hex(received), hex(input.compositeSha256));
}

const hex = (digest: Uint8Array) => Buffer.from(digest).toString("hex");

function commitMismatch(field: "size" | "digest", received: string, stated: string): DomainError {
  return new DomainError(
    "COMMIT_MISMATCH",
    `the commit states another ${field} than what was received (received: ${received}, stated: ${stated}); ` +
      "compare with GetUpload, or create a new upload",
    { metadata: { field: field === "size" ? "size_bytes" : "composite_sha256", received, stated } },
  );
}

function truncated(end: ReturnType<typeof inspectFramingState>, size: bigint): DomainError {
  const what =
    end.format === undefined ? "encrypted message" : `${end.format === "openpgp" ? "OpenPGP" : "age"} message`;
  return new DomainError(
    "CIPHERTEXT_REFUSED",
    `the ${what} is cut off after ${size} bytes: its end is missing. The dump or the encryption ended too ` +
      "early; make a new backup",
    { metadata: { violation: "truncated", offset_bytes: String(size) } },
  );
}

/**
 * Carries a prepared commit to its end. Safe to repeat, also while another server does the same.
 * @param actor of the audit log; who created the upload when left out.
 * @throws DomainError STORE_UNAVAILABLE when the outcome in the store is not known; nothing is deleted, the commit is
 *   to be repeated. UPLOAD_LOST when the store has neither the object nor its parts, and not for a moment only.
 */
export async function finishCommit(
  deps: CommitDeps,
  upload: UploadRow,
  actor: AuditActor = upload,
): Promise<CommitOutcome> {
  const prepared = await deps.database.transaction(async (tx) => {
    // Under the lock, so that another server cannot publish between two pages.
    await tx.collections.lockById(upload.collectionId);
    return draftOf(deps, tx, upload, await allSegments(tx, upload.id));
  });
  return await complete(deps, prepared, actor);
}

async function complete(
  deps: CommitDeps,
  { committing: upload, segments, draft }: PreparedCommit,
  actor: AuditActor,
): Promise<CommitOutcome> {
  if (draft !== undefined) await completeObject(deps, upload, segments, draft);
  return await deps.database.transaction(async (tx) => {
    const row = await tx.collections.lockById(upload.collectionId);
    const holding = await tx.uploads.holding(upload.collectionId);
    const current = holding.find(({ id }) => id === upload.id) ?? (await tx.uploads.find(upload.id))!;
    if (current.state !== "committing" || draft === undefined) {
      const version = await tx.versions.findById(upload.id);
      // An operator gave the commit up meanwhile.
      if (version === undefined) throw uploadNotOpen(current);
      // What was written here may have replaced the manifest of the version that was published.
      if (draft !== undefined) await tx.versions.manifestWritten(version.id, { revision: 0, before: 0 });
      return { version, removedNumbers: await removedNumbers(tx, version.id) };
    }
    return await publish(tx, deps, { row, uploads: holding }, current, draft, segments, actor);
  });
}

/** The version an upload becomes. Protection and the soft limit are those of the configuration in force now. */
function draftVersion(
  upload: UploadRow,
  segments: readonly SegmentRow[],
  spec: CollectionSpec | undefined,
  now: Date,
): VersionRow {
  const end = inspectFramingState(segments.at(-1)!.framingOut!);
  const size = segments.reduce((sum, s) => sum + s.size, 0n);
  const format = { encryptionFormat: end.format!, armored: end.armored };
  const number = upload.versionNumber!;
  return {
    id: upload.id,
    collectionId: upload.collectionId,
    collectionName: upload.collectionName,
    organization: upload.organization,
    storage: upload.storage,
    key: upload.key,
    number,
    filename: versionFilename({
      template: spec?.filenameTemplate ?? `${upload.collectionName}-\${version}`,
      given: upload.filename,
      number,
      contentEncoding: upload.contentEncoding,
      ...format,
    }),
    size,
    segmentSize: upload.segmentSize,
    segmentCount: segments.length,
    compositeSha256: compositeSha256(segments.map((s) => s.sha256)),
    contentEncoding: upload.contentEncoding,
    ...format,
    begunAt: upload.begunAt,
    committedAt: now,
    userName: upload.userName,
    accessKey: upload.accessKey,
    sessionId: upload.sessionId,
    labels: upload.labels,
    clientMetadata: upload.clientMetadata,
    usualSize: upload.usualSize,
    aboveSoftLimit: spec !== undefined && size > spec.maxOneVersionSize,
    protectedUntil: spec?.minRetentionMs === undefined ? null : new Date(now.getTime() + spec.minRetentionMs),
    protectedForMs: spec?.minRetentionMs ?? null,
    recipients: segments[0]!.recipients,
    ...PUBLISHED,
  };
}

async function completeObject(
  deps: CommitDeps,
  upload: UploadRow,
  segments: readonly SegmentRow[],
  draft: VersionRow,
): Promise<void> {
  const blob = { key: upload.key, token: upload.storeToken! };
  try {
    try {
      await whileCompleting(deps, upload, async () => await deps.store.complete(blob, upload.id, segments));
    } catch (error) {
      // The answer may be lost after the effect; the object itself tells.
      const stat = await deps.store.stat(upload.key);
      if (stat?.size !== draft.size || stat.uploadId !== upload.id) throw error;
    }
    const digests = segments.map((s) => s.sha256);
    await deps.store.put(manifestKey(upload.key), encodeManifest(draft, digests));
  } catch (error) {
    deps.log.error(
      { upload_id: upload.id, collection: upload.collectionName, err: error },
      "the store did not confirm a commit; the upload stays committing, and the commit is repeated",
    );
    const lost = await noteLoss(deps, upload, error);
    if (lost !== undefined) throw lost;
    throw storeFailure(
      "the object store did not confirm the commit; nothing is lost, repeat the commit in a moment",
      error,
      2000,
    );
  }
}

/**
 * What rotation removes for a new version, before that one is there; notes by which rules, or that those in force wait
 * for a confirmation.
 */
async function rotatedOut(
  tx: Transaction,
  { row, uploads: holding }: LockedCollection,
  spec: CollectionSpec,
  upload: UploadRow,
  version: VersionRow,
): Promise<LiveVersion[]> {
  const doubt = await clockDoubt(tx);
  // Older copies stay where there is room beside everything that the store has, what nobody continues included.
  const others = holding.filter((other) => other.id !== upload.id);
  const reserved = others.reduce((sum, { reservedBytes }) => sum + reservedBytes, 0n);
  const plan = await livePlan(tx, row, spec, { begunAt: upload.begunAt, coming: comingVersions(holding) });
  const rules = rulesInForce(spec, row.confirmedPolicy);
  // What goes by time is kept while the clock is in doubt, so that rules under which nothing went are not yet in force.
  const isInForce = plan.guard === undefined && (doubt === undefined || !goesByTime(spec.rotation));
  if (plan.waits !== undefined) await tx.collections.notePolicyHeld(row.id, tx.now);
  else if (isInForce && rules !== row.confirmedPolicy) await tx.collections.confirmPolicy(row.id, rules);
  const kept = keptSums(plan, spec).bytes;
  return victimsOf(givingWay(plan, spec, doubt), kept, quotaLimits(spec), version.size, reserved);
}

/** One transaction: the version appears, what rotation removes disappears, the reservation becomes storage. */
async function publish(
  tx: Transaction,
  deps: CommitDeps,
  collection: LockedCollection,
  upload: UploadRow,
  version: VersionRow,
  segments: readonly SegmentRow[],
  actor: AuditActor,
): Promise<CommitOutcome> {
  const spec = deps.config.current().collections.get(upload.collectionName);
  // Without a configuration nothing is rotated: limits that are gone must not remove anything.
  const victims = spec === undefined ? [] : await rotatedOut(tx, collection, spec, upload, version);
  await tx.versions.insert(version, Buffer.concat(segments.map((s) => s.sha256)));
  await moveUsage(tx, upload, { reservedBytes: -upload.reservedBytes, storedBytes: version.size });
  await noteUsage(tx, upload, { receivedBytes: version.size, storedBytes: version.size, versions: 1n });
  for (const victim of victims) await removeVersion(tx, deps.settings, spec!, victim, version.id);

  await tx.uploads.update(upload.id, "committing", {
    state: "committed",
    endedAt: tx.now,
    reservedBytes: 0n,
    lapsed: true,
    cleanedAt: tx.now,
    // The version has them.
    labels: {},
    clientMetadata: {},
  });
  await tx.collections.notePublished(upload.collectionId, upload.ordinal);
  await tx.segments.deleteAll(upload.id);
  const removed = victims.map((v) => v.number).sort((a, b) => (a < b ? -1 : 1));
  const { collectionName } = upload;
  await tx.audit(
    {
      kind: "version.committed",
      actor,
      collectionName,
      object: version.id,
      details: { number: String(version.number), size: String(version.size), removed: removed.join(",") },
    },
    ...victims.map(({ id, number, size }) => ({
      kind: "version.removed" as const,
      actor: "server" as const,
      collectionName,
      object: id,
      reason: `rotation for version ${version.number}`,
      details: { number: String(number), size: String(size) },
    })),
  );
  return { version, removedNumbers: removed };
}

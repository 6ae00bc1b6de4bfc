import { formatTimeIn } from "@strongroom/protocol/times";
import { manifestKey } from "../../domain/object-keys.ts";
import { isConfirmed } from "../../domain/policy-guard.ts";
import { objectOf } from "../../domain/version.ts";
import { isFrozen } from "../guards.ts";
import { isSameInstallation } from "../installation.ts";
import { staleClosings, writeClosing } from "../organizations/closing-object.ts";
import type { PendingBlob } from "../ports/blob-store.ts";
import { isOutdated } from "../ports/config-source.ts";
import type { CollectionRow, Page, Transaction, UploadRow, VersionRow } from "../ports/database.ts";
import { cleanUpload } from "../uploads/clean-upload.ts";
import { type CommitDeps, finishCommit } from "../uploads/commit-upload.ts";
import { endUpload, lapse } from "../uploads/reservations.ts";
import { lastMoment, tooOldReason } from "../uploads/upload-age.ts";
import { rewriteManifest } from "../versions/manifest-writer.ts";
import { moveUsage } from "../versions/removal.ts";
import { compareStore } from "./compare-store.ts";
import { forgetByTime, forgetRecords } from "./forget.ts";
import { healTimes } from "./heal-times.ts";
import { type Inventory, takeInventory, type UnknownObject } from "./inventory.ts";
import { hasLaterState } from "./later-state.ts";

/** The ports of a sweep: those of commits, which it finishes. */
export type SweepDeps = CommitDeps;

/** What one sweep did (or, in a dry run, would do), in numbers of rows and objects. */
export interface SweepReport {
  readonly lapsed: number;
  readonly expired: number;
  readonly committed: number;
  /** Uploads that ended without a version, freed from the store. */
  readonly cleaned: number;
  /** Further unfinished objects of ended uploads, deleted. */
  readonly unfinished: number;
  /** Manifests that were written again, since their version had changed. */
  readonly manifests: number;
  /** Versions that the store has and the database did not know, added from their manifests. */
  readonly added: number;
  /** Live versions whose object is missing in the list of the store, or has another size; marked as damaged. */
  readonly missing: number;
  /** Manifests that are missing, or say something else than their version. */
  readonly manifestsWrong: number;
  /** Removed versions whose objects were deleted. */
  readonly purged: number;
  /** Objects and manifests of versions purged earlier, deleted. */
  readonly leftovers: number;
  /** Things that could not be done now and are tried again by the next sweep. */
  readonly failed: number;
  /** Unrecorded objects; reported only. Finished objects only when the whole store was looked at. */
  readonly unknown: readonly UnknownObject[];
  /** Whether what is overdue was purged and expired: the clock was not in doubt, and the store was the right one. */
  readonly deletions: boolean;
  /** Whether the whole store was listed and compared with the database; false when that was not asked for. */
  readonly compared: boolean;
}

/** How to sweep. */
export interface SweepOptions {
  /** Look at every finished object in the store too, which reads its whole list. */
  readonly wholeStore?: boolean;
  /** Report only, change nothing. */
  readonly dryRun?: boolean;
  /** Called for every action: before it in a dry run, else after it. */
  readonly onAction?: (action: SweepAction) => void;
}

type SweepFields = Readonly<Record<string, string | bigint>>;

/** One action of the sweeper. */
export interface SweepAction {
  /** Counter of the report that it belongs to. */
  readonly kind: Exclude<keyof SweepReport, "failed" | "unknown" | "deletions" | "compared">;
  /** In words. */
  readonly what: string;
  /** What it was done to, for a log. */
  readonly fields: SweepFields;
}

/** Rows read at once. A sweep goes through all of them, so that rows that fail hold nothing up. */
const BATCH = 500;

/**
 * One round of the sweeper, by the rules of the protocol: gives back the places of lapsed uploads, expires uploads,
 * finishes commits that died half-way, frees the store of uploads that ended without a version, writes the manifests of
 * changed versions, and deletes their objects after their time. Safe to run twice and on several servers at once.
 * Deleted are only unfinished objects of ended uploads and objects of removed versions; an unrecorded object is
 * reported.
 * @param timesHold false while the clock is in doubt: then nothing is purged or expires because of a time.
 */
export async function sweep(deps: SweepDeps, timesHold: boolean, options: SweepOptions = {}): Promise<SweepReport> {
  const counts = {
    lapsed: 0,
    expired: 0,
    committed: 0,
    cleaned: 0,
    unfinished: 0,
    manifests: 0,
    added: 0,
    missing: 0,
    manifestsWrong: 0,
    purged: 0,
    leftovers: 0,
    failed: 0,
  };
  /** Does something, logs it and counts it. Nothing is counted when `work` returns false. */
  const act = async (kind: SweepAction["kind"], what: string, fields: SweepFields, work: () => Promise<unknown>) => {
    try {
      if (options.dryRun !== true) {
        if ((await work()) === false) return;
        deps.log.info(fields, `sweeper: ${what}`);
      }
      counts[kind]++;
      options.onAction?.({ kind, what, fields });
    } catch (error) {
      counts.failed++;
      deps.log.warn({ ...fields, err: error }, `sweeper: failed, and is tried again by the next sweep: ${what}`);
    }
  };
  const pages = async function* <R extends { id: string }>(read: (tx: Transaction, page: Page) => Promise<R[]>) {
    for (let after: string | undefined; ; ) {
      const page = { after, limit: BATCH };
      const rows = await deps.database.transaction(async (tx) => await read(tx, page));
      yield* rows;
      if (rows.length < BATCH) return;
      after = rows.at(-1)!.id;
    }
  };

  if (options.dryRun !== true) await healTimes(deps);
  const now = await deps.database.transaction(async (tx) => tx.now);
  for await (const upload of pages((tx, page) => tx.uploads.overdue(tx.now, page))) {
    const kind = timesHold && upload.expiresAt <= now ? "expired" : "lapsed";
    if (kind === "lapsed" && upload.lapsed) continue;
    const what = kind === "expired" ? "an upload expired" : "the lease of an upload ran out; its place is free";
    await act(kind, what, ofUpload(upload), async () => await endOverdue(deps, upload, timesHold));
  }
  for await (const upload of pages((tx, page) => tx.uploads.committing(page))) {
    await act("committed", "finished a commit", ofUpload(upload), async () => await finishCommit(deps, upload));
  }
  if (!(await isSameInstallation(deps.database, deps.store))) {
    deps.log.error({}, "sweeper: the store does not carry the installation id of the database; nothing is deleted");
    return { ...counts, failed: counts.failed + 1, unknown: [], deletions: false, compared: false };
  }
  if (options.dryRun !== true) await forgetByTime(deps.database, timesHold);

  let compared = options.wholeStore === true;
  if (compared)
    await compareStore(deps, act, { contents: true }).catch((error) => {
      counts.failed++;
      compared = false;
      deps.log.warn({ err: error }, "sweeper: the store could not be compared; it is tried again in some minutes");
    });
  // What was not compared is not known as unknown.
  const record = options.dryRun !== true && compared === (options.wholeStore === true);
  // A store that cannot list must not keep the rest from being done.
  const found: Inventory = await takeInventory(deps, { finished: options.wholeStore === true, record }).catch(
    (error) => {
      counts.failed++;
      compared = false;
      deps.log.warn({ err: error }, "sweeper: the store could not be listed; the next sweep tries again");
      return { unknown: [], leftovers: [], unfinished: [] };
    },
  );
  const strays = new Map<string, PendingBlob[]>();
  for (const blob of found.unfinished) strays.set(blob.key, [...(strays.get(blob.key) ?? []), blob]);
  for await (const upload of pages((tx, page) => tx.uploads.uncleaned(page))) {
    const what = `freed the store of an upload that was ${upload.state}`;
    await act(
      "cleaned",
      what,
      ofUpload(upload),
      async () => await cleanUpload(deps, upload, strays.get(upload.key) ?? []),
    );
    strays.delete(upload.key);
  }
  for (const blob of [...strays.values()].flat()) {
    const what = "deleted an unfinished object of an upload that has ended";
    await act("unfinished", what, { key: blob.key }, async () => await deps.store.abort(blob));
  }
  for await (const version of pages((tx, page) => tx.versions.staleManifests(page))) {
    if (!version.keptForReturn && version.purgeAfter !== null && version.purgeAfter <= now) continue;
    const what = `wrote the manifest of a ${version.state} version again`;
    await act("manifests", what, ofVersion(version), async () => await rewriteManifest(deps, version));
  }
  for await (const organization of staleClosings(deps)) {
    const what = "wrote into the storage that an organization is closed";
    await act("manifests", what, { organization }, async () => await writeClosing(deps, organization));
  }
  // A collection without its object in the configuration keeps everything but what the purge of an organization removed,
  // until the object is back; one that shows that the database was rolled back, until somebody has looked.
  const rows = await deps.database.transaction(async (tx) => await tx.collections.all());
  const idsOf = (isKept: (row: CollectionRow) => boolean) => rows.filter(isKept).map(({ id }) => id);
  const kept = {
    never: idsOf(({ rolledBackAt }) => rolledBackAt !== null),
    unconfigured: idsOf(({ name }) => !deps.config.current().collections.has(name)),
  };
  if (options.dryRun !== true) await noteConfiguration(deps, rows);
  const purgeable = timesHold ? pages((tx, page) => tx.versions.purgeable(tx.now, kept, page)) : [];
  for await (const version of purgeable)
    await act("purged", "deleted a removed version", ofVersion(version), async () => await purge(deps, version));
  for (const key of found.leftovers) {
    const what = "deleted what was left of a purged version";
    await act("leftovers", what, { key }, async () => await deps.store.delete(key));
  }
  if (compared && record && timesHold) {
    const rows = await forgetRecords(deps.database, found);
    if (rows > 0) deps.log.info({ rows }, "sweeper: forgot uploads and versions whose bytes are long gone");
  }
  if (options.wholeStore === true && found.unknown.length > 0) {
    const examples = found.unknown.slice(0, 10).map(({ key, why }) => `${key}: ${why}`);
    deps.log.warn(
      { objects: found.unknown.length, examples },
      "sweeper: the store holds unrecorded objects; they are left alone. `strongroom sweep --dry-run` " + "lists them",
    );
  }
  return { ...counts, unknown: found.unknown, deletions: timesHold, compared };
}

/**
 * Notes since when collections are frozen, and since when their rules of removal are others than those that were in
 * force, for their health.
 */
async function noteConfiguration({ database, config }: SweepDeps, rows: readonly CollectionRow[]): Promise<void> {
  // What is noted here is true of the newest configuration; the last good state was noted while it was that.
  if (isOutdated(config)) return;
  const { collections } = config.current();
  for (const row of rows) {
    const spec = collections.get(row.name);
    const isOther = spec !== undefined && !isConfirmed(spec, row.confirmedPolicy);
    // Of rules that were never kept nobody knows whether they have changed; a commit notes when it has to wait.
    const isHeld = isOther && (row.confirmedPolicy !== null || row.policyHeldSince !== null);
    const froze = isFrozen(config, row) !== (row.frozenSince !== null);
    if (!froze && isHeld === (row.policyHeldSince !== null)) continue;
    await database.transaction(async (tx) => {
      if (froze) await tx.collections.noteFrozen(row.id, row.frozenSince === null ? tx.now : null);
      await tx.collections.notePolicyHeld(row.id, isHeld ? tx.now : null);
    });
  }
}

function ofUpload(upload: UploadRow): Record<string, string> {
  return { upload_id: upload.id, collection: upload.collectionName, key: upload.key };
}

function ofVersion(version: VersionRow): SweepFields {
  return { collection: version.collectionName, number: version.number, key: objectOf(version) };
}

/** Returns false when it is not overdue any more. */
async function endOverdue(deps: SweepDeps, overdue: UploadRow, timesHold: boolean): Promise<boolean> {
  return await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(overdue.collectionId);
    const upload = (await tx.uploads.find(overdue.id))!;
    if (upload.state !== "open") return false;
    if (timesHold && upload.expiresAt <= tx.now) {
      const spec = deps.config.current().collections.get(upload.collectionName);
      const since = formatTimeIn(new Date(upload.expiresAt.getTime() - deps.settings.expiryMs), spec?.timezone ?? "");
      const isTooOld = lastMoment(upload, spec, deps.settings) <= tx.now;
      const reason = isTooOld ? tooOldReason(spec, deps.settings) : `nothing was heard of the client since ${since}`;
      await endUpload(tx, upload, "expired", reason, "server");
      return true;
    }
    if (upload.lapsed || upload.leaseExpiresAt > tx.now) return false;
    await lapse(tx, upload);
    return true;
  });
}

/**
 * Returns false when it was brought back, or its collection's object was taken out of the configuration meanwhile, or
 * its manifest shows that the database was rolled back. From the transaction on it cannot be brought back, so that no
 * live version loses its object.
 */
async function purge(deps: SweepDeps, version: VersionRow): Promise<boolean> {
  if (await hasLaterState(deps, version)) return false;
  const begun = await deps.database.transaction(async (tx) => {
    const { rolledBackAt } = await tx.collections.lockById(version.collectionId);
    const isConfigured = deps.config.current().collections.has(version.collectionName);
    if (rolledBackAt !== null || !(await tx.versions.beginPurge(version.id, tx.now, isConfigured))) return undefined;
    // An import may have taken its object from it since the list was read.
    return await tx.versions.findById(version.id);
  });
  if (begun === undefined) return false;
  await deps.store.delete(objectOf(begun));
  await deps.store.delete(manifestKey(version.key));
  await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(version.collectionId);
    if (!(await tx.versions.markPurged(version.id, tx.now))) return;
    await moveUsage(tx, version, { trashBytes: -version.size });
    await tx.audit({
      kind: "version.purged",
      actor: "server",
      collectionName: version.collectionName,
      object: version.id,
      details: { number: String(version.number), size: String(version.size), removed_by: version.removedBy },
    });
  });
  return true;
}

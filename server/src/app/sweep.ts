import { DomainError } from "../domain/errors.ts";
import { type CommitDeps, finishCommit } from "./commit-upload.ts";
import { manifestKey } from "./manifest.ts";
import type { PendingBlob } from "./ports.ts";
import { moveUsage } from "./removal.ts";
import type { UploadRow } from "./repositories.ts";
import { endUpload, lapse } from "./reservations.ts";
import type { SegmentAttempts } from "./segment-attempts.ts";

/** What the sweeper needs. */
export interface SweepDeps extends CommitDeps {
  readonly attempts: SegmentAttempts;
}

/** What one sweep did, in numbers of rows. */
export interface SweepReport {
  readonly lapsed: number;
  readonly expired: number;
  readonly committed: number;
  readonly cleaned: number;
  readonly purged: number;
  /** Things that could not be done now and are tried again by the next sweep. */
  readonly failed: number;
}

/** Ended sessions are kept this long, as a record, in milliseconds. */
const ENDED_SESSIONS_MS = 30 * 24 * 3_600_000;

/** Rows handled in one sweep, of each kind. */
const BATCH = 500;

/**
 * One round of the sweeper, by the rules of the protocol: gives back what lapsed uploads hold, expires uploads, finishes commits that died half-way, frees the
 * store of uploads that ended without a version, and deletes the objects of removed versions past their time. Safe to run twice and on several
 * servers at once. Only keys of aborted or expired uploads and of removed versions are ever deleted.
 * @param mayDelete false while deletions are paused; everything else is still done.
 */
export async function sweep(deps: SweepDeps, mayDelete: boolean): Promise<SweepReport> {
  const report = { lapsed: 0, expired: 0, committed: 0, cleaned: 0, purged: 0, failed: 0 };
  const attempt = async (what: string, fields: Record<string, unknown>, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      report.failed++;
      deps.log.warn({ ...fields, err: error }, `sweeper: ${what} failed; the next sweep tries again`);
    }
  };

  const overdue = await deps.database.transaction(async (tx) => await tx.uploads.overdue(tx.now, BATCH));
  for (const upload of overdue) {
    await attempt("ending an overdue upload", { upload_id: upload.id }, async () => {
      const outcome = await endOverdue(deps, upload);
      if (outcome !== undefined) report[outcome]++;
    });
  }
  const committing = await deps.database.transaction(async (tx) => await tx.uploads.committing(BATCH));
  for (const upload of committing) {
    await attempt("finishing a commit", { upload_id: upload.id }, async () => {
      const { version } = await finishCommit(deps, upload);
      deps.log.info(
        { upload_id: upload.id, collection: upload.collectionName, number: String(version.number) },
        "sweeper: finished a commit",
      );
      report.committed++;
    });
  }
  if (!mayDelete) return report;

  await attempt("forgetting ended sessions", {}, async () => {
    await deps.database.transaction(async (tx) => {
      await tx.sessions.deleteEnded(new Date(tx.now.getTime() - ENDED_SESSIONS_MS));
    });
  });
  await attempt("forgetting whole budgets of logins", {}, async () => {
    await deps.database.transaction(async (tx) => {
      await tx.budgets.deleteFull(tx.now);
    });
  });

  const uncleaned = await deps.database.transaction(async (tx) => await tx.uploads.uncleaned(BATCH));
  const pending = await pendingOf(deps, uncleaned);
  for (const upload of uncleaned) {
    await attempt("freeing the store of an upload", { upload_id: upload.id }, async () => {
      await clean(deps, upload, pending.get(upload.key) ?? []);
      report.cleaned++;
    });
  }
  const purgeable = await deps.database.transaction(async (tx) => {
    // A collection without its object in the configuration keeps everything, until the object is back.
    const unconfigured = (await tx.collections.all()).filter((row) => !deps.config.current().collections.has(row.name));
    const ids = unconfigured.map((row) => row.id);
    return await tx.versions.purgeable(tx.now, ids, BATCH);
  });
  for (const version of purgeable) {
    await attempt("purging a removed version", { version_id: version.id }, async () => {
      await deps.store.delete(version.key);
      await deps.store.delete(manifestKey(version.key));
      await deps.database.transaction(async (tx) => {
        await tx.collections.lockById(version.collectionId);
        if (await tx.versions.markPurged(version.id, tx.now))
          await moveUsage(tx, version, { trashBytes: -version.size });
      });
      deps.log.info(
        { collection: version.collectionName, number: String(version.number), key: version.key },
        "sweeper: deleted a removed version",
      );
      report.purged++;
    });
  }
  return report;
}

async function endOverdue(deps: SweepDeps, overdue: UploadRow): Promise<"expired" | "lapsed" | undefined> {
  return await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(overdue.collectionId);
    const upload = (await tx.uploads.find(overdue.id))!;
    if (upload.state !== "open") return undefined;
    if (upload.expiresAt <= tx.now) {
      const since = new Date(upload.expiresAt.getTime() - deps.settings.expiryMs).toISOString();
      await endUpload(tx, upload, "expired", `nothing was heard of the client since ${since}`);
      deps.log.info({ upload_id: upload.id, collection: upload.collectionName }, "sweeper: an upload expired");
      return "expired";
    }
    if (upload.lapsed || upload.leaseExpiresAt > tx.now) return undefined;
    await lapse(tx, upload);
    return "lapsed";
  });
}

/** Unfinished objects under the keys of these uploads. A server that died between asking the store and noting its token leaves one nobody wrote down. */
async function pendingOf(deps: SweepDeps, uploads: readonly UploadRow[]): Promise<Map<string, PendingBlob[]>> {
  const found = new Map<string, PendingBlob[]>(uploads.map((upload) => [upload.key, []]));
  if (uploads.length === 0) return found;
  for await (const pending of deps.store.listPending()) found.get(pending.key)?.push(pending);
  return found;
}

/** Frees the store of an upload that ended without a version. */
async function clean(deps: SweepDeps, upload: UploadRow, strays: readonly PendingBlob[]): Promise<void> {
  await deps.attempts.end(
    upload.id,
    new DomainError("UPLOAD_NOT_OPEN", `the upload is ${upload.state}`, { metadata: { state: upload.state } }),
  );
  if (upload.storeToken !== null) await deps.store.abort({ key: upload.key, token: upload.storeToken });
  for (const stray of strays) await deps.store.abort(stray);
  await deps.database.transaction(async (tx) => await tx.uploads.markCleaned(upload.id, tx.now));
  deps.log.info(
    { upload_id: upload.id, collection: upload.collectionName, state: upload.state },
    "sweeper: freed the store of an upload",
  );
}

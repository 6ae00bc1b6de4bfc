import type { ClockState } from "../../domain/clock.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { type UnconfirmedPlan, unguardedRotation } from "../../domain/guarded-rotation.ts";
import { policyChange } from "../../domain/policy-change.ts";
import { isConfirmed, mustWait, type PolicyChange } from "../../domain/policy-guard.ts";
import { quotaLimits, sumVersions, victimsOf } from "../../domain/quota.ts";
import { goesByTime, newestFirst } from "../../domain/rotation.ts";
import type { SizedVersion } from "../../domain/shrunk.ts";
import { withProtection } from "../../domain/version.ts";
import type { CollectionRow, Transaction, UploadRow, UsageChange, VersionRow } from "../ports/database.ts";
import type { LiveVersion } from "../ports/live-versions.ts";
import type { UploadSettings } from "../settings.ts";

/** A plan, and why it removes nothing, where that is so. */
export interface GuardedPlan extends UnconfirmedPlan<LiveVersion> {
  /** The change of rules that waits for a confirmation; undefined for none. */
  readonly waits?: PolicyChange | undefined;
}

/**
 * The plan of {@link unguardedRotation}; where the rules have changed, and it would remove many versions at once, one
 * that removes nothing until somebody has confirmed that.
 * @param row of the collection.
 */
export function rotationOf(
  live: readonly LiveVersion[],
  spec: CollectionSpec,
  begunAt: Date,
  now: Date,
  coming: readonly SizedVersion[],
  row: Pick<CollectionRow, "confirmedPolicy">,
): GuardedPlan {
  const plan = unguardedRotation(live, spec, begunAt, now, coming);
  // Without the upload's own bytes: what gives way to them goes under any rules.
  if (plan.guard !== undefined || isConfirmed(spec, row.confirmedPolicy)) return plan;
  const victims = victimsOf(plan, sumVersions(spec, plan.keep).bytes, quotaLimits(spec), 0n, 0n);
  const change = policyChange(live, spec, row.confirmedPolicy, victims, { begunAt, now, coming });
  if (!mustWait(change, spec, row.confirmedPolicy)) return plan;
  const keep = live.map((version) => withProtection(version, spec));
  return { keep, older: [], remove: [], guard: undefined, waits: change };
}

/**
 * What does not stay in any case, of a plan for a version that is published while the clock is in doubt. Its room was
 * promised when its commit was prepared, and that may have been before the doubt: what would go because of its time
 * gives way to the hard limit, the oldest first, and stays otherwise.
 */
export function givingWay<
  P extends { readonly older: readonly LiveVersion[]; readonly remove: readonly LiveVersion[] },
>(plan: P, spec: CollectionSpec, doubt: ClockState | undefined): P {
  if (doubt === undefined || !goesByTime(spec.rotation)) return plan;
  return { ...plan, older: newestFirst([...plan.older, ...plan.remove]), remove: [] };
}

/** The versions that uploads being committed are to be. */
export function comingVersions(uploads: readonly UploadRow[]): SizedVersion[] {
  return uploads
    .filter((upload) => upload.state === "committing")
    .map(({ versionNumber, reservedBytes, usualSize }) => ({
      number: versionNumber!,
      size: reservedBytes,
      usualSize,
      confirmedAt: null,
    }));
}

/**
 * Requires that uploads whose commit is prepared, and can not be refused any more, fit under the hard limit when a
 * version is deleted, held or released. A deleted one leaves its place to an older one, which rotation would have
 * removed and which may be larger; a held one stays where it would have been removed.
 * @param after what the change makes of the live versions of its collection, which must be locked. They are read only
 *   while an upload is being committed.
 * @param to what is done to it, for the refusal.
 * @throws DomainError COLLECTION_BUSY
 */
export async function requireRoomForCommits(
  tx: Transaction,
  spec: CollectionSpec,
  version: Pick<VersionRow, "collectionId" | "number">,
  after: (live: readonly LiveVersion[]) => readonly LiveVersion[],
  to: "delete" | "hold" | "release",
): Promise<void> {
  const unsettled = await tx.uploads.unsettled(version.collectionId);
  const committing = unsettled.filter((u) => u.state === "committing");
  if (committing.length === 0) return;
  const total = (sizes: readonly bigint[]) => sizes.reduce((sum, size) => sum + size, 0n);
  const reserved = total(committing.map((u) => u.reservedBytes));
  const row = await tx.collections.lockById(version.collectionId);
  const live = await tx.versions.allLive(version.collectionId);
  const changed = after(live);
  const coming = comingVersions(committing);
  const fits = committing.every(({ begunAt }) => {
    const kept = (versions: readonly LiveVersion[]) =>
      total(rotationOf(versions, spec, begunAt, tx.now, coming, row).keep.map((v) => v.size));
    const then = kept(changed);
    return then <= kept(live) || then + reserved <= spec.maxCollectionSize;
  });
  if (fits) return;
  const why = {
    delete: `without version ${version.number} it would not fit beside an older one`,
    hold: `it would not fit beside version ${version.number}, which rotation removes for it`,
    release: `without the hold of version ${version.number} it would not fit beside an older one`,
  };
  throw new DomainError(
    "COLLECTION_BUSY",
    `a backup to "${spec.name}" is being committed, and ${why[to]}; ${to} it in a moment`,
    { metadata: { collection: spec.name, number: String(version.number) }, retryAfterMs: 1000 },
  );
}

/** Moves bytes between the counters of a collection and of its tenant. The collection must be locked. */
export async function moveUsage(
  tx: Transaction,
  of: { readonly collectionId: string; readonly organization: string },
  change: UsageChange,
): Promise<void> {
  await tx.collections.addUsage(of.collectionId, change);
  if (of.organization === "") return;
  await tx.organizations.lock(of.organization);
  await tx.organizations.addUsage(of.organization, change);
}

/**
 * How long a version removed now can be brought back, in milliseconds: the collection's `trashRetention`, and no less
 * than what running downloads need.
 */
export function keptAfterRemovalMs(
  settings: Pick<UploadSettings, "purgeDelayMs">,
  spec: Pick<CollectionSpec, "trashRetentionMs">,
): number {
  return Math.max(settings.purgeDelayMs, spec.trashRetentionMs ?? 0);
}

/**
 * Removes a live version: invisible at once, its bytes counted as trash until the sweeper deletes them, no sooner than
 * {@link keptAfterRemovalMs}. The collection must be locked.
 * @param removedBy id of the version it was rotated out for, or `user:<name>`.
 * @returns when its bytes may be deleted; undefined when it was not live.
 */
export async function removeVersion(
  tx: Transaction,
  settings: Pick<UploadSettings, "purgeDelayMs">,
  spec: Pick<CollectionSpec, "trashRetentionMs">,
  version: Pick<VersionRow, "id" | "collectionId" | "organization" | "size">,
  removedBy: string,
): Promise<Date | undefined> {
  const purgeAfter = new Date(tx.now.getTime() + keptAfterRemovalMs(settings, spec));
  if (!(await tx.versions.remove(version.id, { removedAt: tx.now, removedBy, purgeAfter }))) return undefined;
  await moveUsage(tx, version, { storedBytes: -version.size, trashBytes: version.size });
  return purgeAfter;
}

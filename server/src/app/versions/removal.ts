import type { CollectionSpec } from "../../domain/configuration.ts";
import { planRotation, type RotationPlan } from "../../domain/rotation.ts";
import { withProtection } from "../../domain/version.ts";
import type { LiveVersion, Transaction, UsageChange, VersionRow } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";

/**
 * What stays and what goes of these live versions when one more is published, with the protection in force.
 * @param begunAt when the upload of the new one was created.
 */
export function rotationOf(
  live: readonly LiveVersion[],
  spec: CollectionSpec,
  begunAt: Date,
  now: Date,
): RotationPlan<LiveVersion> {
  const versions = live.map((version) => withProtection(version, spec));
  return planRotation(versions, spec, { begunAt }, now);
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

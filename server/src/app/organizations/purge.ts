import { formatTimeIn } from "@strongroom/protocol/times";
import type { Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { isRemovalBlocked } from "../../domain/rotation.ts";
import { withProtection } from "../../domain/version.ts";
import type { OrganizationCollection, PurgeRecord, Transaction, UploadRow } from "../ports/database.ts";
import type { LiveVersion } from "../ports/live-versions.ts";
import type { UploadSettings } from "../settings.ts";
import { endUpload, lockCollection } from "../uploads/reservations.ts";
import { removeVersion } from "../versions/removal.ts";
import { MAX_NAMED, settleClosing } from "./closing-object.ts";
import { type EndOrganizationDeps, requireAdmin, requireOrganization } from "./organizations.ts";

/** What {@link purgeOrganization} needs. */
export interface PurgeDeps extends EndOrganizationDeps {
  readonly settings: Pick<UploadSettings, "purgeDelayMs">;
}

/** Live versions removed in one transaction. */
const BATCH = 200;

/**
 * Removes every version of a closed organization and ends its uploads; the sweeper deletes the bytes. The record is
 * written first, so that it stays whatever ends this in the middle; a repeated call removes what is left.
 * @param confirmed how many live versions the caller expects, and their bytes.
 * @throws DomainError ACCESS_DENIED, ORGANIZATION_NOT_FOUND, PURGE_REFUSED
 */
export async function purgeOrganization(
  deps: PurgeDeps,
  principal: Principal,
  name: string,
  confirmed: { readonly versions: bigint; readonly bytes: bigint },
): Promise<PurgeRecord> {
  requireAdmin(principal, "purge-organization");
  const found = await survey(deps, name);
  const record = await deps.database.transaction(async (tx) => {
    const row = await tx.organizations.lock(name);
    if (row.closedAt?.getTime() !== found.closedAt.getTime()) throw refused(name, "open", "it was opened meanwhile");
    if (found.versions !== confirmed.versions || found.bytes !== confirmed.bytes)
      throw refused(
        name,
        "unconfirmed",
        `it has ${found.versions} versions with ${found.bytes} bytes in ${found.collections.length} collections; to ` +
          "remove all of them for ever, give these numbers as version_count and size_bytes",
        {
          version_count: `${found.versions}`,
          size_bytes: `${found.bytes}`,
          collections: `${found.collections.length}`,
        },
      );
    // The counter says what all rows say, at one moment.
    if (row.storedBytes !== found.bytes)
      throw refused(name, "unconfirmed", "versions of it were published or removed while they were counted; repeat it");
    const record: PurgeRecord = {
      at: tx.now.toISOString(),
      by: principal.user.name,
      versions: `${found.versions}`,
      bytes: `${found.bytes}`,
      collections: found.collections.slice(0, MAX_NAMED).map((collection) => collection.name),
    };
    await tx.organizations.notePurge(name, record);
    await tx.audit({
      kind: "organization.purged",
      actor: principal,
      collectionName: "",
      object: name,
      details: { organization: name, version_count: record.versions, size_bytes: record.bytes },
    });
    return record;
  });
  await settleClosing(deps, name);
  for (const collection of found.collections) await purgeCollection(deps, principal, name, record, collection);
  return record;
}

/**
 * Counts the live versions, collection by collection and without a transaction around all of them: an organization can
 * have thousands, and a transaction that lasts holds up the upkeep of the whole database.
 * @throws DomainError PURGE_REFUSED for an open organization, and for a version that is held or protected, or being
 *   committed
 */
async function survey(deps: PurgeDeps, name: string) {
  const { database } = deps;
  const { closedAt, collections } = await database.read(async (tx) => {
    const row = await requireOrganization(tx, deps, name);
    if (row?.closedAt == null) throw refused(name, "open", "it takes uploads; close it first");
    return { closedAt: row.closedAt, collections: await tx.organizations.collectionsOf(name) };
  });
  let [versions, bytes] = [0n, 0n];
  const surveyed: SurveyedCollection[] = [];
  for (const collection of collections)
    await database.read(async (tx) => {
      const { id } = collection;
      requireNoCommit(name, collection, await tx.uploads.unsettled(id));
      const sums = await tx.live.sumOf(id, name);
      const minRetentionMs = deps.config.current().collections.get(collection.name)?.minRetentionMs;
      const blocked = await tx.live.blockedOf(id, name, tx.now, minRetentionMs);
      if (blocked !== undefined) requireRemovable(tx, deps, name, collection, blocked);
      versions += sums.versions;
      bytes += sums.bytes;
      surveyed.push({ ...collection, lastNumber: sums.lastNumber });
    });
  return { closedAt, versions, bytes, collections: surveyed };
}

/** A collection, and the highest number of what was counted in it; a number is given once a commit is prepared. */
interface SurveyedCollection extends OrganizationCollection {
  readonly lastNumber: bigint;
}

function requireNoCommit(name: string, collection: OrganizationCollection, uploads: readonly UploadRow[]): void {
  if (uploads.some((upload) => upload.organization === name && upload.state === "committing"))
    throw refused(name, "committing", `a backup to "${collection.name}" is being committed; repeat it in a moment`);
}

/** Locks the organization: nobody opens it until the transaction ends. The collection must be locked. */
async function requireSamePurge(tx: Transaction, name: string, record: PurgeRecord): Promise<void> {
  const { closedAt, purge } = await tx.organizations.lock(name);
  if (closedAt === null || closedAt.toISOString() > record.at)
    throw refused(name, "open", "it was opened meanwhile, and what was not removed before stays; close it first");
  if (purge?.at !== record.at)
    throw refused(name, "unconfirmed", "another purge of it began meanwhile; look at what is left, and repeat it");
}

function requireRemovable(
  tx: Transaction,
  { config }: PurgeDeps,
  name: string,
  collection: OrganizationCollection,
  row: LiveVersion,
): void {
  const spec = config.current().collections.get(collection.name);
  const version = spec === undefined ? row : withProtection(row, spec);
  if (!isRemovalBlocked(version, tx.now)) return;
  const why = version.held
    ? "held; release it first"
    : `protected until ${formatTimeIn(version.protectedUntil!, spec?.timezone ?? "")}`;
  throw refused(name, "protected", `version ${version.number} of "${collection.name}" is ${why}`, {
    collection: collection.name,
    number: `${version.number}`,
  });
}

async function purgeCollection(
  deps: PurgeDeps,
  principal: Principal,
  name: string,
  record: PurgeRecord,
  collection: SurveyedCollection,
): Promise<void> {
  const { id, lastNumber } = collection;
  const removedBy = `user:${principal.user.name}`;
  for (let isDone = false; !isDone; )
    isDone = await deps.database.transaction(async (tx) => {
      const { uploads } = await lockCollection(tx, { id });
      await requireSamePurge(tx, name, record);
      requireNoCommit(name, collection, uploads);
      for (const upload of uploads)
        if (upload.organization === name && upload.state === "open")
          await endUpload(tx, upload, "aborted", "its organization was purged", principal);
      // Nobody confirmed that what was published later is removed.
      const batch = await tx.live.listOf(id, name, lastNumber, BATCH);
      for (const version of batch) {
        requireRemovable(tx, deps, name, collection, version);
        await removeVersion(tx, deps.settings, { trashRetentionMs: undefined }, version, removedBy);
      }
      const soon = new Date(tx.now.getTime() + deps.settings.purgeDelayMs);
      await tx.organizations.hastenTrash(name, id, soon);
      return batch.length < BATCH;
    });
}

function refused(organization: string, cause: string, why: string, more: Record<string, string> = {}): DomainError {
  return new DomainError("PURGE_REFUSED", `organization "${organization}" is not purged: ${why}`, {
    metadata: { organization, cause, ...more },
  });
}

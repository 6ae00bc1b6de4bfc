/*
 * What a collection asks of an upload beside room: its size, and how often versions come.
 */
import { formatSizePair } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { countedWindow, requireInterval, requirePlaceInWindow } from "../../domain/pace.ts";
import type { Transaction } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";
import type { LockedCollection } from "./room.ts";
import { storeFailure } from "./store-failure.ts";

/** @throws DomainError VERSION_TOO_SMALL, which is final. */
export function requireSize(spec: CollectionSpec, size: bigint): void {
  if (size >= spec.minVersionSize) return;
  const [has, least] = formatSizePair(size, spec.minVersionSize);
  throw new DomainError(
    "VERSION_TOO_SMALL",
    `the version would have ${has}, and collection "${spec.name}" takes none below ` +
      `${least} (minVersionSize); look at what makes the dump`,
    { metadata: { size_bytes: String(size), min_version_size_bytes: String(spec.minVersionSize) } },
  );
}

const DAY_MS = 24 * 3_600_000;

/** What is asked to wait until earlier uploads are a day old waits this long before it asks again, in milliseconds. */
const TOO_MANY_RETRY_MS = 15 * 60_000;

/** So many uploads within so many milliseconds may fail to begin in the store before the next one has to wait. */
const NOT_BEGUN = { most: 12, withinMs: 10 * 60_000, retryMs: 30_000 };

/**
 * Refuses an upload while the store has failed to begin several. These leave rows too, and are no fault of the callers:
 * they are slowed down, at most 1728 a day, and do not count among the uploads of a day, so that backups go on as soon
 * as the store is back.
 * @throws DomainError STORE_UNAVAILABLE
 */
function requireStoreBegins(failed: number): void {
  if (failed < NOT_BEGUN.most) return;
  throw storeFailure("the object store failed again and again; repeat the call later", undefined, NOT_BEGUN.retryMs);
}

/**
 * Refuses an upload where its collection had too many within a day: each leaves rows behind for a while, also when it
 * is aborted at once. And while the store fails to begin any.
 * @throws DomainError STORE_UNAVAILABLE, COLLECTION_BUSY
 */
export async function requireFewUploads(
  tx: Transaction,
  spec: CollectionSpec,
  { maxUploadsPerDay }: Pick<UploadSettings, "maxUploadsPerDay">,
  collection: LockedCollection,
): Promise<void> {
  const ago = (ms: number) => new Date(tx.now.getTime() - ms);
  const begun = await tx.uploads.countBegun(collection.row.id, ago(DAY_MS), ago(NOT_BEGUN.withinMs));
  requireStoreBegins(begun.failed);
  const count = begun.inStore;
  if (count < maxUploadsPerDay) return;
  throw new DomainError(
    "COLLECTION_BUSY",
    `collection "${spec.name}" takes ${maxUploadsPerDay} uploads within 24 hours, aborted ones too, and had ` +
      `${count}; ` +
      "look for a job that begins them over and over",
    { metadata: { max_uploads_per_day: String(maxUploadsPerDay) }, retryAfterMs: TOO_MANY_RETRY_MS },
  );
}

/**
 * Refuses an upload begun at `begunAt` when versions come too often. Asked when it is created, and again when it is
 * committed, since many can be created before one of them is committed. Uploads being committed count as the versions
 * they are to be; the collection is locked.
 * @throws DomainError VERSION_TOO_SOON, WINDOW_FULL
 */
export async function requirePace(
  tx: Transaction,
  spec: CollectionSpec,
  settings: Pick<UploadSettings, "leaseMs">,
  collection: LockedCollection,
  begunAt: Date,
): Promise<void> {
  const committing = collection.uploads.filter((upload) => upload.state === "committing");
  if (spec.minIntervalMs !== undefined) {
    const newest = (await tx.versions.listLive(collection.row.id, undefined, 1))[0];
    // A commit renews the lease when it is prepared. One that the store never finishes holds nothing up after that.
    const prepared = committing.map((upload) => new Date(upload.leaseExpiresAt.getTime() - settings.leaseMs));
    requireInterval(spec, newest === undefined ? prepared : [newest.committedAt, ...prepared], tx.now);
  }
  const window = countedWindow(spec, begunAt);
  if (window === undefined) return;
  const begun = committing.filter((upload) => upload.begunAt >= window.start && upload.begunAt < window.end);
  const count = begun.length + (await tx.versions.countBegun(collection.row.id, window.start, window.end));
  requirePlaceInWindow(spec, window, count, tx.now);
}

/**
 * Refuses when the collection's organization is read-only.
 * @throws DomainError ORGANIZATION_CLOSED
 */
export async function requireOpenOrganization(
  tx: Transaction,
  { name, organization }: Pick<CollectionSpec, "name" | "organization">,
): Promise<void> {
  if (organization === "") return;
  const row = await tx.organizations.find(organization);
  if (row?.closedAt == null) return;
  throw new DomainError(
    "ORGANIZATION_CLOSED",
    `collection "${name}" takes no uploads: its organization "${organization}" is closed (${row.closedReason}); what ` +
      "is stored can be read",
    { metadata: { organization, closed_reason: row.closedReason } },
  );
}

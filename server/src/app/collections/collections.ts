import { timingSafeEqual } from "node:crypto";
import { maySee, type Principal } from "../../domain/access.ts";
import { type ClockState, clockState } from "../../domain/clock.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { collectionNotFound } from "../../domain/errors.ts";
import {
  checkHealth,
  frozenCheck,
  type HealthCheck,
  type HealthStatus,
  type HealthVersion,
  NO_FACTS,
  policyCheck,
  worst,
} from "../../domain/health.ts";
import { shareOf } from "../../domain/policy-guard.ts";
import { NOTHING_STORED, storeCheck } from "../../domain/store-health.ts";
import { nextWindowStart, openWindow } from "../../domain/window.ts";
import { findFrozen, requireVisible } from "../guards.ts";
import { type ConfigSource, isOutdated, pinned } from "../ports/config-source.ts";
import type { CollectionRow, Database, FailedUpload, Transaction } from "../ports/database.ts";
import type { CollectionFacts } from "../ports/live-versions.ts";
import type { DiskReserve } from "../uploads/disk-reserve.ts";
import { lockCollection } from "../uploads/reservations.ts";
import { roomFor } from "../uploads/room.ts";
import { mayWait, nextRemovals } from "../versions/confirm-policy.ts";
import { roomCheck } from "./room-check.ts";

/** The ports for reading collections and their health. */
export interface CollectionDeps {
  readonly database: Database;
  readonly config: ConfigSource;
  /** What uploads leave free on the disks of this machine; nothing when left out. */
  readonly disk?: DiskReserve | undefined;
  /** SHA-256 in hexadecimal. */
  readonly sha256: (text: string) => string;
}

/** A collection with its windows at this moment. */
export interface CollectionView {
  readonly name: string;
  /** Undefined while it is frozen: its configuration object is gone, and its limits with it. */
  readonly spec: CollectionSpec | undefined;
  readonly id: string;
  readonly acceptsUploadsNow: boolean;
  readonly nextWindowAt: Date | undefined;
}

/** A collection with its usage. */
export interface CollectionDetails extends CollectionView {
  readonly usage: Pick<CollectionRow, "storedBytes" | "reservedBytes" | "trashBytes"> & {
    readonly versionCount: number;
    readonly openUploads: number;
    /** Bytes. */
    readonly nextUploadAllowance: bigint;
  };
}

/** A configured collection at this moment. */
export function viewOf(spec: CollectionSpec, id: string, now: Date): CollectionView {
  const open = spec.windows.length === 0 || openWindow(spec.windows, spec.timezone, now) !== undefined;
  return {
    name: spec.name,
    spec,
    id,
    acceptsUploadsNow: open,
    nextWindowAt: nextWindowStart(spec.windows, spec.timezone, now),
  };
}

/** A collection whose configuration object is gone. */
export function frozenView(row: Pick<CollectionRow, "name" | "id">): CollectionView {
  return { name: row.name, spec: undefined, id: row.id, acceptsUploadsNow: false, nextWindowAt: undefined };
}

/** Describes a collection with what it uses. */
export async function getCollection(
  deps: CollectionDeps,
  principal: Principal,
  name: string,
): Promise<CollectionDetails> {
  const { config } = pinned(deps);
  return await deps.database.transaction(async (tx) => {
    const frozen = await findFrozen(tx, config, principal, name);
    if (frozen !== undefined) return await frozenDetails(tx, frozen);
    const spec = requireVisible(config, principal, name);
    const collection = await lockCollection(tx, { name: spec.name });
    // Read again: lapsed uploads have given their space back since.
    const fresh = (await tx.collections.findByName(spec.name))!;
    const open = collection.uploads.filter((u) => !u.lapsed && u.endedAt === null);
    const room = await roomFor(tx, config, spec, collection, undefined);
    return {
      ...viewOf(spec, collection.row.id, tx.now),
      usage: {
        storedBytes: fresh.storedBytes,
        reservedBytes: fresh.reservedBytes,
        trashBytes: fresh.trashBytes,
        versionCount: fresh.liveVersions,
        openUploads: open.length,
        nextUploadAllowance: room.total,
      },
    };
  });
}

async function frozenDetails(tx: Transaction, row: CollectionRow): Promise<CollectionDetails> {
  const { storedBytes, reservedBytes, trashBytes, liveVersions: versionCount } = row;
  const open = (await tx.uploads.unsettled(row.id)).filter((u) => !u.lapsed && u.leaseExpiresAt > tx.now);
  const usage = { storedBytes, reservedBytes, trashBytes, versionCount, openUploads: open.length };
  return { ...frozenView(row), usage: { ...usage, nextUploadAllowance: 0n } };
}

/** The health of a collection. */
export interface CollectionHealth {
  readonly status: HealthStatus;
  readonly checks: readonly HealthCheck[];
  readonly newest: HealthVersion | undefined;
  /** The last upload that failed, when no version was begun after it. */
  readonly lastFailed: FailedUpload | undefined;
  /** Its time zone, an IANA name; empty while it is frozen. */
  readonly timezone: string;
}

/** Every check of a collection; one without a configuration is frozen. */
export async function healthChecks(
  tx: Transaction,
  config: ConfigSource,
  { name, spec }: { readonly name: string; readonly spec: CollectionSpec | undefined },
  facts: CollectionFacts | undefined,
  clock: ClockState,
): Promise<HealthCheck[]> {
  const { now } = tx;
  const own =
    spec === undefined
      ? [frozenCheck(facts?.frozenSince ?? null, isOutdated(config))]
      : [...checkHealth(spec, facts ?? NO_FACTS, clock, now), await policyOf(tx, spec, facts)];
  const of = { name, timezone: spec?.timezone ?? "" };
  return [...own, storeCheck(of, facts, facts?.lost ?? [], facts ?? NOTHING_STORED, now)];
}

async function policyOf(tx: Transaction, spec: CollectionSpec, facts: CollectionFacts | undefined) {
  const share = Math.min(shareOf(facts?.confirmedPolicy ?? null), spec.removalShare);
  const isRaised = share < spec.removalShare;
  const next = facts && (isRaised || mayWait(spec, facts)) ? await nextRemovals(tx, spec, facts) : undefined;
  const unconfirmed = next && (isRaised || next.waits) ? { ...next, share } : undefined;
  return policyCheck(spec.name, unconfirmed, facts?.policyHeldSince ?? null);
}

/**
 * Runs the health checks for a caller that may see the collection, or one that knows its health secret. Every other
 * caller gets the one answer for collections that do not exist or may not be seen.
 */
export async function getCollectionHealth(
  deps: CollectionDeps,
  caller: { readonly principal: Principal | undefined; readonly secret: string | undefined },
  name: string,
): Promise<CollectionHealth> {
  const { config } = pinned(deps);
  const spec = config.current().collections.get(name);
  const bySecret = isHealthSecret(deps, spec, caller.secret);
  const bySession = spec !== undefined && caller.principal !== undefined && maySee(caller.principal, spec);
  return await deps.database.transaction(async (tx) => {
    const frozen = caller.principal === undefined ? undefined : await findFrozen(tx, config, caller.principal, name);
    if (frozen === undefined && !(bySecret || bySession)) throw collectionNotFound(name);
    const collection = frozen ?? (await tx.collections.findByName(name));
    const facts = (await tx.live.facts([{ ...spec, name }], tx.now)).get(name);
    const clock = clockState(await tx.clock.read(), tx.now);
    const newest = facts?.newest;
    const checks = await healthChecks(tx, config, { name, spec }, facts, clock);
    // Not where many collections are listed: it asks the organization's row under a lock.
    if (spec !== undefined && collection !== undefined)
      checks.push(await roomCheck(tx, { config, disk: deps.disk }, spec, collection, newest));
    const lastFailed = collection === undefined ? undefined : await tx.collections.lastFailed(collection.id);
    return { status: worst(checks.map((c) => c.status)), checks, newest, lastFailed, timezone: spec?.timezone ?? "" };
  });
}

function isHealthSecret(deps: CollectionDeps, spec: CollectionSpec | undefined, secret: string | undefined): boolean {
  if (secret === undefined) return false;
  // Hashes and compares in every case, so that the time tells nothing about which collections exist.
  const given = Buffer.from(deps.sha256(secret), "hex");
  const expected = Buffer.from(spec?.healthSecretSha256 ?? "0".repeat(64), "hex");
  return expected.length === given.length && timingSafeEqual(expected, given) && spec?.healthSecretSha256 !== undefined;
}

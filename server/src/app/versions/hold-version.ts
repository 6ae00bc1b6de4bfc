import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { withProtection } from "../../domain/version.ts";
import { requireAction, requireWritable } from "../guards.ts";
import type { Hold, Transaction, VersionRow } from "../ports/database.ts";
import type { LiveVersion } from "../ports/live-versions.ts";
import { requireRoomForCommits } from "./removal.ts";
import { requireVersion, settled, type VersionDeps, versionNotFound } from "./versions.ts";

/** Names a version by its number. */
interface HeldName {
  readonly collection: string;
  readonly number: bigint;
}

/**
 * Holds a live version: from now on neither rotation nor anyone removes it, until it is released. Holding it again with
 * another reason replaces the reason; with the same one it changes nothing, but that systemAdmin takes over the hold of
 * somebody else.
 * @param name.reason why, for people; not empty.
 * @throws DomainError ACCESS_DENIED for one that systemAdmin holds, to everybody else. COLLECTION_BUSY while a backup
 *   is being committed for which rotation must remove it.
 */
export async function holdVersion(
  deps: VersionDeps,
  principal: Principal,
  name: HeldName & { readonly reason: string },
): Promise<VersionRow> {
  return await changeHold(deps, principal, name, (version, { now }) =>
    version.held &&
    version.holdReason === name.reason &&
    (version.heldByAdmin || !hasSystemRole(principal, "systemAdmin"))
      ? undefined
      : {
          held: true,
          holdReason: name.reason,
          heldBy: `user:${principal.user.name}`,
          heldByAdmin: hasSystemRole(principal, "systemAdmin"),
          heldAt: now,
        },
  );
}

/**
 * Ends the hold of a live version; its protection by `minRetention` goes on. Idempotent.
 * @throws DomainError ACCESS_DENIED for one that systemAdmin holds, to everybody else.
 */
export async function releaseVersion(deps: VersionDeps, principal: Principal, name: HeldName): Promise<VersionRow> {
  return await changeHold(deps, principal, name, (version) =>
    version.held ? { held: false, holdReason: "", heldBy: "", heldByAdmin: false, heldAt: null } : undefined,
  );
}

/** @param to the hold that a version gets; undefined for the one it has. */
async function changeHold(
  deps: VersionDeps,
  principal: Principal,
  name: HeldName,
  to: (version: VersionRow, tx: Transaction) => Hold | undefined,
): Promise<VersionRow> {
  await requireWritable(deps, principal, name.collection, "manage");
  const { row, spec } = await deps.database.transaction(async (tx) => {
    const spec = requireAction(deps.config, principal, name.collection, "manage");
    const found = await requireVersion(tx, spec, name, () => true);
    await tx.collections.lockById(found.collectionId);
    const version = (await tx.versions.findById(found.id))!;
    if (version.state !== "live") throw versionNotFound(spec, name.number, version, tx.now);
    const hold = to(version, tx);
    if (hold === undefined) return { row: version, spec };
    if (version.heldByAdmin && !hasSystemRole(principal, "systemAdmin")) throw heldByAdmin(version);
    // What rotation was to remove for a prepared commit stays now, or the other way round.
    const after = (live: readonly LiveVersion[]) =>
      live.map((other) => (other.id === version.id ? { ...other, held: hold.held } : other));
    await requireRoomForCommits(tx, spec, version, after, hold.held ? "hold" : "release");
    await tx.versions.hold(version.id, hold);
    await tx.audit({
      kind: hold.held ? "version.held" : "version.released",
      actor: principal,
      collectionName: version.collectionName,
      details: {
        number: String(version.number),
        reason: hold.held ? hold.holdReason : version.holdReason,
        ...(hold.held ? {} : { held_by: version.heldBy, held_at: version.heldAt?.toISOString() ?? "" }),
      },
    });
    return { row: (await tx.versions.findById(version.id))!, spec };
  });
  return withProtection(await settled(deps, row), spec);
}

function heldByAdmin({ number, collectionName, heldBy, holdReason }: VersionRow): DomainError {
  return new DomainError(
    "ACCESS_DENIED",
    `version ${number} of "${collectionName}" is held by ${heldBy.replace(/^user:/, "")}, a systemAdmin ` +
      `(${holdReason}); only a systemAdmin may change or release that`,
    { metadata: { action: "release", collection: collectionName, number: String(number) } },
  );
}

import type { Principal } from "../../domain/access.ts";
import { withProtection } from "../../domain/version.ts";
import { requireAction, requireWritable } from "../guards.ts";
import type { VersionRow } from "../ports/database.ts";
import { requireVersion, settled, type VersionDeps, versionNotFound } from "./versions.ts";

/**
 * Notes that the size of a live version is right, however small it is: the health check `shrunk` and the guard of
 * rotation end for it, and what comes is compared with it. Idempotent.
 */
export async function confirmVersion(
  deps: VersionDeps,
  principal: Principal,
  name: { readonly collection: string; readonly number: bigint },
): Promise<VersionRow> {
  await requireWritable(deps, principal, name.collection, "manage");
  const { row, spec } = await deps.database.transaction(async (tx) => {
    const spec = requireAction(deps.config, principal, name.collection, "manage");
    const found = await requireVersion(tx, spec, name, () => true);
    await tx.collections.lockById(found.collectionId);
    const version = (await tx.versions.findById(found.id))!;
    if (version.state !== "live") throw versionNotFound(spec, name.number, version, tx.now);
    if (version.confirmedAt !== null) return { row: version, spec };
    await tx.versions.confirm(version.id, tx.now);
    await tx.audit({
      kind: "version.confirmed",
      actor: principal,
      collectionName: version.collectionName,
      object: version.id,
      details: {
        number: String(version.number),
        size: String(version.size),
        usual_size: version.usualSize === null ? "" : String(version.usualSize),
      },
    });
    return { row: (await tx.versions.findById(version.id))!, spec };
  });
  return withProtection(await settled(deps, row), spec);
}

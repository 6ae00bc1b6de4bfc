import { formatSize, formatSizePair } from "@strongroom/protocol/sizes";
import type { Principal } from "../../domain/access.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { countedSize, quotaLimits } from "../../domain/quota.ts";
import { isRemovalBlocked } from "../../domain/rotation.ts";
import { protectionUntil, withProtection } from "../../domain/version.ts";
import { clockDoubt } from "../clock-doubt.ts";
import { requireAction, requireWritable } from "../guards.ts";
import type { Transaction, VersionRow } from "../ports/database.ts";
import { keptSums, type LivePlan, livePlansBeside, staying, unguardedLivePlan } from "./live-plan.ts";
import { comingVersions, keptAfterRemovalMs, moveUsage } from "./removal.ts";
import { requireVersion, settled, type VersionDeps, versionNotFound } from "./versions.ts";

/**
 * Brings a removed version back under its number, while its bytes are kept. One that is live is returned as it is. It
 * is protected for as long as a removed version is kept where rotation would take it away again with the next version:
 * whoever brings it back has that long to do something with it, and nothing has to be released afterwards.
 * @throws DomainError QUOTA_EXCEEDED when it does not fit beside everything that is there.
 */
export async function undeleteVersion(
  deps: VersionDeps,
  principal: Principal,
  name: { readonly collection: string; readonly number: bigint },
): Promise<VersionRow> {
  await requireWritable(deps, principal, name.collection, "manage");
  const { row, spec } = await deps.database.transaction(async (tx) => {
    // Again: the limits may have changed while this waited for its turn.
    const spec = requireAction(deps.config, principal, name.collection, "manage");
    const found = await requireVersion(tx, spec, name, () => true);
    await tx.collections.lockById(found.collectionId);
    const row = (await tx.versions.findById(found.id))!;
    if (row.state === "live") return { row, spec };
    const version = withProtection(row, spec);
    // First, so that the plans of rotation are asked of the database, which need not read all versions for that; a
    // refusal takes it back.
    if (!(await tx.versions.restore(version.id, tx.now, protectionUntil(version, null))))
      throw versionNotFound(spec, name.number, version, tx.now);
    await moveUsage(tx, version, { trashBytes: -version.size, storedBytes: version.size });
    const protectedUntil = await protectionFor(tx, spec, version, keptAfterRemovalMs(deps.settings, spec));
    await tx.versions.protect(version.id, protectionUntil(version, protectedUntil));
    await requireRoom(tx, spec, { ...version, protectedUntil });
    await tx.audit({
      kind: "version.undeleted",
      actor: principal,
      collectionName: version.collectionName,
      object: version.id,
      details: {
        number: String(version.number),
        size: String(version.size),
        removed_by: version.removedBy,
        protected_until: protectedUntil?.toISOString() ?? "",
      },
    });
    return { row: (await tx.versions.findById(version.id))!, spec };
  });
  return withProtection(await settled(deps, row), spec);
}

/** Its own protection, or a longer one where that is all that keeps rotation from it. It is live, and not protected. */
async function protectionFor(
  tx: Transaction,
  spec: CollectionSpec,
  back: VersionRow,
  keptMs: number,
): Promise<Date | null> {
  // A guard that holds now, and a doubt in the clock, end before the protection would.
  const unguarded = { ...spec, rotationGuard: undefined };
  const row = await tx.collections.lockById(back.collectionId);
  const plan = await unguardedLivePlan(tx, row, unguarded, { begunAt: tx.now, coming: [] });
  if (isKept(plan, back)) return back.protectedUntil;
  const until = new Date(tx.now.getTime() + keptMs);
  return back.protectedUntil !== null && back.protectedUntil > until ? back.protectedUntil : until;
}

function isKept({ older, remove }: Pick<LivePlan, "older" | "remove">, { id }: Pick<VersionRow, "id">): boolean {
  return ![...older, ...remove].some((version) => version.id === id);
}

/**
 * The hard limit holds at once, with what the next rotation will remove, and afterwards beside every upload that has
 * space reserved; and beside the next backup, where nobody can remove again what came back. The tenant's limit counts
 * removed versions already.
 * @param back it is live, with its protection.
 */
async function requireRoom(tx: Transaction, spec: CollectionSpec, back: VersionRow): Promise<void> {
  const row = await tx.collections.lockById(back.collectionId);
  const uploads = await tx.uploads.holding(back.collectionId);
  const reserved = uploads.reduce((sum, { reservedBytes }) => sum + reservedBytes, 0n);
  const plans = await livePlansBeside(tx, row, spec, tx.now, comingVersions(uploads), uploads);
  const doubt = await clockDoubt(tx);
  const size = countedSize(quotaLimits(spec), back.size);
  const now = plans[0].all.bytes - size;
  const kept = plans.map((plan) => {
    const staysSo = staying(plan, spec, doubt);
    return keptSums(staysSo, spec).bytes - (isKept(staysSo, back) ? size : 0n);
  });
  const later = kept.reduce((a, b) => (a > b ? a : b)) + reserved;
  const free = spec.maxCollectionSize > later ? spec.maxCollectionSize - later : 0n;
  // A backup that has less room than this already keeps what it has.
  const ofNext = !isRemovalBlocked(back, tx.now) ? 0n : free < spec.maxOneVersionSize ? free : spec.maxOneVersionSize;
  const used = now > later + ofNext ? now : later + ofNext;
  if (used + size <= spec.maxCollectionSize) return;
  const left = spec.maxCollectionSize > used ? spec.maxCollectionSize - used : 0n;
  const [has, leftText] = formatSizePair(back.size, left);
  throw new DomainError(
    "QUOTA_EXCEEDED",
    `version ${back.number} has ${has} and ${leftText} are left of maxCollectionSize, ` +
      `${formatSize(spec.maxCollectionSize)}, beside what stays and the next backup; remove other versions, or ` +
      "raise it",
    {
      metadata: {
        limit: "collection",
        limit_bytes: String(spec.maxCollectionSize),
        received_bytes: "0",
        requested_bytes: String(back.size),
        remaining_bytes: String(left),
      },
    },
  );
}

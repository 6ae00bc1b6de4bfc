/*
 * What rotation does for one more version, without reading every live one where the policy does not ask for that.
 */
import type { ClockState } from "../../domain/clock.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { asideBecause } from "../../domain/guarded-rotation.ts";
import { policyChange } from "../../domain/policy-change.ts";
import { CHANGES_TOGETHER_MS, isConfirmed, mustWait, type PolicyChange } from "../../domain/policy-guard.ts";
import {
  LEAST_COUNTED_SIZE,
  quotaLimits,
  type SizeSums,
  sumVersions,
  victimsOf,
  withoutSizes,
} from "../../domain/quota.ts";
import { goesByTime, isRemovalBlocked, keepReasons, newestFirst, type RotationRules } from "../../domain/rotation.ts";
import { BASELINE, guardingVersion, isShrunk, type SizedVersion, usualSize } from "../../domain/shrunk.ts";
import { withProtection } from "../../domain/version.ts";
import type { CollectionRow, Transaction, UploadRow } from "../ports/database.ts";
import type { LiveVersion, NumberedTime } from "../ports/live-versions.ts";

/** A plan of `rotationOf` whose kept versions are only summed up: all live ones but `older` and `remove`. */
export interface LivePlan {
  /** Every live version. */
  readonly all: SizeSums;
  readonly older: readonly LiveVersion[];
  readonly remove: readonly LiveVersion[];
  readonly guard: SizedVersion | undefined;
  /** How many are damaged; none when left out. */
  readonly damaged?: number;
  /** The change of rules that waits for a confirmation; undefined for none. */
  readonly waits?: PolicyChange | undefined;
}

/** What a plan needs of a collection's row. */
export type PlannedCollection = Pick<
  CollectionRow,
  "id" | "liveVersions" | "countedBytes" | "storedBytes" | "confirmedPolicy"
>;

/** What the plan is made for. */
export interface PlannedFor {
  /** When the upload of the new version was created. */
  readonly begunAt: Date;
  /** Versions that are being committed, and the new one where its size is known. */
  readonly coming: readonly SizedVersion[];
}

/** Plans rotation for one more version, as `rotationOf` does over all live ones. The collection's row is locked. */
export async function livePlan(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  of: PlannedFor,
): Promise<LivePlan> {
  const plan = await unguardedLivePlan(tx, row, spec, of);
  const change = await changeOf(tx, row, spec, plan, of);
  if (plan.guard !== undefined || !mustWait(change, spec, row.confirmedPolicy)) return plan;
  return { all: plan.all, older: [], remove: [], guard: undefined, waits: change };
}

/**
 * The plans that a version may have to fit beside: its own, and under `gfs`, whose choice depends on what is published,
 * that of each upload of the collection that is being committed and cannot be refused any more. Whichever is published
 * first decides what stays of the live versions; what is published after it only removes more. So what fits beside each
 * of these plans fits in every order.
 * @param others the other uploads of the collection.
 */
export async function livePlansBeside(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  begunAt: Date,
  coming: readonly SizedVersion[],
  others: readonly Pick<UploadRow, "state" | "begunAt">[],
): Promise<readonly [own: LivePlan, ...first: LivePlan[]]> {
  const own = await livePlan(tx, row, spec, { begunAt, coming });
  const committing = spec.rotation.strategy === "gfs" ? others.filter(({ state }) => state === "committing") : [];
  const first: LivePlan[] = [];
  for (const upload of committing) first.push(await livePlan(tx, row, spec, { begunAt: upload.begunAt, coming }));
  return [own, ...first];
}

/**
 * What a plan removes, without the bytes of an upload: what gives way to them goes under any rules. Where the rules are
 * not those confirmed, what goes by them in time too, and what went or goes by changes before; then every live version
 * is read, until they are confirmed or in force.
 */
export async function changeOf(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  plan: LivePlan,
  { begunAt, coming }: PlannedFor,
): Promise<PolicyChange> {
  const victims = victimsOf(plan, keptSums(plan, spec).bytes, quotaLimits(spec), 0n, 0n);
  const next = { removes: victims.length, live: plan.all.count };
  if (plan.guard !== undefined || isConfirmed(spec, row.confirmedPolicy)) return next;
  const most = mostRemovals(spec, row.liveVersions, plan.damaged ?? 0);
  if (most === 0) return next;
  const since = new Date(tx.now.getTime() - CHANGES_TOGETHER_MS);
  const earlier = await tx.live.rotatedTogether(row.id, since);
  // Of rules that nobody knows nothing is still to come, so that the bound says enough.
  const isBound = row.confirmedPolicy === null && !goesByTime(spec.rotation);
  if (isBound && !mustWait({ ...next, removes: most, earlier }, spec, null)) return { ...next, earlier };
  const live = await tx.versions.allLive(row.id);
  const change = policyChange(live, spec, row.confirmedPolicy, victims, { begunAt, now: tx.now, coming });
  return { ...change, earlier };
}

/** No more versions than these go by a collection's rules, whatever is in them. */
export function mostRemovals(spec: CollectionSpec, live: number, damaged: number): number {
  if (goesByTime(spec.rotation)) return live;
  // Damaged versions give way though they have a place.
  return Math.max(0, live - (spec.maxBackupsCount - 1), damaged);
}

/** As {@link livePlan}, whether or not a change of rules has to wait. */
export async function unguardedLivePlan(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  { begunAt, coming }: PlannedFor,
): Promise<LivePlan> {
  const { all, odd } = await counted(tx, row, spec);
  const newest = spec.rotationGuard === undefined ? [] : await tx.live.newest(row.id, 1);
  const guard = guardingVersion(spec, newest, coming);
  if (guard !== undefined) return { all, older: [], remove: [], guard };
  const aside = odd
    .map((version) => withProtection(version, spec))
    .filter((version) => asideBecause(version, spec, tx.now) !== undefined);
  const going = goesByTime(spec.rotation)
    ? await byTime(tx, row, spec, aside, begunAt)
    : await byNumber(tx, row, spec, aside);
  const damaged = odd.filter(({ damage }) => damage !== "").length;
  return { all, ...going, guard, damaged };
}

/**
 * The counters say what the live versions come to, but for the few whose size another limit counts; with those that
 * may take no place.
 */
async function counted(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
): Promise<{ readonly all: SizeSums; readonly odd: readonly LiveVersion[] }> {
  if (row.liveVersions === 0) return { all: { count: 0, bytes: 0n, above: 0n }, odd: [] };
  const { maxOneVersionSize, shrunkFactor } = spec;
  const isSmall = maxOneVersionSize < LEAST_COUNTED_SIZE;
  const least = isSmall ? maxOneVersionSize : 0n;
  const factor = spec.rotationGuard === undefined ? undefined : shrunkFactor;
  const { above, below, odd } = await tx.live.unusual(row.id, spec, least, factor);
  const bytes = isSmall ? row.storedBytes + below : row.countedBytes;
  return { all: { count: row.liveVersions, bytes, above }, odd };
}

/**
 * What is not kept where times decide. Of what is kept only number and time are read; of `fifo-plus-older` only of the
 * versions that are not among the newest, which stay whatever their time.
 */
async function byTime(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  aside: readonly LiveVersion[],
  begunAt: Date,
): Promise<Pick<LivePlan, "older" | "remove">> {
  if (row.liveVersions === 0) return { older: [], remove: [] };
  const ids = aside.map(({ id }) => id);
  const { dated, rules } =
    spec.rotation.strategy === "gfs"
      ? { dated: await tx.live.dated(row.id, undefined, ids), rules: spec }
      : await tailOf(tx, row, spec, ids);
  const ruleOf = (more: readonly LiveVersion[]) => {
    const versions = newestFirst<NumberedTime>([...dated, ...more]);
    const next = { number: (versions[0]?.number ?? 0n) + 1n, begunAt };
    const reasons = keepReasons([next, ...versions], rules, tx.now);
    return (number: bigint) => reasons.get(number)?.rule;
  };
  const rule = ruleOf([]);
  const going = dated.map(({ number }) => number).filter((number) => (rule(number) ?? "older") === "older");
  const plan = { older: [] as LiveVersion[], remove: [] as LiveVersion[] };
  const add = (version: LiveVersion, of: ReturnType<typeof rule>) => {
    const stays = (of !== undefined && of !== "older") || isRemovalBlocked(version, tx.now);
    if (!stays) plan[of === "older" ? "older" : "remove"].push(version);
    // A damaged version gives way to the hard limit: it must not take the room of the next backup.
    else if (asideBecause(version, spec, tx.now) === "damaged") plan.older.push(version);
  };
  for (const version of await tx.live.byNumbers(row.id, going))
    add(withProtection(version, spec), rule(version.number));
  for (const version of aside) add(version, ruleOf([version])(version.number));
  return { older: newestFirst(plan.older), remove: newestFirst(plan.remove) };
}

/**
 * The versions that `fifo-plus-older` does not keep as the newest, after the one that is kept as the last of those: how
 * far it is from them counts. Where its time is not known it has that of one above it, which then comes first.
 * @returns the rules for these versions alone.
 */
async function tailOf(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  exceptIds: readonly string[],
): Promise<{ readonly dated: readonly NumberedTime[]; readonly rules: RotationRules }> {
  const places = spec.maxBackupsCount - 1;
  if (places === 0) return { dated: await tx.live.dated(row.id, undefined, exceptIds), rules: spec };
  const least = await tx.live.numberAt(row.id, { place: places - 1, from: "highest" }, exceptIds);
  // All have a place.
  if (least === undefined) return { dated: [], rules: spec };
  const dated = await tx.live.dated(row.id, least, exceptIds);
  const isUnknown = dated[0] !== undefined && dated[0].begunAt > tx.now;
  const above = isUnknown ? await tx.live.datedAbove(row.id, least, tx.now, exceptIds) : undefined;
  return above === undefined
    ? { dated, rules: { ...spec, maxBackupsCount: 2 } }
    : { dated: [above, ...dated], rules: { ...spec, maxBackupsCount: 3 } };
}

/**
 * What `fifo` does not keep. It goes by number, so that one number parts what stays from what goes; it is looked for
 * from the nearer end. Damaged and guarded shrunk versions are told by their rows, and take no place.
 */
async function byNumber(
  tx: Transaction,
  row: PlannedCollection,
  spec: CollectionSpec,
  aside: readonly LiveVersion[],
): Promise<Pick<LivePlan, "older" | "remove">> {
  const isBlocked = (version: LiveVersion) => isRemovalBlocked(version, tx.now);
  // A damaged version gives way to the hard limit: it must not take the room of the next backup.
  const damagedOf = (versions: readonly LiveVersion[]) =>
    newestFirst(versions.filter((version) => version.damage !== "" && !isBlocked(version)));
  const ids = aside.map(({ id }) => id);
  const places = spec.maxBackupsCount - 1;
  const excess = row.liveVersions - aside.length - places;
  if (excess < 0 || (excess === 0 && aside.length === 0)) return { older: damagedOf(aside), remove: [] };
  // Where the lowest number is that has a place; without places, none has.
  const from = excess < places ? ("lowest" as const) : ("highest" as const);
  const at = places === 0 ? undefined : { place: from === "lowest" ? excess : places - 1, from };
  const free = excess > 0 ? await tx.live.free(row.id, at, tx.now, ids) : [];
  const remove = free.map((version) => withProtection(version, spec)).filter((version) => !isBlocked(version));
  if (aside.length === 0) return { older: [], remove: newestFirst(remove) };
  const least = at && (await tx.live.numberAt(row.id, at, ids));
  // Where nobody has locked the row, a version can have gone since it was read.
  if (places > 0 && least === undefined) return { older: damagedOf(aside), remove: [] };
  const hasPlace = ({ number }: LiveVersion) => least !== undefined && number > least;
  return {
    older: damagedOf(aside.filter(hasPlace)),
    remove: newestFirst([...remove, ...aside.filter((version) => !hasPlace(version) && !isBlocked(version))]),
  };
}

/**
 * The plan as it is while the clock is in doubt: what would go because of its time stays.
 * @param doubt what speaks against the clock; undefined while nothing does.
 */
export function staying(plan: LivePlan, spec: CollectionSpec, doubt: ClockState | undefined): LivePlan {
  return doubt === undefined || !goesByTime(spec.rotation) ? plan : { ...plan, older: [], remove: [] };
}

/** What the plan keeps in any case. */
export function keptSums(plan: LivePlan, spec: CollectionSpec): SizeSums {
  return withoutSizes(plan.all, sumVersions(spec, [...plan.older, ...plan.remove]));
}

/** The usual size of the next version, as `usualSize` says it of all live ones. */
export async function usualSizeIn(tx: Transaction, collectionId: string, spec: CollectionSpec): Promise<bigint | null> {
  const { shrunkFactor } = spec;
  const newest = await tx.live.newest(collectionId, BASELINE);
  if (shrunkFactor === undefined || !newest.some((version) => isShrunk(version, spec))) return usualSize(newest, spec);
  const whole = await tx.live.newestNotShrunk(collectionId, shrunkFactor, BASELINE);
  return usualSize(whole.length > 0 ? whole : newest, spec);
}

import { formatSize } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "./configuration.ts";

/** The facts of a version that its size is judged by. */
export interface SizedVersion {
  readonly number: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** The usual size of its collection when it was committed, in bytes; null when there was nothing to compare with. */
  readonly usualSize: bigint | null;
  /** When somebody said that its size is right; null for never. */
  readonly confirmedAt: Date | null;
}

/** The fields of a collection that a shrunk version is found and guarded against by. */
export type ShrunkLimits = Pick<CollectionSpec, "shrunkFactor" | "rotationGuard">;

/** The factor where the configuration names none: an ordinary clean-up of data does not come to it. */
export const DEFAULT_SHRUNK_FACTOR = 4;

/** So many versions make the usual size. */
export const BASELINE = 10;

/** Whether a version is far below what was usual when it was committed, and nobody confirmed it. */
export function isShrunk(version: SizedVersion, { shrunkFactor }: Pick<ShrunkLimits, "shrunkFactor">): boolean {
  const { size, usualSize, confirmedAt } = version;
  if (shrunkFactor === undefined || usualSize === null || confirmedAt !== null) return false;
  return Number(size) * shrunkFactor < Number(usualSize);
}

/**
 * The usual size of the next version: the median of the last {@link BASELINE} live ones (of two in the middle the
 * smaller), back to the last one that was confirmed. Shrunk ones do not count, so that many of them never become usual;
 * where there are no others any more, what was usual before them still is.
 * @returns null when there is nothing to compare with.
 */
export function usualSize(live: readonly SizedVersion[], limits: Pick<ShrunkLimits, "shrunkFactor">): bigint | null {
  const newestFirst = [...live].sort((a, b) => (a.number < b.number ? 1 : -1));
  const sizes: bigint[] = [];
  for (const version of newestFirst) {
    if (isShrunk(version, limits)) continue;
    sizes.push(version.size);
    if (sizes.length === BASELINE || version.confirmedAt !== null) break;
  }
  if (sizes.length === 0) return newestFirst[0]?.usualSize ?? null;
  sizes.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return sizes[Math.floor((sizes.length - 1) / 2)]!;
}

/**
 * The version because of which rotation removes nothing: the newest one, or one that is just being committed, is shrunk
 * and the collection is guarded against that. Undefined where rotation is free.
 */
export function guardingVersion(
  limits: ShrunkLimits,
  live: readonly SizedVersion[],
  coming: readonly SizedVersion[],
): SizedVersion | undefined {
  if (limits.rotationGuard !== "shrunk") return undefined;
  const newest = live.reduce<SizedVersion | undefined>(
    (a, b) => (a !== undefined && a.number > b.number ? a : b),
    undefined,
  );
  const suspects = newest === undefined ? coming : [newest, ...coming];
  return suspects.find((version) => isShrunk(version, limits));
}

/** `216 B, far below 180 MiB, the usual size`. */
export function describeShrunk({ size, usualSize: usual }: SizedVersion): string {
  return `${formatSize(size)}, far below ${formatSize(usual ?? 0n)}, the median of those before it`;
}

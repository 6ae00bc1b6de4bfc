import { copiesOf, type RotatableVersion, type RotationRules } from "./rotation.ts";

/** Limits of a collection, in bytes; see `CollectionSpec`. */
export interface QuotaLimits {
  /** How many versions rotation keeps; see `copiesOf`. */
  readonly copies: number;
  /** soft */
  readonly maxOneVersionSize: bigint;
  /** hard */
  readonly maxCollectionSize: bigint;
}

/** Some versions, summed up as the quota's arithmetic counts them. */
export interface SizeSums {
  readonly count: number;
  /** Their counted sizes together; see {@link countedSize}. */
  readonly bytes: bigint;
  /** What they have above maxOneVersionSize, together, in bytes. */
  readonly above: bigint;
}

/** Sums up sizes that count as they are given. */
export function sumSizes(
  { maxOneVersionSize }: Pick<QuotaLimits, "maxOneVersionSize">,
  sizes: readonly bigint[],
): SizeSums {
  let bytes = 0n;
  let above = 0n;
  for (const size of sizes) {
    bytes += size;
    if (size > maxOneVersionSize) above += size - maxOneVersionSize;
  }
  return { count: sizes.length, bytes, above };
}

/** Sums without some of those that they contain. */
export function withoutSizes(sums: SizeSums, less: SizeSums): SizeSums {
  return { count: sums.count - less.count, bytes: sums.bytes - less.bytes, above: sums.above - less.above };
}

/** What takes room beside an upload, in bytes. */
export interface QuotaSituation {
  /** The versions that rotation would keep if this upload alone were published. */
  readonly kept: SizeSums;
  /** Reservations of the other open uploads. */
  readonly reservedByOthers: readonly bigint[];
}

/**
 * The limits that a collection's configuration means. Older copies take what is left: where the hard limit has no room
 * for all of them at the soft limit, as many count as there is room for.
 */
export function quotaLimits(
  spec: Omit<QuotaLimits, "copies"> & Pick<RotationRules, "rotation" | "maxBackupsCount">,
): QuotaLimits {
  const { maxOneVersionSize, maxCollectionSize, maxBackupsCount, rotation } = spec;
  let copies = copiesOf(spec);
  if (rotation.strategy === "fifo-plus-older") {
    const room = maxOneVersionSize > 0n ? Number(maxCollectionSize / maxOneVersionSize) : 0;
    copies = Math.max(maxBackupsCount, Math.min(copies, room));
  }
  return { copies, maxOneVersionSize, maxCollectionSize };
}

/** Bytes that all versions at their soft limit leave of the hard limit; negative for an invalid configuration. */
export function extraSpace(limits: QuotaLimits): bigint {
  return limits.maxCollectionSize - BigInt(limits.copies) * limits.maxOneVersionSize;
}

/** The most bytes one upload could reach in an empty collection. */
export function maxUploadSize(limits: QuotaLimits): bigint {
  return limits.maxOneVersionSize + extraSpace(limits);
}

/**
 * Bytes that an upload may have in total, by the formula of the protocol: the lesser of `hard - sum(K) - sum(R)` and
 * `soft + extra - sum over K of max(0, size - soft) - sum over R of max(0, reserved - soft)`, where K are the kept
 * versions and R the other reservations. Never negative.
 */
export function allowance(limits: QuotaLimits, situation: QuotaSituation): bigint {
  const { kept } = situation;
  const reserved = sumSizes(limits, situation.reservedByOthers);
  const ofHardLimit = limits.maxCollectionSize - kept.bytes - reserved.bytes;
  const ofExtraSpace = maxUploadSize(limits) - kept.above - reserved.above;
  const least = ofHardLimit < ofExtraSpace ? ofHardLimit : ofExtraSpace;
  return least > 0n ? least : 0n;
}

/**
 * Every kept version counts at least this many bytes, since its rows and its manifest take that beside it; where
 * maxOneVersionSize is less, that. The trigger that keeps `collections.counted_bytes` has the same number.
 */
export const LEAST_COUNTED_SIZE = 16n * 1024n;

/** What a kept version counts in the quota's arithmetic, in bytes. */
export function countedSize(limits: Pick<QuotaLimits, "maxOneVersionSize">, size: bigint): bigint {
  const least = limits.maxOneVersionSize < LEAST_COUNTED_SIZE ? limits.maxOneVersionSize : LEAST_COUNTED_SIZE;
  return size > least ? size : least;
}

/** Sums up versions by their counted sizes. */
export function sumVersions(
  limits: Pick<QuotaLimits, "maxOneVersionSize">,
  versions: readonly { readonly size: bigint }[],
): SizeSums {
  return sumSizes(
    limits,
    versions.map(({ size }) => countedSize(limits, size)),
  );
}

/**
 * What goes when a version of `size` bytes is published: what the policy does not keep, and of the older copies the
 * oldest, as many as it takes. What the policy keeps otherwise stays also where there is no room: the allowance of
 * uploads has seen to that, and limits that were lowered since must not remove anything.
 * @param keptBytes counted bytes of what the policy keeps in any case.
 * @param reservedByOthers bytes of the other open uploads.
 */
export function victimsOf<V extends RotatableVersion>(
  plan: { readonly [K in "older" | "remove"]: readonly V[] },
  keptBytes: bigint,
  limits: QuotaLimits,
  size: bigint,
  reservedByOthers: bigint,
): V[] {
  let left = limits.maxCollectionSize - countedSize(limits, size) - reservedByOthers - keptBytes;
  const victims = [...plan.remove];
  for (const version of plan.older) {
    left -= countedSize(limits, version.size);
    // What is older than one without room goes too.
    if (left < 0n) victims.push(version);
  }
  return victims;
}

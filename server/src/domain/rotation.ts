/** The facts of a live version that rotation is computed from. */
export interface RotatableVersion {
  readonly number: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** The server's time of CreateUpload, as it was read; never what orders versions. */
  readonly begunAt: Date;
  readonly held: boolean;
  readonly protectedUntil: Date | null;
}

/** What stays and what goes when one more version is published. */
export interface RotationPlan<V extends RotatableVersion> {
  readonly keep: V[];
  readonly remove: V[];
}

/** Whether neither rotation nor a person may remove the version at this time. */
export function isRemovalBlocked(version: RotatableVersion, now: Date): boolean {
  return version.held || (version.protectedUntil !== null && version.protectedUntil > now);
}

/** The versions by their numbers, highest first. A clock can be wrong for a while, so no time orders versions. */
export function newestFirst<V extends { readonly number: bigint }>(versions: readonly V[]): V[] {
  return [...versions].sort((a, b) => (a.number < b.number ? 1 : a.number > b.number ? -1 : 0));
}

/**
 * Plans rotation for one more version: of the live ones, the `maxBackupsCount - 1` with the highest numbers stay. Held
 * and protected versions stay besides, so that holding one never pushes out another. The new version itself always
 * stays, also when a version with a higher number was published before it.
 */
export function planFifo<V extends RotatableVersion>(
  live: readonly V[],
  maxBackupsCount: number,
  now: Date,
): RotationPlan<V> {
  const keep: V[] = [];
  const remove: V[] = [];
  newestFirst(live).forEach((version, rank) => {
    (rank < maxBackupsCount - 1 || isRemovalBlocked(version, now) ? keep : remove).push(version);
  });
  return { keep, remove };
}

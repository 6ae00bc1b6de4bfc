/** The facts of a live version that rotation is computed from. */
export interface RotatableVersion {
  readonly number: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** The server's time of CreateUpload; rotation goes by it alone. */
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

/**
 * Plans rotation for one more version: of the live ones, the newest `maxBackupsCount - 1` stay. Held and protected
 * versions stay besides, so that holding one never pushes out another. The new version itself always stays, also when a
 * version begun later was published before it.
 */
export function planFifo<V extends RotatableVersion>(
  live: readonly V[],
  maxBackupsCount: number,
  now: Date,
): RotationPlan<V> {
  const newestFirst = [...live].sort(
    (a, b) => b.begunAt.getTime() - a.begunAt.getTime() || (b.number > a.number ? 1 : -1),
  );
  const keep: V[] = [];
  const remove: V[] = [];
  newestFirst.forEach((version, rank) => {
    (rank < maxBackupsCount - 1 || isRemovalBlocked(version, now) ? keep : remove).push(version);
  });
  return { keep, remove };
}

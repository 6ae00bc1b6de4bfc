import type { DatedVersion } from "./gfs.ts";

/** What `fifo-plus-older` keeps beside the newest versions. */
export interface OlderCopiesPolicy {
  /** Most older versions. */
  readonly maxOlderCopies: number;
  /** Milliseconds; an older version goes when it is older than this. */
  readonly maxAgeMs: number;
}

/**
 * Which of the versions that plain `fifo` would remove stay as older copies, spread as evenly as possible over
 * `maxAgeMs`.
 *
 * That time is cut into `maxOlderCopies` slots of equal length, which lie at fixed instants: a version does not move
 * from one slot to another as it gets older, so what is kept once stays until it is too old. The oldest version of each
 * slot stays. Where slots are empty, the places left go to the versions farthest from all that stay, so that a young
 * collection has as many copies as it may.
 * @param candidates versions that `fifo` would remove, in any order.
 * @param neighbour the oldest version that `fifo` keeps; its time is the near end of the spread.
 * @returns their numbers.
 */
export function keptOlderCopies(
  candidates: readonly DatedVersion[],
  neighbour: Pick<DatedVersion, "at"> | undefined,
  policy: OlderCopiesPolicy,
  now: Date,
): Set<bigint> {
  if (policy.maxOlderCopies === 0) return new Set();
  const oldestAllowed = now.getTime() - policy.maxAgeMs;
  const oldestFirst = candidates
    .filter((version) => version.at.getTime() >= oldestAllowed)
    .sort((a, b) => a.at.getTime() - b.at.getTime() || (a.number < b.number ? -1 : 1));
  const slotMs = policy.maxAgeMs / policy.maxOlderCopies;
  const slots = new Map<number, DatedVersion>();
  for (const version of oldestFirst) {
    const slot = Math.floor(version.at.getTime() / slotMs);
    if (!slots.has(slot)) slots.set(slot, version);
  }
  // One slot more than copies is touched when the first and the last are cut; the oldest copy has least time left.
  const kept = [...slots.values()].slice(-policy.maxOlderCopies);
  const inSlots = new Set(kept);
  const rest = oldestFirst.filter((version) => !inSlots.has(version));
  const near = neighbour === undefined ? kept : [...kept, neighbour];
  const distances = rest.map((version) => Math.min(...near.map((other) => distance(version, other))));
  while (kept.length < policy.maxOlderCopies && rest.length > 0) {
    const farthest = distances.lastIndexOf(distances.reduce((a, b) => Math.max(a, b)));
    const [version] = rest.splice(farthest, 1);
    distances.splice(farthest, 1);
    kept.push(version!);
    rest.forEach((other, index) => {
      distances[index] = Math.min(distances[index]!, distance(other, version!));
    });
  }
  return new Set(kept.map((version) => version.number));
}

/** Milliseconds between the beginnings of two versions. */
function distance(a: Pick<DatedVersion, "at">, b: Pick<DatedVersion, "at">): number {
  return Math.abs(a.at.getTime() - b.at.getTime());
}

import { formatSize } from "@strongroom/protocol/sizes";
import type { HealthCheck } from "./health.ts";

/**
 * What the store has neither as an object nor as parts counts as lost after this long, in milliseconds. A store may
 * show neither for a moment while it puts an object together.
 */
export const LOST_AFTER_MS = 2 * 60_000;

/** A commit that the store can not finish. */
export interface LostCommit {
  /** Id of the upload. */
  readonly id: string;
  readonly versionNumber: bigint | null;
  /** Bytes that it holds. */
  readonly reservedBytes: bigint;
  readonly lostSince: Date | null;
}

/** What is known of disagreement between store and database, of one collection. */
export interface StoreFacts {
  readonly rolledBackAt: Date | null;
  readonly addedVersions: number;
}

/** Whether the store has lost what it should complete, for longer than a store may take. */
export function isLost({ lostSince }: Pick<LostCommit, "lostSince">, now: Date): boolean {
  return lostSince !== null && now.getTime() - lostSince.getTime() >= LOST_AFTER_MS;
}

/**
 * The health check `store`: whether store and database agree on the collection.
 * @param committing its uploads that are being committed.
 */
export function storeCheck(facts: StoreFacts | undefined, committing: readonly LostCommit[], now: Date): HealthCheck {
  const name = "store";
  const problems: string[] = [];
  for (const upload of committing.filter((each) => isLost(each, now)))
    problems.push(
      `the backup of upload ${upload.id} (version ${upload.versionNumber}, ${formatSize(upload.reservedBytes)}) ` +
        `cannot be completed since ${upload.lostSince!.toISOString()}: the store has neither its object nor its ` +
        "parts. Make a new backup; look for the parts in the store, as docs/operations.md says for each, or free the " +
        `space: strongroom sweep --give-up-commit ${upload.id} --yes`,
    );
  if (facts !== undefined && facts.rolledBackAt !== null)
    problems.push(
      `the store showed at ${facts.rolledBackAt.toISOString()} that the database was rolled back to an older state; ` +
        `${facts.addedVersions} version(s) were added from the store, and nothing is deleted. Look at the versions, ` +
        "then: strongroom sweep --confirm-rollback COLLECTION --yes",
    );
  if (problems.length === 0) return { name, status: "ok", message: "store and database agree" };
  return { name, status: "failed", message: problems.join("; ") };
}

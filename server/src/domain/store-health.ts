import { quantity } from "@strongroom/protocol/quantity";
import { formatSize } from "@strongroom/protocol/sizes";
import { formatTimeIn } from "@strongroom/protocol/times";
import { earliest, type HealthCheck, listed, NO_VERSIONS, okCheck, type SomeVersions, someOf } from "./health.ts";
import type { DamageReason } from "./version.ts";

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

/** What is known of a live version in the store. */
export interface StoredVersion {
  readonly number: bigint;
  readonly damageReason: DamageReason;
  readonly damagedAt: Date | null;
  /** 0 for a manifest that is missing or says something else, until it is written again. */
  readonly manifestRevision: number;
}

/** Damage of an object as a whole, by which the store does not have what the database says. */
export const GONE = ["object-missing", "unreadable"] as const satisfies readonly DamageReason[];

/** Live versions that the store does not have as the database says. */
export interface StoredFacts {
  /** Those whose objects are missing or cannot be read. */
  readonly gone: SomeVersions<Pick<StoredVersion, "number">>;
  /** Those whose manifests are missing, or say something else. */
  readonly withoutManifest: SomeVersions<Pick<StoredVersion, "number">>;
}

/** As a collection without versions has them. */
export const NOTHING_STORED: StoredFacts = { gone: NO_VERSIONS, withoutManifest: NO_VERSIONS };

/** The facts of versions that were read; where there can be many, the database is asked for the same. */
export function storedFacts(versions: readonly StoredVersion[]): StoredFacts {
  const isGone = ({ damageReason }: StoredVersion) => GONE.some((reason) => reason === damageReason);
  return {
    gone: someOf(versions, isGone, ({ damagedAt }) => damagedAt),
    withoutManifest: someOf(
      versions,
      ({ manifestRevision }) => manifestRevision === 0,
      () => undefined,
    ),
  };
}

/**
 * The health check `store`: whether store and database agree on the collection.
 * @param of the collection, for messages; its time zone is empty while it is frozen.
 * @param committing its uploads that are being committed.
 * @param stored what is known of its live versions in the store.
 */
export function storeCheck(
  { name: collection, timezone }: { readonly name: string; readonly timezone: string },
  facts: StoreFacts | undefined,
  committing: readonly LostCommit[],
  { gone, withoutManifest }: StoredFacts,
  now: Date,
): HealthCheck {
  const name = "store";
  const lost = committing.filter((each) => isLost(each, now));
  const found = lost.map((upload) => ({
    message:
      `the backup of upload ${upload.id} (version ${upload.versionNumber}, ${formatSize(upload.reservedBytes)}) ` +
      `cannot be completed since ${formatTimeIn(upload.lostSince!, timezone)}: the store has neither its object nor its parts`,
    since: upload.lostSince,
    advice:
      "Make a new backup; look for the parts in the store, as docs/operations.md says for each, or free the space: " +
      `\`strongroom sweep --give-up-commit ${upload.id} --yes\`.`,
  }));
  if (facts !== undefined && facts.rolledBackAt !== null)
    found.push({
      message:
        `the store showed at ${formatTimeIn(facts.rolledBackAt, timezone)} that the database was rolled back to an older ` +
        `state; ${quantity(facts.addedVersions, "version")} ${facts.addedVersions === 1 ? "was" : "were"} added from the store, and nothing is deleted`,
      since: facts.rolledBackAt,
      advice: `Look at the versions, then: \`strongroom sweep --confirm-rollback ${collection} --yes\`.`,
    });
  if (gone.count > 0)
    found.push({
      message: `the object of version ${listOf(gone)} is missing in the store or cannot be read`,
      since: gone.since ?? null,
      advice: "Look at the store: is it the right one, was something deleted? The check `integrity` says what to do.",
    });
  if (found.length > 0) {
    const join = (texts: readonly string[]) => [...new Set(texts)].join("; ");
    const message = join(found.map((each) => each.message));
    const advice = [...new Set(found.map((each) => each.advice))].join(" ");
    return { name, status: "failed", message, since: earliest(found.map(({ since }) => since)), advice };
  }
  if (withoutManifest.count === 0) return okCheck(name, "store and database agree");
  return {
    name,
    status: "warning",
    message: `the manifest of version ${listOf(withoutManifest)} is missing in the store, or is another one`,
    since: undefined,
    advice:
      "The next sweep writes it again, within a minute. If this stays, the log of the server says what the store " +
      "answers.",
  };
}

/** `3, 4 and 7 more`. */
function listOf(versions: SomeVersions<Pick<StoredVersion, "number">>): string {
  return listed(versions, ", ", ({ number }) => String(number));
}

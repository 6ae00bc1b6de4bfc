import { CLOCK_SLACK_MS } from "@strongroom/server/domain/clock";
import type { CollectionSpec } from "@strongroom/server/domain/configuration";
import type { FaultKind } from "./faults.ts";
import { type Counters, EMPTY, type Snapshot, type UploadFacts, type VersionFacts } from "./snapshot.ts";

/** What a client is up to, as the oracle needs it. */
export interface Intent {
  /** Whether its message may ever become a version. */
  readonly isWhole: boolean;
  /** Bytes. */
  readonly size: number;
  /** Whether it asked to commit the whole message. */
  readonly askedToCommit: boolean;
  /** Whether it sent bytes for which its upload may be ended. */
  readonly mayBeRefused: boolean;
}

/** Which operation made a transaction, as far as that allows a change. */
export interface Cause {
  /** Unique in the scenario. */
  readonly id: number;
  readonly name: string;
  /** The upload it may abort. */
  readonly aborts?: string;
  /** The collection in which it may need room, so that a lapsed upload is ended, and its own upload. */
  readonly needsRoomIn?: string;
  readonly upload?: string | undefined;
  /** The version it may remove. */
  readonly deletes?: { readonly collection: string; readonly number: number };
  /** The version that it holds or releases. */
  readonly holds?: { readonly collection: string; readonly number: number };
  readonly sweeps: boolean;
}

/** The world around the rows. */
export interface Surroundings {
  readonly now: () => number;
  readonly spec: (collection: string) => CollectionSpec;
  /** The tenant's limit, in bytes. */
  readonly organizationLimit: () => number | undefined;
  readonly intentOf: (uploadId: string) => Intent | undefined;
  /** Every retention that was ever in force, in milliseconds. */
  readonly retentions: ReadonlySet<number>;
  readonly purgeDelayMs: number;
  readonly count: (kind: FaultKind) => void;
}

/** What was found to be wrong. */
export class Violation extends Error {
  override name = "Violation";
}

const sum = (numbers: Iterable<number>) => [...numbers].reduce((a, b) => a + b, 0);

/** Counters that do not equal the sums over the rows, in words. */
export function wrongCounters(rows: Snapshot): string[] {
  const wrong: string[] = [];
  const compare = (counted: Counters, own: (row: UploadFacts | VersionFacts) => boolean) => {
    const bytes = (state: string) => sum(rows.versions.filter((v) => own(v) && v.state === state).map((v) => v.size));
    const really = [bytes("live"), sum(rows.uploads.filter(own).map((u) => u.reserved)), bytes("removed")].join(", ");
    const { name, stored, reserved, trash } = counted;
    const says = [stored, reserved, trash].join(", ");
    if (says !== really) wrong.push(`${name} counts ${says} bytes stored, reserved and trash; its rows say ${really}`);
  };
  for (const row of rows.collections) compare(row, (r) => r.collection === row.name);
  for (const row of rows.organizations) compare(row, (r) => r.organization === row.name);
  for (const { id, state, reserved, bytes } of rows.uploads) {
    if (reserved !== bytes) wrong.push(`upload ${id} (${state}) has ${reserved} reserved, its segments ${bytes}`);
  }
  return wrong;
}

/**
 * Judges every transaction by the protocol's text (`architecture.md`, "Uploads"; the rules of quota, rotation and
 * removal), and shares no code with the server: it sees the rows before and after, and which operation caused the
 * change.
 */
export class Oracle {
  #before: Snapshot = EMPTY;
  readonly #around: Surroundings;
  readonly #highest = new Map<string, number>();
  /** Uploads being committed since whose preparation nothing legitimately enlarged what rotation keeps. */
  readonly #strict = new Set<string>();

  /** The attempt at a segment that an operation made, by operation. */
  readonly #attempts = new Map<number, string>();

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** The rows after the last transaction. */
  get rows(): Snapshot {
    return this.#before;
  }

  /** Limits, retention or the clock changed: commits prepared before may come to lie above a limit. */
  loosen(): void {
    this.#strict.clear();
  }

  /** Judges one transaction. @throws Violation */
  judge(after: Snapshot, cause: Cause): void {
    const before = this.#before;
    this.#before = after;
    for (const wrong of wrongCounters(after)) this.#fail(wrong);
    for (const upload of after.uploads) {
      this.#upload(
        before.uploads.find((u) => u.id === upload.id),
        upload,
        cause,
        before,
      );
    }
    this.#segments(before, after, cause);
    this.#nothingVanished(before, after);
    this.#versions(before, after, cause);
    this.#reservations(before, after);
  }

  #fail(message: string): never {
    throw new Violation(message);
  }

  #upload(before: UploadFacts | undefined, after: UploadFacts, cause: Cause, rows: Snapshot): void {
    const { now, intentOf, count } = this.#around;
    const change = `${before?.state ?? "nothing"} -> ${after.state}`;
    const intent = intentOf(after.id);
    if (before?.state === after.state) {
      if (after.state === "open" && after.lapsed && !before.lapsed) {
        count("lease ran out");
        if (before.lease > now()) this.#fail(`upload ${after.id} lapsed before its lease was over`);
      }
      return;
    }
    switch (change) {
      case "nothing -> open":
        return;
      case "open -> committing": {
        const { isWhole, size, askedToCommit } = intent!;
        if (
          !isWhole ||
          !askedToCommit ||
          after.bytes !== size ||
          after.stored !== after.segments ||
          after.last !== after.segments - 1
        ) {
          this.#fail(
            `upload ${after.id} is committed with ${after.stored} of ${after.segments} segments, ` +
              `${after.bytes} of ${size} bytes`,
          );
        }
        if (after.number! <= (this.#highest.get(after.collection) ?? 0))
          this.#fail(`number ${after.number} does not grow`);
        this.#highest.set(after.collection, after.number!);
        this.#strict.add(after.id);
        return;
      }
      case "committing -> committed":
        if (!this.rows.versions.some((v) => v.id === after.id && v.number === after.number)) {
          this.#fail(`upload ${after.id} is committed without its version`);
        }
        return;
      case "open -> expired":
        if (cause.needsRoomIn === after.collection && before!.id !== cause.upload && before!.lease <= now()) {
          count("lapsed upload gave way");
          if (before!.reserved === 0) this.#fail(`upload ${after.id} took no space and was ended for it`);
          return;
        }
        count("upload expired");
        if (before!.expires > now() || !cause.sweeps) this.#fail(`upload ${after.id} expired too early`);
        return;
      case "open -> aborted":
        if (
          cause.aborts === after.id ||
          intent!.mayBeRefused ||
          /store failed when the upload was created/.test(after.reason)
        )
          return;
        this.#fail(`upload ${after.id} was aborted by ${cause.name}: ${after.reason}`);
        return;
      default:
        this.#fail(`upload ${after.id}: ${change} by ${cause.name} (${rows.uploads.length} uploads)`);
    }
  }

  /** Only the newest attempt at a segment may settle it. */
  #segments(before: Snapshot, after: Snapshot, cause: Cause): void {
    for (const upload of after.uploads) {
      const earlier = before.uploads.find((u) => u.id === upload.id);
      for (const { index, attempt, state } of upload.attempts) {
        const was = earlier?.attempts.find((s) => s.index === index);
        const name = `attempt ${attempt} at ${upload.id}/${index}`;
        if (was?.attempt !== attempt) this.#attempts.set(cause.id, name);
        if (was?.state === state || state === "pending") continue;
        const own = this.#attempts.get(cause.id);
        if (own !== name) this.#fail(`${cause.name} settled ${name}, having made ${own ?? "none"}`);
      }
    }
  }

  #nothingVanished(before: Snapshot, after: Snapshot): void {
    for (const kind of ["uploads", "versions"] as const) {
      const ids = new Set(after[kind].map((row) => row.id));
      const gone = before[kind].find((row) => !ids.has(row.id));
      if (gone !== undefined) this.#fail(`the row ${gone.id} of ${kind} vanished`);
    }
  }

  #versions(before: Snapshot, after: Snapshot, cause: Cause): void {
    const published: VersionFacts[] = [];
    const removed: VersionFacts[] = [];
    for (const version of after.versions) {
      const earlier = before.versions.find((v) => v.id === version.id);
      const change = `${earlier?.state ?? "nothing"} -> ${version.state}`;
      if (
        earlier !== undefined &&
        (earlier.number !== version.number || earlier.size !== version.size || earlier.key !== version.key)
      ) {
        this.#fail(`version ${version.number} changed`);
      }
      this.#revision(earlier, version, cause);
      if (change === "nothing -> live") published.push(version);
      else if (change === "live -> removed") removed.push(version);
      else if (change === "removed -> purged") this.#purge(version, cause);
      else if (earlier?.state !== version.state) this.#fail(`version ${version.number}: ${change} by ${cause.name}`);
    }
    if (published.length > 1) this.#fail("two versions were published at once");
    for (const version of removed) {
      if (version.purgeAfter! < version.removed! + this.#around.purgeDelayMs)
        this.#fail(`version ${version.number} is purged too early`);
    }
    const [version] = published;
    if (version !== undefined) {
      this.#publication(version, removed, before, after);
      return;
    }
    for (const version of removed) {
      const { deletes } = cause;
      if (deletes?.collection !== version.collection || deletes.number !== version.number) {
        this.#fail(`version ${version.number} was removed by ${cause.name}`);
      }
      if (this.#isProtected(version)) this.#fail(`version ${version.number} was deleted although it is protected`);
    }
  }

  /**
   * A removal makes another revision, and so do a hold and a release, and each time that a sweep counts from now, since it was dated ahead;
   * nothing else does. The manifest is never said to be of one that does not exist.
   */
  #revision(before: VersionFacts | undefined, after: VersionFacts, cause: Cause): void {
    const { holds } = cause;
    const isHold = before !== undefined && before.held !== after.held;
    if (isHold && (holds?.collection !== after.collection || holds.number !== after.number))
      this.#fail(`version ${after.number} was held or released by ${cause.name}`);
    const changed = (before?.state === "live" && after.state === "removed") || isHold ? 1 : 0;
    const beyond = this.#around.now() + CLOCK_SLACK_MS;
    const ahead = before === undefined || !cause.sweeps ? [] : [protectedSince(before), before.removed ?? 0];
    const expected = before === undefined ? 1 : before.revision + changed;
    const healed = ahead.filter((time) => time > beyond).length;
    if (after.revision !== expected && (healed === 0 || after.revision !== expected + healed))
      this.#fail(`version ${after.number} has revision ${after.revision} instead of ${expected}`);
    if (after.manifestRevision > after.revision)
      this.#fail(`the manifest of version ${after.number} is said to have revision ${after.manifestRevision}`);
  }

  #purge(version: VersionFacts, cause: Cause): void {
    if (!cause.sweeps) this.#fail(`version ${version.number} was purged by ${cause.name}`);
    if (version.purgeAfter! > this.#around.now()) this.#fail(`version ${version.number} was purged before its time`);
  }

  /**
   * By the rules: those with the highest numbers stay, besides them the protected ones, and the new one always.
   */
  #publication(version: VersionFacts, removed: readonly VersionFacts[], before: Snapshot, after: Snapshot): void {
    const { spec, intentOf, retentions } = this.#around;
    const intent = intentOf(version.id);
    const upload = before.uploads.find((u) => u.id === version.id);
    if (intent?.isWhole !== true || !intent.askedToCommit || intent.size !== version.size) {
      this.#fail(`version ${version.number} was published, but nobody committed it`);
    }
    if (upload?.state !== "committing" || upload.number !== version.number)
      this.#fail(`version ${version.number} was not prepared`);
    if (before.versions.some((v) => v.collection === version.collection && v.number === version.number)) {
      this.#fail(`number ${version.number} is given out twice`);
    }
    const kept = version.protectedUntil === null ? 0 : version.protectedUntil - version.committed;
    if (!retentions.has(kept)) this.#fail(`version ${version.number} is protected for ${kept} ms`);
    const live = before.versions.filter((v) => v.collection === version.collection && v.state === "live");
    const { remove } = this.#rotation(live, version.collection);
    const expected = remove.map((v) => v.number).sort((a, b) => a - b);
    const really = removed.map((v) => v.number).sort((a, b) => a - b);
    if (expected.join() !== really.join()) {
      this.#fail(
        `publishing ${version.number} removed ${really.join() || "nothing"}, by the rules it is ` +
          `${expected.join() || "nothing"}`,
      );
    }
    const wrong = removed.find((v) => v.removedBy !== version.id || v.collection !== version.collection);
    if (wrong !== undefined) this.#fail(`version ${wrong.number} was removed by ${wrong.removedBy}`);
    if (!this.#strict.delete(version.id)) return;
    const physical = after.collections.find((c) => c.name === version.collection)!;
    const hard = Number(spec(version.collection).maxCollectionSize);
    if (physical.stored > hard)
      this.#fail(`version ${version.number} brings the collection to ${physical.stored} of ${hard} bytes`);
  }

  #isProtected(version: VersionFacts): boolean {
    const { spec, now } = this.#around;
    if (version.held) return true;
    const retention = spec(version.collection).minRetentionMs;
    if (version.protectedFor === null && retention === undefined) return false;
    return protectedSince(version) + Math.max(version.protectedFor ?? 0, retention ?? 0) > now();
  }

  #rotation(live: readonly VersionFacts[], collection: string): { keep: VersionFacts[]; remove: VersionFacts[] } {
    const places = this.#around.spec(collection).maxBackupsCount - 1;
    const newest = live
      .toSorted((a, b) => b.number - a.number)
      .slice(0, places)
      .map((v) => v.id);
    const stays = (v: VersionFacts) => newest.includes(v.id) || this.#isProtected(v);
    return { keep: live.filter(stays), remove: live.filter((v) => !stays(v)) };
  }

  /**
   * Whoever got more bytes or a place in this transaction fits into the formula of the protocol, with everybody else's
   * reservations.
   */
  #reservations(before: Snapshot, after: Snapshot): void {
    for (const upload of after.uploads) {
      const earlier = before.uploads.find((u) => u.id === upload.id);
      const gotPlace = upload.state === "open" && !upload.lapsed && (earlier === undefined || earlier.lapsed);
      const gotBytes = upload.reserved > (earlier?.reserved ?? 0);
      const spec = this.#around.spec(upload.collection);
      const others = after.uploads.filter((u) => u.id !== upload.id && u.collection === upload.collection);
      if (gotPlace) {
        const places = others.filter((u) => u.state === "open" && !u.lapsed).length + 1;
        if (places > spec.maxParallelUploads)
          this.#fail(`${places} uploads are open, ${spec.maxParallelUploads} may be`);
      }
      if (gotBytes) this.#fits(upload, others, after, spec);
    }
  }

  #fits(upload: UploadFacts, others: readonly UploadFacts[], after: Snapshot, spec: CollectionSpec): void {
    const [soft, hard] = [Number(spec.maxOneVersionSize), Number(spec.maxCollectionSize)];
    const live = after.versions.filter((v) => v.collection === upload.collection && v.state === "live");
    const kept = this.#rotation(live, upload.collection).keep.map((v) => Math.max(v.size, Math.min(16_384, soft)));
    const reserved = others.map((u) => u.reserved);
    const extra = hard - spec.maxBackupsCount * soft;
    const above = sum([...kept, ...reserved].map((size) => Math.max(0, size - soft)));
    const allowance = Math.min(hard - sum(kept) - sum(reserved), soft + extra - above);
    if (upload.reserved > allowance) {
      this.#fail(
        `upload ${upload.id} has ${upload.reserved} bytes reserved, ${allowance} are allowed (hard ${hard}, ` +
          `kept ${kept}, others ${reserved})`,
      );
    }
    const tenant = after.organizations.find((o) => o.name === upload.organization);
    const limit = this.#around.organizationLimit();
    if (tenant === undefined || limit === undefined || upload.organization === "") return;
    const physical = tenant.stored + tenant.trash + tenant.reserved;
    if (physical > limit) this.#fail(`the tenant has ${physical} physical bytes of ${limit}`);
  }
}

/** What a protection counts from. */
function protectedSince({ protectedUntil, protectedFor, committed }: VersionFacts): number {
  return protectedUntil === null ? committed : protectedUntil - (protectedFor ?? 0);
}

/*
 * Upkeep that an administrator asks for: a sweep now, and the verification of a collection or of all.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { collectionNotFound, DomainError } from "../../domain/errors.ts";
import { BlobStoreError } from "../ports/blob-store.ts";
import type { Database, VersionRow } from "../ports/database.ts";
import type { UpkeepRun } from "../ports/upkeep-records.ts";
import { recordVerification, type VerifyDeps, verifyVersion } from "../versions/verify-version.ts";
import type { SweepReport } from "./sweep.ts";
import type { Sweeper } from "./sweeper.ts";

/** A run whose server says nothing for this long is over, in milliseconds. */
export const SILENT_MS = 2 * 60_000;

/** How often a run says that it goes on, in milliseconds. */
const NOTE_MS = 10_000;

/** How long a call waits for a sweep, in milliseconds; it goes on after that. */
const WAIT_MS = 30_000;

/** Versions read from the database at once. */
const PAGE = 100;

/** @throws DomainError ACCESS_DENIED for all but systemAdmin */
export function requireOperator(principal: Principal): void {
  if (hasSystemRole(principal, "systemAdmin")) return;
  throw new DomainError(
    "ACCESS_DENIED",
    "the state of the server and its upkeep are for systemAdmin, in a session without access key and scope",
    { metadata: { action: "administer" } },
  );
}

/** Whether a run is under way: not finished, and its server alive. */
export function isUnderWay(run: UpkeepRun, now: Date): boolean {
  return run.finishedAt === null && now.getTime() - run.seenAt.getTime() < SILENT_MS;
}

/** Notes how a sweep that came by itself, or was asked for, ended. @param report undefined for one that failed */
export async function noteSweep(database: Database, report: SweepReport | undefined, actor: string): Promise<void> {
  const { unknown, deletions, compared, ...counts } = report ?? { unknown: [], deletions: true, compared: false };
  const error = report === undefined ? "the sweep failed as a whole; the log of the server says why" : "";
  await database.transaction(async (tx) => {
    await tx.records.beginRun("sweep", actor, tx.now, tx.now);
    const done = { ...counts, unknown: unknown.length, wholeStore: Number(compared), deletions: Number(deletions) };
    await tx.records.noteRun("sweep", { counts: done, error, finishedAt: tx.now, seenAt: tx.now });
  });
}

/** Runs what administrators ask for, each once at a time. */
export class UpkeepRuns {
  readonly #deps: VerifyDeps;
  readonly #sweeper: Pick<Sweeper, "runOnce">;
  readonly #bytesPerSecond: bigint;
  readonly #stopped = new AbortController();
  #sweep: Promise<SweepReport | undefined> | undefined;
  #verification: Promise<void> = Promise.resolve();

  /** @param bytesPerSecond the most that a verification reads. */
  constructor(deps: VerifyDeps, sweeper: Pick<Sweeper, "runOnce">, bytesPerSecond: bigint) {
    this.#deps = deps;
    this.#sweeper = sweeper;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /**
   * Sweeps, after a sweep that is under way; calls that come meanwhile share it. Waits for it a while.
   * @returns whether it has ended; false also where another server sweeps.
   * @throws DomainError SERVER_OUTDATED
   */
  async sweep(principal: Principal): Promise<boolean> {
    requireOperator(principal);
    const { database } = this.#deps;
    await database.transaction(
      async (tx) => await tx.audit({ kind: "sweep.requested", actor: principal, collectionName: "", details: {} }),
    );
    this.#sweep ??= this.#sweeper.runOnce().finally(() => {
      this.#sweep = undefined;
    });
    const waiting = new AbortController();
    const limit = sleep(WAIT_MS, false, { signal: waiting.signal, ref: false }).catch(() => false);
    const ended = this.#sweep.then((report) => report !== undefined);
    try {
      return await Promise.race([ended, limit]);
    } finally {
      waiting.abort();
    }
  }

  /**
   * Begins to verify the versions of a collection, or of all.
   * @param collection empty for all.
   * @returns whether it was begun; false where another one is under way, on this server or another.
   */
  async verify(principal: Principal, collection: string): Promise<boolean> {
    requireOperator(principal);
    const actor = `user:${principal.user.name}`;
    const begun = await this.#deps.database.transaction(async (tx) => {
      if (collection !== "" && (await tx.collections.findByName(collection)) === undefined)
        throw collectionNotFound(collection);
      const silentSince = new Date(tx.now.getTime() - SILENT_MS);
      if (!(await tx.records.beginRun("verification", actor, tx.now, silentSince))) return false;
      await tx.audit({ kind: "verification.requested", actor: principal, collectionName: collection, details: {} });
      return true;
    });
    if (begun)
      this.#verification = this.#verifyAll(collection).catch((error: unknown) =>
        this.#deps.log.warn({ err: error }, "verification: the run that was asked for failed"),
      );
    return begun;
  }

  /** Waits for a verification that was begun here. */
  async idle(): Promise<void> {
    await this.#verification;
  }

  /** Breaks a verification off. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#verification;
  }

  async #verifyAll(collection: string): Promise<void> {
    const { signal } = this.#stopped;
    const counts = { whole: 0, damaged: 0, unknown: 0 };
    let notedAt = performance.now();
    const note = async (finished: boolean, error = "") => {
      notedAt = performance.now();
      await this.#deps.database.transaction(async (tx) => {
        const finishedAt = finished ? tx.now : null;
        await tx.records.noteRun("verification", { counts, error, finishedAt, seenAt: tx.now });
      });
    };
    const onBytes = async (bytes: number) => {
      await sleep((bytes * 1000) / Number(this.#bytesPerSecond), undefined, { signal, ref: false });
      if (performance.now() - notedAt > NOTE_MS) await note(false);
    };
    try {
      for await (const version of liveVersions(this.#deps.database, collection)) {
        signal.throwIfAborted();
        try {
          const result = await verifyVersion(this.#deps, version, { signal, onBytes });
          await recordVerification(this.#deps, version, result);
          counts[result.damage === "" ? "whole" : "damaged"]++;
        } catch (error) {
          if (!(error instanceof BlobStoreError)) throw error;
          counts.unknown++;
        }
        if (performance.now() - notedAt > NOTE_MS) await note(false);
      }
      await note(true);
    } catch (error) {
      const reason = signal.aborted ? "the server was stopped" : error instanceof Error ? error.message : String(error);
      await note(true, reason);
      if (!signal.aborted) throw error;
    }
  }
}

/** Live versions by collection, the newest first, a page at a time. */
async function* liveVersions(database: Database, collection: string): AsyncGenerator<VersionRow> {
  for (let after = ""; ; ) {
    const rows = await database.read(async (tx) => {
      if (collection === "") return await tx.collections.list(after, PAGE);
      const row = await tx.collections.findByName(collection);
      return row === undefined ? [] : [row];
    });
    for (const { id } of rows) {
      for (let before: bigint | undefined; ; ) {
        const last = before;
        const page = await database.read(async (tx) => await tx.versions.listLive(id, last, PAGE));
        yield* page;
        if (page.length < PAGE) break;
        before = page.at(-1)!.number;
      }
    }
    if (collection !== "" || rows.length < PAGE) return;
    after = rows.at(-1)!.name;
  }
}

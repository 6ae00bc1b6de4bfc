import { isServerOutdated } from "../../domain/errors.ts";
import type { AuditSigner } from "../ports/audit-key.ts";
import type { BlobStore } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { chainEvents } from "./chain.ts";
import { noteConfiguration } from "./configuration-events.ts";
import { AuditContradictionError, writeHead } from "./heads.ts";
import { pruneLog } from "./prune.ts";
import type { AuditTrail } from "./trail.ts";

/** What {@link Auditor} needs. */
export interface AuditorDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly config: ConfigSource;
  readonly trail: AuditTrail;
  /** Signs heads; undefined for none. */
  readonly signer: AuditSigner | undefined;
  readonly log: Log;
  /** How long events are kept, in milliseconds. */
  readonly retentionMs: number;
  /** Whether times hold: the clock is not in doubt. */
  readonly timesHold: () => boolean;
  /** Milliseconds that only go forward. */
  readonly monotonic: () => number;
}

/** How often the log is looked at, a head is written where anything changed, and it is pruned; in milliseconds. */
const TICK_MS = 5000;
const MINUTE_MS = 60_000;
const PRUNE_MS = 3_600_000;
/** A pruning that failed, or that a clock in doubt forbade, is tried again after so long, in milliseconds. */
const PRUNE_AGAIN_MS = MINUTE_MS;
/** What does not end is said again this often, in milliseconds. */
const SAID_AGAIN_MS = 3_600_000;

/** What failed the last time, and when that was said. */
interface Trouble {
  readonly error: Error;
  readonly saidAt: number;
}

/**
 * Keeps the audit log of this server: chains what was written, signs heads, tells of changes of the configuration, and
 * prunes. Of several servers one at a time does so.
 */
export class Auditor {
  readonly #deps: AuditorDeps;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #stopped = false;
  #headAt: number;
  #flushedAt: number;
  /** When it is pruned next: at first, at once. */
  #pruneAt: number;
  #headWanted = false;
  readonly #seen: { sequence: bigint | undefined } = { sequence: undefined };
  #configuration: unknown;
  #refusals = 0;
  readonly #troubles = new Map<"log" | "pruning", Trouble>();

  constructor(deps: AuditorDeps) {
    this.#deps = deps;
    this.#headAt = deps.monotonic();
    this.#flushedAt = this.#headAt;
    this.#pruneAt = this.#headAt;
  }

  /** Why the log is not chained, signed or pruned, for people; undefined while all is well. */
  get problem(): string | undefined {
    return this.#trouble()?.message;
  }

  /** The same, only where the log contradicts what was signed: that does not end by itself. */
  get contradiction(): string | undefined {
    const error = this.#trouble();
    return error instanceof AuditContradictionError ? error.message : undefined;
  }

  #trouble(): Error | undefined {
    const errors = [...this.#troubles.values()].map(({ error }) => error);
    return errors.find((error) => error instanceof AuditContradictionError) ?? errors[0];
  }

  /** Looks now, and every few seconds from then on. */
  start(): void {
    const again = () => {
      if (this.#stopped) return;
      this.#running = this.tick().finally(() => {
        if (this.#stopped) return;
        this.#timer = setTimeout(again, TICK_MS);
        this.#timer.unref();
      });
    };
    again();
  }

  /** The last look: what is counted is written, chained and signed. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
    await this.#deps.trail.flush();
    this.#headWanted = true;
    await this.tick();
  }

  /** Looks once. Never throws: what fails is tried again by the next look. */
  async tick(): Promise<void> {
    const { database, trail, monotonic } = this.#deps;
    try {
      await this.#noteConfiguration();
      if (monotonic() - this.#flushedAt >= MINUTE_MS) {
        this.#flushedAt = monotonic();
        await trail.flush();
      }
      const { rows, state } = await database.read(async (tx) => ({
        rows: await tx.auditLog.unchained(1),
        state: await tx.auditLog.chain(),
      }));
      const isPruneDue = monotonic() >= this.#pruneAt;
      const isSigned = this.#deps.signer === undefined || state.place === state.headPlace;
      // What does not hold any more, such as a head that was removed, is no reason to sign: looked at now and then.
      if (rows.length === 0 && isSigned && !isPruneDue && !this.#troubles.has("log")) return;
      const done = await database.exclusively("audit", async () => await this.#work(isPruneDue));
      // Another server does it: how that ends, this one does not know.
      if (done !== undefined) this.#succeeded("log");
    } catch (error) {
      // The sweeper says it for the whole server; a newer one chains and signs.
      if (!isServerOutdated(error)) this.#failed("log", error as Error);
    }
  }

  #succeeded(what: "log" | "pruning"): void {
    if (!this.#troubles.delete(what)) return;
    this.#deps.log.info({}, `audit: the log is ${what === "log" ? "chained and signed" : "pruned"} again`);
  }

  /** Every few seconds the same is said once, and now and then again. */
  #failed(what: "log" | "pruning", error: Error): void {
    const before = this.#troubles.get(what);
    const now = this.#deps.monotonic();
    const isSaid = before?.error.message === error.message && now - before.saidAt < SAID_AGAIN_MS;
    if (!isSaid) this.#deps.log.error({ err: error }, `audit: ${error.message}`);
    this.#troubles.set(what, { error, saidAt: isSaid ? before.saidAt : now });
  }

  async #work(isPruneDue: boolean): Promise<void> {
    const { database, store, signer, monotonic } = this.#deps;
    const { administrative } = await chainEvents(database);
    this.#headWanted ||= administrative;
    const isHeadDue = this.#headWanted || isPruneDue || this.#troubles.has("log");
    if (signer !== undefined && (isHeadDue || monotonic() - this.#headAt >= MINUTE_MS)) {
      await writeHead({ database, store, signer, seen: this.#seen });
      this.#headAt = monotonic();
      this.#headWanted = false;
    }
    // After what kept the log from being signed, the reason for which it was not pruned may be gone too.
    const isPruneFailed = this.#troubles.has("pruning") && this.#troubles.has("log");
    if (isPruneDue || isPruneFailed) await this.#prune();
  }

  async #prune(): Promise<void> {
    const { database, store, signer, monotonic, retentionMs, timesHold, log } = this.#deps;
    // Before it: what fails, or may not be done, is not tried again every few seconds, nor is a head signed for it.
    this.#pruneAt = monotonic() + PRUNE_AGAIN_MS;
    if (!timesHold()) return;
    try {
      const pruned = await pruneLog({ database, store, signer }, retentionMs);
      this.#pruneAt = monotonic() + PRUNE_MS;
      if (pruned > 0) log.info({ rows: pruned }, "audit: pruned events beyond --audit-retention");
      this.#succeeded("pruning");
    } catch (error) {
      this.#failed("pruning", error as Error);
    }
  }

  async #noteConfiguration(): Promise<void> {
    const { config, database, trail } = this.#deps;
    const current = config.current();
    if (current !== this.#configuration) {
      await noteConfiguration(database, current);
      this.#configuration = current;
    }
    const status = config.status?.();
    if (status?.problem === undefined || status.refusals === this.#refusals) return;
    this.#refusals = status.refusals;
    trail.note({
      kind: "configuration.changed",
      actor: "server",
      collectionName: "",
      outcome: "refused",
      reason: status.problem,
      details: {},
    });
  }
}

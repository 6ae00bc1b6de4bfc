import type { BlobStore } from "@strongroom/server/app/ports/blob-store";
import type { Database } from "@strongroom/server/app/ports/database";
import type { UploadSettings } from "@strongroom/server/app/settings";
import type { SweepDeps } from "@strongroom/server/app/upkeep/sweep";
import { BodyBrokenError } from "@strongroom/server/app/uploads/segment-body";
import type { Principal } from "@strongroom/server/domain/access";
import type { CollectionSpec, OrganizationSpec } from "@strongroom/server/domain/configuration";
import { DomainError } from "@strongroom/server/domain/errors";
import type { Random } from "@strongroom/testkit/random";
import type { SQL } from "drizzle-orm";
import type { Faults } from "./faults.ts";
import { type Cause, type Intent, Oracle, Violation } from "./oracle.ts";
import { CountedAttempts, gatedDatabase, gatedStore } from "./ports.ts";
import { type Operation, Scheduler } from "./scheduler.ts";
import { takeSnapshot } from "./snapshot.ts";

/** The clock of the database and of everybody. */
export interface Clock {
  now: Date;
}

/** The part of a database that the oracle reads past the use cases. */
export interface Queryable extends Database {
  query(query: SQL): Promise<Record<string, unknown>[]>;
}

/** What a world is made of. */
export interface WorldParts {
  readonly database: Queryable;
  readonly store: BlobStore;
  readonly clock: Clock;
  readonly settings: UploadSettings;
  readonly random: Random;
  readonly faults: Faults;
  readonly admin: Principal;
  readonly replicas: number;
  readonly specs: ReadonlyMap<string, CollectionSpec>;
  readonly organization: OrganizationSpec;
  /** Closes the store as a crash does and opens it again; undefined for one that outlives its servers. */
  readonly reopen: (() => Promise<BlobStore>) | undefined;
}

/** How an operation ended for its caller. */
export type Ending<T> =
  | { readonly value: T; readonly error?: undefined }
  | { readonly error: DomainError | BodyBrokenError; readonly value?: undefined }
  /** The server died: no answer. */
  | { readonly error?: undefined; readonly value?: undefined; readonly died: true };

interface Running extends Operation {
  readonly cause: Cause;
  readonly upload: Intent | undefined;
  readonly onDied: () => void;
  readonly begun: number;
}

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/**
 * An operation older than this by the clock is one across which the clock leapt; deletions are paused while there is
 * one, as the sweeper does. In milliseconds.
 */
const LEAP_MS = 20 * 3_600_000;

/** The servers of a scenario over one database and one store, everything they do judged. */
export class World {
  readonly scheduler = new Scheduler();
  readonly oracle: Oracle;
  readonly trace: string[] = [];
  readonly intents = new Map<string, Intent>();
  readonly specs: Map<string, CollectionSpec>;
  readonly retentions = new Set<number>([0]);
  /** Keys of objects that a dead server may still have written to. */
  readonly lateKeys = new Set<string>();
  readonly #parts: WorldParts;
  readonly #running = new Set<Running>();
  readonly #attempts: CountedAttempts[];
  readonly #late: (() => Promise<unknown>)[] = [];
  #organization: OrganizationSpec;
  #exclusive: Promise<unknown> = Promise.resolve();
  #store: BlobStore;
  #count = 0;
  #failure: Error | undefined;

  constructor(parts: WorldParts) {
    this.#parts = parts;
    this.#store = parts.store;
    this.#organization = parts.organization;
    this.specs = new Map(parts.specs);
    this.#attempts = Array.from({ length: parts.replicas }, () => new CountedAttempts(parts.faults));
    for (const spec of parts.specs.values()) this.retentions.add(spec.minRetentionMs ?? 0);
    this.oracle = new Oracle({
      now: () => parts.clock.now.getTime(),
      spec: (name) => this.specs.get(name)!,
      organizationLimit: () =>
        this.#organization.maxTotalSize === undefined ? undefined : Number(this.#organization.maxTotalSize),
      intentOf: (id) => this.intents.get(id),
      retentions: this.retentions,
      purgeDelayMs: parts.settings.purgeDelayMs,
      count: (kind) => parts.faults.count(kind),
    });
  }

  get random(): Random {
    return this.#parts.random;
  }

  get faults(): Faults {
    return this.#parts.faults;
  }

  get clock(): Clock {
    return this.#parts.clock;
  }

  get settings(): UploadSettings {
    return this.#parts.settings;
  }

  get admin(): Principal {
    return this.#parts.admin;
  }

  get replicas(): number {
    return this.#parts.replicas;
  }

  get store(): BlobStore {
    return this.#store;
  }

  /** Operations that have not ended. */
  get busy(): number {
    return this.#running.size;
  }

  /** Whether deletions may happen: not while something is under way since before a leap of the clock. */
  get mayDelete(): boolean {
    const now = this.clock.now.getTime();
    return [...this.#running].every(({ begun }) => Math.abs(now - begun) < LEAP_MS);
  }

  /** Changes the configuration, as a reload on every server would. */
  configure(spec: CollectionSpec): void {
    this.specs.set(spec.name, spec);
    this.retentions.add(spec.minRetentionMs ?? 0);
    this.oracle.loosen();
  }

  /** Ends the scenario with a message, unless something was wrong before. */
  fail(message: string): void {
    this.#failure ??= new Violation(message);
  }

  /** @throws what was found to be wrong so far. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  note(what: string): void {
    this.trace.push(what);
  }

  /** Dependencies outside of any operation and without gates or faults, for looking at what is there. */
  quietly(): SweepDeps & { sha256: (text: string) => string } {
    return this.#deps(this.#parts.database, this.#store, 0, () => this.random.uuid());
  }

  /**
   * Begins an operation on a server, and lets it go to its first gate. `ended` is called with how it ended, also when
   * the server died.
   */
  async begin<T>(
    what: { name: string; replica: number; cause?: Partial<Cause>; upload?: Intent | undefined },
    work: (deps: SweepDeps, by: Principal) => Promise<T>,
    ended: (ending: Ending<T>) => void,
  ): Promise<void> {
    this.#count++;
    const end = (ending: Ending<T>) => {
      if (!this.#running.delete(operation)) return;
      const how =
        ending.error instanceof DomainError
          ? ending.error.reason
          : (ending.error?.name ?? ("died" in ending ? "died" : "ok"));
      this.note(`${operation.id} ${operation.name} on ${operation.replica}: ${how}`);
      try {
        ended(ending);
      } catch (error) {
        this.fail(String(error));
      }
    };
    const operation: Running = {
      id: this.#count,
      name: what.name,
      replica: what.replica,
      dead: false,
      cause: { id: this.#count, name: what.name, sweeps: false, ...what.cause },
      upload: what.upload,
      begun: this.clock.now.getTime(),
      onDied: () => end({ died: true }),
    };
    this.#running.add(operation);
    this.note(`${operation.id} ${operation.name} on ${operation.replica} begins`);
    const seam = {
      scheduler: this.scheduler,
      faults: this.faults,
      operation,
      tick: () => {
        this.clock.now = new Date(this.clock.now.getTime() + 1);
      },
      onTransaction: async () => await this.#judge(operation),
      exclusive: <R>(run: () => Promise<R>) => this.#exclusively(run),
      onLate: (effect: () => Promise<unknown>, key: string) => {
        this.#late.push(effect);
        this.lateKeys.add(key);
      },
      mayBeLate: () => this.#store.capabilities.name === "memory" && this.random.chance(0.5),
    };
    const newId = () => {
      const id = this.random.uuid();
      if (operation.upload !== undefined) this.intents.set(id, operation.upload);
      return id;
    };
    const deps = this.#deps(
      gatedDatabase(this.#parts.database, seam),
      gatedStore(this.#store, seam),
      operation.replica,
      newId,
    );
    void work(deps, this.#parts.admin).then(
      (value) => end({ value }),
      (error) => {
        if (operation.dead) return;
        if (error instanceof DomainError || error instanceof BodyBrokenError) end({ error });
        else {
          this.fail(
            `${operation.name} failed with ${error instanceof Violation ? error.message : (error as Error)?.stack}`,
          );
          end({ died: true });
        }
      },
    );
    await this.scheduler.settle();
    this.check();
  }

  /** Lets one waiting operation go on. Returns false when none waits. */
  async step(): Promise<boolean> {
    // A verification gives way to others after each chunk, without a gate: it may need more turns than settling takes.
    for (let turn = 0; turn < 50 && this.scheduler.parked.length === 0 && this.#running.size > 0; turn++)
      await this.scheduler.settle();
    const { parked } = this.scheduler;
    if (parked.length === 0) {
      if (this.#running.size > 0) this.fail(`stuck: ${[...this.#running].map((o) => o.name).join(", ")}`);
      this.check();
      return false;
    }
    const next = this.random.pick(parked);
    this.note(`${next.operation.id} goes on ${next.where}`);
    await this.scheduler.step(next);
    this.check();
    return true;
  }

  /** Lets everything under way end. */
  async drain(): Promise<void> {
    while (await this.step());
  }

  /** A server dies: what it did not do is not done, nobody gets an answer, its memory is gone. */
  async kill(replica: number): Promise<void> {
    // Servers on one directory live on one machine, which holds its lock; they die together.
    const together = this.#parts.reopen !== undefined;
    const dying = [...this.#running].filter((o) => together || o.replica === replica);
    this.note(`server ${together ? "machine" : replica} dies with ${dying.length} operations`);
    this.faults.count("server died");
    await this.scheduler.kill((operation) => dying.includes(operation as Running), this.#running);
    for (const operation of dying) operation.onDied();
    for (let i = 0; i < this.#attempts.length; i++) {
      if (together || i === replica) this.#attempts[i] = new CountedAttempts(this.faults);
    }
    if (this.#parts.reopen !== undefined) {
      this.#store = await this.#parts.reopen();
      this.faults.count("store opened again after a crash");
    }
    this.check();
  }

  /** Requests of dead servers that the store had received take effect now. */
  async lateEffects(): Promise<void> {
    for (const effect of this.#late.splice(0)) {
      this.note("a request of a dead server takes effect");
      this.faults.count("request took effect after its server died");
      await effect().catch(() => {});
    }
  }

  #deps(database: Database, store: BlobStore, replica: number, newId: () => string) {
    const organizations = new Map([[this.#organization.name, this.#organization]]);
    const configuration = { users: new Map(), collections: this.specs, organizations };
    return {
      database,
      store,
      settings: this.settings,
      log: SILENT,
      attempts: this.#attempts[replica]!,
      // No time goes by on its own here.
      readWaitsMs: [0, 0],
      newId,
      sha256: String,
      config: { current: () => configuration },
    };
  }

  async #exclusively<R>(run: () => Promise<R>): Promise<R> {
    const before = this.#exclusive;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exclusive = promise;
    await before;
    try {
      return await run();
    } finally {
      resolve();
    }
  }

  async #judge({ cause }: Running): Promise<void> {
    const query = (text: SQL) => this.#parts.database.query(text);
    const after = await takeSnapshot(query, [...this.specs.keys()], this.#organization.name);
    try {
      this.oracle.judge(after, cause);
    } catch (error) {
      this.fail((error as Error).message);
    }
  }
}

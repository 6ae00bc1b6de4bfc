import { sql } from "drizzle-orm";
import { drizzle, type PgliteDatabase } from "drizzle-orm/pglite";
import type { SqlDriver } from "../postgres/driver.ts";
import { CommitOutcomeUnknownError, ConnectionLostError, DatabaseUnreachableError } from "../postgres/errors.ts";
import type { Executor } from "../postgres/repositories.ts";
import * as schema from "../postgres/schema.ts";
import { EmbeddedPostgres } from "./embedded-postgres.ts";

/**
 * Log that may lie between two checkpoints, in bytes. It is read again by a start after a crash. PostgreSQL makes none
 * by itself in this mode.
 */
const CHECKPOINT_BYTES = 64n * 1024n * 1024n;

/** Transactions between two looks at the size of the log. */
const LOOK_AFTER = 100;

/** Between two tries to start PostgreSQL again after it ended, in milliseconds. */
const RESTART_PAUSE_MS = 1000;

interface Running {
  readonly client: EmbeddedPostgres;
  readonly db: PgliteDatabase<typeof schema>;
}

/** Options of {@link EmbeddedDriver}. */
export interface EmbeddedDriverOptions {
  /** The data directory; undefined for memory. */
  readonly directory: string | undefined;
  /** What memory holds at first, as {@link EmbeddedDriver.dump} gave it. */
  readonly prepared?: Blob | undefined;
  /** Called when PostgreSQL ended by itself, before it is started again by the next work. */
  readonly onEnded?: ((reason: string) => void) | undefined;
}

/**
 * PostgreSQL inside this process, as a driver. When it ends by itself it is started again on its data directory by what
 * is asked next, as a PostgreSQL server does with its processes: what was committed is read from the log.
 */
export class EmbeddedDriver implements SqlDriver {
  readonly #options: EmbeddedDriverOptions;
  #running: Running;
  #restarting: Promise<Running> | undefined;
  /** The database whose end was reported. */
  #reported: EmbeddedPostgres | undefined;
  #notBefore = 0;
  #transactions = 0;
  #checkpoint: Promise<void> | undefined;
  /** Names of the locks that are held. */
  readonly #held = new Set<string>();

  private constructor(options: EmbeddedDriverOptions, running: Running) {
    this.#options = options;
    this.#running = running;
  }

  /** Starts PostgreSQL; see {@link EmbeddedPostgres.start}. */
  static async open(options: EmbeddedDriverOptions): Promise<EmbeddedDriver> {
    return new EmbeddedDriver(options, await start(options.directory, options.prepared));
  }

  /** For migrations. */
  get db(): PgliteDatabase<typeof schema> {
    return this.#running.db;
  }

  /** The whole database as an uncompressed tar archive. For tests. */
  async dump(): Promise<Blob> {
    return await this.#running.client.dumpDataDir("none");
  }

  async transaction<T>(work: (db: Executor) => Promise<T>): Promise<T> {
    let committing = false;
    const result = await this.#use(
      async (db) =>
        await db.transaction(async (tx) => {
          const value = await work(tx);
          committing = true;
          return value;
        }),
      () => committing,
    );
    this.#afterTransaction();
    return result;
  }

  async run<T>(work: (db: Executor) => Promise<T>): Promise<T> {
    // Single statements commit by themselves.
    return await this.#use(work, () => true);
  }

  async exclusively<T>(name: string, work: () => Promise<T>): Promise<{ readonly result: T } | undefined> {
    // The lock on the directory has excluded every other server; what remains are other calls of this one.
    if (this.#held.has(name)) return undefined;
    this.#held.add(name);
    try {
      return { result: await work() };
    } finally {
      this.#held.delete(name);
    }
  }

  async close(): Promise<void> {
    await this.#restarting?.catch(() => {});
    await this.#checkpoint;
    await this.#running.client.close();
  }

  async #use<T>(work: (db: Executor) => Promise<T>, mayBeCommitted: () => boolean): Promise<T> {
    const { client, db } = await this.#usable();
    try {
      return await work(db);
    } catch (error) {
      if (client.ended === undefined) throw error;
      const { message } = client.ended;
      throw mayBeCommitted()
        ? new CommitOutcomeUnknownError(message, { cause: error })
        : new ConnectionLostError(message, { cause: error });
    }
  }

  async #usable(): Promise<Running> {
    if (this.#running.client.ended === undefined) return this.#running;
    this.#restarting ??= this.#restart(this.#running.client.ended.message).finally(() => {
      this.#restarting = undefined;
    });
    return await this.#restarting;
  }

  async #restart(reason: string): Promise<Running> {
    const { directory, onEnded } = this.#options;
    const failed = (message: string, permanent: boolean) => new DatabaseUnreachableError(message, { permanent });
    if (directory === undefined) throw failed(`${reason}; it was in memory, and is gone`, true);
    if (performance.now() < this.#notBefore) throw failed(reason, false);
    this.#notBefore = performance.now() + RESTART_PAUSE_MS;
    if (this.#reported !== this.#running.client) onEnded?.(reason);
    this.#reported = this.#running.client;
    await this.#running.client.close();
    try {
      this.#running = await start(directory);
    } catch (error) {
      throw failed(error instanceof Error ? error.message : String(error), false);
    }
    return this.#running;
  }

  #afterTransaction(): void {
    if (++this.#transactions % LOOK_AFTER !== 0 || this.#options.directory === undefined) return;
    this.#checkpoint ??= checkpointWhenDue(this.#running.db)
      // Where it fails PostgreSQL has ended, and the next work says so.
      .catch(() => {})
      .finally(() => {
        this.#checkpoint = undefined;
      });
  }
}

async function start(directory: string | undefined, prepared?: Blob): Promise<Running> {
  const client = await EmbeddedPostgres.start(directory, prepared);
  return { client, db: drizzle({ client, schema }) };
}

async function checkpointWhenDue(db: PgliteDatabase<typeof schema>): Promise<void> {
  const { rows } = await db.execute<{ bytes: string }>(
    sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::bigint::text as bytes from pg_control_checkpoint()`,
  );
  if (BigInt(rows[0]!.bytes) > CHECKPOINT_BYTES) await db.execute(sql`checkpoint`);
}

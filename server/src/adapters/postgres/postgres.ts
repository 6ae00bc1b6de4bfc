import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import type { PostgresLocation } from "../../domain/postgres-url.ts";
import { PgConnection } from "./connection.ts";
import { SqlDatabase } from "./database.ts";
import type { SqlDriver } from "./driver.ts";
import { CommitOutcomeUnknownError, DatabaseUnreachableError, isConnectionLoss, isRetryable } from "./errors.ts";
import { MIGRATIONS_FOLDER, needsMigration } from "./migrations.ts";
import { type PasswordSources, withPassword } from "./password.ts";
import { ConnectionPool } from "./pool.ts";
import type { Executor } from "./repositories.ts";

/** Which server to use, and how. */
export interface PostgresOptions {
  readonly location: PostgresLocation;
  readonly passwords?: PasswordSources | undefined;
  /** The most connections at a time, besides one while this server sweeps. */
  readonly connections: number;
  /** How long to wait at the start for a server that cannot be reached, in milliseconds. */
  readonly waitMs: number;
  /** Called while waiting, with the reason. */
  readonly onWait?: ((reason: string) => void) | undefined;
  /** Replaces the database's clock; for tests. */
  readonly clock?: (() => Date) | undefined;
  /** How long work waits for a free connection, in milliseconds; 10 s when left out. */
  readonly connectionWaitMs?: number | undefined;
  /** How long the holder of a named lock may be silent before it loses it, in milliseconds; a minute when left out. */
  readonly lockIdleMs?: number | undefined;
}

/** Between two tries at the start, in milliseconds. */
const RETRY_MS = 1000;

/** How often a migration is tried that met a deadlock with running replicas; nothing is left of one that failed. */
const MIGRATION_ATTEMPTS = 10;

/** How long the holder of a named lock may be silent, in milliseconds. */
const LOCK_IDLE_MS = 60_000;

/**
 * Opens a database on a PostgreSQL server and applies migrations, under a lock, so that several servers may start at
 * once.
 * @throws DatabaseUnreachableError with host, port, database and reason. What waiting cannot mend is thrown at once.
 */
export async function openPostgres(options: PostgresOptions): Promise<SqlDatabase> {
  const { passwords = { passwordFile: undefined, passFile: undefined } } = options;
  const location = await withPassword(options.location, passwords);
  const connection = await firstConnection(location, options);
  try {
    await migrated(connection);
  } finally {
    await connection.close();
  }
  return new SqlDatabase({ driver: new PostgresDriver(location, options), clock: options.clock });
}

async function firstConnection(location: PostgresLocation, { waitMs, onWait }: PostgresOptions): Promise<PgConnection> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    try {
      return await PgConnection.open(location);
    } catch (error) {
      const permanent = !(error instanceof DatabaseUnreachableError) || error.permanent;
      if (permanent || performance.now() + RETRY_MS > deadline) throw error;
      onWait?.(error.message);
      await sleep(RETRY_MS);
    }
  }
}

async function migrated(connection: PgConnection): Promise<void> {
  // Another server may be migrating for longer than statements usually take.
  await connection.command("set statement_timeout = 0; set lock_timeout = 0");
  await connection.use(async (db) => {
    await db.execute(sql`select pg_advisory_lock(${lockKey("migrate")})`);
    // The lock ends with the session.
    for (let attempt = 1; await needsMigration(db); attempt++) {
      try {
        await migrate(db as never, { migrationsFolder: MIGRATIONS_FOLDER });
      } catch (error) {
        // Replicas of the version before go on meanwhile, and take the same locks in another order.
        if (!isRetryable(error) || attempt >= MIGRATION_ATTEMPTS) throw error;
      }
    }
  });
}

/** The number of a named lock. Such locks belong to one database, so installations do not meet. */
function lockKey(name: string) {
  return sql`hashtextextended(${`strongroom:${name}`}::text, 0)`;
}

class PostgresDriver implements SqlDriver {
  readonly #location: PostgresLocation;
  readonly #pool: ConnectionPool;
  readonly #lockIdleMs: number;

  constructor(location: PostgresLocation, { connections, connectionWaitMs, lockIdleMs }: PostgresOptions) {
    this.#location = location;
    this.#pool = new ConnectionPool(async () => await PgConnection.open(location), connections, connectionWaitMs);
    this.#lockIdleMs = lockIdleMs ?? LOCK_IDLE_MS;
  }

  async transaction<T>(work: (db: Executor) => Promise<T>): Promise<T> {
    return await this.#pool.use(async (connection) => {
      await connection.command("begin isolation level read committed read write");
      let result: T;
      try {
        result = await connection.use(work);
      } catch (error) {
        // Without an answer to ROLLBACK the state of the session is unknown; the server rolls back what it loses.
        await connection.command("rollback").catch(() => connection.destroy());
        throw error;
      }
      await commit(connection);
      return result;
    });
  }

  async run<T>(work: (db: Executor) => Promise<T>): Promise<T> {
    return await this.#pool.use(async (connection) => await connection.use(work));
  }

  async exclusively<T>(name: string, work: () => Promise<T>): Promise<{ readonly result: T } | undefined> {
    // A session of its own: the lock lives and dies with it.
    const connection = await PgConnection.open(this.#location);
    try {
      const taken = await connection.use(
        async (db) => await db.execute(sql`select pg_try_advisory_lock(${lockKey(name)}) as taken`),
      );
      if ((taken as unknown as { taken: boolean }[])[0]?.taken !== true) return undefined;
      return { result: await keptAlive(connection, this.#lockIdleMs, work) };
    } finally {
      await connection.close();
    }
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }
}

/**
 * Runs work while a session shows signs of life, and lets the server end the session without them: the system of a
 * process that is frozen still answers keepalives, so its locks would be held forever. The work must bear to lose the
 * lock.
 */
async function keptAlive<T>(connection: PgConnection, idleMs: number, work: () => Promise<T>): Promise<T> {
  // PostgreSQL before 14 does not know the setting; there a frozen process keeps its lock.
  await connection.use(
    async (db) =>
      await db.execute(
        sql`select set_config(name, ${String(idleMs)}, false) from pg_settings where name = 'idle_session_timeout'`,
      ),
  );
  const beat = setInterval(() => connection.command("select 1").catch(() => {}), idleMs / 4);
  try {
    return await work();
  } finally {
    clearInterval(beat);
  }
}

async function commit(connection: PgConnection): Promise<void> {
  let tag: string;
  try {
    tag = await connection.command("commit");
  } catch (error) {
    if (!isConnectionLoss(error)) throw error;
    throw new CommitOutcomeUnknownError("the connection to the database was lost during COMMIT", { cause: error });
  }
  // A transaction in which a query failed is rolled back, whatever is asked of it.
  if (tag !== "COMMIT")
    throw new Error(`a query of the transaction failed, and the work went on: COMMIT was answered with ${tag}`);
}

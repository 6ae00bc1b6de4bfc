import { randomUUID } from "node:crypto";
import { DrizzleQueryError, type SQL, sql } from "drizzle-orm";
import type { Database, Transaction } from "../../app/repositories.ts";
import { DomainError } from "../../domain/errors.ts";
import {
  collectionRepository,
  type Executor,
  organizationRepository,
  segmentRepository,
  uploadRepository,
} from "./repositories.ts";
import * as schema from "./schema.ts";
import { sessionRepository } from "./session-repository.ts";
import { versionRepository } from "./version-repository.ts";

/** SQLSTATEs after which a transaction had no effect and may simply run again: serialization failure, deadlock. */
const RETRYABLE_STATES = new Set(["40001", "40P01"]);

/** How often a transaction is tried when the database asks to. */
const ATTEMPTS = 5;

/** How long a measured time is carried on, in milliseconds. */
const REMEASURE_MS = 1000;

/** Options of {@link SqlDatabase}. */
export interface SqlDatabaseOptions {
  /** A drizzle database of either driver. */
  readonly db: Executor;
  /** Closes the driver. */
  readonly close: () => Promise<void>;
  /** Replaces the database's clock; for tests. */
  readonly clock?: (() => Date) | undefined;
}

/** The database port over drizzle, for PostgreSQL and PGlite alike. */
export class SqlDatabase implements Database {
  readonly #db: Executor;
  readonly #close: () => Promise<void>;
  readonly #clock: (() => Date) | undefined;
  #measured: { readonly database: number; readonly local: number } | undefined;

  constructor(options: SqlDatabaseOptions) {
    this.#db = options.db;
    this.#close = options.close;
    this.#clock = options.clock;
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await this.#retried(async () => await this.#db.transaction(async (db) => await work(await this.#bind(db))));
  }

  async read<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await this.#retried(async () => await work(await this.#bind(this.#db)));
  }

  async installation(): Promise<{ id: string; fresh: boolean }> {
    return await this.#retried(async () => await this.#installation());
  }

  async #installation(): Promise<{ id: string; fresh: boolean }> {
    return await this.#db.transaction(async (db) => {
      await db.execute(sql`lock table ${schema.installation} in exclusive mode`);
      const used = await db.select({ id: schema.collections.id }).from(schema.collections).limit(1);
      const existing = (await db.select().from(schema.installation))[0];
      const id = existing?.id ?? randomUUID();
      if (existing === undefined)
        await db.insert(schema.installation).values({ id, createdAt: await databaseTime(db) });
      return { id, fresh: used.length === 0 };
    });
  }

  /** Rows of a query, for tests and diagnosis. */
  async query(query: SQL): Promise<Record<string, unknown>[]> {
    return rowsOf(await this.#db.execute(query));
  }

  async ping(): Promise<void> {
    await this.#db.execute(sql`select 1`);
  }

  async close(): Promise<void> {
    await this.#close();
  }

  async #retried<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (error instanceof DomainError) throw error;
        const state = sqlState(error);
        if (state !== undefined && RETRYABLE_STATES.has(state) && attempt < ATTEMPTS) continue;
        if (!isConnectionLoss(error)) throw withoutValues(error);
        throw new DomainError("DATABASE_UNAVAILABLE", "the database does not answer; repeat the call in a moment", {
          cause: withoutValues(error),
          retryAfterMs: 1000,
        });
      }
    }
  }

  /** The database's time: asked once a second, carried on by this process' monotonic clock in between. */
  async #now(db: Executor): Promise<Date> {
    if (this.#clock !== undefined) return this.#clock();
    const local = performance.now();
    if (this.#measured === undefined || local - this.#measured.local > REMEASURE_MS) {
      this.#measured = { database: (await databaseTime(db)).getTime(), local: (local + performance.now()) / 2 };
    }
    return new Date(Math.round(this.#measured.database + performance.now() - this.#measured.local));
  }

  async #bind(db: Executor): Promise<Transaction> {
    const now = await this.#now(db);
    return {
      now,
      collections: collectionRepository(db, now, randomUUID),
      organizations: organizationRepository(db),
      uploads: uploadRepository(db),
      segments: segmentRepository(db),
      versions: versionRepository(db),
      sessions: sessionRepository(db),
      async audit(event) {
        await db.insert(schema.auditEvents).values({ id: randomUUID(), at: now, ...event });
      },
    };
  }
}

async function databaseTime(db: Executor): Promise<Date> {
  // Milliseconds, since that is what the columns keep and what JavaScript compares.
  const rows = rowsOf(
    await db.execute(sql`select (extract(epoch from clock_timestamp()) * 1000)::bigint::text as now`),
  );
  return new Date(Number(rows[0]!.now));
}

/** The two drivers answer a raw query in different forms. */
function rowsOf(result: unknown): Record<string, unknown>[] {
  return (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as Record<string, unknown>[];
}

/** The SQLSTATE of a driver's error, looked for through its causes (drizzle wraps them). */
function sqlState(error: unknown): string | undefined {
  for (let e = error; e instanceof Error; e = e.cause) {
    const code = (e as { code?: unknown }).code;
    if (typeof code === "string" && /^[0-9A-Z]{5}$/.test(code)) return code;
  }
  return undefined;
}

/**
 * A failed query without its values: drizzle's message repeats every parameter, and PostgreSQL's detail the row, where secrets can be. What is no failed
 * query is passed through.
 */
function withoutValues(error: unknown): unknown {
  if (!(error instanceof DrizzleQueryError)) return error;
  const reason = error.cause instanceof Error ? error.cause.message : "no reason given";
  return new Error(
    `a query failed: ${reason} (SQLSTATE ${sqlState(error) ?? "unknown"}); the query was: ${error.query}`,
  );
}

function isConnectionLoss(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause) {
    const code = (e as { code?: unknown }).code;
    // Class 08 and 57P0x of PostgreSQL's error codes; the rest are postgres.js' and Node's own names.
    if (typeof code === "string" && /^(08...|57P0[1-3]|CONNECTION_|CONNECT_TIMEOUT|ECONN|EPIPE|ENOTFOUND)/.test(code))
      return true;
  }
  return false;
}

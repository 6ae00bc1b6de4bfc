import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { and, eq, isNull, notInArray, type SQL, sql } from "drizzle-orm";
import type { Database, InstallationRow, Transaction } from "../../app/ports/database.ts";
import { auditRecord } from "../../domain/audit.ts";
import { DomainError, serverOutdated } from "../../domain/errors.ts";
import { auditRepository } from "./audit-repository.ts";
import { budgetRepository } from "./budget-repository.ts";
import { clockRepository } from "./clock-repository.ts";
import type { SqlDriver } from "./driver.ts";
import {
  CommitOutcomeUnknownError,
  ConnectionLostError,
  DatabaseUnreachableError,
  isConnectionLoss,
  isDiskFull,
  isRetryable,
  isTemporary,
  withoutValues,
} from "./errors.ts";
import { liveVersionRepository } from "./live-versions.ts";
import { isOutdated } from "./migrations.ts";
import { notificationRepository } from "./notification-repository.ts";
import {
  collectionRepository,
  type Executor,
  organizationRepository,
  segmentRepository,
  uploadRepository,
} from "./repositories.ts";
import { rowsOf } from "./rows.ts";
import * as schema from "./schema.ts";
import { sessionRepository } from "./session-repository.ts";
import { unknownObjectRepository } from "./unknown-object-repository.ts";
import { upkeepRecords } from "./upkeep-records.ts";
import { usageRepository } from "./usage-repository.ts";
import { versionRepository } from "./version-repository.ts";

/** How often work is tried when it had no effect: the database asks to, or the connection was lost before COMMIT. */
const ATTEMPTS = 5;

/** The longest pause before another try, in milliseconds; a random part of it is taken. */
const PAUSE_MS = 50;

/** How long a measured time is carried on, in milliseconds. */
const REMEASURE_MS = 1000;

/** Options of {@link SqlDatabase}. */
export interface SqlDatabaseOptions {
  readonly driver: SqlDriver;
  /** Replaces the database's clock; for tests. */
  readonly clock?: (() => Date) | undefined;
}

/** The database port over drizzle, for PostgreSQL and PGlite alike. */
export class SqlDatabase implements Database {
  readonly #driver: SqlDriver;
  readonly #clock: (() => Date) | undefined;
  #measured: { readonly database: number; readonly local: number } | undefined;

  constructor(options: SqlDatabaseOptions) {
    this.#driver = options.driver;
    this.#clock = options.clock;
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await this.#retried(
      async () => await this.#driver.transaction(async (db) => await work(await this.#bind(db))),
    );
  }

  async read<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await this.#retried(async () => await this.#driver.run(async (db) => await work(await this.#bind(db))));
  }

  async installation(): Promise<InstallationRow> {
    return await this.#retried(async () => await this.#driver.transaction(installationOf));
  }

  async startRecovery(id: string): Promise<boolean> {
    return await this.#retried(
      async () => await this.#driver.transaction(async (db) => await claimForRecovery(db, id)),
    );
  }

  async finishRecovery(): Promise<void> {
    await this.#retried(
      async () =>
        // What was stored last is the newest time that the clock can be compared with.
        await this.#driver.run(
          async (db) =>
            await db.update(schema.installation).set({
              recoveringSince: null,
              clockNewestAt: sql`(select max(${schema.versions.committedAt}) from ${schema.versions})`,
            }),
        ),
    );
  }

  async startImport(): Promise<boolean> {
    return await this.#retried(async () => await this.#driver.transaction(claimForImport));
  }

  async finishImport(): Promise<void> {
    await this.#retried(
      async () =>
        await this.#driver.run(async (db) => await db.update(schema.installation).set({ importingSince: null })),
    );
  }

  async exclusively<T>(name: string, work: () => Promise<T>): Promise<{ readonly result: T } | undefined> {
    try {
      return await this.#driver.exclusively(name, async () => {
        // Upkeep by older rules could undo what a newer replica wrote; that one does it.
        if (await this.#driver.run(isOutdated)) throw serverOutdated();
        return await work();
      });
    } catch (error) {
      // Errors of the work are its own, also where it lost a connection elsewhere.
      const own = error instanceof DatabaseUnreachableError || error instanceof ConnectionLostError;
      throw own ? refusalOf(error) : error;
    }
  }

  /** Rows of a query, for tests and diagnosis. */
  async query(query: SQL): Promise<Record<string, unknown>[]> {
    return await this.#driver.run(async (db) => rowsOf(await db.execute(query)));
  }

  async ping(): Promise<void> {
    await this.#driver.run(async (db) => await db.execute(sql`select 1`));
  }

  async close(): Promise<void> {
    await this.#driver.close();
  }

  async #retried<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (error instanceof DomainError) throw error;
        const again = isRetryable(error) || (isConnectionLoss(error) && !isFinal(error));
        if (!again || attempt >= ATTEMPTS) throw refusalOf(error) ?? withoutValues(error);
        await sleep(Math.random() * PAUSE_MS);
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
    // Those with many columns are made when they are asked for.
    let versions: Transaction["versions"] | undefined;
    let live: Transaction["live"] | undefined;
    return {
      now,
      collections: collectionRepository(db, now, randomUUID),
      organizations: organizationRepository(db, now),
      usage: usageRepository(db),
      uploads: uploadRepository(db, now),
      segments: segmentRepository(db),
      get versions() {
        versions ??= versionRepository(db, now);
        return versions;
      },
      get live() {
        live ??= liveVersionRepository(db);
        return live;
      },
      records: upkeepRecords(db),
      sessions: sessionRepository(db),
      budgets: budgetRepository(db),
      unknownObjects: unknownObjectRepository(db),
      clock: clockRepository(db),
      notifications: notificationRepository(db, now),
      auditLog: auditRepository(db),
      async audit(...events) {
        if (events.length === 0) return;
        const rows = events.map((event) => ({ id: randomUUID(), at: now, ...auditRecord(event) }));
        await db.insert(schema.auditEvents).values(rows);
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

/** Whether anybody ever uploaded: names alone are no use, since who only asks for them makes their rows. */
async function isUsed(db: Executor): Promise<boolean> {
  const { collections, uploads, versions } = schema;
  const any = (where: SQL) => sql`exists (select 1 from ${where})`;
  const rows = await db.execute(sql`select ${any(sql`${collections} where ${collections.lastNumber} > 0`)}
    or ${any(sql`${uploads}`)} or ${any(sql`${versions}`)} as used`);
  return rowsOf(rows)[0]!.used === true;
}

async function installationOf(db: Executor): Promise<InstallationRow> {
  await db.execute(sql`lock table ${schema.installation} in exclusive mode`);
  const used = await isUsed(db);
  const existing = (await db.select().from(schema.installation))[0];
  const id = existing?.id ?? randomUUID();
  if (existing === undefined) await db.insert(schema.installation).values({ id, createdAt: await databaseTime(db) });
  const { recoveringSince = null, importingSince = null } = existing ?? {};
  return { id, fresh: !used, recovering: recoveringSince !== null, importing: importingSince !== null };
}

async function claimForImport(db: Executor): Promise<boolean> {
  const { fresh, recovering, importing } = await installationOf(db);
  if (importing) return true;
  if (!fresh || recovering) return false;
  await db.update(schema.installation).set({ importingSince: await databaseTime(db) });
  return true;
}

async function claimForRecovery(db: Executor, id: string): Promise<boolean> {
  await db.execute(sql`lock table ${schema.installation} in exclusive mode`);
  const existing = (await db.select().from(schema.installation))[0];
  const goesOn = existing?.id === id && existing.recoveringSince !== null;
  // Waits for who makes rows now, so that none is in use when it is deleted.
  await db.execute(sql`lock table ${schema.collections}, ${schema.organizations} in exclusive mode`);
  if (!goesOn && (await isUsed(db))) return false;
  await deleteUnused(db);
  if (goesOn) return true;
  // A server that was started on the new database has left an id of its own, which belongs to nothing.
  await db.delete(schema.installation);
  const now = await databaseTime(db);
  await db.insert(schema.installation).values({ id, createdAt: now, recoveringSince: now });
  return true;
}

/** Deletes names that somebody only asked for: a rebuild makes rows of its own, with the ids that manifests have. */
async function deleteUnused(db: Executor): Promise<void> {
  const { collections, organizations, uploads, versions } = schema;
  await db
    .delete(collections)
    .where(
      and(
        eq(collections.lastNumber, 0n),
        notInArray(collections.id, db.select({ id: uploads.collectionId }).from(uploads)),
        notInArray(collections.id, db.select({ id: versions.collectionId }).from(versions)),
      ),
    );
  const { storedBytes, reservedBytes, trashBytes, closedAt, purge } = organizations;
  const empty = and(...[storedBytes, reservedBytes, trashBytes].map((bytes) => eq(bytes, 0n)));
  // Of one that was closed the store may not have been told; what it says is written over the row.
  await db.delete(organizations).where(and(empty, isNull(closedAt), isNull(purge)));
}

/** Trying again by itself would be useless, or could do the work twice. */
function isFinal(error: unknown): boolean {
  return error instanceof DatabaseUnreachableError || error instanceof CommitOutcomeUnknownError;
}

/** The error for the caller when the database cannot do it now; undefined for faults. */
function refusalOf(error: unknown): DomainError | undefined {
  const options = { cause: withoutValues(error), retryAfterMs: 1000 };
  if (isDiskFull(error)) {
    const outcome =
      error instanceof CommitOutcomeUnknownError ? " It is not known whether the change was made, and it is safe" : "";
    const message =
      "the database has no space left on its disk: notify the operator, who has to free some. Until then the call " +
      `fails; repeat it.${outcome}`;
    return new DomainError("DATABASE_UNAVAILABLE", message, { ...options, metadata: { cause: "disk-full" } });
  }
  if (error instanceof CommitOutcomeUnknownError) {
    const message =
      "the database broke off while it committed, so it is not known whether the change was made; repeat the " +
      "call, which is safe";
    return new DomainError("DATABASE_UNAVAILABLE", message, options);
  }
  if (isTemporary(error) || isRetryable(error))
    return new DomainError("DATABASE_UNAVAILABLE", "the database is too busy; repeat the call in a moment", options);
  if (error instanceof DatabaseUnreachableError || isConnectionLoss(error))
    return new DomainError(
      "DATABASE_UNAVAILABLE",
      "the database does not answer; repeat the call in a moment",
      options,
    );
  return undefined;
}

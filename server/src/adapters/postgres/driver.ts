import type { Executor } from "./repositories.ts";

/** What a kind of PostgreSQL must be able to do: a server, or one inside this process. */
export interface SqlDriver {
  /**
   * Runs `work` in one transaction, READ COMMITTED.
   * @throws DatabaseUnreachableError, ConnectionLostError, CommitOutcomeUnknownError, or what `work` or the database
   *   threw.
   */
  transaction<T>(work: (db: Executor) => Promise<T>): Promise<T>;
  /** Runs single queries outside a transaction. */
  run<T>(work: (db: Executor) => Promise<T>): Promise<T>;
  /** See `Database.exclusively`. */
  exclusively<T>(name: string, work: () => Promise<T>): Promise<{ readonly result: T } | undefined>;
  close(): Promise<void>;
}

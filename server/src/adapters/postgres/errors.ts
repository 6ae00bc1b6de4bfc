import { DrizzleQueryError } from "drizzle-orm";

/** No connection could be had. Nothing of the work was begun. */
export class DatabaseUnreachableError extends Error {
  override name = "DatabaseUnreachableError";
  /** Whether waiting does not help: wrong password, no such database, a certificate that is not trusted. */
  readonly permanent: boolean;

  constructor(message: string, options: { cause?: unknown; permanent: boolean }) {
    super(message, { cause: options.cause });
    this.permanent = options.permanent;
  }
}

/** The connection was lost before COMMIT was sent, so the transaction did not happen. */
export class ConnectionLostError extends Error {
  override name = "ConnectionLostError";
}

/** The connection was lost after COMMIT was sent: it happened, or it did not. */
export class CommitOutcomeUnknownError extends Error {
  override name = "CommitOutcomeUnknownError";
}

/** The SQLSTATE of a driver's error, looked for through its causes (drizzle wraps them). */
export function sqlState(error: unknown): string | undefined {
  for (let e = error; e instanceof Error; e = e.cause) {
    const code = (e as { code?: unknown }).code;
    if (typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) && code !== "EPIPE") return code;
  }
  return undefined;
}

/** Whether a transaction had no effect and may simply run again: serialization failure, deadlock. */
export function isRetryable(error: unknown): boolean {
  return /^(40001|40P01)$/.test(sqlState(error) ?? "");
}

/** Whether the connection, not the query, failed. */
export function isConnectionLoss(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause) {
    if (e instanceof ConnectionLostError) return true;
    const code = (e as { code?: unknown }).code;
    // Class 08, what ends a session (57P0x, 25P03), postgres.js' own names and Node.js'.
    if (
      typeof code === "string" &&
      /^(08...|57P0[1-5]|25P03|CONNECTION_|CONNECT_TIMEOUT|ECONN|EPIPE|ENOTFOUND)/.test(code)
    )
      return true;
  }
  return false;
}

/**
 * Whether the server answers, but cannot do it now: waited too long for a lock (55P03), took too long (57014), has no
 * memory, space or connections left (class 53), or is a standby that takes no changes (25006), as after a failover.
 */
export function isTemporary(error: unknown): boolean {
  return /^(55P03|57014|53...|25006)$/.test(sqlState(error) ?? "");
}

/**
 * Whether the database has no space left for its files: SQLSTATE 53100 of a server that lives, and the last words of
 * one that ended because it could not write its log.
 */
export function isDiskFull(error: unknown): boolean {
  if (sqlState(error) === "53100") return true;
  for (let e = error; e instanceof Error; e = e.cause)
    if (/No space left on device|ENOSPC/.test(e.message)) return true;
  return false;
}

/**
 * A failed query without its values: drizzle's message repeats every parameter, and PostgreSQL's detail the row, where
 * secrets can be. What is no failed query is passed through.
 */
export function withoutValues(error: unknown): unknown {
  if (!(error instanceof DrizzleQueryError)) return error;
  const reason = error.cause instanceof Error ? error.cause.message : "no reason given";
  return new Error(
    `a query failed: ${reason} (SQLSTATE ${sqlState(error) ?? "unknown"}); the query was: ${error.query}`,
  );
}

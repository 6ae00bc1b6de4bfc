import type { Socket } from "node:net";
import { userInfo } from "node:os";
import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import type { PostgresLocation } from "../../domain/postgres-url.ts";
import { ConnectionLostError, DatabaseUnreachableError, sqlState } from "./errors.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";
import { openSocket } from "./socket.ts";

/** How long a connection may take to be made, TLS and authentication included, in milliseconds. */
const CONNECT_MS = 10_000;

/**
 * How long the server may be silent while it is asked something, in milliseconds; longer than its own limit for a
 * statement.
 */
const SILENCE_MS = 75_000;

/**
 * What protects others from a session of ours: a statement of more than a minute, a wait for a lock of more than 15 s
 * (locks are held for milliseconds), a transaction whose process is frozen or gone. Set, not given at the start, which
 * PgBouncer refuses.
 */
const SESSION = [
  "set statement_timeout = '60s'",
  "set lock_timeout = '15s'",
  "set idle_in_transaction_session_timeout = '60s'",
  // So that the locks of a machine that is gone are free after a minute, not after hours.
  "set tcp_keepalives_idle = 30",
  "set tcp_keepalives_interval = 10",
  "set tcp_keepalives_count = 3",
  "set timezone = 'UTC'",
  "set datestyle = 'ISO'",
].join("; ");

/**
 * SQLSTATEs for which waiting does not help: wrong password or role (28), no such database (3D000), no permission
 * (42501).
 */
const PERMANENT = /^(28...|3D000|42501)$/;

/**
 * One session of a PostgreSQL server, used by one piece of work at a time, and thrown away when it breaks. postgres.js'
 * own pool is not used: there a transaction whose connection broke goes on with the connection that took its place, and
 * its next query runs outside any transaction, or inside somebody else's.
 */
export class PgConnection {
  readonly #client: postgres.Sql;
  /** Queries of this session. */
  readonly db: Executor;
  /** When it was opened, by the monotonic clock, in milliseconds. */
  readonly openedAt = performance.now();
  #socket: Socket | undefined;
  #lost = false;
  readonly #whenLost = new Set<() => void>();

  private constructor(location: PostgresLocation) {
    this.#client = postgres({
      host: location.host,
      port: location.port,
      database: location.database,
      user: location.user ?? userInfo().username,
      ...(location.password === undefined ? {} : { password: location.password }),
      max: 1,
      // TLS is the socket's.
      ssl: false,
      connect_timeout: CONNECT_MS / 1000,
      idle_timeout: 0,
      max_lifetime: null,
      fetch_types: false,
      onnotice: () => {},
      connection: { application_name: "strongroom" },
      socket: async () => await this.#connect(location),
    } as postgres.Options<Record<string, never>>);
    // Every statement is prepared: one round trip instead of two, and parsed once. Those of a connection are few.
    const unsafe = this.#client.unsafe.bind(this.#client);
    this.#client.unsafe = ((text: string, parameters: never[] = [], options?: object) => {
      if (this.#lost) throw new ConnectionLostError("the connection to the database was lost");
      return unsafe(text, parameters, { ...options, prepare: parameters.length > 0 });
    }) as typeof unsafe;
    this.db = drizzle({ client: this.#client, schema }) as unknown as Executor;
  }

  /** Opens a session. @throws DatabaseUnreachableError */
  static async open(location: PostgresLocation): Promise<PgConnection> {
    const connection = new PgConnection(location);
    try {
      await connection.#whileConnected(async () => await connection.#client.unsafe(SESSION));
      return connection;
    } catch (error) {
      connection.destroy();
      throw unreachable(error, location);
    }
  }

  /** Whether it can be used no more. */
  get lost(): boolean {
    return this.#lost;
  }

  /** Calls back when the connection is lost. Returns what takes that back. */
  onLost(callback: () => void): () => void {
    this.#whenLost.add(callback);
    return () => this.#whenLost.delete(callback);
  }

  /**
   * Runs work on this session. @throws ConnectionLostError as soon as the connection is lost, also when the work goes
   * on.
   */
  async use<T>(work: (db: Executor) => Promise<T>): Promise<T> {
    return await this.#whileConnected(async () => await work(this.db));
  }

  /** Runs a command without parameters and returns its tag, such as `COMMIT`. */
  async command(text: string): Promise<string> {
    return await this.#whileConnected(async () => (await this.#client.unsafe(text)).command);
  }

  /** Ends the session in order. */
  async close(): Promise<void> {
    if (!this.#lost) await this.#client.end({ timeout: 1 });
    this.destroy();
  }

  /** Ends the session at once; the server rolls back what was under way. */
  destroy(): void {
    this.#markLost();
    this.#socket?.destroy();
    this.#client.end({ timeout: 0 }).catch(() => {});
  }

  async #connect(location: PostgresLocation): Promise<Socket> {
    // The driver asks again when the connection broke; a session has one.
    if (this.#socket !== undefined || this.#lost) throw new ConnectionLostError("the server closed the connection");
    const socket = await openSocket(location, CONNECT_MS);
    this.#socket = socket;
    socket.once("timeout", () => socket.destroy());
    for (const end of ["error", "end", "close"]) socket.once(end, () => this.#markLost());
    return socket;
  }

  #markLost(): void {
    if (this.#lost) return;
    this.#lost = true;
    for (const callback of this.#whenLost) callback();
    this.#whenLost.clear();
  }

  async #whileConnected<T>(work: () => Promise<T>): Promise<T> {
    if (this.#lost) throw new ConnectionLostError("the connection to the database was lost");
    this.#socket?.setTimeout(SILENCE_MS);
    let forget = () => {};
    const lost = new Promise<never>((_, reject) => {
      // A moment later, so that what the server said before it closed comes first.
      forget = this.onLost(() =>
        setImmediate(() => reject(new ConnectionLostError("the connection to the database was lost"))),
      );
    });
    try {
      return await Promise.race([work(), lost]);
    } finally {
      forget();
      this.#socket?.setTimeout(0);
    }
  }
}

/** What went wrong when connecting, as an operator reads it. */
function unreachable(error: unknown, { host, port, database }: PostgresLocation): DatabaseUnreachableError {
  if (error instanceof DatabaseUnreachableError) {
    return new DatabaseUnreachableError(`${place(host, port, database)}: ${error.message}`, {
      cause: error.cause,
      permanent: error.permanent,
    });
  }
  const { code, message } = error as NodeJS.ErrnoException;
  const known: Record<string, string> = {
    ECONNREFUSED: "nothing listens there (connection refused)",
    ENOENT: "there is no such socket; nothing listens there",
    ENOTFOUND: "the name of the host is not known",
    EAI_AGAIN: "the name of the host cannot be looked up now",
    ETIMEDOUT: "no answer in time; is a firewall between?",
    CONNECT_TIMEOUT: "no answer in time; is it really PostgreSQL?",
  };
  const permanent = PERMANENT.test(sqlState(error) ?? "");
  return new DatabaseUnreachableError(`${place(host, port, database)}: ${known[code ?? ""] ?? message}`, {
    cause: error,
    permanent,
  });
}

function place(host: string, port: number, database: string): string {
  return (
    `cannot use database "${database}" on ` +
    `${host.includes(":") ? `[${host}]` : host}${host.startsWith("/") ? "" : `:${port}`}`
  );
}

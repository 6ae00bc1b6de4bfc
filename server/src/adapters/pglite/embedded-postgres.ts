import { PGlite, type QueryOptions, type Results, type Transaction } from "@electric-sql/pglite";
import { DataDirectory, NoDatabaseError } from "./data-directory.ts";
import { PreparedStatements } from "./prepared-statements.ts";

/** Status of the exception by which PGlite goes on after an ordinary error of a query. */
const QUERY_FAILED = 100;

/**
 * PGlite's own parameters turn fsync off (-F). The rest are PostgreSQL's defaults, which no file in an old data
 * directory may change.
 */
const START_PARAMETERS = [
  ...PGlite.defaultStartParams.filter((parameter) => parameter !== "-F"),
  ...["fsync=on", "wal_sync_method=fsync", "full_page_writes=on", "synchronous_commit=on"].flatMap((setting) => [
    "-c",
    setting,
  ]),
];

/**
 * The embedded database ended by itself, as PostgreSQL does when it cannot write or sync its log. Nothing more can be
 * asked of it.
 */
export class DatabaseEndedError extends Error {
  override name = "DatabaseEndedError";
}

/**
 * PGlite that syncs, and that prepares its statements. Also, when PostgreSQL ends inside it (a PANIC, out of memory),
 * every call fails from then on: PGlite itself (0.5.16) swallows what was thrown, and asks what is dead again and
 * again, in a loop that never gives the process back.
 */
export class EmbeddedPostgres extends PGlite {
  readonly #directory: DataDirectory | undefined;
  readonly #lastWords: { text: string };
  readonly #prepared = new PreparedStatements(this);
  #ended: DatabaseEndedError | undefined;
  #guarded = false;

  private constructor(directory: DataDirectory | undefined, prepared: Blob | undefined, lastWords: { text: string }) {
    super({
      ...(directory === undefined ? {} : { fs: directory, startParams: START_PARAMETERS }),
      ...(prepared === undefined ? {} : { loadDataDir: prepared }),
      onStderr: (text) => {
        if (/\b(PANIC|FATAL):/.test(text)) lastWords.text = text.replace(/^.*?(?=(PANIC|FATAL):)/, "");
        return false;
      },
    });
    this.#directory = directory;
    this.#lastWords = lastWords;
  }

  /**
   * Starts PostgreSQL on the data directory, which is made when it is missing; undefined for memory, where nothing is
   * synced.
   * @param prepared what the memory holds at first, as `dumpDataDir` gave it; not beside a directory.
   * @throws NoDatabaseError
   * @throws DatabaseEndedError when it cannot start on what is there
   */
  static async start(directory: string | undefined, prepared?: Blob): Promise<EmbeddedPostgres> {
    const lastWords = { text: "" };
    let files: DataDirectory | undefined;
    try {
      files = directory === undefined ? undefined : new DataDirectory(directory);
      const database = new EmbeddedPostgres(files, prepared, lastWords);
      await database.waitReady;
      // A plan made once for all values knows no partial index, and stays as it was while the tables grow.
      await database.exec("set plan_cache_mode = force_custom_plan");
      return database;
    } catch (error) {
      if (error instanceof NoDatabaseError) throw error;
      files?.abandon();
      const reason = lastWords.text === "" ? String(error) : lastWords.text;
      throw new DatabaseEndedError(`the embedded database does not start: ${reason}`, { cause: error });
    }
  }

  /** Why it ended by itself; undefined while it lives. */
  get ended(): DatabaseEndedError | undefined {
    return this.#ended;
  }

  override async query<T>(text: string, parameters: unknown[] = [], options?: QueryOptions): Promise<Results<T>> {
    // What has no parameters is seldom asked again.
    if (parameters.length === 0) return await super.query<T>(text, parameters, options);
    await this._checkReady();
    return await this._runExclusiveTransaction(async () => {
      const results = await this.#query<T>(text, parameters, options);
      await this.syncToFs();
      return results;
    });
  }

  override async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await super.transaction(async (tx) => {
      const query = async <R>(
        text: string,
        parameters: unknown[] = [],
        options?: QueryOptions,
      ): Promise<Results<R>> => {
        if (parameters.length === 0 || tx.closed) return await tx.query<R>(text, parameters, options);
        return await this.#query<R>(text, parameters, options);
      };
      return await work(Object.create(tx, { query: { value: query } }) as Transaction);
    });
  }

  async #query<T>(text: string, parameters: unknown[], options: QueryOptions | undefined): Promise<Results<T>> {
    return await this._runExclusiveQuery(async () => await this.#prepared.query<T>(text, parameters, options));
  }

  override execProtocolRawSync(message: Uint8Array): Uint8Array {
    if (this.#ended !== undefined) throw this.#ended;
    this.#guard();
    let answer: Uint8Array;
    try {
      answer = super.execProtocolRawSync(message);
    } catch (error) {
      throw this.#ended ?? error;
    }
    // Set while it ran.
    const { ended } = this;
    if (ended !== undefined) throw ended;
    return answer;
  }

  override async close(): Promise<void> {
    // Its own way of closing would write a checkpoint.
    if (this.#ended === undefined) await super.close();
    else this.#directory?.abandon();
  }

  /**
   * Notices what ends PostgreSQL, and breaks PGlite's loop there: after anything thrown it calls `stackRestore`,
   * outside any `try`.
   */
  #guard(): void {
    if (this.#guarded) return;
    this.#guarded = true;
    const module = this.Module;
    const { _PostgresMainLoopOnce: runOnce, stackRestore } = module;
    module._PostgresMainLoopOnce = () => {
      try {
        runOnce();
      } catch (error) {
        if ((error as { status?: unknown }).status !== QUERY_FAILED) this.#end(error);
        throw error;
      }
    };
    module.stackRestore = (pointer) => {
      if (this.#ended !== undefined) throw this.#ended;
      return stackRestore(pointer);
    };
  }

  #end(cause: unknown): void {
    const reason = this.#lastWords.text === "" ? String(cause) : this.#lastWords.text;
    this.#ended ??= new DatabaseEndedError(`the embedded database ended: ${reason}`, { cause });
  }
}

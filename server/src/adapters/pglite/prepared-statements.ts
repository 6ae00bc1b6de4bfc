import { parse, protocol, type QueryOptions, type Results } from "@electric-sql/pglite";

/** What of PGlite carries out messages of the protocol and turns values into texts. */
export interface MessageSession {
  readonly serializers: Readonly<Record<number | string, (value: never) => string>>;
  readonly parsers: Parameters<typeof parse.parseResults>[1];
  execProtocolStream(message: Uint8Array, options: { readonly syncToFs: boolean }): Promise<Messages>;
}

type Messages = Parameters<typeof parse.parseResults>[0];

/** A statement that PostgreSQL has parsed. */
interface Prepared {
  readonly name: string;
  /** Object identifiers of its parameters' types. */
  readonly types: readonly number[];
  /** What describes its rows. */
  readonly rows: Messages;
}

/** So many are kept; the one that was used longest ago gives way. The server has some two hundred. */
const MOST_KEPT = 500;

/** PostgreSQL does not know the statement, or its tables have changed: it is to be prepared again. */
const OUTDATED = new Set(["26000", "0A000"]);

/**
 * Statements with parameters, parsed once in the life of the embedded database and planned for their values each time.
 * PGlite (0.5.16) itself has each parsed anew too, in six calls of its module; a prepared one takes a single call.
 */
export class PreparedStatements {
  readonly #session: MessageSession;
  /** By their text, the one used last at the end. */
  readonly #prepared = new Map<string, Prepared>();
  #count = 0;

  constructor(session: MessageSession) {
    this.#session = session;
  }

  /** Carries out a statement. Nothing else may be under way. @throws what PostgreSQL answers. */
  async query<T>(text: string, parameters: readonly unknown[], options?: QueryOptions): Promise<Results<T>> {
    const statement = await this.#statement(text);
    const { serializers, parsers } = this.#session;
    const values = parameters.map((value, i) => {
      if (value === null || value === undefined) return null;
      const serialize = serializers[statement.types[i]!];
      return serialize === undefined ? String(value) : serialize(value as never);
    });
    const { bind, execute, sync } = protocol.serialize;
    try {
      const answer = await this.#send(bind({ statement: statement.name, values }), execute({}), sync());
      // With the parsers behind those of the options: PGlite itself would copy hundreds of them for each answer.
      const chosen = Object.assign(Object.create(parsers) as typeof parsers, options?.parsers);
      const others = { ...options, parsers: undefined } as Omit<QueryOptions, "parsers">;
      return parse.parseResults([...statement.rows, ...answer], chosen, others)[0] as Results<T>;
    } catch (error) {
      if (OUTDATED.has(String((error as { code?: unknown }).code))) this.#prepared.delete(text);
      throw error;
    }
  }

  async #statement(text: string): Promise<Prepared> {
    const known = this.#prepared.get(text);
    if (known !== undefined) {
      this.#prepared.delete(text);
      this.#prepared.set(text, known);
      return known;
    }
    const [oldest] = this.#prepared;
    const { close, parse: parsing, describe, sync } = protocol.serialize;
    if (oldest !== undefined && this.#prepared.size >= MOST_KEPT) {
      this.#prepared.delete(oldest[0]);
      await this.#send(close({ type: "S", name: oldest[1].name }), sync());
    }
    const name = `s${++this.#count}`;
    const answer = await this.#send(parsing({ name, text }), describe({ type: "S", name }), sync());
    const types = parse.parseDescribeStatementResults(answer);
    const statement = { name, types, rows: answer.filter((message) => message.name === "rowDescription") };
    this.#prepared.set(text, statement);
    return statement;
  }

  async #send(...messages: readonly Uint8Array[]): Promise<Messages> {
    return await this.#session.execProtocolStream(Buffer.concat(messages), { syncToFs: false });
  }
}

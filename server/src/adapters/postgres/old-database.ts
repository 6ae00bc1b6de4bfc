import { sql } from "drizzle-orm";
import type { OldDatabase, OldSession, OldVersion } from "../../app/ports/old-installation.ts";
import type { PostgresLocation } from "../../domain/postgres-url.ts";
import { PgConnection } from "./connection.ts";
import { type PasswordSources, withPassword } from "./password.ts";
import { rowsOf } from "./rows.ts";

/** Sessions read at once. */
const PAGE = 500;

/**
 * The database of Backup Repository: the tables that its Go structs `UploadedVersion` and `GrantedAccess` become
 * (`pkg/storage/entity.go`, `pkg/security/model.go`; GORM's names, `deleted_at` is set on rows that were deleted). The
 * session is read-only for the server too, so nothing can be changed by mistake.
 */
export class OldPostgresDatabase implements OldDatabase {
  readonly #connection: PgConnection;

  private constructor(connection: PgConnection) {
    this.#connection = connection;
  }

  /** @throws DatabaseUnreachableError with host, port, database and reason. Error when it is no such database. */
  static async open(location: PostgresLocation, passwords: PasswordSources): Promise<OldPostgresDatabase> {
    const connection = await PgConnection.open(await withPassword(location, passwords));
    try {
      await connection.command("set default_transaction_read_only = on");
      const found = await connection.use(
        async (db) => await db.execute(sql`select to_regclass('uploaded_versions') is not null as has_versions`),
      );
      if (rowsOf(found)[0]?.has_versions !== true) {
        throw new Error(
          `database "${location.database}" has no table uploaded_versions: expected the database of Backup Repository`,
        );
      }
      return new OldPostgresDatabase(connection);
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  async collections(): Promise<string[]> {
    const rows = await this.#query(
      sql`select distinct collection_id from uploaded_versions where deleted_at is null order by 1`,
    );
    return rows.map((row) => String(row.collection_id));
  }

  async versions(collection: string): Promise<OldVersion[]> {
    const hasSessions = await this.#hasSessions();
    const accessKey = hasSessions
      ? sql`(select a.access_key_name from granted_accesses a where a.id = v.uploaded_by_session_id)`
      : sql`null`;
    const rows = await this.#query(
      sql`select v.id, v.version_number, v.filename, v.filesize, v.uploader, v.uploaded_by_session_id,
          extract(epoch from v.created_at) * 1000 as created_ms, ${accessKey} as access_key
        from uploaded_versions v where v.deleted_at is null and v.collection_id = ${collection}::text
        order by v.version_number desc, v.created_at desc`,
    );
    return rows.map((row) => ({
      id: text(row.id),
      number: BigInt(text(row.version_number) || "0"),
      filename: text(row.filename),
      size: row.filesize === null ? undefined : BigInt(text(row.filesize)),
      userName: text(row.uploader),
      accessKey: text(row.access_key),
      sessionId: text(row.uploaded_by_session_id),
      createdAt: time(row.created_ms),
    }));
  }

  async deleted(collection: string, filenames: readonly string[]): Promise<ReadonlySet<string>> {
    const rows = await this.#query(
      sql`select distinct filename from uploaded_versions where deleted_at is not null
          and collection_id = ${collection}::text
          and filename in (select jsonb_array_elements_text(${JSON.stringify(filenames)}::text::jsonb))`,
    );
    return new Set(rows.map((row) => text(row.filename)));
  }

  async *sessions(most: number): AsyncGenerator<OldSession> {
    if (!(await this.#hasSessions())) return;
    for (let after = ""; ; ) {
      const rows = await this.#query(
        sql`select *, extract(epoch from created_at) * 1000 as created_ms,
            extract(epoch from expires_at) * 1000 as expires_ms
          from (
            select *, row_number() over (partition by "user", access_key_name order by created_at desc, id) as place
            from granted_accesses where deleted_at is null and expires_at > now()
          ) s
          where place <= ${most}::int and id > ${after}::text order by id limit ${PAGE}::int`,
      );
      for (const row of rows) {
        yield {
          id: text(row.id),
          userName: text(row.user),
          accessKey: text(row.access_key_name),
          description: text(row.description),
          address: text(row.requester_ip),
          createdAt: time(row.created_ms),
          expiresAt: time(row.expires_ms),
          deactivated: row.deactivated === true,
        };
      }
      if (rows.length < PAGE) return;
      after = text(rows.at(-1)!.id);
    }
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }

  async #hasSessions(): Promise<boolean> {
    const rows = await this.#query(sql`select to_regclass('granted_accesses') is not null as found`);
    return rows[0]?.found === true;
  }

  async #query(query: ReturnType<typeof sql>): Promise<Record<string, unknown>[]> {
    return rowsOf(await this.#connection.use(async (db) => await db.execute(query)));
  }
}

const text = (value: unknown) => (value === null || value === undefined ? "" : String(value));
const time = (milliseconds: unknown) => new Date(Math.floor(Number(text(milliseconds))));

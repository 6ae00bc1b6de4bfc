import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import type { PostgresLocation } from "../../domain/postgres-url.ts";

/** Where a password may be, besides the URL. */
export interface PasswordSources {
  /** File with nothing but the password. */
  readonly passwordFile: string | undefined;
  /** File in the form of libpq's `.pgpass`: https://www.postgresql.org/docs/current/libpq-pgpass.html */
  readonly passFile: string | undefined;
}

/**
 * The location with its password: from the file, else as it is, else from the `.pgpass` file. None is no error: the
 * server may not ask for one.
 */
export async function withPassword(location: PostgresLocation, sources: PasswordSources): Promise<PostgresLocation> {
  if (sources.passwordFile !== undefined) {
    const password = (await readFile(sources.passwordFile, "utf8")).replace(/^\ufeff|[\r\n]+$/g, "");
    if (password === "" || password.includes("\n"))
      throw new Error(`${sources.passwordFile}: expected the password of the database in one line and nothing else`);
    return { ...location, password };
  }
  if (location.password !== undefined || sources.passFile === undefined) return location;
  return { ...location, password: passwordIn(await readFile(sources.passFile, "utf8"), location) };
}

/**
 * The password of the first line that fits: `host:port:database:user:password`, `*` fits everything, a backslash
 * escapes.
 */
export function passwordIn(passFile: string, location: PostgresLocation): string | undefined {
  const host = location.host.startsWith("/") ? "localhost" : location.host;
  const wanted = [host, String(location.port), location.database, location.user ?? userInfo().username];
  for (const line of passFile.split(/\r?\n/)) {
    if (line.startsWith("#")) continue;
    const fields = (line.match(/(?:^|:)((?:\\.|[^:\\])*)/g) ?? []).map((field) => field.replace(/^:/, ""));
    if (fields.length < 5) continue;
    const fits = wanted.every((value, i) => fields[i] === "*" || unescaped(fields[i]!) === value);
    if (fits) return unescaped(fields[4]!);
  }
  return undefined;
}

function unescaped(field: string): string {
  return field.replace(/\\(.)/g, "$1");
}

/** How much a connection to PostgreSQL is protected: the three modes of libpq's `sslmode` that say what they do. */
export type PostgresTls = "disable" | "require" | "verify-full";

/** Where a PostgreSQL database is, and as whom it is used. */
export interface PostgresLocation {
  /** A name, an address, or the directory of a Unix socket (begins with a slash). */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  /** Undefined: the name of the user that runs the server. */
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly tls: PostgresTls;
  /** File with the certificates that are trusted, PEM; undefined: those that Node.js trusts. */
  readonly caFile: string | undefined;
}

const FORM = "postgres://USER@HOST:PORT/DATABASE";

/** Whether the text is a URL of a PostgreSQL database. */
export function isPostgresUrl(text: string): boolean {
  return /^postgres(ql)?:/i.test(text);
}

/**
 * Reads a connection URL as libpq has it (https://www.postgresql.org/docs/current/libpq-connect.html, 34.1.1.2), of its
 * parameters `sslmode`, `sslrootcert`, `user`, `password`, and `host` and `port`. Messages never repeat any of the
 * text, since a password may be in it.
 * @throws RangeError for what is wrong or would silently mean something else.
 */
export function parsePostgresUrl(text: string): PostgresLocation {
  let url: URL;
  let part: (text: string) => string;
  try {
    url = new URL(text);
    part = decodeURIComponent;
    for (const piece of [url.hostname, url.username, url.password, url.pathname]) part(piece);
  } catch {
    throw new RangeError(
      `expected one ${FORM}; it cannot be read. Special characters in user and password are written in ` +
        "percent-encoding, a colon as %3A",
    );
  }
  const parameters = new Map(url.searchParams);
  const take = (name: string): string | undefined => {
    const value = parameters.get(name);
    parameters.delete(name);
    return value === undefined || value === "" ? undefined : value;
  };
  const host = take("host") ?? part(url.hostname).replace(/^\[(.*)\]$/, "$1");
  if (host === "")
    throw new RangeError(`the host is missing: expected ${FORM}, or postgres:///DATABASE?host=/run/postgresql`);
  if (host.includes(",")) throw new RangeError("expected one host; several are not supported");
  const port = Number(take("port") ?? (url.port === "" ? "5432" : url.port));
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new RangeError("expected a port of 1 to 65535");
  const database = part(url.pathname.slice(1));
  if (database === "" || database.includes("/")) throw new RangeError(`expected ${FORM} with the name of one database`);
  const location = {
    host,
    port,
    database,
    user: take("user") ?? (url.username === "" ? undefined : part(url.username)),
    password: take("password") ?? (url.password === "" ? undefined : part(url.password)),
    ...protection(host, take("sslmode"), take("sslrootcert")),
  };
  const unknown = parameters.keys().next().value;
  if (unknown !== undefined && parameters.get(unknown) !== "") {
    throw new RangeError(
      "a parameter of the URL is not known; expected sslmode, sslrootcert, host, port, user or password",
    );
  }
  return location;
}

function protection(
  host: string,
  mode: string | undefined,
  caFile: string | undefined,
): Pick<PostgresLocation, "tls" | "caFile"> {
  const system = caFile === "system";
  const near = host.startsWith("/") || host === "localhost" || host === "::1" || /^127\./.test(host);
  const tls = mode ?? (system ? "verify-full" : near ? "disable" : undefined);
  if (tls === undefined) {
    throw new RangeError(
      "beyond this machine the URL must say sslmode: ?sslmode=verify-full (encrypted, the server proves who it " +
        "is), require (encrypted only), or disable on a network you trust",
    );
  }
  if (tls !== "disable" && tls !== "require" && tls !== "verify-full") {
    throw new RangeError(
      "expected sslmode=disable, require or verify-full; other modes look like protection and are none, or " +
        "check less than they seem to",
    );
  }
  if (caFile !== undefined && tls !== "verify-full")
    throw new RangeError("sslrootcert is for sslmode=verify-full; without it the certificate would not be looked at");
  return { tls, caFile: system ? undefined : caFile };
}

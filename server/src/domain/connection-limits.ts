/** How many connections a server takes. */
export interface ConnectionLimits {
  /** In all. */
  readonly total: number;
  /** From one holder: an IPv4 address, or the /64 an IPv6 address is in. */
  readonly perHolder: number;
}

/** More cost memory and help no one: a client of Strongroom has one connection. */
const MOST_BY_DEFAULT = 10_000;

/** Of a process that may open as many files as it likes. */
const FILES_WHERE_UNLIMITED = 1_048_576;

/**
 * The part of the open files that connections may have at most; the rest is for storage, database and configuration.
 */
const MOST_OF_FILES = 3 / 4;

/**
 * The limits of a process. By default connections get half of the files that it may have open, since each upload and
 * download that runs needs files in storage and database too, and one holder a quarter of that.
 * @param files - how many files the process may have open; undefined where there is no limit.
 * @param total - as the operator wishes it; undefined for the default.
 * @param perHolder - as the operator wishes it; undefined for the default.
 * @throws RangeError when the wish leaves too few files for storage and database.
 */
export function connectionLimits(
  files: number | undefined,
  total: number | undefined,
  perHolder: number | undefined,
): ConnectionLimits {
  const all = files ?? FILES_WHERE_UNLIMITED;
  const most = Math.floor(all * MOST_OF_FILES);
  if (total !== undefined && total > most)
    throw new RangeError(
      `--max-connections: expected at most ${most}, three quarters of the ${all} files that this process may ` +
        `have open, got ${total}; raise that limit (ulimit -n, LimitNOFILE= of systemd) or lower this one`,
    );
  const taken = total ?? Math.max(1, Math.min(Math.floor(all / 2), MOST_BY_DEFAULT));
  return { total: taken, perHolder: Math.min(perHolder ?? Math.max(1, Math.floor(taken / 4)), taken) };
}

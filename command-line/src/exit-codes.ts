/** Exit codes of the program. Stable: monitoring and cron jobs decide by them. */
export const EXIT = {
  /** Done. */
  ok: 0,
  /** A fault of the program or of the server, or of this machine (a full disk, for example). */
  unexpected: 1,
  /** Wrong arguments, options, key files or other input. */
  usage: 2,
  /** No session, an expired or revoked one, or a wrong password. */
  authentication: 3,
  /**
   * The server or the client said no: quota, window, policy, protected version, missing right, no such thing, too
   * small a dump.
   */
  refused: 4,
  /** The server cannot be reached or is not able to answer now, or `--timeout` ran out. */
  network: 5,
  /** Bytes are not what was stored, were lost by the storage, or could not be decrypted. */
  integrity: 6,
  /** The command of `-c`, or what reads from or writes to a pipe, failed. */
  commandFailed: 7,
  /** `health`: a check failed. */
  unhealthy: 8,
  /** The terminal went away (SIGHUP). */
  hangup: 129,
  /** Ctrl-C (SIGINT). */
  interrupted: 130,
  /** SIGTERM. */
  terminated: 143,
} as const;

/** One of {@link EXIT}. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Code and meaning, as `--help` and the documentation show them. */
export const EXIT_TABLE: ReadonlyArray<readonly [code: string, meaning: string]> = [
  ["0", "done"],
  ["1", "unexpected: a fault of the program, the server or this machine"],
  ["2", "usage: wrong arguments, options, key files, or a request the server calls invalid"],
  ["3", "authentication: no session, an expired one, or a wrong password"],
  [
    "4",
    "refused: quota, window, policy, access denied, not found, protected version, dump below --min-size or not " +
      "as expected",
  ],
  ["5", "network: server not reachable or not available, or --timeout ran out"],
  ["6", "integrity: a digest differs, a version is damaged, the storage lost an upload, or decryption failed"],
  ["7", "command failed: the command of -c, or the other end of a pipe"],
  ["8", "health: a check is not ok (see --fail-on)"],
  ["129, 130, 143", "ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM"],
];

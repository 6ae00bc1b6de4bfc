/** Times and counts that nobody needs to choose, in one place so that tests can make them short. */

/** All in milliseconds unless the name says otherwise. */
export interface Timings {
  /** First delay before a retry; doubled each time. */
  retryBaseMs: number;
  /** Longest delay before a retry, unless the server asks for a longer one. */
  retryMaxMs: number;
  /** How often an unreachable server is tried before anything is open. */
  connectAttempts: number;
  /** Retries of an error that is likely to come again. */
  fewRetries: number;
  /**
   * Longest time without an acknowledgement before the lease is renewed; a third of the lease where that is shorter.
   */
  renewEveryMs: number;
  /** How often it is asked whether a busy collection has a place, or its window is open. */
  waitEveryMs: number;
  /** How long a short call may take. */
  unaryTimeoutMs: number;
  /**
   * How long one CommitUpload may take: the store puts an object of many parts together. It is repeated, so this is no
   * limit of the commit.
   */
  commitTimeoutMs: number;
  /** How long an abort may take in all; it is a courtesy to the server, whose lease ends by itself. */
  abortTimeoutMs: number;
  /** How long a stream may stand still: no chunk taken by the network on an upload, none come on a download. */
  stallMs: number;
  /** How long the server may take to acknowledge a segment after its last byte. */
  acknowledgeMs: number;
  /** How long opening a connection may take. */
  connectMs: number;
  /** A connection that is used is probed when nothing was heard on it for this time. */
  pingIntervalMs: number;
  /**
   * How long nothing may be heard after a probe. Its answer waits for the bytes that are already under way, up to the
   * server's window for each stream: 30 s let a line of 0.6 Mbit/s carry 2 MiB before it is taken for dead.
   */
  pingTimeoutMs: number;
  /**
   * The same three where another address of the installation may do better: a server that is frozen holds nobody up,
   * and a mistake costs one segment (see `Endpoints.mayLeave`).
   */
  elsewhere: { connectMs: number; pingIntervalMs: number; pingTimeoutMs: number };
  /** Least time between two progress reports that nothing but read bytes caused. */
  progressEveryMs: number;
}

/** What is used outside of tests. */
export const DEFAULT_TIMINGS: Timings = {
  retryBaseMs: 250,
  retryMaxMs: 15_000,
  connectAttempts: 3,
  fewRetries: 3,
  renewEveryMs: 60_000,
  waitEveryMs: 10_000,
  unaryTimeoutMs: 60_000,
  commitTimeoutMs: 300_000,
  abortTimeoutMs: 5_000,
  stallMs: 180_000,
  acknowledgeMs: 300_000,
  connectMs: 20_000,
  pingIntervalMs: 20_000,
  pingTimeoutMs: 30_000,
  elsewhere: { connectMs: 5_000, pingIntervalMs: 3_000, pingTimeoutMs: 5_000 },
  progressEveryMs: 500,
};

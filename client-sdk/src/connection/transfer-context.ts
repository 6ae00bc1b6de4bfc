import type { Retrier } from "./retry.ts";
import type { Timings } from "./timings.ts";
import type { Connection } from "./transport.ts";

/** What one upload or download works with. */
export interface TransferContext {
  /** Its own connection, closed when it ends. */
  connection: Connection;
  /** Its retries. */
  retrier: Retrier;
  /** Times and counts. */
  timings: Timings;
}

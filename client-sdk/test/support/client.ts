import type { ClientOptions } from "../../src/client.ts";
import { StrongroomClient } from "../../src/client.ts";
import type { Timings } from "../../src/connection/timings.ts";
import type { FakeServer } from "./server.ts";

/** Short delays, so that a test of retries does not wait; no limit that could end a test on a slow machine. */
export const QUICK: Partial<Timings> = {
  retryBaseMs: 5,
  retryMaxMs: 40,
  waitEveryMs: 20,
  abortTimeoutMs: 2000,
  progressEveryMs: 0,
};

export function clientOf(
  server: FakeServer,
  options: Partial<ClientOptions> = {},
  timings: Partial<Timings> = {},
): StrongroomClient {
  return new StrongroomClient({ url: options.url ?? server.url, ...options }, { ...QUICK, ...timings });
}

import type { OptionValues } from "@strongroom/command-line/values";
import { OPTIONS } from "./options.ts";

/** How long a job waits for a server that is away, in milliseconds: as long as an upload keeps its place. */
export const RETRY_FOR_MS = 15 * 60_000;

/** How long a transfer, its login included, waits for its server, in milliseconds; never longer than `--timeout`. */
export function patienceOf(values: OptionValues): number {
  const given = values.get(OPTIONS.retryFor) ?? RETRY_FOR_MS;
  return Math.min(given, values.get(OPTIONS.timeout) ?? given);
}

import { UsageError } from "@strongroom/command-line/errors";
import { shown } from "@strongroom/command-line/shown";
import { parseVersion } from "./options.ts";

/**
 * The number of a version that is to be changed. `latest` is refused: by the time the call arrives it may be another
 * version.
 * @throws {UsageError}
 */
export function versionNumber(given: string): bigint {
  let number: bigint | "newest" = "newest";
  try {
    number = parseVersion(given);
  } catch {
    // reported below
  }
  if (number === "newest")
    throw new UsageError(`expected the number of a version, such as 7 or v7, got ${shown(given)}`);
  return number;
}

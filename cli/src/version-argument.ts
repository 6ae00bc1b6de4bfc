import type { Version } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { shown } from "@strongroom/command-line/shown";
import { parseVersion } from "./options.ts";
import type { Output } from "./terminal/output.ts";

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

/** Says of a version that was changed, where it is so, that its storage does not know that yet. */
export function warnPending(output: Output, version: Version | undefined): void {
  if (version?.manifestPending === true)
    output.warn(
      "The storage could not be told yet, and the server goes on trying: until then the change would be lost together " +
        "with the database. `strongroom show --json` says manifestPending meanwhile.",
    );
}

import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { quantity } from "@strongroom/protocol/quantity";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";

/** `strongroom purge`. */
export const purge: CommandSpec = {
  name: "purge",
  summary: "remove everything of a closed organization, for ever (needs systemAdmin)",
  details:
    "Every version is removed, also those that could be brought back, and uploads are ended. --confirm names how many " +
    "versions there are and their bytes; without it, or with other numbers, nothing happens and the error says them. " +
    "Held and protected versions keep all of it from being purged. The bytes are deleted after a day, until which a " +
    "version can be brought back. A record stays.",
  args: [["<organization>", "name of the organization"]],
  options: [OPTIONS.confirmPurge, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom purge acme", "says what would be removed"],
    ["strongroom purge acme --confirm 31/8808038400", "removes these 31 versions"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [organization = ""] = args;
  const confirmed = values.get(OPTIONS.confirmPurge);
  const numbers = /^(\d{1,18})\/(\d{1,18})$/.exec(confirmed ?? "-1/-1") ?? undefined;
  if (confirmed !== undefined && numbers === undefined)
    throw new UsageError("--confirm: expected VERSIONS/BYTES, such as 31/8808038400.");
  // A number that no organization has: the refusal says the right ones.
  const most = 2n ** 63n - 1n;
  const [versionCount, sizeBytes] = numbers === undefined ? [most, most] : [BigInt(numbers[1]!), BigInt(numbers[2]!)];
  return await withClient(context, values, {}, async ({ client }) => {
    const { purge: record } = await client.organizations.purgeOrganization(
      { organization, versionCount, sizeBytes },
      { timeoutMs: PURGE_MS },
    );
    context.achieved?.();
    const { versionCount: versions = 0n, sizeBytes: size = 0n, collections = [] } = record ?? {};
    if (output.isJson) output.json({ organization, versions, size, collections });
    else
      output.note(
        `Removed ${quantity(versions, "version")} of ${organization}, ${formatSize(size)}; the server deletes the bytes in a day.`,
      );
    return EXIT.ok;
  });
}

/** Every version has a row to change. */
const PURGE_MS = 20 * CALL.timeoutMs;

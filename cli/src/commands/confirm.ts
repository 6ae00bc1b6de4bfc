import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { toIso } from "../terminal/format.ts";
import { versionNumber, warnPending } from "../version-argument.ts";

/** `strongroom confirm`. */
export const confirm: CommandSpec = {
  name: "confirm",
  summary: "say that the size of a version is right",
  details:
    "Health warns (`shrunk`) when the newest version is far below those before it, and with rotationGuard nothing is " +
    "rotated out until somebody has looked. This ends both; later versions are compared with this one.",
  args: [
    ["<collection>", "name of the collection"],
    ["<version>", "number of the version, such as 7 or v7"],
  ],
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [["strongroom confirm pg-main 7", "version 7 is small on purpose"]],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [collection = "", given = ""] = args;
  const number = versionNumber(given);
  return await withClient(context, values, {}, async ({ client }) => {
    const { version } = await client.versions.confirmVersion({ collection, number }, CALL);
    context.achieved?.();
    if (output.isJson)
      output.json({
        collection,
        version: number,
        size: version?.sizeBytes,
        confirmedAt: toIso(version?.confirmedAt),
        manifestPending: version?.manifestPending || undefined,
      });
    else {
      const { sizeBytes = 0n, usualSizeBytes = 0n } = version ?? {};
      const usual =
        sizeBytes < usualSizeBytes
          ? `; ${formatSize(usualSizeBytes)} was usual before it`
          : ", and was not smaller than usual";
      output.note(`Version ${number} of ${collection} is confirmed with ${formatSize(sizeBytes)}${usual}.`);
    }
    warnPending(output, version);
    return EXIT.ok;
  });
}

import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime, toIso, toMs } from "../terminal/format.ts";
import { confirm } from "../terminal/prompts.ts";
import { versionNumber, warnPending } from "../version-argument.ts";

/** `strongroom rm`. */
export const rm: CommandSpec = {
  name: "rm",
  summary: "remove a version",
  details:
    "The version is invisible at once; its bytes are deleted no sooner than 24 hours later, or the collection's " +
    "trashRetention. Until then `strongroom undelete` brings it back. Versions protected by minRetention are refused.",
  args: [
    ["<collection>", "name of the collection"],
    ["<version>", "number of the version, such as 7 or v7"],
  ],
  options: [OPTIONS.yes, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom rm pg-main 7", "asks first"],
    ["strongroom rm pg-main 7 --yes", "does not ask, for scripts"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [collection = "", given = ""] = args;
  const number = versionNumber(given);
  const ask = !values.get(OPTIONS.yes);
  if (ask && context.stdin.isTTY !== true)
    throw new UsageError("There is no terminal to ask on.", { hint: "give --yes to remove without asking" });
  return await withClient(context, values, {}, async ({ client }) => {
    if (ask) {
      const { version } = await client.versions.getVersion(
        { collection, which: { case: "number", value: number } },
        CALL,
      );
      const facts =
        version === undefined
          ? ""
          : ` (${formatSize(version.sizeBytes)}, of ${formatTime(version.begunAt, version.timezone)})`;
      if (!(await confirm(context, `Remove version ${number} of ${collection}${facts}?`))) {
        output.note("Nothing was removed.");
        return EXIT.ok;
      }
    }
    const { version, alreadyRemoved } = await client.versions.deleteVersion({ collection, number }, CALL);
    context.achieved?.();
    if (output.isJson)
      output.json({
        collection,
        version: number,
        alreadyRemoved,
        removedAt: toIso(version?.removedAt),
        purgeAfter: toIso(version?.purgeAfter),
        manifestPending: version?.manifestPending || undefined,
      });
    else {
      const until = version?.purgeAfter;
      const isKept = until !== undefined && toMs(until) > context.now();
      const kept = isKept
        ? `; \`strongroom undelete ${collection} ${number}\` brings it back until ${formatTime(until, version?.timezone)}`
        : "";
      const done = alreadyRemoved
        ? `Version ${number} of ${collection} was removed before, at ${formatTime(version?.removedAt, version?.timezone)}`
        : `Removed version ${number} of ${collection}`;
      output.note(`${done}${kept}.`);
    }
    warnPending(output, version);
    return EXIT.ok;
  });
}

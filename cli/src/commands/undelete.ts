import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime, toIso, toMs } from "../terminal/format.ts";
import { versionNumber, warnPending } from "../version-argument.ts";

/** `strongroom undelete`. */
export const undelete: CommandSpec = {
  name: "undelete",
  summary: "bring a removed version back",
  details:
    "`strongroom ls COLLECTION --removed` shows which can be brought back, and until when. The version must " +
    "fit under " +
    "maxCollectionSize. One that rotation would remove again is protected for as long as a removed version is kept.",
  args: [
    ["<collection>", "name of the collection"],
    ["<version>", "number of the version, such as 7 or v7"],
  ],
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [["strongroom undelete pg-main 7", "version 7 is listed and counted again"]],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [collection = "", given = ""] = args;
  const number = versionNumber(given);
  return await withClient(context, values, {}, async ({ client }) => {
    const { version } = await client.versions.undeleteVersion({ collection, number }, CALL);
    context.achieved?.();
    const until = version?.protectedUntil;
    if (output.isJson)
      output.json({
        collection,
        version: number,
        protectedUntil: toIso(until),
        manifestPending: version?.manifestPending || undefined,
      });
    else {
      const kept =
        until === undefined || toMs(until) <= context.now()
          ? ""
          : `; it is protected until ${formatTime(until, version?.timezone)}`;
      output.note(`Version ${number} of ${collection} is back${kept}.`);
    }
    warnPending(output, version);
    return EXIT.ok;
  });
}

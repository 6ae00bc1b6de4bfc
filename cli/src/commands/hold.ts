import type { Version } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { toIso } from "../terminal/format.ts";
import { versionNumber, warnPending } from "../version-argument.ts";

const ARGS: CommandSpec["args"] = [
  ["<collection>", "name of the collection"],
  ["<version>", "number of the version, such as 7 or v7"],
];

/** `strongroom hold`. */
export const hold: CommandSpec = {
  name: "hold",
  summary: "keep a version until it is released",
  details:
    "Neither rotation nor `strongroom rm` removes a held version, whatever the collection's policy says; it counts in " +
    "the quota. A version that a systemAdmin holds is released by a systemAdmin only. With another reason the hold " +
    "gets that one.",
  args: ARGS,
  options: [OPTIONS.reason, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [['strongroom hold pg-main 7 --reason "before the migration"', "version 7 stays"]],
  async run({ args, values, output, context }: Invocation): Promise<ExitCode> {
    const [collection = "", given = ""] = args;
    const number = versionNumber(given);
    const reason = values.get(OPTIONS.reason) ?? "";
    if (reason === "") throw new UsageError("Why is it held?", { hint: 'give --reason "TEXT"' });
    return await withClient(context, values, {}, async ({ client }) => {
      const { version } = await client.versions.holdVersion({ collection, number, reason }, CALL);
      context.achieved?.();
      if (output.isJson) output.json(holdReport(collection, number, version));
      else output.note(`Version ${number} of ${collection} is held: ${reason}`);
      warnPending(output, version);
      return EXIT.ok;
    });
  },
};

/** `strongroom release`. */
export const release: CommandSpec = {
  name: "release",
  summary: "end the hold of a version",
  details:
    "From the next backup on rotation removes the version where the collection's policy does not keep it. Its " +
    "protection by minRetention goes on.",
  args: ARGS,
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [["strongroom release pg-main 7", "version 7 is rotated as any other"]],
  async run({ args, values, output, context }: Invocation): Promise<ExitCode> {
    const [collection = "", given = ""] = args;
    const number = versionNumber(given);
    return await withClient(context, values, {}, async ({ client }) => {
      const { version } = await client.versions.releaseVersion({ collection, number }, CALL);
      context.achieved?.();
      if (output.isJson) output.json(holdReport(collection, number, version));
      else output.note(`Version ${number} of ${collection} is not held.`);
      warnPending(output, version);
      return EXIT.ok;
    });
  },
};

function holdReport(collection: string, number: bigint, version: Version | undefined) {
  return {
    collection,
    version: number,
    held: version?.held,
    holdReason: version?.holdReason || undefined,
    heldBy: version?.heldBy || undefined,
    heldAt: toIso(version?.heldAt),
    protectedUntil: toIso(version?.protectedUntil),
    manifestPending: version?.manifestPending || undefined,
  };
}

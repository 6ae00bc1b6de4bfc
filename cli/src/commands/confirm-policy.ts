import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { quantity } from "@strongroom/protocol/quantity";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";

/** `strongroom confirm-policy`. */
export const confirmPolicy: CommandSpec = {
  name: "confirm-policy",
  summary: "let a changed configuration remove many versions",
  details:
    "Where more than half of a collection's versions (confirmRemovalsAbove) would go since its configuration was " +
    "changed, with the next backup or in time, rotation removes nothing, and health warns (`policy`) and names the " +
    "number. This says that it is meant; it lets a raised confirmRemovalsAbove hold too. Needs systemAdmin.",
  args: [
    ["<collection>", "name of the collection"],
    ["<removes>", "how many versions go, as health says it"],
  ],
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [["strongroom confirm-policy pg-main 23", "23 versions go, with the next backup or in time"]],
  async run({ args, values, output, context }: Invocation): Promise<ExitCode> {
    const [collection = "", given = ""] = args;
    if (!/^\d{1,9}$/.test(given))
      throw new UsageError(`Expected how many versions are removed, got "${given}".`, {
        hint: `\`strongroom health ${collection}\` says it`,
      });
    return await withClient(context, values, {}, async ({ client }) => {
      const { removes, live } = await client.collections.confirmPolicy({ collection, removes: Number(given) }, CALL);
      context.achieved?.();
      if (output.isJson) output.json({ collection, removes, live });
      else output.note(`Rotation of ${collection} removes ${removes} of ${quantity(live, "version")}, now or in time.`);
      return EXIT.ok;
    });
  },
};

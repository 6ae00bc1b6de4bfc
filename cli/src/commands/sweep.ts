import type { CommandSpec } from "../command.ts";
import { exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

/** `strongroom sweep`. */
export const sweep: CommandSpec = {
  name: "sweep",
  summary: "tidy up the server's data now (strongroom sweep --help lists its options)",
  args: [["[arguments...]", "arguments, passed on untouched"]],
  options: [],
  examples: [
    ["strongroom sweep --dry-run", "what would be done"],
    ["strongroom sweep --delete-unknown --yes", "delete what nobody knows"],
  ],
  passThrough: true,
  run: async ({ args, context }) => {
    const { sweepCommand } = await loadServer("sweep");
    const given = args.filter((argument) => argument !== undefined);
    return exitCodeFromServer(await sweepCommand(given, context.env, context));
  },
};

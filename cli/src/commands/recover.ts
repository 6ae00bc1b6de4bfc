import type { CommandSpec } from "../command.ts";
import { exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

/** `strongroom recover`. */
export const recover: CommandSpec = {
  name: "recover",
  summary: "rebuild a lost database from the storage (strongroom recover --help)",
  args: [["[arguments...]", "arguments, passed on untouched"]],
  options: [],
  examples: [
    ["strongroom recover --dry-run", "what would be restored"],
    ["strongroom recover --storage file:///backup/strongroom", "rebuild the database"],
  ],
  passThrough: true,
  run: async ({ args, context }) => {
    const { recoverCommand } = await loadServer("recover");
    const given = args.filter((argument) => argument !== undefined);
    return exitCodeFromServer(await recoverCommand(given, context.env, context));
  },
};

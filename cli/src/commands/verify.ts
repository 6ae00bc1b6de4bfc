import type { CommandSpec } from "../command.ts";
import { exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

/** `strongroom verify`. */
export const verify: CommandSpec = {
  name: "verify",
  summary: "read stored versions back and compare them (strongroom verify --help)",
  args: [["[arguments...]", "arguments, passed on untouched"]],
  options: [],
  examples: [
    ["strongroom verify", "all versions"],
    ["strongroom verify pg-main/17", "one version"],
  ],
  passThrough: true,
  run: async ({ args, context }) => {
    const { verifyCommand } = await loadServer("verify");
    const given = args.filter((argument) => argument !== undefined);
    return exitCodeFromServer(await verifyCommand(given, context.env, context));
  },
};

import type { CommandSpec } from "../command.ts";
import { OPTIONS } from "../options.ts";
import { configFolder, exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

/** `strongroom check-config`. */
export const checkConfig: CommandSpec = {
  name: "check-config",
  summary: "validate a folder of configuration without a server",
  details: "Names the file, line and path of everything that is wrong; the exit code is 1 then.",
  args: [["[folder]", "folder to look at; without it as --config says"]],
  options: [OPTIONS.config, OPTIONS.data, OPTIONS.json],
  examples: [
    ["strongroom check-config /etc/strongroom", "before it is deployed"],
    ["strongroom check-config /etc/strongroom --json", "for a pipeline"],
  ],
  run: async ({ args, values, output, context }) => {
    const dir = configFolder(args[0], values);
    const { checkConfigCommand } = await loadServer("configuration");
    return exitCodeFromServer(await checkConfigCommand({ dir, json: output.isJson }, context));
  },
};

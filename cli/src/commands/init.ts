import type { CommandSpec } from "../command.ts";
import { described } from "../option-spec.ts";
import { OPTIONS } from "../options.ts";
import { configFolder, exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

const collection = described(OPTIONS.collection, "name of the first collection");

/** `strongroom init`. */
export const init: CommandSpec = {
  name: "init",
  summary: "write a first configuration for a server",
  args: [["[folder]", "folder to make; without it as --config says"]],
  options: [collection, OPTIONS.admin, OPTIONS.config, OPTIONS.data],
  examples: [
    ["strongroom init && strongroom serve", "a first server, with an administrator and a collection to try"],
    ["strongroom init /etc/strongroom --collection pg-main --admin alice", "with names of your own"],
  ],
  run: async ({ args, values, context }) => {
    const dir = configFolder(args[0], values);
    const { initCommand } = await loadServer("configuration");
    const name = values.get(collection);
    const admin = values.get(OPTIONS.admin);
    const options = {
      dir,
      ...(name === undefined ? {} : { collection: name }),
      ...(admin === undefined ? {} : { admin }),
    };
    return exitCodeFromServer(await initCommand(options, context));
  },
};

import type { CommandSpec } from "../command.ts";
import { exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

/** `strongroom serve`. */
export const serve: CommandSpec = {
  name: "serve",
  summary: "run the server (strongroom serve --help lists its options)",
  args: [["[options...]", "options of the server, passed on untouched"]],
  options: [],
  examples: [
    ["strongroom serve --help", "its options"],
    ["strongroom init && strongroom serve", "a first server"],
  ],
  passThrough: true,
  run: async ({ args, context }) => {
    const server = await loadServer("serve");
    const given = args.filter((argument) => argument !== undefined);
    return exitCodeFromServer(await server.serve(given, context.env));
  },
};

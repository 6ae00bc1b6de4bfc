import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { KIND, programCommit, programVersion } from "../build.ts";
import type { CommandSpec, Invocation } from "../command.ts";
import { OUTPUT_OPTIONS } from "../options.ts";

/** `strongroom version`. */
export const version: CommandSpec = {
  name: "version",
  summary: "print which version this is, and from which commit",
  options: OUTPUT_OPTIONS,
  examples: [["strongroom version --json", "for the inventory of a machine"]],
  async run({ output }: Invocation): Promise<ExitCode> {
    const shown = {
      version: programVersion(),
      commit: await programCommit(),
      kind: KIND,
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
    };
    if (output.isJson) output.json(shown);
    else
      output.line(
        `strongroom ${shown.version}, commit ${shown.commit}, ${shown.kind}, Node.js ${shown.node}, ${shown.platform}`,
      );
    return EXIT.ok;
  },
};

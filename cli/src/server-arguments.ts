import { join } from "node:path";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { OptionValues } from "./option-spec.ts";
import { OPTIONS } from "./options.ts";

/** The folder of the configuration: the argument, else `--config`, else `config` in `--data`, as `serve` has it. */
export function configFolder(argument: string | undefined, values: OptionValues): string {
  return argument ?? values.get(OPTIONS.config) ?? join(values.get(OPTIONS.data), "config");
}

/** The exit code of a server command; one that this program does not document becomes 1. */
export function exitCodeFromServer(code: number): ExitCode {
  return Object.values(EXIT).find((known) => known === code) ?? EXIT.unexpected;
}

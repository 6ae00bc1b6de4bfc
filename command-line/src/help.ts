import { Help, Option as Parsed } from "commander";
import type { Command } from "./command.ts";
import { EXIT_TABLE } from "./exit-codes.ts";
import { flagsOf, type Option } from "./option.ts";

/** Columns of help where there is no terminal to ask. */
export const HELP_WIDTH = 80;

/** Narrowest column for what an option means, beside its name. */
const LEAST_COLUMN = 20;

/** An option or argument and what it means, side by side; below each other on a terminal too narrow for that. */
export function formatHelpItem(this: Help, term: string, termWidth: number, description: string, helper: Help): string {
  const width = this.helpWidth ?? HELP_WIDTH;
  if (description === "" || width - termWidth - 4 >= LEAST_COLUMN)
    return Help.prototype.formatItem.call(this, term, termWidth, description, helper);
  return `  ${term}\n${hanging("      ", description, width)}`;
}

/** Makes the parser's option, with words, default and variables in its help. */
export function parserOption(option: Option<unknown>): Parsed {
  const { kind, words, defaultText, variables, help } = option;
  const facts = [
    ...(kind === "list" ? ["repeatable"] : []),
    ...(words === undefined ? [] : [words.join(", ")]),
    ...(defaultText === undefined ? [] : [`default: ${defaultText}`]),
    ...(variables.length === 0 ? [] : [`env: ${variables.map(({ name }) => name).join(", ")}`]),
  ];
  const parsed = new Parsed(flagsOf(option), facts.length === 0 ? help : `${help} (${facts.join("; ")})`);
  if (kind === "list") parsed.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
  return parsed;
}

/** `--no-flag`, which is not listed in help. */
export function parserNegation({ name }: Option<unknown>): Parsed {
  return new Parsed(`--no-${name}`).hideHelp();
}

/** What help of a command says after its options. */
export function commandHelp({ options, secrets = [], examples }: Command<never>, name: string, width: number): string {
  const sections = [
    ...(options.some(({ kind }) => kind === "switch")
      ? [hanging("", "A switch may also be written --no-SWITCH, --SWITCH=true or --SWITCH=false.", width)]
      : []),
    ...(secrets.length === 0
      ? []
      : [
          [hanging("", "Secrets from the environment (child processes do not get them):", width)]
            .concat(
              secrets.map(({ env, alias, help }) =>
                hanging("  ", `${alias === undefined ? env : `${env}, ${alias}`}: ${help}`, width - 2, "    "),
              ),
            )
            .join("\n"),
        ]),
    examplesHelp(examples, width),
    `Exit codes: see ${name} --help.`,
  ];
  return `\n${sections.join("\n\n")}`;
}

/**
 * Examples, each under what it does. Lines that are too long go on after a backslash, so that they can be copied as
 * they are.
 */
export function examplesHelp(examples: Command["examples"], width: number): string {
  const lines = examples.map(
    ([line, meaning]) => `${hanging("  # ", meaning, width, "  # ")}\n${wrappedExample(line, width)}`,
  );
  return ["Examples:", ...lines].join("\n");
}

/** The table of exit codes. */
export function exitCodesHelp(width: number): string {
  const column = Math.max(...EXIT_TABLE.map(([code]) => code.length));
  const lines = EXIT_TABLE.map(([code, meaning]) => hanging(`  ${code.padEnd(column)}  `, meaning, width));
  return ["Exit codes:", ...lines].join("\n");
}

/** Wraps a text at its spaces after a beginning; the lines after the first are indented by as much. */
function hanging(begin: string, text: string, width: number, indent = " ".repeat(begin.length)): string {
  const wrapper = Object.assign(new Help(), { minWidthToWrap: LEAST_COLUMN });
  const lines = wrapper.boxWrap(text, Math.max(LEAST_COLUMN, width - indent.length)).split("\n");
  return lines.map((line, index) => `${index === 0 ? begin : indent}${line}`).join("\n");
}

function wrappedExample(line: string, width: number): string {
  // At spaces outside of quotes only, and not between an option and its value.
  const words = line.match(/(?:-[-\w]+ (?=[^-\s]))?(?:"[^"]*"|'[^']*'|[^\s"'])+/g) ?? [];
  const lines: string[] = [];
  let current = " ";
  for (const word of words) {
    if (current.trim() !== "" && current.length + 1 + word.length > width - 2) {
      lines.push(`${current} \\`);
      current = "     ";
    }
    current += ` ${word}`;
  }
  return [...lines, current].join("\n");
}

import { CommanderError, Command as Parser } from "commander";
import type { Command, Program } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT, type ExitCode } from "./exit-codes.ts";
import {
  commandHelp,
  examplesHelp,
  exitCodesHelp,
  formatHelpItem,
  HELP_WIDTH,
  parserNegation,
  parserOption,
} from "./help.ts";
import { normalizeArguments } from "./normalize.ts";
import { flagOf, type Option } from "./option.ts";

/** A command line that was understood: what to run, and with what. */
export interface CommandLine<Extra> {
  readonly command: Command<Extra>;
  readonly args: ReadonlyArray<string | undefined>;
  /** Texts of the options, by name; `true` and `false` of switches. */
  readonly given: ReadonlyMap<string, readonly string[]>;
}

/** Instead of a command: a text to print, and the exit code. */
export interface Answer {
  readonly text: string;
  readonly exitCode: ExitCode;
}

/**
 * Reads a command line without the name of the program. Nothing is run, and no variable is looked at.
 * @param width columns of the terminal that help is printed on.
 * @throws {UsageError} for whatever is not declared. Arguments that may hold a secret are not repeated.
 */
export function parseCommandLine<Extra>(
  program: Program<Extra>,
  argv: readonly string[],
  width: number = HELP_WIDTH,
): CommandLine<Extra> | Answer {
  let text = "";
  let found: CommandLine<Extra> | undefined;
  const write = (more: string) => {
    text += more;
  };
  const parser = new Parser(program.name)
    .description(program.about)
    .version(program.version, "-V, --version", "print the version")
    // So that a command can have an option of the same name (restore --version).
    .enablePositionalOptions()
    .helpCommand(false)
    .configureHelp({ minWidthToWrap: 20, formatItem: formatHelpItem })
    .exitOverride()
    .configureOutput({
      writeOut: write,
      writeErr: write,
      outputError: () => {},
      getOutHelpWidth: () => width,
      getErrHelpWidth: () => width,
    });
  addOptions(parser, program.options);
  parser.addHelpText("after", `\n${examplesHelp(program.examples, width)}\n\n${exitCodesHelp(width)}`);
  for (const command of program.commands) {
    addCommand(parser, program, command, width, (line) => {
      found = line;
    });
  }
  parser
    .command("help")
    .summary("explain a command")
    .argument("[command]", "command to explain")
    .action((name: string | undefined) => {
      if (name === undefined) parser.help();
      const command = parser.commands.find((candidate) => candidate.name() === name);
      if (command === undefined) throw unknownCommand(program, name!);
      command.help();
    });
  const normalized = normalizeArguments(program, argv);
  try {
    parser.parse(normalized, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) {
      // Whoever asks for help on a command that does not exist must not take that of the program for it.
      const name = normalized.find((arg) => !arg.startsWith("-"));
      const known = name === undefined || parser.commands.some((command) => command.name() === name);
      return known ? { text, exitCode: EXIT.ok } : parseCommandLine(program, [name], width);
    }
    if (error.code === "commander.help") return { text, exitCode: EXIT.usage };
    throw usageError(program, argv, error);
  }
  if (found === undefined) throw new UsageError(`there is no command; ${program.name} --help lists them`);
  return found;
}

function addOptions(parser: Parser, options: ReadonlyArray<Option<unknown>>): void {
  for (const option of options) {
    parser.addOption(parserOption(option));
    if (option.kind === "switch") parser.addOption(parserNegation(option));
  }
}

function addCommand<Extra>(
  parser: Parser,
  program: Program<Extra>,
  command: Command<Extra>,
  width: number,
  done: (line: CommandLine<Extra>) => void,
): void {
  const { summary, details, args = [], options } = command;
  const sub = parser.command(command.name).summary(summary);
  const sentence = `${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`;
  sub.description(details === undefined ? sentence : `${sentence}\n\n${details}`);
  for (const [name, help] of args) sub.argument(name, help);
  addOptions(sub, options);
  sub.addHelpText("after", commandHelp(command, program.name, width));
  sub.action((...parameters: unknown[]) => {
    const before = textsOf(parser, program.options);
    for (const option of program.options) {
      if (before.has(option.name) && !options.includes(option))
        throw new UsageError(`${command.name} takes no ${flagOf(option)}`, {
          hint: `${program.name} ${command.name} --help explains it`,
        });
    }
    done({
      command,
      args: parameters.slice(0, args.length) as Array<string | undefined>,
      // The command's own come last, so that they win.
      given: new Map([...before, ...textsOf(sub, options)]),
    });
  });
}

/** What was given as arguments, by the options' names. */
function textsOf(parser: Parser, options: ReadonlyArray<Option<unknown>>): Map<string, readonly string[]> {
  const texts = new Map<string, readonly string[]>();
  for (const option of options) {
    const value: unknown = parser.getOptionValue(parserOption(option).attributeName());
    if (value !== undefined) texts.set(option.name, Array.isArray(value) ? value.map(String) : [String(value)]);
  }
  return texts;
}

/** The parser's complaint in this program's words, without values that may be secrets. */
function usageError(program: Program<never>, argv: readonly string[], { code, message }: CommanderError): UsageError {
  const name = argv.find((arg) => program.commands.some((command) => command.name === arg));
  const hint =
    name === undefined ? `${program.name} --help lists the commands` : `${program.name} ${name} --help explains it`;
  const [first = "", ...suggestion] = message.replace(/^error: /, "").split("\n");
  const asked = suggestion.map((line) => ` ${line}`).join("");
  // What was too much may be a password that was meant for another place.
  if (code === "commander.excessArguments") return new UsageError(first.replace(/( but got \d+): .*/s, "$1"), { hint });
  if (code === "commander.unknownOption") {
    const [, option = ""] = /unknown option '(-[A-Za-z]|--[A-Za-z0-9-]{1,40})?/.exec(first) ?? [];
    const command = program.commands.find((each) => each.name === name);
    // A password among the arguments can be read by every user of the machine.
    const takesPassword = command?.options.some(({ name: known }) => known === "password-file") ?? false;
    const instead =
      option === "--password" && takesPassword
        ? "a password is not given as an argument, where others can read it: give --password-file FILE, or leave it " +
          "out to be asked"
        : hint;
    return new UsageError(`unknown option${option === "" ? "" : ` '${option}'`}${asked}`, { hint: instead });
  }
  if (code === "commander.unknownCommand")
    return unknownCommand(program, /unknown command '(.*?)'?$/s.exec(first)?.[1] ?? "", asked);
  return new UsageError(first, { hint });
}

function unknownCommand(program: Program<never>, name: string, asked = ""): UsageError {
  // A word that looks like no command may be anything, also a password.
  const what = /^[a-z-]{1,20}$/.test(name) ? ` '${name}'` : "";
  const missing = program.missing === undefined ? "" : `; ${program.missing}`;
  return new UsageError(`unknown command${what}${asked}`, {
    hint: `${program.name} --help lists the commands${missing}`,
  });
}

import { EXIT, type ExitCode, exitCodesHelp } from "@strongroom/command-line/exit-codes";
import { Command, CommanderError } from "commander";
import type { CommandSpec } from "./command.ts";
import { COMMANDS } from "./commands/index.ts";
import type { Context } from "./context.ts";
import { explain } from "./errors.ts";
import { OptionValues, toCommanderOption } from "./option-spec.ts";
import { OPTIONS, OUTPUT_OPTIONS } from "./options.ts";
import { serverUrl } from "./session/session.ts";
import { printable } from "./terminal/format.ts";
import { Output } from "./terminal/output.ts";
import { programVersion } from "./version.ts";

const PROGRAM_OPTIONS = [OPTIONS.url, ...OUTPUT_OPTIONS] as const;

const PROGRAM_EXAMPLES: CommandSpec["examples"] = [
  ["strongroom keygen --name backup", "make a key pair; the private key goes to a safe place"],
  ["strongroom login --url https://backup.example.org --username alice", "keep a session"],
  ['strongroom backup pg-main --public-key backup.pub.asc -c "pg_dump app"', "encrypt a dump and store it"],
  ['strongroom restore pg-main --private-key backup.key.asc -c "psql app"', "bring the newest one back"],
  ["strongroom health pg-main", "for monitoring"],
];

/** Runs one command line (without the name of the program) and returns its exit code. Writes every error it meets; never throws. */
export async function run(
  argv: readonly string[],
  context: Context,
  commands: readonly CommandSpec[] = COMMANDS,
): Promise<ExitCode> {
  let exitCode: ExitCode = EXIT.ok;
  const program = makeProgram(context, commands, async (spec, args, given) => {
    exitCode = await runCommand(spec, args, given, context);
  });
  try {
    await program.parseAsync(argv, { from: "user" });
    return exitCode;
  } catch (error) {
    // Help and version were asked for: 0. No command, or one that cannot be parsed: commander has said what is wrong.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    throw error;
  }
}

type Action = (
  spec: CommandSpec,
  args: ReadonlyArray<string | undefined>,
  given: ReadonlyArray<Record<string, unknown>>,
) => Promise<void>;

function makeProgram(context: Context, commands: readonly CommandSpec[], action: Action): Command {
  const program = new Command("strongroom")
    .description("Encrypted backups to a Strongroom server, which never sees a key.")
    .version(programVersion(), "-V, --version", "print the version")
    // So that a command can have an option of the same name (restore --version), and serve gets its own.
    .enablePositionalOptions()
    .exitOverride()
    .showHelpAfterError("(strongroom --help lists the commands)")
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      writeErr: (text) => context.stderr.write(text),
      // What was too much is not repeated: it may be a password that was meant for another place.
      outputError: (text, write) =>
        write(`strongroom: ${text.replace(/^error: /, "").replace(/( but got \d+): .*/s, "$1.\n")}`),
      getOutHelpWidth: () => context.stdout.columns ?? 100,
      getErrHelpWidth: () => context.stderr.columns ?? 100,
    });
  for (const spec of PROGRAM_OPTIONS) program.addOption(toCommanderOption(spec));
  program.addHelpText("after", `\n${examplesHelp(PROGRAM_EXAMPLES)}\n\n${exitCodesHelp()}`);
  for (const spec of commands) addCommand(program, spec, action);
  return program;
}

function addCommand(program: Command, spec: CommandSpec, action: Action): void {
  const command = program.command(spec.name).summary(spec.summary);
  command.description(
    spec.details === undefined ? `${capitalized(spec.summary)}.` : `${capitalized(spec.summary)}.\n\n${spec.details}`,
  );
  command.showHelpAfterError(`(strongroom ${spec.name} --help explains it)`);
  for (const [name, description] of spec.args ?? []) command.argument(name, description);
  for (const option of spec.options) command.addOption(toCommanderOption(option));
  command.addHelpText("after", commandHelp(spec));
  if (spec.passThrough) command.allowUnknownOption().passThroughOptions().helpOption(false);
  const count = spec.args?.length ?? 0;
  command.action(async (...parameters: unknown[]) => {
    const args = parameters.slice(0, count).flat() as Array<string | undefined>;
    await action(spec, args, [command.opts(), program.opts()]);
  });
}

/** Environment, examples and a pointer to the exit codes. */
function commandHelp(spec: CommandSpec): string {
  const sections = [examplesHelp(spec.examples)];
  const secrets = spec.secrets ?? [];
  if (secrets.length > 0) {
    const lines = secrets.map(
      ({ env, alias, description }) => `  ${alias === undefined ? env : `${env}, ${alias}`}: ${description}`,
    );
    sections.unshift(["Secrets from the environment (child processes do not get them):", ...lines].join("\n"));
  }
  return `\n${sections.join("\n\n")}\n\nExit codes: see strongroom --help.`;
}

function examplesHelp(examples: CommandSpec["examples"]): string {
  return ["Examples:", ...examples.map(([line, meaning]) => `  # ${meaning}\n  ${line}`)].join("\n");
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

async function runCommand(
  spec: CommandSpec,
  args: ReadonlyArray<string | undefined>,
  given: ReadonlyArray<Record<string, unknown>>,
  context: Context,
): Promise<ExitCode> {
  let output = new Output(context.stdout, context.stderr, { json: false, quiet: false });
  let values: OptionValues | undefined;
  try {
    values = OptionValues.resolve(spec.options, given, context.env);
    const { options } = spec;
    const wants = (option: (typeof OUTPUT_OPTIONS)[number]) => options.includes(option) && values!.get(option);
    output = new Output(context.stdout, context.stderr, { json: wants(OPTIONS.json), quiet: wants(OPTIONS.quiet) });
    return await spec.run({ args, values, output, context });
  } catch (error) {
    const url =
      values !== undefined && spec.options.includes(OPTIONS.url)
        ? await serverUrl(context, values).catch(() => undefined)
        : undefined;
    return await tell(error, url, output, context);
  }
}

async function tell(error: unknown, url: string | undefined, output: Output, context: Context): Promise<ExitCode> {
  const { message, hint, exitCode, reason, requestId } = await explain(error, url, context.sdk);
  context.stderr.write(
    `strongroom: ${printable(message, true)}${hint === undefined ? "" : `\n${printable(hint, true)}`}\n`,
  );
  if (context.env.STRONGROOM_DEBUG && error instanceof Error) context.stderr.write(`${error.stack ?? ""}\n`);
  if (output.isJson) output.json({ error: { message, hint, exitCode, reason, requestId } });
  return exitCode;
}

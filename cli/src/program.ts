import type { Program } from "@strongroom/command-line/command";
import { parseEnvFile } from "@strongroom/command-line/env-file";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { HELP_WIDTH } from "@strongroom/command-line/help";
import { type CommandLine, parseCommandLine } from "@strongroom/command-line/parse";
import { printable } from "@strongroom/command-line/printable";
import { SHARED } from "@strongroom/command-line/shared-options";
import { OptionValues } from "@strongroom/command-line/values";
import { programVersion } from "./build.ts";
import type { CommandSpec, Surroundings } from "./command.ts";
import { COMMANDS } from "./commands/index.ts";
import type { Context } from "./context.ts";
import { explain } from "./errors.ts";
import { readInputFile } from "./files/input-files.ts";
import { OPTIONS, OUTPUT_OPTIONS } from "./options.ts";
import { serverCommands } from "./server-modules.ts";
import { givenPassword } from "./session/password.ts";
import { serverUrl } from "./session/server.ts";
import { Output } from "./terminal/output.ts";

/** Options that may stand before the command. */
export const PROGRAM_OPTIONS = [OPTIONS.url, ...OUTPUT_OPTIONS] as const;

const PROGRAM_EXAMPLES: CommandSpec["examples"] = [
  ["strongroom keygen --name backup", "make a key pair; the private key goes to a safe place"],
  ["strongroom login --url https://backup.example.org --username alice", "keep a session"],
  ['strongroom backup pg-main --public-key backup.pub.asc -c "pg_dump app"', "encrypt a dump and store it"],
  ['strongroom restore pg-main --private-key backup.key.asc -c "psql app"', "bring the newest one back"],
  ["strongroom health pg-main", "for monitoring"],
];

/**
 * Runs one command line (without the name of the program) and returns its exit code. Writes every error it meets; never
 * throws.
 */
export async function run(given: readonly string[], context: Context): Promise<ExitCode> {
  const argv = oneName(given);
  let line: CommandLine<Surroundings>;
  try {
    const program = await programFor(argv);
    const parsed = parseCommandLine(program, argv, context.stdout.columns ?? HELP_WIDTH);
    if ("text" in parsed) {
      (parsed.exitCode === EXIT.ok ? context.stdout : context.stderr).write(parsed.text);
      return parsed.exitCode;
    }
    line = parsed;
  } catch (error) {
    return await tell(error, undefined, outputBeforeOptions(argv, context), context);
  }
  try {
    return await runCommand(argv, line, await withEnvFile(line, await programFor(argv), context));
  } catch (error) {
    return await tell(error, undefined, outputBeforeOptions(argv, context), context);
  }
}

/** Commands about the audit log have two words: `audit verify` is `audit-verify`. */
function oneName(argv: readonly string[]): readonly string[] {
  const [first, second, ...rest] = argv;
  const isOperators = first === "audit" && second !== undefined && /^(keygen|verify|accept-loss)$/.test(second);
  return isOperators ? [`audit-${second}`, ...rest] : argv;
}

/** The surroundings with the variables of `--env-file`. @throws {UsageError} for a name that nothing here reads. */
async function withEnvFile(
  { given }: CommandLine<Surroundings>,
  program: Program<Surroundings>,
  context: Context,
): Promise<Context> {
  const path = given.get(SHARED.envFile.name)?.[0];
  if (path === undefined) return context;
  const variables = parseEnvFile((await readInputFile(path, "file of --env-file")).toString("utf8"), path);
  const known = new Set([
    ...program.commands.flatMap(({ options, secrets = [] }) => [
      ...options.flatMap((option) => option.variables.map(({ name }) => name)),
      ...secrets.map(({ env }) => env),
    ]),
    "STRONGROOM_DEBUG",
  ]);
  // A name that is mistyped would be a server that starts on its defaults without a word.
  const unknown = Object.keys(variables).find((name) => name.startsWith("STRONGROOM_") && !known.has(name));
  if (unknown !== undefined)
    throw new UsageError(`${path}: ${unknown} is no variable of strongroom`, {
      hint: "docs/options.md and `strongroom COMMAND --help` list them",
    });
  return context.withVariables(variables);
}

/**
 * How errors are written while the options could not be read: as JSON when `--json` stands there or its variable is
 * set, since a program that reads the answer reads it then too.
 */
function outputBeforeOptions(argv: readonly string[], { stdout, stderr, env }: Context): Output {
  const end = argv.indexOf("--");
  const switches = argv
    .slice(0, end < 0 ? argv.length : end)
    .flatMap((arg) => /^--(no-)?json(?:=(true|false))?$/.exec(arg)?.slice(1, 3).join("") ?? [])
    .map((found) => (found === "" || found === "true" ? "true" : "false"));
  const given = new Map(switches.length === 0 ? [] : [[OPTIONS.json.name, switches.slice(-1)]]);
  let json = false;
  try {
    json = OptionValues.resolve([OPTIONS.json], given, env).get(OPTIONS.json);
  } catch {
    // The variable is what could not be read.
  }
  return new Output(stdout, stderr, { json, quiet: false });
}

/** The program with all commands; those of the server are looked for only where one of them may be meant. */
async function programFor(argv: readonly string[]): Promise<Program<Surroundings>> {
  const isClient = COMMANDS.some(({ name }) => argv[0] === name);
  const server = isClient ? [] : await serverCommands();
  return {
    name: "strongroom",
    about: "Encrypted backups to a Strongroom server, which never sees a key.",
    version: programVersion(),
    options: PROGRAM_OPTIONS,
    examples: PROGRAM_EXAMPLES,
    commands: [...COMMANDS, ...(server ?? [])],
    missing: server === undefined ? "the server is not installed here, nor are its commands" : undefined,
  };
}

async function runCommand(
  argv: readonly string[],
  { command, args, given }: CommandLine<Surroundings>,
  context: Context,
): Promise<ExitCode> {
  let output = outputBeforeOptions(argv, context);
  let values: OptionValues | undefined;
  try {
    const resolved = OptionValues.resolve(command.options, given, context.env);
    values = resolved;
    const wants = (option: (typeof OUTPUT_OPTIONS)[number]) => resolved.has(option) && resolved.get(option);
    output = new Output(context.stdout, context.stderr, { json: wants(OPTIONS.json), quiet: wants(OPTIONS.quiet) });
    const askPassword: Surroundings["askPassword"] = (asking) => givenPassword(resolved, context, asking);
    return await command.run({ args, values: resolved, output, context, askPassword });
  } catch (error) {
    const url = values?.has(OPTIONS.url) ? await serverUrl(context, values).catch(() => undefined) : undefined;
    return await tell(error, url, output, context, aboutOf(command.name, args, values));
  }
}

/** What a failed backup was of, since several jobs may write into one mail; empty for other commands. */
function aboutOf(command: string, args: readonly (string | undefined)[], values: OptionValues | undefined): string {
  if (command !== "backup") return "";
  const collection = args[0] ?? (values?.has(OPTIONS.collection) ? values.get(OPTIONS.collection) : undefined);
  return collection === undefined ? "" : `backup of ${collection}: `;
}

/** Tells of an error that no command caught, in one line; returns the exit code that fits it. Never throws. */
export async function tellUncaught(error: unknown, argv: readonly string[], context: Context): Promise<ExitCode> {
  return await tell(error, undefined, outputBeforeOptions(argv, context), context);
}

async function tell(
  error: unknown,
  url: string | undefined,
  output: Output,
  context: Context,
  about = "",
): Promise<ExitCode> {
  const { message, hint, exitCode, reason, requestId, findings = [] } = await explain(error, url, context.sdk);
  for (const { file, line, path, reason: why } of findings)
    context.stderr.write(`${printable(`${file}:${line}: ${path === "" ? "" : `${path}: `}${why}`)}\n`);
  context.stderr.write(
    `strongroom: ${printable(`${about}${message}`, true)}${hint === undefined ? "" : `\n${printable(hint, true)}`}\n`,
  );
  if (context.env.STRONGROOM_DEBUG && error instanceof Error) context.stderr.write(`${error.stack ?? ""}\n`);
  const list = findings.length === 0 ? {} : { findings };
  if (output.isJson) output.json({ error: { message, hint, exitCode, reason, requestId, ...list } });
  return exitCode;
}

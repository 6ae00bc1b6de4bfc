import {
  OPTION_DECLARATIONS,
  type OptionDeclaration,
  parseOptions,
  type ServerOptions,
  UsageError,
} from "./options.ts";

/** What a command on the server's data was asked for. */
export interface CommandLine {
  readonly server: ServerOptions;
  /** Values of its own options; "" for switches. */
  readonly own: ReadonlyMap<string, string>;
  readonly positionals: readonly string[];
}

/** A command on the server's data: its own options, on top of those of `serve`. */
export interface DataCommand {
  readonly name: string;
  /** What follows the name, for help. */
  readonly usage: string;
  readonly about: string;
  readonly options: readonly OptionDeclaration[];
  readonly positionals: number;
  readonly examples: readonly string[];
}

/** The options of `serve` that these commands are mostly used with; all others are taken as well. */
const SHOWN = ["data", "config", "database", "database-password-file", "storage", "log-level"];

/**
 * Reads the arguments of a command. Options of `serve` mean the same here, so that a unit file or environment serves both.
 * @throws UsageError
 */
export function parseCommandLine(
  command: DataCommand,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): CommandLine | "help" {
  const serverArgs: string[] = [];
  const own = new Map<string, string>();
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--help" || arg === "-h") return "help";
    if (!arg.startsWith("-")) {
      positionals.push(arg);
      continue;
    }
    const [, name = "", inline] = /^--([^=]*)(?:=(.*))?$/s.exec(arg) ?? [];
    const mine = command.options.find((option) => option.name === name);
    const takesValue = (mine ?? OPTION_DECLARATIONS.find((o: OptionDeclaration) => o.name === name)) as
      | OptionDeclaration
      | undefined;
    if (takesValue === undefined) {
      throw new UsageError(`there is no option ${arg.split("=", 1)[0]}; see \`strongroom ${command.name} --help\``);
    }
    const next = takesValue.value !== undefined && inline === undefined ? args[++i] : inline;
    if (takesValue.value !== undefined && (next === undefined || next === ""))
      throw new UsageError(`--${name}: a value is missing: ${takesValue.value}`);
    if (mine === undefined) serverArgs.push(next === undefined ? `--${name}` : `--${name}=${next}`);
    else own.set(name, next ?? "");
  }
  if (positionals.length > command.positionals) {
    throw new UsageError(
      `${command.positionals} argument(s) are taken, ${positionals.length} came; see \`strongroom ${command.name} --help\``,
    );
  }
  // A person who looks at the output of a command does not want the log of a server in between.
  const quiet = env.STRONGROOM_LOG_LEVEL === undefined ? { ...env, STRONGROOM_LOG_LEVEL: "warn" } : env;
  const server = parseOptions(serverArgs, quiet);
  if (server === "help") return "help";
  return { server, own, positionals };
}

/** The text of `strongroom COMMAND --help`. */
export function commandHelp(command: DataCommand): string {
  const shared = OPTION_DECLARATIONS.filter((option) => SHOWN.includes(option.name));
  const rows = [...command.options, ...shared].map((o: OptionDeclaration): [string, string] => [
    `--${o.name}${o.value === undefined ? "" : ` ${o.value}`}`,
    `${o.help}${o.fallback === undefined || o.name === "log-level" ? "" : ` (default ${o.fallback})`}`,
  ]);
  const width = Math.max(...rows.map(([flag]) => flag.length));
  return `Usage: strongroom ${command.name} ${command.usage}

${command.about}

Options (those of \`strongroom serve\` and their environment variables mean the same here):
${rows.map(([flag, help]) => `  ${flag.padEnd(width)}  ${help}`).join("\n")}
  ${"-h, --help".padEnd(width)}  shows this

Examples:
${command.examples.map((line) => `  ${line}`).join("\n")}

Exit codes: 0 done, 1 something failed or could not be opened, 2 wrong arguments, 4 refused, 5 the store or the database
does not answer, 6 a version is damaged.
`;
}

import type { Program } from "./command.ts";
import { UsageError } from "./errors.ts";
import { flagOf, type Option } from "./option.ts";

/**
 * Brings arguments into the form that the parser (commander) reads rightly, which knows no `--flag=false` and takes
 * whatever follows an option for its value. Of declared switches `--flag=true` becomes `--flag`, and `--flag=false`
 * becomes `--no-flag`; nothing after `--` is touched.
 * @throws {UsageError} for another value of a switch, a missing or empty value, an empty argument. No value is
 *   repeated: it may be a secret.
 */
export function normalizeArguments(program: Program<never>, argv: readonly string[]): string[] {
  const out: string[] = [];
  let options = program.options;
  let hint = `${program.name} --help lists the commands`;
  let named = false;
  for (let at = 0; at < argv.length; at++) {
    const arg = argv[at]!;
    if (arg === "--") {
      for (const rest of argv.slice(at + 1)) refuseEmpty(rest, hint);
      return [...out, ...argv.slice(at)];
    }
    if (!arg.startsWith("-") || arg === "-") {
      refuseEmpty(arg, hint);
      out.push(arg);
      if (named) continue;
      named = true;
      const command = program.commands.find(({ name }) => name === arg);
      if (command === undefined) continue;
      options = command.options;
      hint = `${program.name} ${command.name} --help explains it`;
      continue;
    }
    const long = /^--(no-)?([^=]*)(?:=(.*))?$/s.exec(arg);
    const option = options.find(({ name, short, kind }) => {
      if (long === null) return arg === `-${short}`;
      return name === `${long[1] ?? ""}${long[2]}` || (long[1] && kind === "switch" && name === long[2]);
    });
    if (option === undefined) out.push(arg);
    else if (option.kind === "switch") out.push(switchArgument(option, arg, long?.[1], long?.[3], hint));
    else {
      const inline = long?.[3];
      const value = inline ?? argv[++at];
      // `-` alone is standard input or output.
      if (value === undefined || (inline === undefined && /^-./.test(value)))
        throw new UsageError(`${flagOf(option)}: the value is missing: <${option.value}>`, {
          hint: value === undefined ? hint : `a value that begins with - is written ${flagOf(option)}=VALUE`,
        });
      if (value === "")
        throw new UsageError(`${flagOf(option)}: the value is empty; is a variable of the shell not set?`, { hint });
      out.push(`${flagOf(option)}=${value}`);
    }
  }
  return out;
}

function switchArgument(
  option: Option<unknown>,
  arg: string,
  negated: string | undefined,
  value: string | undefined,
  hint: string,
): string {
  if (value === undefined) return arg;
  if (!negated && value === "true") return flagOf(option);
  if (!negated && value === "false") return `--no-${option.name}`;
  const { name } = option;
  throw new UsageError(
    `--${negated ?? ""}${name}: a switch is --${name} or --no-${name}, or --${name}=true or --${name}=false`,
    { hint },
  );
}

function refuseEmpty(arg: string, hint: string): void {
  if (arg === "") throw new UsageError("an argument is empty; is a variable of the shell not set?", { hint });
}

import { UsageError } from "./errors.ts";

const LINE = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/;

/**
 * Reads a file of environment variables, as `EnvironmentFile=` of systemd has it: a variable a line, empty lines and
 * lines that begin with `#` are skipped. Nothing is expanded. Values with a meaning for a shell need no quotes, but may
 * have them, so that one file serves both; what a shell would read as another value than this is refused.
 * @throws {UsageError} that names file and line, never a value.
 */
export function parseEnvFile(text: string, path: string): Record<string, string> {
  const variables: Record<string, string> = {};
  // A byte order mark is what some editors begin a file with.
  for (const [index, raw] of text
    .replace(/^\u{feff}/u, "")
    .split(/\r?\n/)
    .entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const where = `${path}:${index + 1}`;
    const [, name, value] = LINE.exec(line) ?? [];
    // systemd would skip such a line, with a word in its log only: the same file would mean something else there.
    if (/^export\s/.test(line))
      throw new UsageError(`${where}: expected NAME=VALUE without export, as systemd reads it`);
    if (name === undefined || value === undefined)
      throw new UsageError(`${where}: expected NAME=VALUE, without blanks around the =`);
    if (Object.hasOwn(variables, name)) throw new UsageError(`${where}: ${name} is set a second time; remove one`);
    variables[name] = unquoted(value, `${where}: ${name}`);
  }
  return variables;
}

function unquoted(text: string, where: string): string {
  const quote = text[0];
  if (quote !== "'" && quote !== '"') {
    if (/['"`\\$]|\s#/.test(text))
      throw new UsageError(`${where}: a value with a quote, $, \`, \\ or # in it is put in single quotes`);
    return text;
  }
  const inner = text.slice(1, -1);
  if (text.length < 2 || !text.endsWith(quote) || inner.includes(quote))
    throw new UsageError(`${where}: expected the closing ${quote} at the end of the line, and none before it`);
  if (quote === '"' && /[`\\$]/.test(inner))
    throw new UsageError(`${where}: a value with $, \` or \\ in it is put in single quotes`);
  return inner;
}

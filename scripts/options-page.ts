/**
 * Makes docs/options.md from the declarations that parsing and `--help` use: `npm run generate`. `check:generated`
 * compares.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { flagsOf, type Option, type Secret, SWITCH_WORDS } from "@strongroom/command-line/option";
import type { CommandSpec } from "../cli/src/command.ts";
import { COMMANDS } from "../cli/src/commands/index.ts";
import { SECRETS } from "../cli/src/options.ts";
import { COMMANDS as SERVER_COMMANDS } from "../server/src/commands/index.ts";

/** Where the page is. */
export const OPTIONS_PAGE = fileURLToPath(new URL("../docs/options.md", import.meta.url));

const code = (text: string) => `\`${text}\``;
/** A table's cell must not end it. */
const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
const row = (cells: readonly string[]) => `| ${cells.map(cell).join(" | ")} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [row(head), `| ${head.map(() => "---").join(" | ")} |`, ...rows.map(row)].join("\n");

function optionTable(commands: ReadonlyArray<Pick<CommandSpec, "name" | "options">>): string {
  const rows = new Map<Option<unknown>, string[]>();
  for (const command of commands) {
    for (const option of command.options) rows.set(option, [...(rows.get(option) ?? []), command.name]);
  }
  const cells = [...rows].map(([option, names]) => [
    code(flagsOf(option)),
    option.variables.length === 0 ? "arguments only" : option.variables.map(({ name }) => code(name)).join(", "),
    defaultOf(option),
    option.help +
      (option.words === undefined ? "" : ` (${option.words.join(", ")})`) +
      (option.kind === "list" ? "; repeatable" : ""),
    names.length === commands.length ? "all" : names.join(", "),
  ]);
  return table(["option", "environment", "default", "meaning", "commands"], cells);
}

function defaultOf({ kind, defaultText }: Option<unknown>): string {
  if (defaultText === undefined) return kind === "switch" ? "off" : "none";
  // A value, or a sentence about it.
  return defaultText.includes(" ") ? defaultText : code(defaultText);
}

function secretTable(): string {
  const rows = Object.values<Secret>(SECRETS).map(({ env, alias, help }) => [
    [env, ...(alias === undefined ? [] : [alias])].map(code).join(", "),
    help,
  ]);
  return table(["environment", "meaning"], rows);
}

/** The page: every option of the server and of the client, from their declarations. */
export function optionsPage(): string {
  return `# Options

Made from the declarations in the source by \`npm run generate\`; do not edit it.

- [Options of the server](#options-of-the-server)
- [Options of the client](#options-of-the-client), [secrets of the client](#secrets-of-the-client)

An argument wins over a variable of the environment, a variable over the default. An empty variable counts as not set.
A variable means the same in every command. A switch is written \`--switch\` or \`--no-switch\`, or \`--switch=true\` or
\`--switch=false\`; in the environment it is
${SWITCH_WORDS.true.map(code).join(", ")} or ${SWITCH_WORDS.false.map(code).join(", ")}.
Options that delete, overwrite, confirm or give up are arguments only. What the options mean together is explained in
[configuration.md](configuration.md) for the server and in [cli.md](cli.md) for the client.

## Options of the server

Of \`strongroom serve\` and of the commands that work on its data, its configuration or its storage.

${optionTable(SERVER_COMMANDS)}

## Options of the client

The names that begin with \`BM_\` are those of Backup Maker; they are read where the name that begins with
\`STRONGROOM_\` is not set. Options that may be repeated take one value a line in the environment.

${optionTable(COMMANDS)}

## Secrets of the client

From the environment or from files, never from arguments, which every user of a machine can see. They are removed from
the environment of the commands that the client runs.

${secretTable()}
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(OPTIONS_PAGE, optionsPage());

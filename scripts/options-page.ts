/** Makes docs/options.md from the declarations that parsing and `--help` use: `npm run generate`. `check:generated` compares. */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { COMMANDS } from "../cli/src/commands/index.ts";
import { envName, type OptionSpec } from "../cli/src/option-spec.ts";
import { SECRETS } from "../cli/src/options.ts";
import { environmentName, OPTION_DECLARATIONS, type OptionDeclaration } from "../server/src/commands/options.ts";

/** Where the page is. */
export const OPTIONS_PAGE = fileURLToPath(new URL("../docs/options.md", import.meta.url));

const code = (text: string) => `\`${text}\``;
/** A table's cell must not end it. */
const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
const row = (cells: readonly string[]) => `| ${cells.map(cell).join(" | ")} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [row(head), `| ${head.map(() => "---").join(" | ")} |`, ...rows.map(row)].join("\n");

function serverTable(): string {
  const rows = OPTION_DECLARATIONS.map((option: OptionDeclaration) => [
    code(option.value === undefined ? `--${option.name}` : `--${option.name} ${option.value}`),
    code(environmentName(option.name)),
    option.fallback === undefined ? (option.value === undefined ? "off" : "none") : code(option.fallback),
    option.help,
  ]);
  return table(["flag", "environment", "default", "meaning"], rows);
}

function clientTable(): string {
  const rows = new Map<string, { spec: OptionSpec<unknown>; commands: string[] }>();
  for (const command of COMMANDS) {
    for (const spec of command.options) {
      // Some commands describe an option in words of their own, where it does something else.
      const key = `${spec.flags}\n${spec.description}`;
      const known = rows.get(key) ?? { spec, commands: [] };
      known.commands.push(command.name);
      rows.set(key, known);
    }
  }
  const cells = [...rows.values()].map(({ spec, commands }) => [
    code(spec.flags),
    [envName(spec), ...(spec.alias === undefined ? [] : [spec.alias])].map(code).join(", "),
    spec.defaultText === undefined ? (spec.kind === "flag" ? "off" : "none") : code(spec.defaultText),
    `${spec.description}${spec.words === undefined ? "" : ` (${spec.words.join(", ")})`}${spec.kind === "list" ? "; repeatable" : ""}`,
    commands.join(", "),
  ]);
  return table(["flag", "environment", "default", "meaning", "commands"], cells);
}

function secretTable(): string {
  const rows = Object.values(SECRETS).map((secret) => [
    ["env" in secret ? secret.env : "", "alias" in secret ? secret.alias : ""]
      .filter((name) => name !== "")
      .map(code)
      .join(", "),
    secret.description,
  ]);
  return table(["environment", "meaning"], rows);
}

/** The page: every option of the server and of the client, from their declarations. */
export function optionsPage(): string {
  return `# Options

Made from the declarations in the source by \`npm run generate\`; do not edit it.

- [Options of the server](#options-of-the-server)
- [Options of the client](#options-of-the-client), [secrets of the client](#secrets-of-the-client)

A flag wins over a variable of the environment, a variable over the default. An empty variable counts as not set. Switches are set in the
environment by \`1\`, \`true\`, \`yes\` or \`on\`. What the options mean together is explained in [configuration.md](configuration.md) for the server
and in [cli.md](cli.md) for the client.

## Options of the server

Of \`strongroom serve\`. The commands for operators that open the server's database and storage take those of these options that concern them.

${serverTable()}

## Options of the client

The names that begin with \`BM_\` are those of Backup Maker; they are read where the name that begins with \`STRONGROOM_\` is not set. Options
that may be repeated take one value a line in the environment.

${clientTable()}

## Secrets of the client

From the environment or from files, never from arguments, which every user of a machine can see. They are removed from the environment of the
commands that the client runs.

${secretTable()}
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(OPTIONS_PAGE, optionsPage());

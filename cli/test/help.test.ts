import { readFile } from "node:fs/promises";
import { EXIT, EXIT_TABLE } from "@strongroom/command-line/exit-codes";
import { flagOf } from "@strongroom/command-line/option";
import { COMMANDS as SERVER_COMMANDS } from "@strongroom/server/commands/index";
import test from "ava";
import type { CommandSpec } from "../src/command.ts";
import { COMMANDS as CLIENT_COMMANDS } from "../src/commands/index.ts";
import { PROGRAM_OPTIONS } from "../src/program.ts";
import { testContext } from "./support/context.ts";

const COMMANDS: readonly CommandSpec[] = [...CLIENT_COMMANDS, ...SERVER_COMMANDS];

test("the program's help lists every command, examples and every exit code", async (t) => {
  const { run, stdout } = await testContext(t);
  t.is(await run("--help"), 0);
  for (const { name } of COMMANDS) t.regex(stdout.text, new RegExp(`^  ${name}\\b`, "m"));
  for (const option of PROGRAM_OPTIONS) t.true(stdout.text.includes(flagOf(option)));
  t.true(stdout.text.includes("Examples:"));
  t.true(stdout.text.includes("Exit codes:"));
  const documented = EXIT_TABLE.flatMap(([codes]) => codes.split(", ").map(Number));
  t.deepEqual(
    documented.sort((a, b) => a - b),
    Object.values<number>(EXIT).sort((a, b) => a - b),
  );
});

test("the table of docs/cli.md has every command", async (t) => {
  const page = await readFile(new URL("../../docs/cli.md", import.meta.url), "utf8");
  const [, table = ""] = /\n\| command \| does \|\n([\s\S]+?)\n\n/.exec(page) ?? [];
  for (const { name } of COMMANDS.filter((one) => !one.name.startsWith("audit-")))
    t.true(table.includes(`\`${name}\``), name);
});

for (const spec of COMMANDS) {
  test(`help of ${spec.name}: examples, every option with its variables and its default, 80 columns`, async (t) => {
    const { run, stdout } = await testContext(t);
    t.is(await run("help", spec.name), 0);
    t.true(spec.examples.length > 0);
    const text = stdout.text.replace(/ \\\n/g, " ").replace(/\s+/g, " ");
    t.true(text.includes("Examples:"), text);
    for (const [line] of spec.examples) t.true(text.includes(line.replace(/\s+/g, " ")), line);
    for (const option of spec.options) {
      t.true(text.includes(flagOf(option)), flagOf(option));
      for (const { name } of option.variables) t.true(text.includes(name), name);
      if (option.defaultText !== undefined) t.true(text.includes(`default: ${option.defaultText}`), flagOf(option));
      // One that only arguments set has no variable to name.
      const own = `STRONGROOM_${option.name.toUpperCase().replaceAll("-", "_")}`;
      if (option.variables.length === 0) t.false(new RegExp(`${own}\\b`).test(text), own);
    }
    for (const { env } of spec.secrets ?? []) t.true(text.includes(env), env);
    // What cannot be divided may be longer: a URL, for example.
    for (const line of stdout.text.split("\n")) t.true(line.length <= 80 || /\S{40,}$/.test(line), line);
    const other = await testContext(t);
    t.is(await other.run(spec.name, "--help"), 0);
    t.is(other.stdout.text, stdout.text);
  });
}

test("help is as wide as the terminal", async (t) => {
  for (const columns of [60, 100, 140]) {
    const { context, run, stdout } = await testContext(t);
    Object.assign(context.stdout, { columns });
    t.is(await run("rm", "--help"), 0);
    const longest = Math.max(...stdout.text.split("\n").map((line) => line.length));
    t.true(longest <= columns && longest > columns - 25, `${columns}: ${longest}`);
  }
});

test("on a narrow terminal what an option means stands below it", async (t) => {
  const { context, run, stdout } = await testContext(t);
  Object.assign(context.stdout, { columns: 40 });
  t.is(await run("backup", "--help"), 0);
  const lines = stdout.text.split("\n");
  t.deepEqual(
    lines.filter((line) => line.length > 40 && !line.startsWith("Usage: ")),
    [],
  );
  t.regex(stdout.text, /\n {2}--filename <name>\n {6}file name of the version;/);
});

import test from "ava";
import fc from "fast-check";
import type { Command, Program } from "../src/command.ts";
import { UsageError } from "../src/errors.ts";
import { flag, list, option } from "../src/option.ts";
import { type Answer, type CommandLine, parseCommandLine } from "../src/parse.ts";

const json = flag({ name: "json", help: "as JSON" });
const wipe = flag({ name: "wipe", help: "wipe everything", argumentsOnly: true });
const name = option({ name: "name", value: "name", help: "a name", default: "x" });
const command = option({ name: "command", short: "c", value: "command", help: "a command" });
const label = list({ name: "label", value: "text", help: "a label" });
const url = list({ name: "url", value: "url", help: "an address" });

const tidy: Command = {
  name: "tidy",
  summary: "tidy up",
  details:
    "It is tidied up, and then there is a sentence that is so long that it does not fit into one line of a terminal.",
  args: [["[place]", "where"]],
  options: [json, wipe, name, command, label],
  secrets: [
    { env: "STRONGROOM_SECRET", help: "a secret of which there is so much to say that the line is too long for it" },
  ],
  examples: [
    ["strongroom tidy", "here"],
    ["strongroom tidy --name something-long --label another-long-thing -c 'a command with spaces in it'", "there"],
  ],
  run: async () => 0,
};
const look: Command = {
  name: "look",
  summary: "look",
  options: [],
  examples: [["strongroom look", "look"]],
  run: async () => 0,
};

const program: Program = {
  name: "strongroom",
  about: "A program.",
  version: "1.2.3",
  options: [url, json],
  examples: [["strongroom tidy", "tidy up"]],
  commands: [tidy, look],
};

const parse = (...argv: string[]): CommandLine<unknown> | Answer => parseCommandLine(program, argv);

function lineOf(...argv: string[]): CommandLine<unknown> {
  const line = parse(...argv);
  if ("text" in line) throw new Error(line.text);
  return line;
}

function textsOf(...argv: string[]): Record<string, readonly string[]> {
  return Object.fromEntries(lineOf(...argv).given);
}

function refused(...argv: string[]): string {
  try {
    parse(...argv);
  } catch (error) {
    if (error instanceof UsageError && error.exitCode === 2) return error.message;
    throw error;
  }
  throw new Error(`accepted: ${argv.join(" ")}`);
}

test("a switch is --flag, --no-flag, --flag=true, --flag=false", (t) => {
  t.deepEqual(textsOf("tidy", "--wipe"), { wipe: ["true"] });
  t.deepEqual(textsOf("tidy", "--wipe=true"), { wipe: ["true"] });
  t.deepEqual(textsOf("tidy", "--no-wipe"), { wipe: ["false"] });
  t.deepEqual(textsOf("tidy", "--wipe=false"), { wipe: ["false"] });
  t.deepEqual(textsOf("tidy", "--wipe", "--no-wipe"), { wipe: ["false"] }, "the last one counts");
  t.deepEqual(textsOf("tidy"), {});
});

test("and nothing else", (t) => {
  const others = ["yes", "no", "1", "0", "TRUE", "False", "", "true ", "on", "off"];
  for (const value of others) t.regex(refused("tidy", `--wipe=${value}`), /^--wipe: a switch is/, value);
  for (const value of ["true", "false", ""]) t.regex(refused("tidy", `--no-wipe=${value}`), /^--no-wipe: a switch is/);
  for (const arg of ["--Wipe", "--wip", "-wipe", "--no-name", "--nowipe"]) refused("tidy", arg);
  refused("tidy", "here", "--wipe", "false");
  fc.assert(
    fc.property(fc.string(), (value) => {
      if (value === "true" || value === "false") return;
      t.false(refused("tidy", `--wipe=${value}`).includes(value) && value.length > 40);
    }),
  );
});

test("what only looks like a switch is left alone: values, and what follows --", (t) => {
  t.deepEqual(textsOf("tidy", "--name=--wipe=false"), { name: ["--wipe=false"] });
  const line = lineOf("tidy", "--", "--wipe=false");
  t.deepEqual(line.args, ["--wipe=false"]);
  t.is(line.given.size, 0);
});

test("values: the next argument or after =, and -c for --command", (t) => {
  t.deepEqual(textsOf("tidy", "--name", "a b", "--label=x=y", "--label", "z"), { name: ["a b"], label: ["x=y", "z"] });
  t.deepEqual(textsOf("tidy", "-c", "echo x"), { command: ["echo x"] });
  t.deepEqual(textsOf("tidy", "-cecho"), { command: ["echo"] });
  t.deepEqual(textsOf("tidy", "--name", "-"), { name: ["-"] }, "standard input or output");
  t.deepEqual(textsOf("tidy", "--name=-x\ny"), { name: ["-x\ny"] });
});

test("a missing or empty value is refused, and another option is no value", (t) => {
  t.regex(refused("tidy", "--name"), /^--name: the value is missing: <name>/);
  t.regex(refused("tidy", "-c"), /^--command: the value is missing/);
  t.regex(refused("tidy", "--name", "--wipe"), /^--name: the value is missing/);
  t.regex(refused("tidy", "--name", "--"), /^--name: the value is missing/);
  for (const empty of [["--name="], ["--name", ""], ["-c", ""], ["--label", "a", "--label="]])
    t.regex(refused("tidy", ...empty), /the value is empty/);
  t.regex(refused("tidy", ""), /an argument is empty/);
  t.regex(refused("tidy", "--", ""), /an argument is empty/);
  t.regex(refused(""), /an argument is empty/);
});

test("unknown options, commands and arguments are refused with a suggestion", (t) => {
  t.is(refused("tidy", "--wpie"), "unknown option '--wpie' (Did you mean --wipe?)");
  t.is(refused("tdy"), "unknown command 'tdy' (Did you mean tidy?)");
  t.regex(refused("tidy", "a", "b"), /^too many arguments for 'tidy'. Expected 1 argument but got 2$/);
  t.regex(refused("look", "--wipe"), /^unknown option '--wipe'/);
  t.is(refused("help", "nosuch"), "unknown command 'nosuch'");
  for (const argv of [
    ["tdy", "--help"],
    ["--help", "tdy"],
    ["tdy", "-h"],
    ["--version", "tdy"],
  ])
    t.is(refused(...argv), "unknown command 'tdy' (Did you mean tidy?)", argv.join(" "));
  refused("help", "tidy", "look");
  refused("--nosuch", "tidy");
});

test("nothing of what may be a secret is repeated", (t) => {
  const secret = "https://me:hunter2@example.org";
  for (const argv of [
    [secret],
    ["help", secret],
    ["tidy", "a", secret],
    ["look", secret],
    ["tidy", `--nosuch=${secret}`],
    ["tidy", `--wipe=${secret}`],
    [`--nosuch=${secret}`],
    ["tidy", "-phunter2"],
    ["tidy", `--${secret}`],
  ]) {
    const message = refused(...argv);
    t.false(message.includes("hunter2"), message);
  }
});

test("options before the command count for it, and its own count more; it must take them", (t) => {
  t.deepEqual(textsOf("--json", "tidy"), { json: ["true"] });
  t.deepEqual(textsOf("--json=true", "tidy", "--no-json"), { json: ["false"] });
  t.is(refused("--json", "look"), "look takes no --json");
  t.is(refused("--url", "x", "tidy"), "tidy takes no --url");
});

test("help and version", (t) => {
  t.deepEqual(parse("--version"), { text: "1.2.3\n", exitCode: 0 });
  const help = parse("tidy", "--help");
  t.deepEqual(parse("help", "tidy"), help);
  t.deepEqual(parse("tidy", "-h"), help);
  t.deepEqual(parse("help"), parse("--help"));
  t.is((parse() as Answer).exitCode, 2, "no command");
});

test("help names variables, and none for what only arguments set", (t) => {
  const { text } = parse("tidy", "--help") as Answer;
  const flat = text.replace(/\s+/g, " ");
  for (const part of [
    "--json as JSON (env: STRONGROOM_JSON)",
    "(default: x; env: STRONGROOM_NAME)",
    "STRONGROOM_SECRET: a",
  ])
    t.true(flat.includes(part), text);
  t.true(flat.includes("--wipe wipe everything -"), text);
  t.false(text.includes("STRONGROOM_WIPE"));
});

test("help fits the terminal, 80 columns without one", (t) => {
  for (const width of [undefined, 60, 80, 120]) {
    for (const argv of [["--help"], ["tidy", "--help"]]) {
      const { text } = parseCommandLine(program, argv, width) as Answer;
      for (const line of text.split("\n")) t.true(line.length <= (width ?? 80), `${width}: ${line}`);
      const longest = Math.max(...text.split("\n").map((line) => line.length));
      t.true(longest > (width ?? 80) - 30, "the width is used");
    }
  }
});

test("an example that is too long is divided so that the shell puts it together", (t) => {
  const { text } = parse("tidy", "--help") as Answer;
  t.true(text.includes("another-long-thing \\\n      -c 'a command with spaces in it'\n"), text);
});

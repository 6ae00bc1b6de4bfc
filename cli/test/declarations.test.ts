/** All declarations of all commands, of client and server, together. */
import { UsageError } from "@strongroom/command-line/errors";
import { flagOf, type Option, type Secret } from "@strongroom/command-line/option";
import { OptionValues } from "@strongroom/command-line/values";
import { COMMANDS as SERVER_COMMANDS } from "@strongroom/server/commands/index";
import test from "ava";
import type { CommandSpec } from "../src/command.ts";
import { COMMANDS as CLIENT_COMMANDS } from "../src/commands/index.ts";
import { testContext } from "./support/context.ts";

const COMMANDS: readonly CommandSpec[] = [...CLIENT_COMMANDS, ...SERVER_COMMANDS];
const OPTIONS: ReadonlySet<Option<unknown>> = new Set(COMMANDS.flatMap(({ options }) => options));

/** Options that delete, overwrite, confirm, or give something up; and the one that says where variables are. */
const ARGUMENTS_ONLY = [
  "--allow-no-admin",
  "--close",
  "--confirm",
  "--open",
  "--env-file",
  "--abort",
  "--clock-is-right",
  "--confirm-removals",
  "--confirm-rollback",
  "--delete-unknown",
  "--dry-run",
  "--finish",
  "--force",
  "--give-up-commit",
  "--leave-damaged",
  "--revoke",
  "--revoke-all",
  "--yes",
];

test("a variable means one thing: one declaration, or one secret, in all commands that read it", (t) => {
  const meanings = new Map<string, Set<Option<unknown> | string>>();
  const means = (name: string, meaning: Option<unknown> | string) =>
    meanings.set(name, (meanings.get(name) ?? new Set()).add(meaning));
  for (const { options, secrets = [] } of COMMANDS) {
    for (const option of options) for (const { name } of option.variables) means(name, option);
    for (const { env, alias, help } of secrets as readonly Secret[]) {
      means(env, help);
      if (alias !== undefined) means(alias, help);
    }
  }
  t.true(meanings.size > 80, "all were walked");
  for (const [name, meaning] of meanings) t.is(meaning.size, 1, name);
});

test("every option can be set by a variable, but those that delete, overwrite, confirm or give up", (t) => {
  const without = [...OPTIONS].filter(({ variables }) => variables.length === 0).map(flagOf);
  t.deepEqual([...new Set(without)].sort(), ARGUMENTS_ONLY.toSorted());
  const wordsOfDanger = /\b(delete|overwrite|do not ask|give up|end (the|a) |do nothing)\b/;
  for (const option of OPTIONS) {
    if (wordsOfDanger.test(option.help) && option.name !== "timeout") t.is(option.variables.length, 0, flagOf(option));
  }
});

test("variables begin with STRONGROOM_ or BM_, and follow from the option's name with few exceptions", (t) => {
  const exceptions: string[] = [];
  for (const { name, variables } of OPTIONS) {
    const [own, ...others] = variables.map((variable) => variable.name);
    for (const other of others) t.regex(other, /^BM_[A-Z_]+$/);
    if (own !== undefined && own !== `STRONGROOM_${name.toUpperCase().replaceAll("-", "_")}`) exceptions.push(own);
  }
  t.deepEqual(exceptions.sort(), [
    "STRONGROOM_HEALTH_ALL",
    "STRONGROOM_RESTORE_COMMAND",
    "STRONGROOM_TLS_CLIENT_CERT",
    "STRONGROOM_TLS_CLIENT_KEY",
    "STRONGROOM_USAGE_FROM",
    "STRONGROOM_USAGE_TO",
  ]);
});

test("a variable has no effect on what is for arguments only", (t) => {
  for (const { options } of COMMANDS) {
    const dangerous = options.filter((option) => ARGUMENTS_ONLY.includes(flagOf(option)));
    const env = Object.fromEntries(
      dangerous.flatMap(({ name }) => {
        const upper = name.toUpperCase().replaceAll("-", "_");
        return [`STRONGROOM_${upper}`, `BM_${upper}`, upper].map((variable) => [variable, "true"]);
      }),
    );
    const values = OptionValues.resolve(options, new Map(), env);
    for (const option of dangerous) {
      t.is(values.source(option), "default", flagOf(option));
      t.true([false, undefined].includes(values.get(option) as undefined), flagOf(option));
    }
  }
});

test("no two options of a command have one name", (t) => {
  for (const { name, options } of COMMANDS) {
    const flags = options.flatMap((option) => [flagOf(option), ...(option.short === undefined ? [] : [option.short])]);
    t.is(new Set(flags).size, flags.length, name);
  }
});

test("no option takes a secret as its value", (t) => {
  for (const { name, kind } of OPTIONS) if (kind !== "switch") t.notRegex(name, /^(password|passphrase|token|secret)$/);
});

test("no message repeats a URL with a password, wherever it is given", async (t) => {
  const url = "postgres://me:hunter2@db.example.org/x?password=hunter2";
  for (const { name, options, args = [] } of COMMANDS) {
    for (const option of options) {
      if (option.kind === "switch") continue;
      for (const [texts, env] of [
        [[url], {}],
        [undefined, Object.fromEntries(option.variables.map((variable) => [variable.name, url]))],
      ] as const) {
        try {
          OptionValues.resolve([option], new Map(texts === undefined ? [] : [[option.name, texts]]), env);
        } catch (error) {
          t.true(error instanceof UsageError);
          t.false((error as Error).message.includes("hunter2"), `${name}: ${(error as Error).message}`);
        }
      }
    }
    const { run, stdout, stderr } = await testContext(t);
    t.is(await run(name, ...args.map(() => "x"), url), 2, name);
    t.false(`${stdout.text}${stderr.text}`.includes("hunter2"), stderr.text);
  }
});

test("an unknown option, a switch of another form, an empty value: exit code 2 in every command", async (t) => {
  for (const { name, options } of COMMANDS) {
    const wrong = [["--nosuch"], ["--help=yes"], ["", ""], ...options.flatMap((option) => wrongUses(option))];
    for (const args of wrong) {
      const { run, stdout, stderr } = await testContext(t);
      t.is(await run(name, ...args), 2, `${name} ${args.join(" ")}: ${stderr.text}`);
      t.is(stdout.text, "", `${name} ${args.join(" ")}`);
    }
  }
});

function wrongUses(option: Option<unknown>): string[][] {
  const flag = flagOf(option);
  if (option.kind !== "switch") return [[flag], [flag, ""], [`${flag}=`], [flag, "--help"]];
  return ["yes", "no", "1", "0", "TRUE", ""].map((value) => [`${flag}=${value}`]);
}

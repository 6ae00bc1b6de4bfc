import { EXIT, EXIT_TABLE } from "@strongroom/command-line/exit-codes";
import test from "ava";
import { COMMANDS } from "../src/commands/index.ts";
import { envName, longFlag } from "../src/option-spec.ts";
import { OPTIONS } from "../src/options.ts";
import { testContext } from "./support/context.ts";

test("the program's help lists every command, examples and every exit code", async (t) => {
  const { run, stdout } = await testContext(t);
  t.is(await run("--help"), 0);
  for (const { name } of COMMANDS) t.regex(stdout.text, new RegExp(`^  ${name}\\b`, "m"));
  t.true(stdout.text.includes("Examples:"));
  t.true(stdout.text.includes("Exit codes:"));
  const documented = EXIT_TABLE.flatMap(([codes]) => codes.split(", ").map(Number));
  t.deepEqual(
    documented.sort((a, b) => a - b),
    Object.values<number>(EXIT).sort((a, b) => a - b),
  );
});

for (const spec of COMMANDS) {
  test(`help of ${spec.name}: examples, every option with its variable`, async (t) => {
    const { run, stdout } = await testContext(t);
    t.is(await run("help", spec.name), 0);
    t.true(stdout.text.includes("Examples:"), stdout.text);
    t.true(spec.examples.length > 0);
    const text = stdout.text.replace(/\s+/g, " ");
    for (const [line] of spec.examples) t.true(text.includes(line.replace(/\s+/g, " ")), line);
    for (const option of spec.options) {
      t.true(text.includes(longFlag(option)), longFlag(option));
      t.true(text.includes(envName(option)), envName(option));
      if (option.alias !== undefined) t.true(text.includes(option.alias), option.alias);
    }
    for (const { env } of spec.secrets ?? []) t.true(text.includes(env), env);
    if (!spec.passThrough) {
      const other = await testContext(t);
      t.is(await other.run(spec.name, "--help"), 0);
      t.is(other.stdout.text, stdout.text);
    }
  });
}

test("no option takes a secret as its value", (t) => {
  for (const option of Object.values(OPTIONS)) {
    t.notRegex(option.flags, /--(password|passphrase|token|secret)(?!-)\b.*</, option.flags);
  }
});

test("no two options share a variable", (t) => {
  const names = Object.values(OPTIONS).flatMap((option) => [
    envName(option),
    ...("alias" in option && option.alias ? [option.alias] : []),
  ]);
  t.is(new Set(names).size, names.length);
});

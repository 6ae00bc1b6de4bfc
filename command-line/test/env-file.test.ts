import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { parseEnvFile } from "../src/env-file.ts";
import { UsageError } from "../src/errors.ts";

test("what a shell reads too, and values that a shell would break at an &", (t) => {
  const quoted = `# comment
A=plain

B='s3://b/p?endpoint=https://x&region=r'
C="two words"
D=
E='a"b$c#d'
`;
  const expected = { A: "plain", B: "s3://b/p?endpoint=https://x&region=r", C: "two words", D: "", E: 'a"b$c#d' };
  t.deepEqual(parseEnvFile(quoted, "f"), expected);
  t.deepEqual(parseEnvFile(`\u{feff}${quoted.replaceAll("\n", "\r\n")}`, "f"), expected);
  const dir = mkdtempSync(join(tmpdir(), "strongroom-env-"));
  t.teardown(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, "env"), quoted);
  const shell = execFileSync("/bin/sh", ["-c", `set -a; . ${dir}/env; env`], { env: {} }).toString();
  for (const [name, value] of Object.entries(expected)) t.true(shell.split("\n").includes(`${name}=${value}`), name);
  t.deepEqual(parseEnvFile("S=s3://b?x=1&y=2;z\nM=a b", "f"), { S: "s3://b?x=1&y=2;z", M: "a b" });
});

test("what would be read as another value elsewhere is refused, and no value is repeated", (t) => {
  for (const [text, expected] of [
    ["A=1\nhunter2", /^f:2: expected NAME=VALUE/],
    ["export A=hunter2", /^f:1: expected NAME=VALUE without export/],
    ["A =hunter2", /^f:1: expected NAME=VALUE/],
    ["A=$hunter2", /^f:1: A: .*single quotes/],
    ["A=hun'ter2", /single quotes/],
    ["A=hunter2 # a comment?", /single quotes/],
    ["A='hunter2", /closing '/],
    ["A='hunter2' x", /closing '/],
    ["A='hun'ter2'", /closing '/],
    ['A="hunter2$B"', /single quotes/],
    ["A=hunter2\nA=hunter2", /^f:2: A is set a second time/],
    ["A='", /closing '/],
  ] as const) {
    const error = t.throws(() => parseEnvFile(text, "f"), { instanceOf: UsageError });
    t.regex(error.message, expected, text);
    t.false(error.message.includes("hunter2"), text);
  }
});

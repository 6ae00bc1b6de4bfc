import { copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { testContext } from "./support/context.ts";
import { PROGRAM, runProcess } from "./support/process.ts";

const strongroom = (args: string[], options: Parameters<typeof runProcess>[2] = {}) =>
  runProcess(PROGRAM, args, options);

test.serial("prints its version, from any folder and through links", async (t) => {
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "bin"));
  await symlink(PROGRAM, join(dir, "first"));
  await symlink("../first", join(dir, "bin", "second"));
  const { code, stdout } = await runProcess("./second", ["--version"], { cwd: join(dir, "bin") });
  t.is(code, 0);
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/);
});

test.serial("a checkout without packages says what to run", async (t) => {
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "bin"));
  await copyFile(PROGRAM, join(dir, "bin", "strongroom"));
  const { code, stderr } = await runProcess(join(dir, "bin", "strongroom"), ["ls"]);
  t.is(code, 1);
  t.true(stderr.includes("npm ci"), stderr);
});

test.serial("no command: the help, and exit code 2", async (t) => {
  const { code, stderr } = await strongroom([]);
  t.is(code, 2);
  t.true(stderr.includes("Usage: strongroom"));
});

test.serial("an unknown command is refused with a suggestion", async (t) => {
  const { code, stderr } = await strongroom(["bakup"]);
  t.is(code, 2);
  t.true(stderr.includes("unknown command 'bakup'"), stderr);
  t.true(stderr.includes("Did you mean backup?"), stderr);
});

test.serial("an unknown option is refused with a suggestion and a pointer to the help", async (t) => {
  const { code, stderr } = await strongroom(["backup", "x", "--encrytion", "age"]);
  t.is(code, 2);
  t.true(stderr.includes("Did you mean --encryption?"), stderr);
  t.true(stderr.includes("strongroom backup --help"), stderr);
});

test("with --json also an error about the command line is one object on standard output", async (t) => {
  for (const [argv, env] of [
    [["ls", "--json", "--bogus"], {}],
    [["nosuch", "--json"], {}],
    [["backup", "x", "--json=true", "--timeout", "soon"], {}],
    [["ls", "--bogus"], { STRONGROOM_JSON: "1" }],
  ] as const) {
    const place = await testContext(t, { env });
    t.is(await place.run(...argv), 2);
    const { error } = JSON.parse(place.stdout.text) as { error: { message: string; exitCode: number; reason: string } };
    t.like(error, { exitCode: 2, reason: "USAGE" });
    t.true(place.stderr.text.includes(error.message));
  }
  for (const argv of [
    ["ls", "--bogus"],
    ["ls", "--json", "--no-json", "--bogus"],
    ["ls", "--bogus", "--", "--json"],
  ]) {
    const place = await testContext(t);
    t.is(await place.run(...argv), 2);
    t.is(place.stdout.text, "", argv.join(" "));
  }
});

test("usage errors end with exit code 2 and say what was expected", async (t) => {
  const cases: Array<[args: string[], expected: RegExp]> = [
    [["backup"], /Which collection\?[\s\S]*for example: strongroom backup/],
    [["backup", "a", "--collection", "b"], /give one of them/],
    [["backup", "a"], /no key to encrypt to[\s\S]*--public-key[\s\S]*--encryption none/],
    [["backup", "a", "--min-size", "ten"], /--min-size: expected a size such as 500, 10K, 1\.5G or 2Ti .*, got "ten"/],
    [["backup", "a", "--timeout", "soon"], /--timeout: expected a duration/],
    [["backup", "a", "--parallel", "99"], /--parallel: expected a number from 1 to 16/],
    [["backup", "a", "--encryption", "rot13"], /--encryption: expected one of auto, openpgp, age, none/],
    [["backup", "a", "--label", "novalue", "--encryption", "none"], /--label: expected key=value/],
    [["backup", "a", "--public-key", "/nonexistent.asc"], /\/nonexistent\.asc: no such file/],
    [["backup", "a", "--public-key", "x", "--encryption", "none"], /contradict/],
    [["restore", "a", "--version", "newest"], /--version: expected a version number such as 7 or v7, or latest/],
    [["restore", "a", "--version", "0"], /--version: expected/],
    [["restore", "a", "-c", "cat", "--output", "f"], /contradict/],
    [["rm", "a"], /missing required argument 'version'/],
    [["rm", "a", "latest", "--yes"], /expected the number of a version/],
    [["rm", "a", "7"], /no terminal to ask on[\s\S]*--yes/],
    [["keygen"], /--name is required/],
    [["keygen", "--type", "rsa"], /--type: expected one of openpgp, age/],
    [["login"], /Which user\?/],
    [["login", "--username", "a"], /no password[\s\S]*--password-file/],
    [["login", "--username", "a", "--url", "ftp://x"], /expected http:\/\/ or https:\/\//],
    [["sessions", "--json=yes"], /--json: a switch is --json or --no-json/],
    [["ls", "a", "b"], /too many arguments/],
  ];
  for (const [args, expected] of cases) {
    const { run, stderr, stdout } = await testContext(t);
    t.is(await run(...args), 2, `${args.join(" ")}: ${stderr.text}`);
    t.regex(stderr.text, expected, args.join(" "));
    t.is(stdout.text, "", args.join(" "));
  }
});

test.serial("the exit code of a usage error arrives at the shell", async (t) => {
  const { code, stderr, stdout } = await strongroom(["backup", "pg-main"]);
  t.is(code, 2);
  t.true(stderr.includes("There is no key to encrypt to."), stderr);
  t.is(stdout, "");
});

test.serial("a wrong value from the environment is blamed on its variable", async (t) => {
  const { code, stderr } = await strongroom(["backup", "a"], { env: { BM_TIMEOUT: "soon" } });
  t.is(code, 2);
  t.true(stderr.startsWith("strongroom: backup of a: BM_TIMEOUT: expected a duration"), stderr);
});

test.serial("an address with a password is refused without repeating it", async (t) => {
  const { code, stderr } = await strongroom(["ls", "--url", "https://alice:hunter2@example.org"]);
  t.is(code, 2);
  t.false(stderr.includes("hunter2"));
});

test.serial("without a session: exit code 3, and how to get one", async (t) => {
  const { code, stderr } = await strongroom(["ls", "--url", "http://127.0.0.1:1"]);
  t.is(code, 3);
  t.true(stderr.includes("strongroom login --url http://127.0.0.1:1"), stderr);
});

test.serial("a server that is not there: exit code 5; with --json also as JSON", async (t) => {
  const env = { STRONGROOM_TOKEN: "x" };
  const { code, stderr, stdout } = await strongroom(["ls", "--url", "http://127.0.0.1:1", "--json"], { env });
  t.is(code, 5, stderr);
  t.true(stderr.includes("127.0.0.1:1"), stderr);
  const { error } = JSON.parse(stdout) as { error: { exitCode: number; message: string } };
  t.is(error.exitCode, 5);
  t.true(stderr.includes(error.message));
});

test.serial("a reader of the list that goes away is no failure", async (t) => {
  const { code, stderr } = await runProcess("bash", [
    "-o",
    "pipefail",
    "-c",
    `"${PROGRAM}" --help | head -1 >/dev/null`,
  ]);
  t.is(code, 0, stderr);
});

test.serial("a key file that is private is refused for encryption", async (t) => {
  const dir = await temporaryFolder(t);
  const path = join(dir, "k");
  await writeFile(path, "AGE-SECRET-KEY-1QQQQ\n");
  const { code, stderr } = await strongroom(["backup", "a", "--public-key", path]);
  t.is(code, 2);
  t.true(stderr.includes("is a private key"), stderr);
  t.false(stderr.includes("AGE-SECRET-KEY-1QQQQ"));
});

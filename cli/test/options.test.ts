import test from "ava";
import { SECRET_NAMES, withoutSecrets } from "../src/context.ts";
import { UsageError } from "../src/errors.ts";
import { flag, list, OptionValues, parsed, text } from "../src/option-spec.ts";
import { OPTIONS, parseVersion } from "../src/options.ts";

const color = text("--color <name>", "", { alias: "BM_COLOR", default: "grey" });

test("flag, then STRONGROOM_, then BM_, then default", (t) => {
  const env = { STRONGROOM_COLOR: "green", BM_COLOR: "blue" };
  const values = (given: Record<string, unknown>, from: NodeJS.ProcessEnv) =>
    OptionValues.resolve([color], [given], from);
  t.is(values({ color: "red" }, env).get(color), "red");
  t.is(values({ color: "red" }, env).source(color), "flag");
  t.is(values({}, env).get(color), "green");
  t.is(values({}, env).source(color), "environment");
  t.is(values({}, { BM_COLOR: "blue" }).get(color), "blue");
  t.is(values({}, { BM_COLOR: "blue" }).source(color), "alias");
  t.is(
    values({}, { STRONGROOM_COLOR: "", BM_COLOR: "blue" }).get(color),
    "blue",
    "an empty variable is as good as none",
  );
  t.is(values({}, {}).get(color), "grey");
  t.is(values({}, {}).source(color), "default");
});

test("a command's own option wins over the program's", (t) => {
  t.is(OptionValues.resolve([color], [{ color: "red" }, { color: "blue" }], {}).get(color), "red");
  t.is(OptionValues.resolve([color], [{}, { color: "blue" }], {}).get(color), "blue");
});

test("lists: repeated flags, lines in the environment", (t) => {
  const keys = list("--key <file>", "");
  t.deepEqual(OptionValues.resolve([keys], [{ key: ["a", "b"] }], { STRONGROOM_KEY: "c" }).get(keys), ["a", "b"]);
  t.deepEqual(OptionValues.resolve([keys], [{}], { STRONGROOM_KEY: "c d\n\ne\n" }).get(keys), ["c d", "e"]);
  t.deepEqual(OptionValues.resolve([keys], [{}], {}).get(keys), []);
});

test("flags in the environment", (t) => {
  const loud = flag("--loud", "");
  const read = (value: string) => OptionValues.resolve([loud], [{}], { STRONGROOM_LOUD: value }).get(loud);
  for (const value of ["1", "true", "YES", "on"]) t.true(read(value), value);
  for (const value of ["0", "false", "No", "off", ""]) t.false(read(value), value);
  const error = t.throws(() => read("perhaps"), { instanceOf: UsageError });
  t.true(error.message.startsWith("STRONGROOM_LOUD expects"));
});

test("an option the command did not declare cannot be asked for", (t) => {
  const size = parsed("--size <n>", "", Number);
  t.throws(() => OptionValues.resolve([], [{}], {}).get(size), { message: /not declared/ });
});

test("the names of Backup Maker", (t) => {
  const aliases = Object.values(OPTIONS).flatMap((option) => ("alias" in option ? [option.alias] : []));
  t.deepEqual(
    [...aliases, "BM_AUTH_TOKEN", "BM_PASSPHRASE"].sort(),
    "BM_AUTH_TOKEN BM_CMD BM_COLLECTION_ID BM_PASSPHRASE BM_PRIVATE_KEY_PATH BM_PUBLIC_KEY_PATH BM_RECIPIENT BM_TIMEOUT BM_URL BM_VERSION".split(
      " ",
    ),
  );
});

test("child processes get no secrets, and everything else", (t) => {
  const env = Object.fromEntries([...SECRET_NAMES, "PATH", "PGPASSWORD", "STRONGROOM_URL"].map((name) => [name, "x"]));
  t.deepEqual(Object.keys(withoutSecrets(env)).sort(), ["PATH", "PGPASSWORD", "STRONGROOM_URL"]);
  t.true(SECRET_NAMES.includes("BM_AUTH_TOKEN") && SECRET_NAMES.includes("BM_PASSPHRASE"));
});

test("versions are named 7, v7 or latest", (t) => {
  t.is(parseVersion("7"), 7n);
  t.is(parseVersion("v7"), 7n);
  t.is(parseVersion("latest"), "newest");
  for (const bad of ["", "0", "-1", "7.1", "vv7", "Latest"]) t.throws(() => parseVersion(bad), { message: /^expects/ });
});

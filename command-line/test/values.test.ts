import test from "ava";
import { UsageError } from "../src/errors.ts";
import { choice, flag, list, type Option, option, SWITCH_WORDS } from "../src/option.ts";
import { OptionValues } from "../src/values.ts";

type Env = Record<string, string | undefined>;

/** The value of one option, from texts of arguments (none: not given) and an environment. */
function read<T>(one: Option<T>, texts: readonly string[] | undefined, env: Env = {}): T {
  return OptionValues.resolve([one], new Map(texts === undefined ? [] : [[one.name, texts]]), env).get(one);
}

const color = option({ name: "color", value: "name", help: "", alias: "BM_COLOR", default: "grey" });

test("argument, then STRONGROOM_, then BM_, then default", (t) => {
  const env = { STRONGROOM_COLOR: "green", BM_COLOR: "blue" };
  const source = (texts: readonly string[] | undefined, from: Env) =>
    OptionValues.resolve([color], new Map(texts === undefined ? [] : [["color", texts]]), from).source(color);
  t.is(read(color, ["red"], env), "red");
  t.is(source(["red"], env), "flag");
  t.is(read(color, undefined, env), "green");
  t.is(source(undefined, env), "environment");
  t.is(read(color, undefined, { BM_COLOR: "blue" }), "blue");
  t.is(source(undefined, { BM_COLOR: "blue" }), "alias");
  t.is(read(color, undefined, { STRONGROOM_COLOR: "", BM_COLOR: "blue" }), "blue", "an empty variable is none");
  t.is(read(color, undefined), "grey");
  t.is(source(undefined, {}), "default");
});

test("lists: repeated arguments, lines in the environment", (t) => {
  const keys = list({ name: "key", value: "file", help: "" });
  t.deepEqual(read(keys, ["a", "b"], { STRONGROOM_KEY: "c" }), ["a", "b"]);
  t.deepEqual(read(keys, undefined, { STRONGROOM_KEY: "c d\n\ne\n" }), ["c d", "e"]);
  t.deepEqual(read(keys, undefined), []);
});

test("switches in the environment: the words of the one table, and no others", (t) => {
  const loud = flag({ name: "loud", help: "" });
  for (const word of SWITCH_WORDS.true) t.true(read(loud, undefined, { STRONGROOM_LOUD: word.toUpperCase() }), word);
  for (const word of ["", ...SWITCH_WORDS.false]) t.false(read(loud, undefined, { STRONGROOM_LOUD: word }), word);
  t.false(read(loud, undefined));
  const error = t.throws(() => read(loud, undefined, { STRONGROOM_LOUD: "perhaps" }), { instanceOf: UsageError });
  t.regex(error.message, /^STRONGROOM_LOUD: expected true, .*, got "perhaps"$/);
  t.false(read(loud, ["false"], { STRONGROOM_LOUD: "true" }), "--no-loud wins over the variable");
});

test("a variable of a name of its own, and values that another program writes in another way", (t) => {
  const wait = option({
    name: "wait",
    value: "time",
    help: "",
    variable: "STRONGROOM_PATIENCE",
    alias: { name: "BM_WAIT", translate: (value) => `${value}s` },
  });
  t.is(read(wait, undefined, { STRONGROOM_PATIENCE: "1", STRONGROOM_WAIT: "2" }), "1");
  t.is(read(wait, undefined, { BM_WAIT: "3" }), "3s");
  t.is(read(wait, ["4"], { BM_WAIT: "3" }), "4");
});

test("what is for arguments only has no variable", (t) => {
  const wipe = flag({ name: "wipe", help: "", argumentsOnly: true });
  t.false(read(wipe, undefined, { STRONGROOM_WIPE: "true" }));
  t.true(read(wipe, ["true"]));
});

test("a value that cannot be read is blamed on the place it stood, and a secret is not repeated", (t) => {
  const size = option({
    name: "size",
    value: "size",
    help: "",
    read: (text) => {
      throw new RangeError(`expected a size, got "${text}"`);
    },
  });
  t.throws(() => read(size, ["x"]), { instanceOf: UsageError, message: '--size: expected a size, got "x"' });
  t.throws(() => read(size, undefined, { STRONGROOM_SIZE: "x" }), { message: /^STRONGROOM_SIZE: expected/ });
  t.throws(() => read(size, ["https://me:hunter2@example.org"]), {
    message: '--size: expected a size, got "https:..."',
  });
  const kind = choice({ name: "kind", value: "kind", help: "", words: ["a", "b"] });
  t.is(read(kind, undefined), "a");
  t.throws(() => read(kind, ["c"]), { message: '--kind: expected one of a, b, got "c"' });
  t.throws(() => read(kind, ["me:hunter2@h"]), { message: /got "me:\.\.\."$/ });
});

test("an option the command did not declare cannot be asked for", (t) => {
  t.throws(() => OptionValues.resolve([], new Map(), {}).get(color), { message: /not declared/ });
});

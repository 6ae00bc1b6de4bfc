import { OptionValues } from "@strongroom/command-line/values";
import test from "ava";
import { SECRET_NAMES, withoutSecrets } from "../src/context.ts";
import { OPTIONS, parseVersion } from "../src/options.ts";

test("the names of Backup Maker", (t) => {
  const aliases = Object.values(OPTIONS).flatMap(({ variables }) =>
    variables.filter(({ source }) => source === "alias").map(({ name }) => name),
  );
  t.deepEqual(
    [...aliases, "BM_AUTH_TOKEN", "BM_PASSPHRASE"].sort(),
    "BM_AUTH_TOKEN BM_CMD BM_COLLECTION_ID BM_PASSPHRASE BM_PRIVATE_KEY_PATH BM_PUBLIC_KEY_PATH BM_RECIPIENT BM_TIMEOUT BM_URL BM_VERSION".split(
      " ",
    ),
  );
});

test("a bare number is seconds in BM_TIMEOUT only, as Backup Maker had it; elsewhere the unit is missing", (t) => {
  const { timeout, retryFor } = OPTIONS;
  const read = (given: string[], env: Record<string, string>) =>
    OptionValues.resolve([timeout, retryFor], new Map(given.length === 0 ? [] : [["timeout", given]]), env).get(
      timeout,
    );
  t.is(read([], { BM_TIMEOUT: "90" }), 90_000);
  t.is(read([], { BM_TIMEOUT: "2m" }), 120_000);
  t.is(read(["1.5h"], {}), 5_400_000, "as the server reads it");
  for (const [given, env] of [
    [["90"], {}],
    [[], { STRONGROOM_TIMEOUT: "90" }],
    [[], { STRONGROOM_RETRY_FOR: "90" }],
  ] as const) {
    t.throws(() => read([...given], env), {
      message: /(TIMEOUT|--timeout|RETRY_FOR): expected a duration .*the unit is missing/,
    });
  }
  for (const none of ["0", "0s"])
    t.throws(() => read([none], {}), { message: /--timeout: expected a duration above 0/ });
});

test("sizes are read as the server reads them", (t) => {
  const read = (text: string) =>
    OptionValues.resolve([OPTIONS.minSize], new Map([["min-size", [text]]]), {}).get(OPTIONS.minSize);
  t.is(read("1.5K"), 1536n);
  t.is(read("10MB"), 10_485_760n);
  t.is(read("0"), 1n, "an empty dump is always refused");
  for (const bad of ["0.3K", "9E", "10i", "-1", "1X", "K"])
    t.throws(() => read(bad), { message: /^--min-size: expected a size/ }, bad);
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
  for (const bad of ["", "0", "-1", "7.1", "vv7", "Latest"])
    t.throws(() => parseVersion(bad), { message: /^expected/ });
});

import test from "ava";
import fc from "fast-check";
import {
  formatDuration,
  formatSize,
  formatSizePair,
  MAX_DURATION_MS,
  MAX_SIZE,
  parseDuration,
  parseSize,
  ValueError,
} from "../src/sizes.ts";

const sizes: [string | number, bigint][] = [
  ["500", 500n],
  [500, 500n],
  [0, 0n],
  ["0", 0n],
  ["7B", 7n],
  ["10K", 10_240n],
  ["10KB", 10_240n],
  ["10Ki", 10_240n],
  ["10KiB", 10_240n],
  ["10k", 10_240n],
  ["10kib", 10_240n],
  ["1M", 1_048_576n],
  ["1MB", 1_048_576n],
  ["1 M", 1_048_576n],
  [" 1M ", 1_048_576n],
  ["5G", 5_368_709_120n],
  ["1.5G", 1_610_612_736n],
  ["0.5K", 512n],
  ["1.50M", 1_572_864n],
  ["2T", 2_199_023_255_552n],
  ["2Ti", 2_199_023_255_552n],
  ["1P", 2n ** 50n],
  ["7E", 7n * 2n ** 60n],
  ["9223372036854775807", MAX_SIZE],
];

for (const [text, bytes] of sizes) {
  test(`parseSize(${JSON.stringify(text)})`, (t) => t.is(parseSize(text), bytes));
}

const badSizes = [
  "",
  " ",
  "abc",
  "10X",
  "-1",
  "-1K",
  "+1K",
  "1.K",
  ".5K",
  "1,5K",
  "10i",
  "10iB",
  "10Bi",
  "10KK",
  "1e3",
  "0x10",
  "1.5",
  "1.0001K",
  "8E",
  "9223372036854775808",
  "1".repeat(100_000),
  "١K",
  -1,
  1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 53,
];

for (const value of badSizes) {
  test(`parseSize refuses ${typeof value} ${JSON.stringify(String(value)).slice(0, 30)}`, (t) => {
    const error = t.throws(() => parseSize(value), { instanceOf: ValueError });
    t.regex(error!.message, /expected .*got /);
    t.true(error!.message.length < 250);
  });
}

test("parseSize's message says what was expected and what it got", (t) => {
  t.throws(() => parseSize("ten"), {
    message: 'expected a size such as 500, 10K, 1.5G or 2Ti (K, M, G, T are powers of 1024), got "ten"',
  });
  t.throws(() => parseSize("1.0001K"), { message: 'expected a size of whole bytes, got "1.0001K"; round it' });
});

test("formatSize is short, binary and never rounds up", (t) => {
  const cases: [bigint, string][] = [
    [0n, "0 B"],
    [1023n, "1023 B"],
    [1024n, "1 KiB"],
    [1536n, "1.5 KiB"],
    [1_048_575n, "1023.99 KiB"],
    [1_048_576n, "1 MiB"],
    [10n * 2n ** 30n, "10 GiB"],
    [2n ** 40n + 2n ** 35n, "1.03 TiB"],
    [-1536n, "-1.5 KiB"],
    [MAX_SIZE, "7.99 EiB"],
  ];
  for (const [bytes, text] of cases) t.is(formatSize(bytes), text);
});

test("property: what formatSize writes is read back, within a hundredth and never above", (t) => {
  const bytes = fc.oneof(fc.bigInt({ min: 0n, max: MAX_SIZE }), fc.bigInt({ min: 0n, max: 5_000_000n }));
  const property = fc.property(bytes, (bytes) => {
    const [number = "", unit = ""] = formatSize(bytes).split(" ");
    const [whole = "", fraction = ""] = number.split(".");
    const factor = unit === "B" ? 1n : 1024n ** BigInt("KMGTPE".indexOf(unit[0]!) + 1);
    const hundredths = BigInt(whole + fraction.padEnd(2, "0")) * factor;
    return hundredths <= bytes * 100n && bytes * 100n - hundredths < factor;
  });
  t.notThrows(() => fc.assert(property));
});

test("property: units agree with multiplication", (t) => {
  const unit = fc.constantFrom("", "K", "M", "G", "T");
  const suffix = fc.constantFrom("", "B");
  const property = fc.property(fc.bigInt({ min: 0n, max: 10n ** 6n }), unit, suffix, (count, letter, end) => {
    return parseSize(`${count}${letter}${end}`) === count * 1024n ** BigInt(" KMGT".indexOf(letter || " "));
  });
  t.notThrows(() => fc.assert(property));
});

const durations: [string, number][] = [
  ["0", 0],
  ["0s", 0],
  ["45s", 45_000],
  ["30m", 1_800_000],
  ["1h", 3_600_000],
  ["1h30m", 5_400_000],
  ["1.5h", 5_400_000],
  ["1h30m15s", 5_415_000],
  ["5d", 432_000_000],
  ["2w", 1_209_600_000],
  ["1w1d", 691_200_000],
  ["250ms", 250],
  ["1m250ms", 60_250],
  [" 1h ", 3_600_000],
  ["36500d", MAX_DURATION_MS],
];

for (const [text, ms] of durations) {
  test(`parseDuration(${JSON.stringify(text)})`, (t) => t.is(parseDuration(text), ms));
}

for (const text of [
  "",
  "5",
  "30 m",
  "1h 30m",
  "-1h",
  "h",
  "1y",
  "1H",
  "1us",
  "0.0001s",
  "36501d",
  "1h30",
  "9".repeat(99),
]) {
  test(`parseDuration refuses ${JSON.stringify(text).slice(0, 30)}`, (t) => {
    const error = t.throws(() => parseDuration(text), { instanceOf: ValueError });
    t.regex(error!.message, /expected .*got /);
  });
}

test("parseDuration says that a unit is missing", (t) => {
  t.throws(() => parseDuration("30"), {
    message: 'expected a duration such as 45s, 30m, 1h30m, 5d or 2w, got "30"; the unit is missing',
  });
});

test("formatDuration", (t) => {
  t.is(formatDuration(0), "0s");
  t.is(formatDuration(-5), "0s");
  t.is(formatDuration(1_500), "1s500ms");
  t.is(formatDuration(5_400_000), "1h30m");
  t.is(formatDuration(14 * 86_400_000), "14d");
  t.is(formatDuration(90_061_000), "1d1h1m1s");
});

test("property: parseDuration reads what formatDuration writes", (t) => {
  const ms = fc.integer({ min: 0, max: MAX_DURATION_MS });
  t.notThrows(() => fc.assert(fc.property(ms, (ms) => parseDuration(formatDuration(ms)) === ms)));
});

test("two sizes that are compared never look the same unless they are", (t) => {
  t.deepEqual(formatSizePair(1024n, 2048n), ["1 KiB", "2 KiB"]);
  t.deepEqual(formatSizePair(1024n ** 3n + 1n, 1024n ** 3n), ["1073741825 bytes", "1073741824 bytes"]);
  t.deepEqual(formatSizePair(1024n, 1024n), ["1 KiB", "1 KiB"]);
});

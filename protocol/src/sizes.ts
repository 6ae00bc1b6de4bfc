/**
 * A text or number that is no valid value; the message says what was expected and what it got, without naming where it
 * stood.
 */
export class ValueError extends RangeError {
  override name = "ValueError";
}

/** Largest size in bytes: what a signed 64-bit column of the database holds (8 EiB less one byte). */
export const MAX_SIZE = 2n ** 63n - 1n;

/** Longest duration in milliseconds, 36500 days: adding it to any present date stays within what `Date` can express. */
export const MAX_DURATION_MS = 36_500 * 86_400_000;

const SIZE_UNITS = ["", "K", "M", "G", "T", "P", "E"] as const;
const SIZE_FORM = /^(\d+)(?:\.(\d+))?\s?([KMGTPE]?)(I?)(B?)$/i;
const SIZE_EXPECTED = "expected a size such as 500, 10K, 1.5G or 2Ti (K, M, G, T are powers of 1024)";

const DURATION_UNITS = new Map([
  ["w", 604_800_000n],
  ["d", 86_400_000n],
  ["h", 3_600_000n],
  ["m", 60_000n],
  ["s", 1_000n],
  ["ms", 1n],
]);
const DURATION_FORM = /^(?:\d+(?:\.\d+)?(?:ms|[wdhms]))+$/;
const DURATION_EXPECTED = "expected a duration such as 45s, 30m, 1h30m, 5d or 2w";

/** Longer texts are refused before any arithmetic; no honest value comes near it. */
const MAX_TEXT = 64;

/**
 * Shows a value in a message: JSON form, cut after 60 characters, so that a message stays one line. Never to be used
 * for secrets.
 */
export function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Multiplies a decimal number with a unit; undefined when the product is not whole. */
function scaled(whole: string, fraction: string, unit: bigint): bigint | undefined {
  const scale = 10n ** BigInt(fraction.length);
  const product = BigInt(whole + fraction) * unit;
  return product % scale === 0n ? product / scale : undefined;
}

/**
 * Reads a size in bytes: `500`, `10K`, `1M`, `5G`, `2T`, also with `i`, `B` or `iB` after the unit, in either case,
 * with a decimal fraction as long as the result is whole bytes.
 *
 * Every unit is a power of 1024, `KB` and `MB` too: existing installations were read by `labstack/gommon` 0.3.1, whose
 * `KB` is 1024 (it became 1000 in 0.4), and a quota must not shrink because the server changed. P and E are accepted
 * because that parser knew them.
 * @param value text, or a whole number of bytes as YAML gives for a bare `500`.
 * @returns bytes, from 0 to {@link MAX_SIZE}.
 * @throws {ValueError} for anything else.
 */
export function parseSize(value: string | number): bigint {
  if (typeof value === "number") {
    if (Number.isSafeInteger(value) && value >= 0) return BigInt(value);
    throw new ValueError(`${SIZE_EXPECTED}, got the number ${value}`);
  }
  const match = value.length > MAX_TEXT ? null : SIZE_FORM.exec(value.trim());
  const [, whole = "", fraction = "", unit = "", binary = ""] = match ?? [];
  // "10i" and "10iB" have the mark of a binary unit without a unit.
  if (!match || (binary !== "" && unit === "")) throw new ValueError(`${SIZE_EXPECTED}, got ${quoted(value)}`);
  const power = SIZE_UNITS.indexOf(unit.toUpperCase() as (typeof SIZE_UNITS)[number]);
  const bytes = scaled(whole, fraction, 1024n ** BigInt(power));
  if (bytes === undefined) throw new ValueError(`expected a size of whole bytes, got ${quoted(value)}; round it`);
  if (bytes > MAX_SIZE) throw new ValueError(`expected a size below 8E (8 EiB), got ${quoted(value)}`);
  return bytes;
}

/**
 * Writes a size for people, in units of 1024: `500 B`, `1.5 GiB`. At most two decimals, rounded towards zero, so that a
 * size just below a limit never reads as the limit; where the exact number matters, a message gives bytes as well.
 * @param bytes may be negative, for differences.
 */
export function formatSize(bytes: bigint): string {
  const sign = bytes < 0n ? "-" : "";
  const size = bytes < 0n ? -bytes : bytes;
  let power = 0;
  while (power < SIZE_UNITS.length - 1 && size >= 1024n ** BigInt(power + 1)) power++;
  if (power === 0) return `${sign}${size} B`;
  const hundredths = (size * 100n) / 1024n ** BigInt(power);
  const fraction = String(hundredths % 100n)
    .padStart(2, "0")
    .replace(/0+$/, "");
  return `${sign}${hundredths / 100n}${fraction && `.${fraction}`} ${SIZE_UNITS[power]}iB`;
}

/**
 * Reads a duration: numbers with the units `w` (7 days), `d` (24 hours), `h`, `m`, `s`, `ms`, put together as in
 * `1h30m`. A decimal fraction is fine when the result is whole milliseconds. A bare `0` needs no unit, as in Go, whose
 * form existing installations use.
 * @returns milliseconds, from 0 to {@link MAX_DURATION_MS}.
 * @throws {ValueError} for anything else, also for a number without a unit.
 */
export function parseDuration(value: string): number {
  const text = value.trim();
  if (text === "0") return 0;
  if (text.length > MAX_TEXT || !DURATION_FORM.test(text)) {
    const hint = /^\d+$/.test(text) ? "; the unit is missing" : "";
    throw new ValueError(`${DURATION_EXPECTED}, got ${quoted(value)}${hint}`);
  }
  let total = 0n;
  for (const [, whole = "", fraction = "", unit = ""] of text.matchAll(/(\d+)(?:\.(\d+))?(ms|[wdhms])/g)) {
    const part = scaled(whole, fraction, DURATION_UNITS.get(unit)!);
    if (part === undefined) throw new ValueError(`expected a duration of whole milliseconds, got ${quoted(value)}`);
    total += part;
  }
  if (total > BigInt(MAX_DURATION_MS)) throw new ValueError(`expected at most 36500d, got ${quoted(value)}`);
  return Number(total);
}

/**
 * Writes a duration in the form {@link parseDuration} reads, with days as the largest unit: `5d`, `1h30m`, `1.5s` as
 * `1s500ms`.
 * @param ms milliseconds, not negative; fractions are rounded.
 */
export function formatDuration(ms: number): string {
  let rest = Math.round(ms);
  if (rest <= 0) return "0s";
  let text = "";
  for (const [unit, size] of DURATION_UNITS) {
    if (unit === "w") continue; // "2w1d" is harder to read than "15d"
    const count = Math.floor(rest / Number(size));
    rest -= count * Number(size);
    if (count > 0) text += `${count}${unit}`;
  }
  return text;
}

/**
 * Two sizes that are compared, for people: in bytes where rounding would make them look the same.
 * @param one bytes
 * @param other bytes
 */
export function formatSizePair(one: bigint, other: bigint): [string, string] {
  const [first, second] = [formatSize(one), formatSize(other)];
  return first === second && one !== other ? [`${one} bytes`, `${other} bytes`] : [first, second];
}

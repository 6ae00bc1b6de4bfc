/** `JSON.rawJSON` of the language (ECMAScript 2026), which the compiler's library does not know yet. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };

/**
 * JSON of a value that may hold bigints. Every number of it is a number with all its digits, also above 2^53: one field
 * never is a number here and a text there. A reader that has no whole numbers of that size rounds it.
 */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? rawJSON(item.toString()) : item));
}

/** {@link toJson} and the end of the line, as commands print results for programs. */
export function jsonLine(value: unknown): string {
  return `${toJson(value)}\n`;
}

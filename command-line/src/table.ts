import { printable } from "./printable.ts";

/** A column of a table. */
export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/** Lays out rows under their titles, two spaces between columns, nothing after the last. */
export function table(columns: readonly Column[], rows: ReadonlyArray<readonly string[]>): string {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => row.map((cell) => printable(cell) || "-"))];
  const widths = columns.map((_, index) => Math.max(...cells.map((row) => width(row[index] ?? ""))));
  const lines = cells.map((row) =>
    columns
      .map(({ align }, index) => pad(row[index] ?? "", widths[index]!, align === "right"))
      .join("  ")
      .trimEnd(),
  );
  return lines.join("\n");
}

/** As {@link table}, with lines of at most so many characters; undefined for any length. */
export function fitted(
  columns: readonly Column[],
  rows: ReadonlyArray<readonly string[]>,
  columnsOfTerminal: number | undefined,
): string {
  const whole = table(columns, rows);
  if (columnsOfTerminal === undefined) return whole;
  return whole
    .split("\n")
    .map((line) => (width(line) <= columnsOfTerminal ? line : `${[...line].slice(0, columnsOfTerminal - 1).join("")}…`))
    .join("\n");
}

/**
 * Lays out names and values under each other; entries without a value are left out. An empty name goes on with the one
 * above.
 */
export function pairs(entries: ReadonlyArray<readonly [name: string, value: string | undefined]>): string {
  const shown = entries.filter(([, value]) => value !== undefined && value !== "");
  const length = Math.max(0, ...shown.map(([name]) => name.length));
  return shown
    .map(([name, value]) => `${(name === "" ? "" : `${name}:`).padEnd(length + 1)}  ${printable(value ?? "")}`)
    .join("\n");
}

function width(text: string): number {
  return [...text].length;
}

function pad(text: string, length: number, right: boolean): string {
  const space = " ".repeat(Math.max(0, length - width(text)));
  return right ? space + text : text + space;
}

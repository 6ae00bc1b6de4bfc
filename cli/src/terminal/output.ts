import type { Screen } from "../context.ts";
import { printable } from "./format.ts";

/** What a person or a program reads: results on standard output, everything else on standard error. */
export class Output {
  readonly isJson: boolean;
  readonly isQuiet: boolean;
  readonly stderr: Screen;
  readonly #stdout: Screen;
  #stdoutIsData = false;

  constructor(stdout: Screen, stderr: Screen, options: { json: boolean; quiet: boolean }) {
    this.#stdout = stdout;
    this.stderr = stderr;
    this.isJson = options.json;
    this.isQuiet = options.quiet;
  }

  /** Standard output now carries a dump; reports go to standard error from here on. */
  reserveStdout(): void {
    this.#stdoutIsData = true;
  }

  /** A result for a person. */
  line(text: string): void {
    this.#reports.write(`${text}\n`);
  }

  /** A result for a program: one line of JSON. */
  json(value: unknown): void {
    this.#reports.write(`${toJson(value)}\n`);
  }

  /** A remark on standard error; not with `--quiet`. */
  note(text: string): void {
    if (!this.isQuiet) this.stderr.write(`${text}\n`);
  }

  get #reports(): Screen {
    return this.#stdoutIsData ? this.stderr : this.#stdout;
  }
}

/** JSON of a value with bigints: as numbers where a number holds them exactly, as text otherwise. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => {
    if (typeof item !== "bigint") return item;
    const number = Number(item);
    return Number.isSafeInteger(number) ? number : item.toString();
  });
}

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

/** Lays out names and values under each other; entries without a value are left out. */
export function pairs(entries: ReadonlyArray<readonly [name: string, value: string | undefined]>): string {
  const shown = entries.filter(([, value]) => value !== undefined && value !== "");
  const length = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${`${name}:`.padEnd(length + 1)}  ${printable(value ?? "")}`).join("\n");
}

function width(text: string): number {
  return [...text].length;
}

function pad(text: string, length: number, right: boolean): string {
  const space = " ".repeat(Math.max(0, length - width(text)));
  return right ? space + text : text + space;
}

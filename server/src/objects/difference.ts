import { diff } from "node:util";

/** A text before and after a change, and what both are called. */
export interface Compared {
  /** For the headers; `/dev/null` stands for a side that is not there. */
  readonly file: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
  /** Line of the file where each begins, from 1. */
  readonly firstLine: { readonly before: number; readonly after: number };
}

/** Lines around a change that are shown. */
const CONTEXT = 3;
/** Lines that are compared one by one; where more differ, comparing them takes time with their square. */
const MAX_COMPARED = 2000;

type Line = readonly [sign: " " | "-" | "+", text: string];

/** A difference in the unified format (`diff -u`); empty for equal texts. */
export function unifiedDiff({ file, before, after, firstLine }: Compared): string {
  const lines = compare(linesOf(before), linesOf(after));
  const hunks = hunksOf(lines);
  if (hunks.length === 0) return "";
  const out = [`--- ${before === undefined ? "/dev/null" : file}`, `+++ ${after === undefined ? "/dev/null" : file}`];
  for (const [from, to] of hunks) {
    const shown = lines.slice(from, to);
    const at = (signs: string, first: number) => {
      const count = (some: readonly Line[]) => some.filter(([sign]) => signs.includes(sign)).length;
      return `${first + count(lines.slice(0, from))},${count(shown)}`;
    };
    out.push(`@@ -${at(" -", firstLine.before)} +${at(" +", firstLine.after)} @@`);
    out.push(...shown.map(([sign, text]) => sign + text));
  }
  return `${out.join("\n")}\n`;
}

function linesOf(text: string | undefined): string[] {
  return text === undefined || text === "" ? [] : text.replace(/\n$/, "").split("\n");
}

function compare(before: readonly string[], after: readonly string[]): Line[] {
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head++;
  let tail = 0;
  const most = Math.min(before.length, after.length) - head;
  while (tail < most && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const [old, now] = [before.slice(head, before.length - tail), after.slice(head, after.length - tail)];
  const same = (lines: readonly string[]) => lines.map((text): Line => [" ", text]);
  return [...same(before.slice(0, head)), ...changed(old, now), ...same(before.slice(before.length - tail))];
}

function changed(before: string[], after: string[]): Line[] {
  const all = (sign: "-" | "+", lines: readonly string[]) => lines.map((text): Line => [sign, text]);
  if (before.length === 0 || after.length === 0 || before.length + after.length > MAX_COMPARED)
    return [...all("-", before), ...all("+", after)];
  // 1 is for what only the first has, -1 for what only the second has.
  const entries = diff(before, after) as [operation: number, text: string][];
  return entries.map(([operation, text]): Line => [operation === 0 ? " " : operation === 1 ? "-" : "+", text]);
}

/** Ranges of lines with changes in them and some around. */
function hunksOf(lines: readonly Line[]): [from: number, to: number][] {
  const hunks: [number, number][] = [];
  for (const [index, [sign]] of lines.entries()) {
    if (sign === " ") continue;
    const [from, to] = [Math.max(0, index - CONTEXT), Math.min(lines.length, index + CONTEXT + 1)];
    const last = hunks.at(-1);
    if (last !== undefined && from <= last[1]) last[1] = to;
    else hunks.push([from, to]);
  }
  return hunks;
}

import { CST, Lexer } from "yaml";

/** Levels of lists and mappings in each other; a Kubernetes object of any kind has fewer. */
const MAX_LEVELS = 100;
/** Parts of a text as the lexer divides it; one MiB of usual objects has 400,000. */
const MAX_PARTS = 600_000;
/** Tags and anchors; each costs the parser more than other parts. */
const MAX_MARKS = 1000;

/** What is too much in a text, and where. */
export interface BoundProblem {
  readonly offset: number;
  readonly reason: string;
}

/** Control characters that the lexer puts before what they announce; they are not in the text. */
const CONTROL = new Set(["doc-mode", "flow-error-end", "scalar"]);

/**
 * Looks whether the parser may be given a text. It calls itself for every level and keeps an object for every part, so
 * that a megabyte of brackets took 15 seconds and a gigabyte; the lexer only goes along.
 *
 * Levels in block style are counted by the columns in which their items and fields begin, which grow from level to
 * level; a list in the column of its field counts as the field's own level.
 */
export function boundProblem(text: string): BoundProblem | undefined {
  let offset = 0;
  let lineStart = 0;
  let parts = 0;
  let marks = 0;
  let flow = 0;
  /** Whether an item or field may begin here: nothing but blanks and indicators stood before in this line. */
  let isAtStart = true;
  const columns: number[] = [];
  const begin = () => {
    const column = offset - lineStart;
    while ((columns.at(-1) ?? -1) >= column) columns.pop();
    columns.push(column);
  };
  for (const part of new Lexer().lex(text)) {
    const type = CST.tokenType(part);
    if (type !== null && CONTROL.has(type)) continue;
    parts++;
    if (parts > MAX_PARTS)
      return { offset, reason: `expected a file of at most ${MAX_PARTS} words and signs, got more; split the file` };
    if (type === "flow-seq-start" || type === "flow-map-start") flow++;
    else if (type === "flow-seq-end" || type === "flow-map-end") flow = Math.max(0, flow - 1);
    else if ((type === "tag" || type === "anchor") && ++marks > MAX_MARKS)
      return { offset, reason: `expected at most ${MAX_MARKS} tags and anchors, got more; write the values out` };
    if (flow === 0 && isAtStart && type !== "space" && type !== "newline" && type !== "comment") {
      begin();
      isAtStart = type === "seq-item-ind" || type === "explicit-key-ind" || type === "map-value-ind";
    }
    if (columns.length + flow > MAX_LEVELS)
      return { offset, reason: `expected nested lists and mappings of at most ${MAX_LEVELS} levels, got more` };
    offset += part.length;
    // A part may have line breaks in it: a text over several lines.
    const lineBreak = part.lastIndexOf("\n");
    if (lineBreak >= 0) {
      lineStart = offset - (part.length - lineBreak - 1);
      isAtStart = true;
    }
    if (type === "doc-start") columns.length = 0;
  }
  return undefined;
}

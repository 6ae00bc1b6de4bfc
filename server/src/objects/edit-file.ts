import { isMap, isSeq, parseAllDocuments, parseDocument, stringify } from "yaml";
import type { ConfigObject } from "./document.ts";
import { PARSE_FORM, YAML_FORM } from "./show-object.ts";

/** What becomes of an object in its file: another text, or none. */
export interface ObjectEdit {
  readonly written: ConfigObject["written"];
  /** Its new document, without `---`; undefined to take it out. */
  readonly text: string | undefined;
}

/**
 * Changes objects of one file, and nothing else in it: of every other document not a letter. An object that is an item
 * of a `List` shares its document, which is written again as the library does, with its comments.
 * @returns the new text; undefined when nothing is left that says anything.
 */
export function editFile(file: string, text: string, edits: readonly ObjectEdit[]): string | undefined {
  const byDocument = [...Map.groupBy(edits, ({ written }) => written.start).values()];
  let out = text;
  for (const group of byDocument.sort((a, b) => b[0]!.written.start - a[0]!.written.start)) {
    const { start, end } = group[0]!.written;
    const document = text.slice(start, end);
    const isList = group[0]!.written.item !== undefined;
    const edited = isList ? editedList(document, group) : editedDocument(file, document, group[0]!.text);
    out = out.slice(0, start) + edited + out.slice(end);
  }
  const left = parseAllDocuments(out, PARSE_FORM);
  return Array.isArray(left) && left.some(({ contents }) => contents !== null) ? out : undefined;
}

/** Adds an object to a file's text, as its last document. */
export function appendObject(text: string | undefined, document: string): string {
  if (text === undefined || text.trim() === "") return document;
  return `${text.trimEnd().replace(/\n\.\.\.$/, "")}\n---\n${document}`;
}

/** The form that a file keeps its documents in. JSON is not left in a YAML file, where people would have to edit it. */
export function inFormOf(file: string, document: string): string {
  const isJson = isJsonText(document);
  if (file.endsWith(".json"))
    return isJson ? document : `${JSON.stringify(parseDocument(document, PARSE_FORM).toJS(), undefined, 2)}\n`;
  return isJson ? stringify(JSON.parse(document), YAML_FORM) : document;
}

function isJsonText(text: string): boolean {
  if (!text.trimStart().startsWith("{")) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function editedDocument(file: string, document: string, text: string | undefined): string {
  if (text === undefined) return "";
  // What begins and ends the document stays, with a comment beside it.
  const marker = /^---(?:[ \t]+#[^\n]*)?[ \t]*\r?\n/.exec(document)?.[0] ?? (document.startsWith("---") ? "---\n" : "");
  const end = /\n(\.\.\.[^\n]*\n?)\s*$/.exec(document)?.[1] ?? "";
  return marker + inFormOf(file, text) + end;
}

function editedList(text: string, edits: readonly ObjectEdit[]): string {
  const document = parseDocument(text, PARSE_FORM);
  const items = isMap(document.contents) ? document.contents.get("items", true) : undefined;
  if (!isSeq(items)) return text;
  for (const { written, text: object } of edits.toSorted((a, b) => b.written.item! - a.written.item!)) {
    if (object === undefined) items.delete(written.item!);
    else items.set(written.item!, document.createNode(parseDocument(object, PARSE_FORM).toJS()));
  }
  if (items.items.length === 0) return "";
  const edited = document.toString(YAML_FORM);
  return text.startsWith("---") && !edited.startsWith("---") ? `---\n${edited}` : edited;
}

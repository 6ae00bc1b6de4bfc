import { type Document, isMap, isPair, isScalar, parseDocument, stringify, type YAMLMap } from "yaml";
import type { ConfigObject } from "./document.ts";
import { hideSecrets } from "./hide-secrets.ts";

/** An object's own text, and what kind it is; from a document that was read without an error. */
export interface ObjectText {
  readonly kind: ConfigObject["kind"];
  readonly name: string;
  readonly text: string;
}

/** How documents are written here: lines as long as they are, since they are compared line by line. */
export const YAML_FORM = { lineWidth: 0, minContentWidth: 0 } as const;

/** How a document is read again that was read without an error. */
export const PARSE_FORM = { stringKeys: true, uniqueKeys: false, logLevel: "silent" } as const;

/**
 * The text of an object alone: that of its document without the `---`, or the item of a `List` written out.
 * @param text of the whole file.
 */
export function objectText({ kind, name, written }: ConfigObject, text: string): ObjectText {
  const document = text.slice(written.start, written.end);
  if (written.item === undefined) return { kind, name, text: withoutMarkers(document) };
  const { items } = parseDocument(document, PARSE_FORM).toJS() as { items: unknown[] };
  return { kind, name, text: stringify(items[written.item], YAML_FORM) };
}

/** A document's text without the line that begins it and the one that ends it. */
export function withoutMarkers(document: string): string {
  const body = document
    .replace(/^---(?:[ \t]+#[^\n]*)?[ \t]*\r?\n|^---(?=[ \t])/, "")
    .replace(/\r?\n\.\.\.[^\n]*\s*$/, "\n");
  return body.endsWith("\n") || body === "" ? body : `${body}\n`;
}

/** An object as people may see it, as it is written. */
export function shownObject({ kind, text }: ObjectText, format: "yaml" | "json"): string {
  const shown = hideSecrets(kind, text);
  return format === "yaml" ? shown : `${JSON.stringify(parseDocument(shown, PARSE_FORM).toJS(), undefined, 2)}\n`;
}

/**
 * An object as it is in effect: with the fields that it has from its defaults, each with a comment that says so.
 * @param defaults that it names; undefined where it names none.
 */
export function effectiveObject(object: ObjectText, defaults: ObjectText | undefined, format: "yaml" | "json"): string {
  if (defaults === undefined) return shownObject(object, format);
  const own = parseDocument(hideSecrets(object.kind, object.text), PARSE_FORM);
  const spec = specOf(own);
  const others = (parseDocument(hideSecrets(defaults.kind, defaults.text), PARSE_FORM).toJS() as { spec?: object })
    .spec;
  for (const [field, value] of Object.entries(others ?? {})) {
    if (spec === undefined || value === null || !isMissing(spec, field)) continue;
    spec.delete(field);
    const pair = own.createPair(field, value);
    if (isScalar(pair.key)) pair.key.commentBefore = ` from BackupCollectionDefaults ${defaults.name}`;
    spec.add(pair);
  }
  return format === "yaml" ? own.toString(YAML_FORM) : `${JSON.stringify(own.toJS(), undefined, 2)}\n`;
}

/** The name of the BackupCollectionDefaults that an object's text names. */
export function defaultsNameOf({ kind, text }: ObjectText): string | undefined {
  if (kind !== "BackupCollection") return undefined;
  const { spec } = parseDocument(text, PARSE_FORM).toJS() as { spec?: { defaultsRef?: unknown } };
  return typeof spec?.defaultsRef === "string" ? spec.defaultsRef : undefined;
}

function specOf(document: Document): YAMLMap | undefined {
  const spec = document.get("spec", true);
  return isMap(spec) ? spec : undefined;
}

/** As a reader sees it: a field without a value counts as left out. Merged-in fields (`<<`) are of the mapping too. */
function isMissing(spec: YAMLMap, field: string): boolean {
  const pair = spec.items.find((each) => isPair(each) && isScalar(each.key) && each.key.value === field);
  if (pair !== undefined) return isScalar(pair.value) ? pair.value.value === null : pair.value == null;
  return true;
}

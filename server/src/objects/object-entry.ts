import { createHash } from "node:crypto";
import { type ConfigFile, type ConfigKind, type ConfigObject, readDocuments } from "./document.ts";
import { Findings } from "./problem.ts";

/** A configuration object and where it is written; nothing of what it says. */
export interface ObjectEntry {
  readonly kind: ConfigKind;
  readonly name: string;
  /** Empty for none. */
  readonly namespace: string;
  /** Relative to the configuration directory, with `/`. */
  readonly file: string;
  /** Line of its name, from 1. */
  readonly line: number;
  /** Another one for every other text of its document, but for comments after its end. */
  readonly revision: string;
}

/** Which object is meant. */
export interface ObjectName {
  readonly kind: ConfigKind;
  readonly name: string;
}

/** Hexadecimal digits of a revision; 64 bits tell two texts of one object apart. */
const REVISION_LENGTH = 16;

/** The revision of an object in its file's text. */
export function revisionOf(text: string, { start, contentEnd, item }: ConfigObject["written"]): string {
  const hash = createHash("sha256").update(text.slice(start, contentEnd).trim());
  if (item !== undefined) hash.update(`\nitem ${item}`);
  return hash.digest("hex").slice(0, REVISION_LENGTH);
}

/** The entries of objects that were read from these files, by kind and name. */
export function entriesOf(objects: readonly ConfigObject[], files: readonly ConfigFile[]): ObjectEntry[] {
  const texts = new Map(files.map(({ file, text }) => [file, text]));
  return objects
    .map((object) => entryOf(object, texts.get(object.namePlace.file) ?? ""))
    .sort((a, b) => (sortKey(a) < sortKey(b) ? -1 : 1));
}

/** By kind, then by name: no kind has a slash in it. */
export function sortKey({ kind, name }: Pick<ObjectEntry, "kind" | "name">): string {
  return `${kind}/${name}`;
}

function entryOf({ kind, name, namespace, namePlace, written }: ConfigObject, text: string): ObjectEntry {
  const { file, line } = namePlace;
  return { kind, name, namespace, file, line, revision: revisionOf(text, written) };
}

/** Finds an object in a file's text; undefined where it is not, or not any more. */
export function findObject(
  file: ConfigFile,
  { kind, name }: Pick<ObjectEntry, "kind" | "name">,
): { readonly object: ConfigObject; readonly entry: ObjectEntry } | undefined {
  const object = readDocuments(file, new Findings()).find((each) => each.kind === kind && each.name === name);
  return object && { object, entry: entryOf(object, file.text) };
}

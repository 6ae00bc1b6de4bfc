import { isMap, isScalar, isSeq, parseDocument } from "yaml";
import { type ConfigObject, readDocuments } from "./document.ts";
import { HIDDEN } from "./hide-secrets.ts";
import type { ObjectName } from "./object-entry.ts";
import { Findings } from "./problem.ts";
import { type ObjectText, PARSE_FORM } from "./show-object.ts";

/** What the documents of a request are called in findings. */
export const SUBMISSION_FILE = "-";

/** Documents that somebody wants to be in force. */
export interface Submission {
  /** With the values in place that are hidden for whoever wrote it. */
  readonly text: string;
  readonly objects: readonly ConfigObject[];
  /** The same objects in the text as it was given. */
  readonly given: { readonly text: string; readonly objects: readonly ConfigObject[] };
  readonly findings: Findings;
}

/**
 * Reads documents that are to be applied. What a directory may hold beside, documents that are no objects of this
 * server, is a mistake here.
 * @param existing gives the text of an object that there is, for values that are {@link HIDDEN}.
 */
export function readSubmission(given: string, existing: (object: ObjectName) => ObjectText | undefined): Submission {
  const { objects, findings } = read(given);
  const asGiven = { text: given, objects };
  if (!given.includes(HIDDEN)) return { ...asGiven, given: asGiven, findings };
  let text = given;
  for (const object of objects.toReversed()) text = unhidden(text, object, existing(object), findings);
  const again = read(text);
  return {
    text,
    objects: again.objects,
    given: asGiven,
    findings: findings.errorCount > 0 ? findings : again.findings,
  };
}

function read(text: string): { objects: ConfigObject[]; findings: Findings } {
  const found = new Findings();
  const objects = readDocuments({ file: SUBMISSION_FILE, text }, found);
  const findings = new Findings();
  for (const { reason, ...place } of [...found.problems(), ...found.warnings()]) findings.error(place, reason);
  return { objects, findings };
}

/** The text with the values that stand in the object as it is now, wherever the submitted one says that it is hidden. */
function unhidden(
  text: string,
  { namePlace, written }: ConfigObject,
  existing: ObjectText | undefined,
  findings: Findings,
): string {
  const document = parseDocument(text.slice(written.start, written.end), PARSE_FORM);
  const now = existing === undefined ? undefined : (parseDocument(existing.text, PARSE_FORM).toJS() as unknown);
  const cuts: { start: number; end: number; value: string }[] = [];
  const walk = (node: unknown, there: unknown): void => {
    if (isMap(node)) {
      for (const { key, value } of node.items)
        if (isScalar(key)) walk(value, (there as Record<string, unknown> | undefined | null)?.[String(key.value)]);
    } else if (isSeq(node)) {
      const items = Array.isArray(there) ? (there as unknown[]) : [];
      for (const [index, item] of node.items.entries()) walk(item, counterpart(items, item, index));
    } else if (isScalar(node) && node.value === HIDDEN) {
      const [start, end] = node.range ?? [0, 0];
      if (typeof there === "string") cuts.push({ start, end, value: there });
      else
        findings.error(lineOf(text, namePlace, written.start + start), `${HIDDEN} means "as it is", but there is none`);
    }
  };
  const root = document.contents;
  const items = isMap(root) && written.item !== undefined ? root.get("items", true) : undefined;
  walk(isSeq(items) ? items.items[written.item!] : root, now);
  return cuts.reduceRight(
    (out, { start, end, value }) =>
      out.slice(0, written.start + start) + JSON.stringify(value) + out.slice(written.start + end),
    text,
  );
}

/** An item of a list as it is now. Access keys are found by their names alone: a new one has nothing of another. */
function counterpart(items: readonly unknown[], item: unknown, index: number): unknown {
  const name = isMap(item) ? item.get("name") : undefined;
  if (name === undefined) return items[index];
  return items.find((other) => (other as { name?: unknown } | null)?.name === name);
}

function lineOf(text: string, place: ConfigObject["namePlace"], offset: number): ConfigObject["namePlace"] {
  return { ...place, line: text.slice(0, offset).split("\n").length, path: "" };
}

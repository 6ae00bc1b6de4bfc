import { isDeepStrictEqual } from "node:util";
import type { Configuration } from "../domain/configuration.ts";
import { unifiedDiff } from "./difference.ts";
import { API_VERSION_OF, type ConfigFile, type ConfigObject, readDocuments } from "./document.ts";
import { appendObject, editFile, inFormOf, type ObjectEdit } from "./edit-file.ts";
import { hideSecretsOfBoth } from "./hide-secrets.ts";
import { entriesOf, type ObjectEntry, type ObjectName, sortKey } from "./object-entry.ts";
import { type ConfigProblem, Findings } from "./problem.ts";
import { interpret } from "./read-objects.ts";
import { objectText } from "./show-object.ts";
import { readSubmission, SUBMISSION_FILE } from "./submission.ts";

/** A change that is wanted: documents to be in force, in place of those of their names, or an object to be gone. */
export type WantedChange = { readonly documents: string } | { readonly remove: ObjectName };

/** What becomes of one object. */
export interface PlannedObject {
  readonly action: "created" | "changed" | "unchanged" | "deleted";
  /** As it is afterwards; as it was, for one that is deleted. */
  readonly entry: ObjectEntry;
  /** As it is on disk before; undefined for one that is created. */
  readonly before: ObjectEntry | undefined;
  /**
   * Its document as it was given, for whoever commits it by hand: values that were given as hidden still are. Empty for
   * one that is deleted.
   */
  readonly document: string;
}

/** A file to be written; `text` is undefined for one that is to be removed. */
export interface PlannedFile {
  readonly file: string;
  /** The text it was planned with; undefined where there was no such file. */
  readonly before: string | undefined;
  readonly text: string | undefined;
  /** Whether a Secret is in it. */
  readonly isSecret: boolean;
}

/** A change that was judged. Nothing of it may be carried out while `problems` is not empty. */
export interface ChangePlan {
  /** Every object that the change names, also where it is refused. */
  readonly named: readonly ObjectName[];
  readonly objects: readonly PlannedObject[];
  readonly problems: readonly ConfigProblem[];
  /** About the objects that are changed. */
  readonly warnings: readonly ConfigProblem[];
  /** What changes, in the unified format, without secrets. */
  readonly diff: string;
  /** In the order in which they are to be written: what others refer to first, what is removed last. */
  readonly files: readonly PlannedFile[];
  /** The configuration as it would be. */
  readonly after: Configuration;
}

/** Files of a source as they were read. */
interface SourceFiles {
  readonly files: readonly ConfigFile[];
  readonly findings: Findings;
}

const NO_CONFIGURATION: Configuration = { users: new Map(), collections: new Map(), organizations: new Map() };
/** Folder of objects where nothing says another. */
const DEFAULT_NAMESPACE = "strongroom";
/** Other objects refer to these, so that they come first when several files are written. */
const WRITTEN_FIRST = ["Secret", "BackupOrganization", "BackupCollectionDefaults", "BackupCollection"];

const NOTHING: ConfigProblem = {
  file: SUBMISSION_FILE,
  line: 1,
  path: "",
  reason: "expected a document with apiVersion, kind, metadata and spec, got none",
  severity: "error",
};

/** A wanted object and the one of its name that there is. */
interface Wanted {
  readonly object: ConfigObject;
  /** To be written. */
  readonly document: string;
  /** As it was given: hidden values are not in place. */
  readonly given: string;
  readonly now: ConfigObject | undefined;
  readonly file: string;
}

/** Plans a change of the files of a source, and judges what would be there afterwards, as the reader does. */
export async function planChange({ files, findings }: SourceFiles, change: WantedChange): Promise<ChangePlan> {
  const texts = new Map(files.map(({ file, text }) => [file, text]));
  const now = new Map<string, ConfigObject>();
  for (const object of files.flatMap((file) => readDocuments(file, new Findings())))
    if (!now.has(sortKey(object))) now.set(sortKey(object), object);
  const textNow = (name: ObjectName) => {
    const object = now.get(sortKey(name));
    return object && objectText(object, texts.get(object.namePlace.file)!);
  };

  const submission = readSubmission("documents" in change ? change.documents : "", textNow);
  if ("documents" in change && submission.findings.errorCount > 0)
    return refusedPlan(submission.objects, submission.findings.problems());
  if ("documents" in change && submission.objects.length === 0) return refusedPlan([], [NOTHING]);
  const removed = "remove" in change ? [now.get(sortKey(change.remove))].flatMap((object) => object ?? []) : [];
  const namespace = usualNamespace(now.values());
  const wanted = submission.objects.map((object, index): Wanted => {
    const there = now.get(sortKey(object));
    const { text } = objectText(object, submission.text);
    const given = objectText(submission.given.objects[index]!, submission.given.text).text;
    return { object, document: text, given, now: there, file: there?.namePlace.file ?? fileFor(object, namespace) };
  });
  const twice = wanted.filter(({ object }, i) => wanted.findIndex((one) => isSameName(one.object, object)) !== i);
  if (twice.length > 0)
    return refusedPlan(
      submission.objects,
      twice.map(({ object }) => givenTwice(object)),
    );
  const unnamed = wanted.flatMap(({ now: there, object }) => (there === undefined ? (nameProblem(object) ?? []) : []));
  if (unnamed.length > 0) return refusedPlan(submission.objects, unnamed);

  const after = edited(texts, wanted, removed);
  const composed = [...after].flatMap(([file, text]) => (text === undefined ? [] : [{ file, text }]));
  const loaded = await interpret({ files: composed, findings: copyOf(findings) });
  if (loaded.problems.length > 0) {
    const places = await placedProblems(texts, wanted, removed, submission.text, findings);
    return refusedPlan(submission.objects, places.length > 0 ? places : loaded.problems);
  }
  const before = entriesOf([...now.values()], files);
  requireOnlyWanted(before, loaded.objects, wanted, removed);
  return { ...described({ texts, after, wanted, removed, before, loaded }), after: loaded.configuration };
}

function refusedPlan(objects: readonly ObjectName[], problems: readonly ConfigProblem[]): ChangePlan {
  const named = objects.map(({ kind, name }) => ({ kind, name }));
  return { named, objects: [], problems, warnings: [], diff: "", files: [], after: NO_CONFIGURATION };
}

function copyOf(findings: Findings): Findings {
  const copy = new Findings();
  for (const { reason, ...place } of findings.problems()) copy.error(place, reason);
  return copy;
}

/** The texts of all files after the change; undefined for one that goes. */
function edited(
  texts: ReadonlyMap<string, string>,
  wanted: readonly Wanted[],
  removed: readonly ConfigObject[],
): Map<string, string | undefined> {
  const after = new Map<string, string | undefined>(texts);
  const edits = [
    ...wanted.flatMap(({ now, document, file }) => {
      if (now === undefined || isSame(now, texts.get(file)!, document)) return [];
      return [{ file, edit: { written: now.written, text: document } }];
    }),
    ...removed.map(({ namePlace, written }) => ({ file: namePlace.file, edit: { written, text: undefined } })),
  ] satisfies { file: string; edit: ObjectEdit }[];
  for (const [file, some] of Map.groupBy(edits, (each) => each.file))
    after.set(
      file,
      editFile(
        file,
        texts.get(file)!,
        some.map(({ edit }) => edit),
      ),
    );
  for (const { now, document, file } of wanted)
    if (now === undefined) after.set(file, appendObject(after.get(file), inFormOf(file, document)));
  return after;
}

/** Whether the document of an object is this one already, whatever blank lines stand around it. */
function isSame(now: ConfigObject, text: string, document: string): boolean {
  const there = objectText(now, text).text;
  return there.trim() === inFormOf(now.namePlace.file, document).trim();
}

/**
 * The problems again, with places in the documents as they were given: what they replace is blanked out, and they are
 * read as a file of their own.
 */
async function placedProblems(
  texts: ReadonlyMap<string, string>,
  wanted: readonly Wanted[],
  removed: readonly ConfigObject[],
  submission: string,
  findings: Findings,
): Promise<ConfigProblem[]> {
  const gone = [...wanted.flatMap(({ now }) => now ?? []), ...removed];
  const files = [...texts].map(([file, text]) => {
    const here = gone.filter(({ namePlace }) => namePlace.file === file);
    const items = here.filter(({ written }) => written.item !== undefined);
    if (items.length > 0) {
      const edits = here.map(({ written }) => ({ written, text: undefined }));
      return { file, text: editFile(file, text, edits) ?? "" };
    }
    return { file, text: here.reduce((out, { written }) => blanked(out, written), text) };
  });
  if (submission !== "") files.push({ file: SUBMISSION_FILE, text: submission });
  const read = files.filter(({ file, text }) => text.trim() !== "" || texts.get(file)?.trim() === "");
  return (await interpret({ files: read, findings: copyOf(findings) })).problems;
}

function blanked(text: string, { start, end }: ConfigObject["written"]): string {
  return text.slice(0, start) + text.slice(start, end).replaceAll(/[^\n]/g, " ") + text.slice(end);
}

/** A last look at what the editing did: nothing but what was wanted may be another text now. */
function requireOnlyWanted(
  before: readonly ObjectEntry[],
  after: readonly ObjectEntry[],
  wanted: readonly Wanted[],
  removed: readonly ConfigObject[],
): void {
  const touched = new Set([...wanted.map(({ object }) => object), ...removed].map(sortKey));
  // Items of a list share their document, and with it the revision.
  const lists = [...wanted.flatMap(({ now }) => now ?? []), ...removed].filter(
    ({ written }) => written.item !== undefined,
  );
  const shared = new Set(lists.map(({ namePlace }) => namePlace.file));
  const others = (entries: readonly ObjectEntry[]) =>
    entries
      .filter((entry) => !touched.has(sortKey(entry)))
      .map(({ kind, name, file, revision }) => [kind, name, file, shared.has(file) ? "" : revision]);
  if (!isDeepStrictEqual(others(before), others(after)))
    throw new Error("a change of configuration objects would touch others; nothing was written");
}

interface Described {
  readonly texts: ReadonlyMap<string, string>;
  readonly after: ReadonlyMap<string, string | undefined>;
  readonly wanted: readonly Wanted[];
  readonly removed: readonly ConfigObject[];
  readonly before: readonly ObjectEntry[];
  readonly loaded: { readonly objects: readonly ObjectEntry[]; readonly warnings: readonly ConfigProblem[] };
}

function described({ texts, after, wanted, removed, before, loaded }: Described): Omit<ChangePlan, "after"> {
  const was = new Map(before.map((entry) => [sortKey(entry), entry]));
  const is = new Map(loaded.objects.map((entry) => [sortKey(entry), entry]));
  const places = new Map<string, ConfigObject[]>();
  const placeAfter = (entry: ObjectEntry) => {
    const text = after.get(entry.file)!;
    if (!places.has(entry.file)) places.set(entry.file, readDocuments({ file: entry.file, text }, new Findings()));
    return places.get(entry.file)!.find((each) => sortKey(each) === sortKey(entry))!;
  };
  const objects: PlannedObject[] = [];
  const diffs: string[] = [];
  for (const { object, now, document, given, file } of wanted) {
    const entry = is.get(sortKey(object))!;
    const isUnchanged = now !== undefined && isSame(now, texts.get(file)!, document);
    const action = now === undefined ? "created" : isUnchanged ? "unchanged" : "changed";
    objects.push({ action, entry, before: was.get(sortKey(object)), document: given });
    if (!isUnchanged) diffs.push(difference(now, texts.get(file), placeAfter(entry), after.get(file)));
  }
  for (const object of removed) {
    const entry = was.get(sortKey(object))!;
    objects.push({ action: "deleted", entry, before: entry, document: "" });
    diffs.push(difference(object, texts.get(entry.file), undefined, undefined));
  }
  const warnings = loaded.warnings.filter((warning) =>
    objects.some(({ action, entry }) => {
      if (action === "deleted" || entry.file !== warning.file) return false;
      const { written } = placeAfter(entry);
      const line = (offset: number) => after.get(entry.file)!.slice(0, offset).split("\n").length;
      return warning.line >= line(written.start) && warning.line <= line(written.end);
    }),
  );
  const named = objects.map(({ entry: { kind, name } }) => ({ kind, name }));
  return { named, objects, problems: [], warnings, diff: diffs.join(""), files: changedFiles(texts, after, objects) };
}

function difference(
  before: ConfigObject | undefined,
  textBefore: string | undefined,
  after: ConfigObject | undefined,
  textAfter: string | undefined,
): string {
  const { kind, namePlace } = (after ?? before)!;
  const of = (object: ConfigObject | undefined, text: string | undefined) =>
    object === undefined ? "" : objectText(object, text!).text;
  const [old, now] = hideSecretsOfBoth(kind, of(before, textBefore), of(after, textAfter));
  const firstLine = (object: ConfigObject | undefined, text: string | undefined) => {
    if (object === undefined) return 0;
    const { start, end } = object.written;
    const lines = (some: string) => some.split("\n").length;
    return lines(text!.slice(0, start)) + (text!.slice(start, end).startsWith("---\n") ? 1 : 0);
  };
  return unifiedDiff({
    file: namePlace.file,
    before: before === undefined ? undefined : old,
    after: after === undefined ? undefined : now,
    firstLine: { before: firstLine(before, textBefore), after: firstLine(after, textAfter) },
  });
}

function changedFiles(
  texts: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string | undefined>,
  objects: readonly PlannedObject[],
): PlannedFile[] {
  const rank = (file: string, text: string | undefined) => {
    if (text === undefined) return WRITTEN_FIRST.length + 1;
    const ranks = objects
      .filter(({ entry }) => entry.file === file)
      .map(({ entry }) => WRITTEN_FIRST.indexOf(entry.kind));
    return Math.min(...ranks.map((each) => (each < 0 ? WRITTEN_FIRST.length : each)));
  };
  return [...after]
    .filter(([file, text]) => texts.get(file) !== text)
    .map(([file, text]) => ({
      file,
      before: texts.get(file),
      text,
      isSecret: objects.some(({ entry }) => entry.file === file && entry.kind === "Secret"),
    }))
    .sort((a, b) => rank(a.file, a.text) - rank(b.file, b.text));
}

/** The namespace that most objects have. */
function usualNamespace(objects: Iterable<ConfigObject>): string {
  const counts = new Map<string, number>();
  for (const { namespace } of objects) if (namespace !== "") counts.set(namespace, (counts.get(namespace) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? DEFAULT_NAMESPACE;
}

/** Where an object is written that is nowhere yet: in the layout of existing installations. */
function fileFor({ kind, name, namespace }: ConfigObject, usual: string): string {
  const folder = kind.toLowerCase().replace(/(?<!s)$/, "s");
  return `${namespace || usual}/${API_VERSION_OF.get(kind)}/${folder}/${name}.yaml`;
}

function isSameName(one: ObjectName, other: ObjectName): boolean {
  return sortKey(one) === sortKey(other);
}

function givenTwice({ kind, name, namePlace }: ConfigObject): ConfigProblem {
  return { ...namePlace, reason: `${kind} "${name}" is given twice; leave one of them out`, severity: "error" };
}

/** Names become names of files here; the reader is less strict with those of Secrets, and with namespaces. */
function nameProblem({ name, namespace, namePlace }: ConfigObject): ConfigProblem | undefined {
  const isFileName = (text: string) => /^[A-Za-z0-9][A-Za-z0-9@._-]{0,199}$/.test(text) && !text.endsWith(".");
  if (isFileName(name) && (namespace === "" || isFileName(namespace))) return undefined;
  const reason =
    'expected a name and a namespace of 1 to 200 letters, digits, "@", ".", "_" and "-", beginning with a letter or ' +
    "digit, since a new object is written to a file of that name";
  return { ...namePlace, reason, severity: "error" };
}

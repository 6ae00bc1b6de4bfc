import {
  type Alias,
  type Document,
  isMap,
  isScalar,
  LineCounter,
  parseAllDocuments,
  visit,
  type YAMLError,
  type YAMLMap,
} from "yaml";
import { type BoundProblem, boundProblem } from "./document-bounds.ts";
import { suggestion } from "./names.ts";
import { type NodeContext, ObjectNode } from "./node.ts";
import type { Findings, Place } from "./problem.ts";

/** A configuration file that was read. */
export interface ConfigFile {
  /** Name in its source: a path relative to the configuration directory, with `/`. */
  readonly file: string;
  readonly text: string;
}

/** Group and version of users, collections and organizations, as existing installations write it. */
export const API_VERSION = "backups.riotkit.org/v1alpha1";

/** The kinds that are read, with the apiVersion each must have. */
export const API_VERSION_OF: ReadonlyMap<string, string> = new Map([
  ["BackupUser", API_VERSION],
  ["BackupCollection", API_VERSION],
  ["BackupCollectionDefaults", API_VERSION],
  ["BackupOrganization", API_VERSION],
  ["BackupNotifier", API_VERSION],
  ["Secret", "v1"],
]);

/** A kind that is read. */
export type ConfigKind =
  | "BackupUser"
  | "BackupCollection"
  | "BackupCollectionDefaults"
  | "BackupOrganization"
  | "BackupNotifier"
  | "Secret";

/** A document of a known kind; its fields beyond kind and name are not yet checked. */
export interface ConfigObject {
  readonly kind: ConfigKind;
  readonly name: string;
  /** `metadata.namespace`, else the first folder of its file in the usual layout; empty for none. */
  readonly namespace: string;
  /** Where the name stands. */
  readonly namePlace: Place;
  readonly root: ObjectNode;
  readonly written: WrittenIn;
}

/** Which part of a file's text an object is. */
export interface WrittenIn {
  /** Of the document it is in: its `---`, or else the comments before it. */
  readonly start: number;
  /** Where what it says ends; comments may follow. */
  readonly contentEnd: number;
  /** Where the next document begins, or the text ends. */
  readonly end: number;
  /** Its place among the items of a `List`; undefined for a document of its own. */
  readonly item: number | undefined;
}

/** Aliases of one document; each may stand for a large part of it, and parts multiply. */
const MAX_ALIASES = 100;

/** The parser's own messages quote the source, which may be a secret, so each of its codes has a text here. */
const SYNTAX: Readonly<Record<string, string>> = {
  BAD_ALIAS: "an alias without its anchor; a text that begins with * needs quotes",
  BAD_DQ_ESCAPE: 'an unknown escape sequence in a text in "double quotes"; use single quotes',
  BAD_INDENT: "the indentation does not fit the lines before",
  BAD_SCALAR_START: "a text begins with a character that has a meaning in YAML; put it in quotes",
  BLOCK_AS_IMPLICIT_KEY: "a second ':' on one line; put the text in quotes",
  DUPLICATE_KEY: "the same field twice in one mapping; remove one",
  MISSING_CHAR: "a quote, bracket, comma or space after ':' is missing",
  MULTILINE_IMPLICIT_KEY: "a line without ':', or a text over several lines without quotes",
  NON_STRING_KEY: "a field name that is no text; put it in quotes",
  TAB_AS_INDENT: "a tab in the indentation; use spaces",
  TAG_RESOLVE_FAILED: "an unknown tag (!...); remove it",
  UNEXPECTED_TOKEN:
    "something unexpected; often a text that needs quotes, as one that begins with *, or an indentation that " +
    "does not fit",
};

function syntaxReason(error: YAMLError): string {
  return `not valid YAML: ${SYNTAX[error.code] ?? `the parser says ${error.code}`}`;
}

/**
 * Looks at what the parser is not asked for: aliases, which it leaves until values are read, and fields that stand
 * twice, for which it would compare each with each. Gives the offset and reason of a problem.
 */
function nodeProblem(document: Document): BoundProblem | undefined {
  const aliases: Alias[] = [];
  let twice: BoundProblem | undefined;
  visit(document, {
    Alias: (_key, alias) => void aliases.push(alias),
    Map: (_key, map) => {
      twice = fieldTwice(map);
      return twice === undefined ? undefined : visit.BREAK;
    },
  });
  if (twice !== undefined) return twice;
  if (aliases.length > MAX_ALIASES) {
    const reason = `expected at most ${MAX_ALIASES} aliases in a document, got ${aliases.length}; write the values out`;
    return { offset: aliases[MAX_ALIASES]?.range?.[0] ?? 0, reason };
  }
  const lost = aliases.find((alias) => alias.resolve(document) === undefined);
  return lost && { offset: lost.range?.[0] ?? 0, reason: `not valid YAML: ${SYNTAX.BAD_ALIAS}` };
}

function fieldTwice(map: YAMLMap): BoundProblem | undefined {
  const names = new Set<unknown>();
  for (const { key } of map.items) {
    if (!isScalar(key)) continue;
    if (names.has(key.value)) return { offset: key.range?.[0] ?? 0, reason: `not valid YAML: ${SYNTAX.DUPLICATE_KEY}` };
    names.add(key.value);
  }
  return undefined;
}

function parse(text: string, lines: LineCounter): Document[] {
  const options = {
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
    uniqueKeys: false,
    logLevel: "silent",
  } as const;
  // Each error of a file that is wrong throughout would have its stack written down, which nobody reads.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    const documents = parseAllDocuments(text, options);
    return "empty" in documents ? [] : documents;
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Reads the documents of one file; those of other kinds are skipped with a warning, broken ones are reported. */
export function readDocuments({ file, text }: ConfigFile, findings: Findings): ConfigObject[] {
  const lines = new LineCounter();
  const at = (offset: number): Place => ({ file, line: Math.max(lines.linePos(offset).line, 1), path: "" });
  const tooMuch = boundProblem(text);
  if (tooMuch !== undefined) {
    const line = text.slice(0, tooMuch.offset).split("\n").length;
    findings.error({ file, line, path: "" }, tooMuch.reason);
    return [];
  }
  if (text.trim() === "") {
    // What is cut off while it is written must not take a user or a collection away.
    findings.error({ file, line: 1, path: "" }, "the file is empty, perhaps cut off; write it again, or remove it");
    return [];
  }
  const documents = parse(text, lines);
  const objects: ConfigObject[] = [];
  let before = 0;
  for (const document of documents) {
    const [begin, contentEnd, end] = document.range ?? [before, text.length, text.length];
    // Comments before a document are its own, unless a `---` stands between.
    const start = text.startsWith("---", begin) ? begin : before;
    before = end;
    // Further ones are mostly consequences of the first.
    for (const error of document.errors.slice(0, 1)) findings.error(at(error.pos[0]), syntaxReason(error));
    for (const warning of document.warnings) findings.warn(at(warning.pos[0]), syntaxReason(warning));
    const body = document.contents;
    if (document.errors.length > 0 || !body) continue;
    const place = at(body.range?.[0] ?? 0);
    const problem = nodeProblem(document);
    if (problem) {
      findings.error(at(problem.offset), problem.reason);
    } else if (isMap(body)) {
      const context = { file, document, lines, findings };
      objects.push(...objectsOf(context, new ObjectNode(context, body, place), { start, contentEnd, end }));
    } else if (!isScalar(body) || body.value !== null) {
      // A document of nothing but a comment is no mistake; this one holds something.
      findings.error(place, "expected a mapping with apiVersion, kind, metadata and spec, got something else");
    }
  }
  return objects;
}

/** The object of a document, or those of a `List`, which is what `kubectl get -o yaml` writes. */
function objectsOf(context: NodeContext, root: ObjectNode, where: Omit<WrittenIn, "item">): ConfigObject[] {
  if (!root.get("kind")?.isText("List")) return [identify(context, root, { ...where, item: undefined }) ?? []].flat();
  const items = root.get("items")?.items() ?? [];
  return items.flatMap((value, item) => {
    const object = value.object();
    return (object && identify(context, object, { ...where, item })) ?? [];
  });
}

/** Folders of the usual layout: `<namespace>/<group>/<version>/...`, without a group for core objects. */
const LAYOUT = /^([^/]+)\/(?:[^/]+\.[^/]+\/)?v\d\w*\//;

/** Finds out kind and name; undefined, with a report, for what is not read. */
function identify({ file, findings }: NodeContext, root: ObjectNode, written: WrittenIn): ConfigObject | undefined {
  const kindNode = root.get("kind");
  const versionNode = root.get("apiVersion");
  if (!kindNode && !versionNode) {
    findings.warn(root.place, "no apiVersion and no kind, so not an object of this server; ignored");
    return undefined;
  }
  const kind = (
    kindNode ?? root.require("kind", "BackupUser, BackupCollection, BackupOrganization, BackupNotifier or Secret")
  )?.text();
  if (kind === undefined) return undefined;
  const wanted = API_VERSION_OF.get(kind);
  if (wanted === undefined) {
    const group = versionNode?.text();
    if (group === undefined || group.startsWith("backups.riotkit.org/")) {
      const kinds = [...API_VERSION_OF.keys()].join(", ");
      kindNode?.error(`expected ${kinds}, got ${JSON.stringify(kind)}${suggestion(kind, API_VERSION_OF.keys())}`);
      return undefined;
    }
    kindNode?.warn(
      `kind ${JSON.stringify(kind)} is not read by this server, ignored${suggestion(kind, API_VERSION_OF.keys())}`,
    );
    return undefined;
  }
  const version = (versionNode ?? root.require("apiVersion", wanted))?.text();
  if (version !== undefined && version !== wanted) {
    versionNode?.error(`expected ${wanted} for a ${kind}, got ${JSON.stringify(version)}`);
  }
  const metadata = root.require("metadata", "a mapping with a name")?.object();
  const nameNode = metadata?.require("name", "the object's name");
  const name = nameNode?.text();
  if (version !== wanted || !nameNode || name === undefined) return undefined;
  root.get("status"); // Kubernetes adds it to what it gives out.
  const namespaceNode = metadata?.get("namespace");
  const namespace = (namespaceNode ? namespaceNode.text() : LAYOUT.exec(file)?.[1]) ?? "";
  return { kind: kind as ConfigKind, name, namespace, namePlace: nameNode.place, root, written };
}

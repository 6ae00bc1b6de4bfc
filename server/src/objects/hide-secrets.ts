import { CST, isAlias, isMap, isPair, isScalar, isSeq, Lexer, type Node, parseDocument, type Scalar } from "yaml";
import type { ConfigKind } from "./document.ts";

/** Stands in answers and differences for what is hidden. In a document that is applied it means "as it is". */
export const HIDDEN = "<hidden>";

/** As {@link HIDDEN}, where the value is another one than before. */
export const HIDDEN_CHANGED = "<hidden, changed>";

/** Fields of a Secret that are no secret; everything else in it is hidden. */
const OPEN_IN_SECRET = new Set(["apiVersion", "kind", "type", "immutable"]);
const OPEN_IN_METADATA = new Set(["name", "namespace", "labels"]);
/** Fields of any object whose value may be a secret, as long as it is a text: a reference is a mapping. */
const SECRET_NAME = /pass|secret|token|credential|private/i;
/** A hash, plain or in base64, in a place where nobody looks for one. */
const HASH = /\$(?:argon2|2[aby]\$|[156y]\$)|JGFyZ29uMm/;
/** `kubectl apply` keeps all that it was given here. */
const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";
/** Who knows the URL of a webhook may send there. */
const NOTIFIER_URL = "url";
/** A field that was commented out with its value. */
const SECRET_COMMENT = /^#[\s-]*[\w."']*(?:pass|secret|token|credential)[\w."']*\s*:\s*\S/i;

/** A part of a text, and what stands there instead. */
interface Cut {
  readonly start: number;
  readonly end: number;
  readonly by: string;
}

/**
 * The text of one document with everything hidden that is a secret or the hash of one: values of Secrets, passwords of
 * users and access keys, URLs of webhooks, and whatever looks like one, in comments too. The rest stays as it is, to the letter.
 * @param text a document that was read without an error.
 */
export function hideSecrets(kind: ConfigKind, text: string): string {
  return replaced(text, [...secretsIn(kind, text).flatMap(cutOf(text, () => HIDDEN)), ...commentCuts(kind, text)]);
}

/**
 * Two texts of one document, both as {@link hideSecrets} gives them, for a difference: what is hidden in the second and
 * does not stand in the first is {@link HIDDEN_CHANGED}.
 */
export function hideSecretsOfBoth(kind: ConfigKind, before: string, after: string): [before: string, after: string] {
  const known = new Set(secretsIn(kind, before).map(({ value }) => value));
  const label = ({ value }: Scalar) => (known.has(value) ? HIDDEN : HIDDEN_CHANGED);
  const cuts = [...secretsIn(kind, after).flatMap(cutOf(after, label)), ...commentCuts(kind, after)];
  return [hideSecrets(kind, before), replaced(after, cuts)];
}

/** The texts of a document that are hidden. */
function secretsIn(kind: ConfigKind, text: string): Scalar[] {
  const document = parseDocument(text, { stringKeys: true, uniqueKeys: false, logLevel: "silent" });
  const hidden = new Set<Scalar>();
  const resolve = (node: unknown): Node | undefined => (isAlias(node) ? node.resolve(document) : (node as Node));

  /** Hides all texts below a node; `seen` since an alias may stand inside its own anchor. */
  const hideAll = (given: unknown, seen = new Set<unknown>()): void => {
    const node = resolve(given);
    if (node === undefined || seen.has(node)) return;
    seen.add(node);
    if (isScalar(node)) hidden.add(node);
    else if (isSeq(node)) for (const item of node.items) hideAll(item, seen);
    else if (isMap(node)) for (const { value } of node.items) hideAll(value, seen);
  };
  const look = (given: unknown, seen = new Set<unknown>()): void => {
    const node = resolve(given);
    if (node === undefined || seen.has(node)) return;
    seen.add(node);
    if (isScalar(node) && HASH.test(String(node.value))) hidden.add(node);
    if (isSeq(node)) for (const item of node.items) look(item, seen);
    if (!isMap(node)) return;
    for (const pair of node.items) {
      if (!isPair(pair)) continue;
      const name = isScalar(pair.key) ? String(pair.key.value) : "";
      const value = resolve(pair.value);
      const isSecret =
        SECRET_NAME.test(name) || name === LAST_APPLIED || (kind === "BackupNotifier" && name === NOTIFIER_URL);
      if ((isScalar(value) || isSeq(value)) && isSecret) hideAll(value);
      else look(value, seen);
    }
  };
  const { contents } = document;
  if (kind === "Secret" && isMap(contents)) {
    for (const { key, value } of contents.items) {
      const name = isScalar(key) ? String(key.value) : "";
      const metadata = resolve(value);
      if (name === "metadata" && isMap(metadata)) {
        for (const pair of metadata.items)
          if (!OPEN_IN_METADATA.has(isScalar(pair.key) ? String(pair.key.value) : "")) hideAll(pair.value);
      } else if (!OPEN_IN_SECRET.has(name)) hideAll(value);
    }
  } else look(contents);
  return [...hidden];
}

function cutOf(text: string, label: (scalar: Scalar) => string) {
  return (scalar: Scalar): Cut[] => {
    const [start, end] = scalar.range ?? [0, 0];
    // Nothing that is there has nothing to hide.
    if (end <= start || scalar.value === null || scalar.value === "") return [];
    // A block ends with the line break after it.
    const by = `"${label(scalar)}"${text.slice(start, end).endsWith("\n") ? "\n" : ""}`;
    return [{ start, end, by }];
  };
}

function commentCuts(kind: ConfigKind, text: string): Cut[] {
  const cuts: Cut[] = [];
  let offset = 0;
  let isScalarNext = false;
  for (const part of new Lexer().lex(text)) {
    // The lexer announces some parts by control characters, which are not in the text.
    if (part === CST.DOCUMENT || part === CST.FLOW_END || part === CST.SCALAR) {
      isScalarNext = part === CST.SCALAR;
      continue;
    }
    const isComment = !isScalarNext && CST.tokenType(part) === "comment";
    isScalarNext = false;
    const isUrl = kind === "BackupNotifier" && part.includes("://");
    if (isComment && (kind === "Secret" || isUrl || HASH.test(part) || SECRET_COMMENT.test(part)))
      cuts.push({ start: offset, end: offset + part.length, by: `# ${HIDDEN}` });
    offset += part.length;
  }
  return cuts;
}

function replaced(text: string, cuts: readonly Cut[]): string {
  let at = 0;
  let out = "";
  for (const { start, end, by } of cuts.toSorted((a, b) => a.start - b.start)) {
    if (start < at) continue;
    out += text.slice(at, start) + by;
    at = end;
  }
  return out + text.slice(at);
}

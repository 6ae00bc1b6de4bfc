import { quoted, ValueError } from "@strongroom/protocol/sizes";
import { type Document, isAlias, isMap, isScalar, isSeq, type LineCounter, type Node, type YAMLMap } from "yaml";
import { suggestion } from "./names.ts";
import type { Findings, Place } from "./problem.ts";

/** What every node of a document needs to resolve aliases, to find its line and to report. */
export interface NodeContext {
  readonly file: string;
  readonly document: Document;
  readonly lines: LineCounter;
  readonly findings: Pick<Findings, "error" | "warn">;
}

type MaybeNode = Node | null | undefined;

function resolved(context: NodeContext, node: MaybeNode): MaybeNode {
  return isAlias(node) ? node.resolve(context.document) : node;
}

/** Names the type of a node; never its value, which may be a secret. */
function typeOf(node: MaybeNode): string {
  if (isMap(node)) return "a mapping";
  if (isSeq(node)) return "a list";
  const value = isScalar(node) ? node.value : undefined;
  if (value === null || value === undefined) return "nothing";
  if (typeof value === "string") return value === "" ? "an empty text" : "text";
  if (typeof value === "boolean") return String(value);
  return typeof value === "number" ? "a number" : `a ${typeof value}`;
}

/** A value that is there, with its place. Readers report what is wrong and give undefined then. */
export class ValueNode {
  readonly place: Place;
  readonly #context: NodeContext;
  readonly #node: MaybeNode;

  constructor(context: NodeContext, node: MaybeNode, place: Place) {
    this.#context = context;
    this.#node = node;
    this.place = place;
  }

  /** Reports an error at this value. */
  error(reason: string): void {
    this.#context.findings.error(this.place, reason);
  }

  /** Reports a warning at this value. */
  warn(reason: string): void {
    this.#context.findings.warn(this.place, reason);
  }

  #scalar(): unknown {
    return isScalar(this.#node) ? this.#node.value : undefined;
  }

  #wrong(expected: string, hint = ""): undefined {
    this.error(`expected ${expected}, got ${typeOf(this.#node)}${hint}`);
    return undefined;
  }

  /** A text. Never shows the value, so that it serves secrets too. */
  text(): string | undefined {
    const value = this.#scalar();
    if (typeof value === "string") return value;
    return this.#wrong("text", value === undefined ? "" : "; put it in quotes");
  }

  /** A text or a number. */
  textOrNumber(): string | number | undefined {
    const value = this.#scalar();
    return typeof value === "string" || typeof value === "number" ? value : this.#wrong("text or a number");
  }

  /** A whole number within bounds, both inclusive. */
  integer(least: number, most: number): number | undefined {
    const value = this.#scalar();
    const expected = `a whole number from ${least} to ${most}`;
    if (typeof value === "string") {
      this.error(`expected ${expected}, got the text ${quoted(value)}${/^\d+$/.test(value) ? "; without quotes" : ""}`);
      return undefined;
    }
    if (typeof value !== "number") return this.#wrong(expected);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    this.error(`expected ${expected}, got ${value}`);
    return undefined;
  }

  /** True or false, in YAML 1.2's spelling only. */
  flag(): boolean | undefined {
    const value = this.#scalar();
    if (typeof value === "boolean") return value;
    return this.#wrong("true or false", typeof value === "string" ? "; write true or false without quotes" : "");
  }

  /** The items of a list; null items are reported. */
  items(): ValueNode[] | undefined {
    const list = this.#node;
    if (!isSeq(list)) return this.#wrong("a list");
    return list.items.flatMap((item, index) => {
      const value = new ValueNode(
        this.#context,
        resolved(this.#context, item as MaybeNode),
        placeOf(this.#context, item as MaybeNode, `${this.place.path}[${index}]`, this.place.line),
      );
      if (!value.isNull()) return [value];
      value.error("expected an item, got nothing");
      return [];
    });
  }

  /** Whether this is a list, for fields that take one value or several. */
  isList(): boolean {
    return isSeq(this.#node);
  }

  /** Whether this is exactly that text; reports nothing. */
  isText(text: string): boolean {
    return this.#scalar() === text;
  }

  /** Whether nothing or `null` stands here. */
  isNull(): boolean {
    return !isMap(this.#node) && !isSeq(this.#node) && (this.#scalar() ?? null) === null;
  }

  /** A mapping. */
  object(): ObjectNode | undefined {
    const map = this.#node;
    return isMap(map) ? new ObjectNode(this.#context, map, this.place) : this.#wrong("a mapping");
  }

  /** Passes a text or number through a parser whose {@link ValueError} is reported here. */
  parsed<T>(parse: (value: string) => T, severity: "error" | "warn" = "error"): T | undefined {
    const value = this.textOrNumber();
    if (value === undefined) return undefined;
    try {
      return parse(String(value));
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      this[severity](error.message);
      return undefined;
    }
  }
}

function placeOf(context: NodeContext, node: MaybeNode, path: string, fallbackLine: number): Place {
  const offset = node?.range?.[0];
  const line = offset === undefined ? fallbackLine : context.lines.linePos(offset).line;
  return { file: context.file, line: Math.max(line, 1), path };
}

function joined(path: string, name: string): string {
  const part = /^[\w$-]+$/.test(name) ? name : quoted(name);
  return path === "" ? part : `${path}.${part}`;
}

interface Field {
  readonly key: MaybeNode;
  readonly value: MaybeNode;
}

/** A mapping whose fields are asked for by name; those nobody asked for are unknown. */
export class ObjectNode {
  readonly place: Place;
  readonly #context: NodeContext;
  readonly #fields = new Map<string, Field>();
  readonly #known = new Set<string>();
  readonly #map: YAMLMap;
  #defaults: ObjectNode | undefined;

  constructor(context: NodeContext, map: YAMLMap, place: Place) {
    this.#context = context;
    this.#map = map;
    this.place = place;
    this.#collect(map);
  }

  /**
   * Takes over the fields of a mapping, then those of mappings merged in with `<<`, which never replace the mapping's
   * own.
   */
  #collect(map: YAMLMap, collected = new Set<YAMLMap>()): void {
    // An alias may stand inside its own anchor, so that merging could go in circles.
    if (collected.has(map)) return;
    collected.add(map);
    const merged: YAMLMap[] = [];
    for (const pair of map.items) {
      const key = pair.key as MaybeNode;
      const value = pair.value as MaybeNode;
      const name = isScalar(key) ? String(key.value) : "";
      if (name === "<<") {
        const source = resolved(this.#context, value);
        for (const one of isSeq(source) ? source.items : [source]) {
          const target = resolved(this.#context, one as MaybeNode);
          if (isMap(target)) merged.push(target);
          else this.#context.findings.error(this.placeOf(name), `expected a mapping to merge, got ${typeOf(target)}`);
        }
      } else if (!this.#fields.has(name)) {
        this.#fields.set(name, { key, value });
      }
    }
    for (const source of merged) this.#collect(source, collected);
  }

  /** The place of a field, or this mapping's own line when the field is missing. */
  placeOf(name: string): Place {
    const field = this.#fields.get(name);
    const path = joined(this.place.path, name);
    const keyPlace = placeOf(this.#context, field?.key, path, this.place.line);
    // Lists and mappings begin on the line after their key, where nobody would look for them.
    return isScalar(field?.value) ? placeOf(this.#context, field.value, path, keyPlace.line) : keyPlace;
  }

  /** The same mapping, whose findings go elsewhere. */
  reportingTo(findings: NodeContext["findings"]): ObjectNode {
    return new ObjectNode({ ...this.#context, findings }, this.#map, this.place);
  }

  /** From now on, fields that are missing or null here are those of another mapping, with their places there. */
  fallBackTo(defaults: ObjectNode): void {
    this.#defaults = defaults;
  }

  /** The value of a field; undefined when it is missing or null, also in the defaults. */
  get(name: string): ValueNode | undefined {
    this.#known.add(name);
    if (this.#defaults !== undefined) this.#defaults.#known.add(name);
    const field = this.#fields.get(name);
    const value = field && new ValueNode(this.#context, resolved(this.#context, field.value), this.placeOf(name));
    return value === undefined || value.isNull() ? this.#defaults?.get(name) : value;
  }

  /** The value of a field that must be there. */
  require(name: string, expected: string): ValueNode | undefined {
    const value = this.get(name);
    if (!value) this.#context.findings.error(this.placeOf(name), `expected ${expected}, got nothing; add the field`);
    return value;
  }

  /** Reports a warning at this mapping. */
  warn(reason: string): void {
    this.#context.findings.warn(this.place, reason);
  }

  /** Reports an error at this mapping. */
  error(reason: string): void {
    this.#context.findings.error(this.place, reason);
  }

  /** The names of all fields. */
  names(): string[] {
    return [...this.#fields.keys()];
  }

  /** Warns about fields that were never asked for, with the nearest of those that were. */
  warnUnknown(): void {
    this.#defaults?.warnUnknown();
    for (const name of this.#fields.keys()) {
      if (this.#known.has(name)) continue;
      const absent = [...this.#known].filter((known) => !this.#fields.has(known));
      this.#context.findings.warn(this.placeOf(name), `unknown field, ignored${suggestion(name, absent)}`);
    }
  }
}

import { shown } from "./shown.ts";

/** A variable of the environment that an option is read from. */
export interface Variable {
  readonly name: string;
  /**
   * `environment` for the program's own name, `alias` for one of Backup Maker (`BM_*`), which counts only where the own
   * one is not set.
   */
  readonly source: "environment" | "alias";
  /** Turns the value into what the argument would be, where the other program wrote it in another way. */
  readonly translate?: (value: string) => string;
}

/**
 * One option, declared once, for every command that takes it: its argument, its variables, its help, and how its text
 * is read. Made by {@link option}, {@link choice}, {@link list} and {@link flag}.
 */
export interface Option<T> {
  /** Without dashes: `min-size`. */
  readonly name: string;
  /** One letter. */
  readonly short?: string | undefined;
  /** Whether it takes no value, one, or several (arguments repeated; lines in a variable). */
  readonly kind: "switch" | "value" | "list";
  /** What its value is, for help: `size`; empty for switches. */
  readonly value: string;
  /** For help, without default and variables, which are added. */
  readonly help: string;
  /** The words it takes, for help. */
  readonly words?: readonly string[] | undefined;
  /** For help: what counts when nothing is given. */
  readonly defaultText?: string | undefined;
  /** In the order they are asked; empty for options that only arguments set. */
  readonly variables: readonly Variable[];
  /** Turns the given texts (none: not given) into the value. @throws Error whose message says what was expected. */
  readonly read: (texts: readonly string[]) => T;
}

/**
 * Something secret that comes from the environment or a file and never from an argument, since arguments are visible to
 * every user of a machine.
 */
export interface Secret {
  /** Name in the environment. */
  readonly env: string;
  /** Backup Maker's name. */
  readonly alias?: string;
  readonly help: string;
}

interface Fields {
  readonly name: string;
  readonly short?: string;
  readonly help: string;
  /** Name in the environment, where `STRONGROOM_` and the option's name is taken by something else. */
  readonly variable?: string;
  /** Backup Maker's name, or that and how its values are written. */
  readonly alias?: string | Omit<Variable, "source">;
  /**
   * No variable sets it. For whatever deletes, overwrites, confirms or gives up: a variable that was forgotten in an
   * environment must not do that.
   */
  readonly argumentsOnly?: boolean;
  /** Shown as the default where there is no `default` that is read. */
  readonly defaultText?: string;
}

interface TextFields extends Fields {
  readonly value: string;
  readonly read?: undefined;
}

interface ReadFields<T> extends Fields {
  readonly value: string;
  readonly read: (text: string) => T;
}

/**
 * An option with one value: the text, or what `read` makes of it. With a default, which is read as if it had been
 * given, the value is never undefined.
 */
export function option(fields: TextFields & { default: string }): Option<string>;
export function option(fields: TextFields): Option<string | undefined>;
export function option<T>(fields: ReadFields<T> & { default: string }): Option<T>;
export function option<T>(fields: ReadFields<T>): Option<T | undefined>;
export function option(fields: (TextFields | ReadFields<unknown>) & { default?: string }): Option<unknown> {
  const { read = (text: string) => text, default: fallback } = fields;
  return {
    ...common(fields, "value", fields.value),
    defaultText: fields.defaultText ?? fallback,
    read: ([given = fallback]) => (given === undefined ? undefined : read(given)),
  };
}

/** An option with one of some words; the first is the default. */
export function choice<const W extends string>(
  fields: Fields & { readonly value: string; readonly words: readonly W[] },
): Option<W> {
  const { words } = fields;
  const fallback = words[0]!;
  return {
    ...common(fields, "value", fields.value),
    words,
    defaultText: fields.defaultText ?? fallback,
    read: ([given = fallback]) => wordOf(given, words),
  };
}

/** Reads one of some words. @throws RangeError */
export function wordOf<const W extends string>(given: string, words: readonly W[]): W {
  const word = words.find((candidate) => candidate === given);
  if (word === undefined) throw new RangeError(`expected one of ${words.join(", ")}, got ${shown(given)}`);
  return word;
}

/** An option that can be given several times. */
export function list(fields: Fields & { readonly value: string }): Option<readonly string[]> {
  return { ...common(fields, "list", fields.value), defaultText: fields.defaultText, read: (texts) => texts };
}

/** The one table of what a switch is in the environment; an argument takes `true` and `false` only. */
export const SWITCH_WORDS = {
  true: ["true", "1", "yes", "on"],
  false: ["false", "0", "no", "off"],
} as const satisfies Record<string, readonly string[]>;

/** An option without a value: `--flag`, `--no-flag`, `--flag=true`, `--flag=false`. */
export function flag(fields: Fields): Option<boolean> {
  return { ...common(fields, "switch", ""), read: ([given = "false"]) => switchOf(given) };
}

function switchOf(given: string): boolean {
  const word = given.toLowerCase();
  if (SWITCH_WORDS.true.some((yes) => yes === word)) return true;
  if (SWITCH_WORDS.false.some((no) => no === word)) return false;
  throw new RangeError(
    `expected ${SWITCH_WORDS.true.join(", ")} or ${SWITCH_WORDS.false.join(", ")}, got ${shown(given)}`,
  );
}

function common(fields: Fields, kind: Option<unknown>["kind"], value: string) {
  const { name, short, help } = fields;
  return { name, short, kind, value, help, variables: fields.argumentsOnly ? [] : variablesOf(fields) };
}

function variablesOf({ name, variable, alias }: Fields): readonly Variable[] {
  const own = variable ?? `STRONGROOM_${name.toUpperCase().replaceAll("-", "_")}`;
  const other = typeof alias === "string" ? { name: alias } : alias;
  return [
    { name: own, source: "environment" },
    ...(other === undefined ? [] : [{ ...other, source: "alias" as const }]),
  ];
}

/** The argument's name as it is written: `--min-size`. */
export function flagOf({ name }: Option<unknown>): string {
  return `--${name}`;
}

/** The argument with its short form and its value, as help has it: `-c, --command <command>`. */
export function flagsOf({ name, short, value }: Option<unknown>): string {
  return `${short === undefined ? "" : `-${short}, `}--${name}${value === "" ? "" : ` <${value}>`}`;
}

/** The option's own variable, for messages; undefined when only arguments set it. */
export function variableOf({ variables }: Option<unknown>): string | undefined {
  return variables[0]?.name;
}

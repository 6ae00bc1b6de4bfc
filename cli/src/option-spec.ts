import { Option } from "commander";
import { UsageError } from "./errors.ts";

/** Where a value came from; earlier ones win over later ones. */
export type Source = "flag" | "environment" | "alias" | "default";

/**
 * One option, declared once: its flag, its place in the environment, its help and how its text is read. The name in the environment follows
 * from the flag: `--min-size` is `STRONGROOM_MIN_SIZE`.
 */
export interface OptionSpec<T> {
  /** As commander takes it: `-c, --command <command>`. */
  readonly flags: string;
  /** For `--help`, without the environment and the default, which are added. */
  readonly description: string;
  /** The name Backup Maker has for it (`BM_*`), read when `STRONGROOM_*` is not set. */
  readonly alias?: string;
  /** Whether it takes no value, one, or several (repeated flags; lines in the environment). */
  readonly kind: "flag" | "value" | "list";
  /** The words it takes, for `--help`. */
  readonly words?: readonly string[];
  /** For `--help`. */
  readonly defaultText?: string;
  /** Turns the given texts (none: not given) into the value. Throws a plain `Error` whose message begins with "expects". */
  readonly read: (texts: readonly string[]) => T;
}

/** Something secret that is taken from the environment and never from an argument, since arguments are visible to every user of a machine. */
export interface SecretSpec {
  /** Name in the environment. */
  readonly env: string;
  /** Backup Maker's name. */
  readonly alias?: string;
  /** For `--help`. */
  readonly description: string;
}

interface Extras {
  readonly alias?: string;
  readonly defaultText?: string;
}

/** An option with one text. With a default the value is never undefined. */
export function text(flags: string, description: string, extras: Extras & { default: string }): OptionSpec<string>;
export function text(flags: string, description: string, extras?: Extras): OptionSpec<string | undefined>;
export function text(
  flags: string,
  description: string,
  extras: Extras & { default?: string } = {},
): OptionSpec<string | undefined> {
  const { default: fallback, ...rest } = extras;
  return {
    flags,
    description,
    kind: "value",
    ...rest,
    ...(fallback === undefined ? {} : { defaultText: fallback }),
    read: (texts) => texts[0] ?? fallback,
  };
}

/** An option with one text that is read into something else; undefined when not given. */
export function parsed<T>(
  flags: string,
  description: string,
  read: (text: string) => T,
  extras: Extras = {},
): OptionSpec<T | undefined> {
  return {
    flags,
    description,
    kind: "value",
    ...extras,
    read: (texts) => (texts[0] === undefined ? undefined : read(texts[0])),
  };
}

/** An option with one of some words; the first is the default unless another is named. */
export function choice<const W extends string>(
  flags: string,
  description: string,
  words: readonly W[],
  extras: Extras = {},
): OptionSpec<W> {
  const fallback = words[0]!;
  return {
    flags,
    description,
    kind: "value",
    ...extras,
    words,
    defaultText: fallback,
    read: ([given]) => {
      if (given === undefined) return fallback;
      const word = words.find((candidate) => candidate === given);
      if (word === undefined) throw new Error(`expects one of ${words.join(", ")}, came "${given}"`);
      return word;
    },
  };
}

/** An option that can be given several times. */
export function list(flags: string, description: string, extras: Extras = {}): OptionSpec<readonly string[]> {
  return { flags, description, kind: "list", ...extras, read: (texts) => texts };
}

const TRUE = ["1", "true", "yes", "on"];
const FALSE = ["0", "false", "no", "off"];

/** An option without a value. In the environment: 1, true, yes, on; 0, false, no, off. */
export function flag(flags: string, description: string): OptionSpec<boolean> {
  return {
    flags,
    description,
    kind: "flag",
    read: ([given]) => {
      if (given === undefined) return false;
      const word = given.toLowerCase();
      if (!TRUE.includes(word) && !FALSE.includes(word))
        throw new Error(`expects ${TRUE.join(", ")} or ${FALSE.join(", ")}, came "${given}"`);
      return TRUE.includes(word);
    },
  };
}

/** The same option with other words in `--help`, where it does something else. */
export function described<T>(spec: OptionSpec<T>, description: string): OptionSpec<T> {
  return { ...spec, description };
}

/** `--min-size` of `--min-size <size>`. */
export function longFlag(spec: OptionSpec<unknown>): string {
  return /--[a-z-]+/.exec(spec.flags)![0];
}

/** `STRONGROOM_MIN_SIZE` of `--min-size <size>`. */
export function envName(spec: OptionSpec<unknown>): string {
  return `STRONGROOM_${longFlag(spec).slice(2).toUpperCase().replaceAll("-", "_")}`;
}

/** Makes commander's option, with the environment and the default in its help. */
export function toCommanderOption(spec: OptionSpec<unknown>): Option {
  const facts = [`env: ${[envName(spec), ...(spec.alias === undefined ? [] : [spec.alias])].join(", ")}`];
  if (spec.defaultText !== undefined) facts.unshift(`default: ${spec.defaultText}`);
  if (spec.words !== undefined) facts.unshift(spec.words.join(", "));
  if (spec.kind === "list") facts.unshift("repeatable");
  const option = new Option(spec.flags, `${spec.description} (${facts.join("; ")})`);
  if (spec.kind === "list")
    option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
  return option;
}

interface Resolved {
  readonly value: unknown;
  readonly source: Source;
}

/** The values of a command's options after flags, environment, aliases and defaults were put together. */
export class OptionValues {
  readonly #resolved: ReadonlyMap<string, Resolved>;

  private constructor(resolved: ReadonlyMap<string, Resolved>) {
    this.#resolved = resolved;
  }

  /**
   * @param given what commander parsed: the command's own options first, then the program's (`strongroom --json ls`).
   * @throws {UsageError} for a value that cannot be read, saying where it stood.
   */
  static resolve(
    specs: ReadonlyArray<OptionSpec<unknown>>,
    given: ReadonlyArray<Record<string, unknown>>,
    env: NodeJS.ProcessEnv,
  ): OptionValues {
    const resolved = new Map<string, Resolved>();
    for (const spec of specs) {
      const { texts, source, origin } = lookup(spec, given, env);
      try {
        resolved.set(longFlag(spec), { value: spec.read(texts), source });
      } catch (error) {
        throw new UsageError(`${origin} ${error instanceof Error ? error.message : String(error)}.`);
      }
    }
    return new OptionValues(resolved);
  }

  /** The value of an option. */
  get<T>(spec: OptionSpec<T>): T {
    return this.#find(spec).value as T;
  }

  /** Where it came from. */
  source(spec: OptionSpec<unknown>): Source {
    return this.#find(spec).source;
  }

  #find(spec: OptionSpec<unknown>): Resolved {
    const found = this.#resolved.get(longFlag(spec));
    if (found === undefined) throw new Error(`the option ${longFlag(spec)} is not declared for this command`);
    return found;
  }
}

function lookup(spec: OptionSpec<unknown>, given: ReadonlyArray<Record<string, unknown>>, env: NodeJS.ProcessEnv) {
  const attribute = new Option(spec.flags).attributeName();
  for (const options of given) {
    const value = options[attribute];
    if (value !== undefined) {
      const texts = Array.isArray(value) ? value.map(String) : [String(value)];
      return { texts, source: "flag" as const, origin: longFlag(spec) };
    }
  }
  for (const [name, source] of [[envName(spec), "environment"] as const, [spec.alias, "alias"] as const]) {
    const value = name === undefined ? undefined : env[name];
    if (name === undefined || value === undefined || value === "") continue;
    const texts = spec.kind === "list" ? value.split("\n").filter((line) => line.trim() !== "") : [value];
    return { texts, source, origin: name };
  }
  return { texts: [], source: "default" as const, origin: longFlag(spec) };
}

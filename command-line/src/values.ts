import { UsageError } from "./errors.ts";
import { flagOf, type Option, type Variable } from "./option.ts";
import { withoutSecret } from "./shown.ts";

/** The source of a value; earlier ones win over later ones. */
export type Source = "flag" | Variable["source"] | "default";

/** The environment that variables are read from. */
export type Environment = Readonly<Record<string, string | undefined>>;

interface Resolved {
  readonly value: unknown;
  readonly source: Source;
}

/** The values of a command's options after arguments, environment, aliases and defaults were put together. */
export class OptionValues {
  readonly #resolved: ReadonlyMap<Option<unknown>, Resolved>;

  private constructor(resolved: ReadonlyMap<Option<unknown>, Resolved>) {
    this.#resolved = resolved;
  }

  /**
   * @param given the texts of the arguments, by the name of the option. An empty variable counts as not set.
   * @throws {UsageError} for a value that cannot be read, saying where it stood.
   */
  static resolve(
    options: ReadonlyArray<Option<unknown>>,
    given: ReadonlyMap<string, readonly string[]>,
    env: Environment,
  ): OptionValues {
    const resolved = new Map<Option<unknown>, Resolved>();
    for (const option of options) {
      const { texts, source, origin } = lookup(option, given, env);
      try {
        resolved.set(option, { value: option.read(texts), source });
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        throw new UsageError(`${origin}: ${withoutSecret(error.message, texts.join("\n"))}`, { cause: error });
      }
    }
    return new OptionValues(resolved);
  }

  /** The value of an option. */
  get<T>(option: Option<T>): T {
    return this.#find(option).value as T;
  }

  /** Its source. */
  source(option: Option<unknown>): Source {
    return this.#find(option).source;
  }

  /** Whether the command takes this option at all. */
  has(option: Option<unknown>): boolean {
    return this.#resolved.has(option);
  }

  #find(option: Option<unknown>): Resolved {
    const found = this.#resolved.get(option);
    if (found === undefined) throw new Error(`the option ${flagOf(option)} is not declared for this command`);
    return found;
  }
}

function lookup(option: Option<unknown>, given: ReadonlyMap<string, readonly string[]>, env: Environment) {
  const texts = given.get(option.name);
  if (texts !== undefined) return { texts, source: "flag" as const, origin: flagOf(option) };
  for (const { name, source, translate = (value: string) => value } of option.variables) {
    const value = env[name];
    if (value === undefined || value === "") continue;
    const lines = option.kind === "list" ? value.split("\n").filter((line) => line.trim() !== "") : [value];
    return { texts: lines.map(translate), source, origin: name };
  }
  return { texts: [], source: "default" as const, origin: flagOf(option) };
}
